//! Owns what a process's message has come to while it is still being answered: who cannot wait for the rest is told that much.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidegate_policy::breaker::mesh::Said;
use tidegate_policy::wire::breaker::{BreakerName, BreakerState, BreakersSaid};

use super::changes::Change;
use super::told;
use crate::store::StoreFailure;

/// What there is to say.
#[derive(Default)]
pub(super) struct SoFar {
    /// How the calls ended.
    any: bool,
    failed: Option<StoreFailure>,
    /// Of what was reported on.
    pub(super) states: Vec<BreakerState>,
    /// Where the process begins, and where it goes on once all that is told was looked at.
    pub(super) since: u64,
    pub(super) cursor: u64,
    /// What changed beside, as it is told, and what was found of it; `None`: what cannot be read.
    pub(super) changes: Vec<Change>,
    pub(super) known: BTreeMap<BreakerName, Option<Said>>,
}

// === impl SoFar ===

impl SoFar {
    /// Nothing, for a process that has heard of changes up to `since`.
    pub(super) fn new(since: u64) -> Self {
        Self { since, cursor: since, ..Self::default() }
    }

    /// What a call said, if it did.
    pub(super) fn take<T>(&mut self, outcome: Result<T, StoreFailure>) -> Option<T> {
        match outcome {
            Ok(answer) => {
                self.any = true;
                Some(answer)
            }
            Err(failure) => {
                self.failed = Some(failure);
                None
            }
        }
    }

    /// Takes what a look at a change said. One that cannot be read says nothing more to those who wait for it; any other
    /// failure passes.
    pub(super) fn looked(&mut self, name: &BreakerName, outcome: Result<Said, StoreFailure>) {
        let is_unreadable =
            matches!(outcome, Err(StoreFailure::Refused(_) | StoreFailure::Garbled(_)));
        let said = self.take(outcome);
        if said.is_some() || is_unreadable {
            self.known.insert(name.clone(), said);
        }
    }

    /// Where the next message goes on: before the first new change that was not looked at.
    pub(super) fn cursor(&self) -> u64 {
        let is_new = |change: &&Change| change.1 > self.since;
        let unknown = self.changes.iter().filter(|(name, _)| !self.known.contains_key(name));
        let first = unknown.filter(is_new).map(|(_, number)| *number).min();
        first.map_or(self.cursor, |first| self.cursor.min(first.saturating_sub(1)))
    }

    /// What is told; and the last failure, beside what was told. Where nothing answered at all that is the store's absence.
    pub(super) fn said(&self) -> Result<(BreakersSaid, Option<StoreFailure>), StoreFailure> {
        if let (false, Some(failure)) = (self.any, &self.failed) {
            return Err(failure.clone());
        }
        let known = self.changes.iter().filter_map(|(name, _)| {
            // A record that is gone says nothing; whoever uses the breaker begins it anew.
            let said = self.known.get(name)?.as_ref().filter(|said| !said.fresh)?;
            Some(told(name, said))
        });
        let states = self.states.iter().cloned().chain(known).collect();
        Ok((BreakersSaid { cursor: self.cursor(), states }, self.failed.clone()))
    }

    /// What is told to who cannot wait any longer, if that is anything.
    pub(super) fn late(so_far: &Mutex<Self>) -> Option<(BreakersSaid, Option<StoreFailure>)> {
        let so_far = so_far.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.any.then(|| so_far.said().ok()).flatten()
    }
}
