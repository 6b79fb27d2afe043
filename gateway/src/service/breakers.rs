//! Owns what the service makes of a process's report on its breakers, and what operators order. Knows
//! neither HTTP nor what the breakers guard.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::audit::Action;
use tidegate_policy::breaker::mesh::{Batch, ENTROPY_RANGE, Event, Said, State};
use tidegate_policy::scope::{CallerScope, KeyFormat, Scope, Tenant};
use tidegate_policy::wire::breaker::{
    BreakerName, BreakerReport, BreakerState, BreakersPart, BreakersReply, BreakersRequest,
    BreakersSaid, CHANGES_MAX, Permit,
};
use tidegate_policy::wire::{DecisionId, VERSION, encode};

use super::admission::Leaves;
use super::together::together;
use super::{Refused, Service};
use crate::audit::{Auditor, Happening};
use crate::metrics::{ChangeLabel, SharedMetrics};
use crate::store::breakers::Breakers;
use crate::store::{StoreFailure, StoreRole};

/// Changes are told again for that long, in ms: the list is written after the breaker itself, and by
/// several gateways.
const TOLD_AGAIN_MS: u64 = 5_000;
/// The most octets of states in one answer, about: a filter reads a message of 64 KiB at most.
const SAID_BYTES_MAX: usize = 48 * 1024;
/// What a state takes beside its name, at most, where it gives no test.
const STATE_BYTES: usize = 128;
/// Names in metrics; more share one.
const NAMES_MAX: usize = 1_000;
/// Breakers of one name whose states are counted.
const KNOWN_MAX: usize = 10_000;
const OTHERS: &str = "others";

/// How the calls of one message ended.
#[derive(Default)]
struct Answers {
    any: bool,
    /// The last that did not.
    failed: Option<StoreFailure>,
}

/// What this gateway knows of breakers, for its metrics.
pub struct Seen {
    metrics: SharedMetrics,
    auditor: Arc<Auditor>,
    names: Mutex<HashMap<String, HashMap<BreakerName, State>>>,
}

// === impl Service ===

impl Service {
    /// Takes a process's report. Ends within the deadline, whatever the store does.
    pub async fn breakers(&self, message: &[u8]) -> Result<BreakersReply, Refused> {
        let message = BreakersRequest::decode(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        let BreakersRequest { id, scope, timeout_ms, breakers, .. } = message;
        let said = self.report(id, &scope, timeout_ms, breakers).await?;
        Ok(BreakersReply { v: VERSION, id, breakers: said })
    }

    /// The part of a message of the tick that is about breakers.
    pub async fn report(
        &self,
        id: DecisionId,
        caller: &CallerScope,
        timeout_ms: u32,
        part: BreakersPart,
    ) -> Result<BreakersSaid, Refused> {
        let reported = self.scope(id, caller, timeout_ms);
        let scope = reported.inspect_err(|refused| self.log_mismatch(refused))?;
        let store = self.stores.for_one_message(StoreRole::Regional);
        let seen = Arc::clone(&self.seen);
        let work =
            async move { sync(store.breakers().ok_or_else(none)?, &scope, part, &seen).await };
        let (said, failed) = self.admitted(id, Leaves::Nothing, || work).await?;
        if let Some(failure) = failed {
            self.log_failure(&failure);
        }
        Ok(said)
    }
}

/// What there is to say, and the last failure: a breaker that could not be asked is left out, and its process says it
/// again. Where nothing answered at all that is the store's absence.
async fn sync(
    breakers: &dyn Breakers,
    scope: &Scope,
    part: BreakersPart,
    seen: &Seen,
) -> Result<(BreakersSaid, Option<StoreFailure>), StoreFailure> {
    let BreakersPart { process, seq, since, reports } = part;
    let steps = reports.iter().map(|BreakerReport { name, terms, batch }| {
        let (holder, batch, entropy) = (process.0, *batch, entropy());
        breakers.step(scope, name, &Event::Sync { terms, holder, seq, batch, entropy })
    });
    let mut answers = Answers::default();
    let mut states: Vec<BreakerState> = Vec::with_capacity(reports.len());
    for (report, said) in reports.iter().zip(together(steps.collect()).await) {
        let Some(said) = answers.take(said) else { continue };
        seen.note(&report.name, Some(&report.batch), &said);
        states.push(told(&report.name, &said));
    }
    let changed = answers.take(breakers.changed(scope, since.saturating_sub(TOLD_AGAIN_MS)).await);
    let unsaid = |name: &BreakerName| reports.iter().all(|report| report.name != *name);
    let (mut again, new): (Vec<_>, Vec<_>) = changed
        .unwrap_or_default()
        .into_iter()
        .filter(|(name, _)| unsaid(name))
        .partition(|(_, epoch)| *epoch <= since);
    // What is told again is told in turn, where that is more than there is room for: by as many as fit whichever of them stand
    // together, so that nobody is left out in between.
    let mut longest: Vec<_> = again.iter().map(|(name, _)| name).collect();
    longest.sort_by_key(|name| Reverse(name.as_str().len()));
    let certain = fitting(&states, new.iter().map(|(name, _)| name).chain(longest));
    let room = certain.saturating_sub(new.len());
    if room < again.len() {
        let turn = usize::try_from(seq).unwrap_or(0).wrapping_mul(room.max(1)) % again.len();
        again.rotate_left(turn);
    }
    let most = fitting(&states, new.iter().chain(&again).map(|(name, _)| name));
    // Where the next message would begin in the midst of what changed at one moment, it begins before that, if it can. If it
    // cannot, the rest is told among what is told again.
    let untold = new.get(most).map(|(_, epoch)| *epoch);
    let cut = untold.filter(|untold| new.first().is_some_and(|(_, first)| first < untold));
    // What is new first, by its epochs, so that the next message goes on behind it.
    let told_now: Vec<_> = new.into_iter().chain(again).take(most).collect();
    let mut cursor = told_now.iter().map(|(_, epoch)| *epoch).fold(since, u64::max);
    cursor = cut.map_or(cursor, |cut| cursor.min(cut.saturating_sub(1)));
    let looks = told_now.iter().map(|(name, _)| breakers.step(scope, name, &Event::Look));
    for ((name, epoch), said) in told_now.iter().zip(together(looks.collect()).await) {
        let Some(said) = answers.take(said) else {
            // Nor beyond what was not told.
            cursor = cursor.min(epoch.saturating_sub(1)).max(since);
            continue;
        };
        seen.note(name, None, &said);
        // A record that is gone says nothing; whoever uses the breaker begins it anew.
        if !said.fresh {
            states.push(told(name, &said));
        }
    }
    match answers {
        Answers { any: false, failed: Some(failure) } => Err(failure),
        Answers { failed, .. } => Ok((BreakersSaid { cursor, states }, failed)),
    }
}

/// How many of these fit beside what is said already: as many octets, and states, as an answer may have.
fn fitting<'a>(said: &[BreakerState], names: impl Iterator<Item = &'a BreakerName>) -> usize {
    let said = said.iter().map(|state| encode(state).len().saturating_add(1)).sum::<usize>();
    let room = SAID_BYTES_MAX.saturating_sub(said);
    let ends = names.scan(0usize, |end, name| {
        *end = end.saturating_add(name.as_str().len()).saturating_add(STATE_BYTES);
        Some(*end)
    });
    // Always one, so that what is to be told comes to an end.
    ends.take(CHANGES_MAX).take_while(|end| *end <= room).count().max(1)
}

fn told(name: &BreakerName, said: &Said) -> BreakerState {
    BreakerState {
        name: name.clone(),
        state: said.state,
        epoch: said.epoch,
        wait_ms: said.wait_ms,
        healed_ms: said.healed_ms,
        permit: said.permit.map(|(id, ms)| Permit { id, ms }),
    }
}

fn none() -> StoreFailure {
    StoreFailure::Refused("this store keeps no breakers".to_owned())
}

/// Without randomness all breakers would open for the middle of their time: they spread less, and
/// work.
pub fn entropy() -> u32 {
    getrandom::u32().map_or(ENTROPY_RANGE / 2, |bits| bits % ENTROPY_RANGE)
}

/// The scope of a region's breakers, for operators.
pub fn region_scope(settings: &super::ServiceSettings) -> Scope {
    settings.scope(Tenant::None, KeyFormat::default())
}

// === impl Answers ===

impl Answers {
    fn take<T>(&mut self, outcome: Result<T, StoreFailure>) -> Option<T> {
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
}

// === impl Seen ===

impl Seen {
    /// Nothing yet.
    pub fn new(metrics: SharedMetrics, auditor: Arc<Auditor>) -> Self {
        Self { metrics, auditor, names: Mutex::default() }
    }

    /// Counts what a step did.
    pub fn note(&self, name: &BreakerName, batch: Option<&Batch>, said: &Said) {
        let breaker = self.place(name, said.state);
        let metrics = &self.metrics.breakers;
        for change in &said.transitions {
            metrics.changed(&breaker, change);
            let (from, to) = (change.from.as_str(), change.to.as_str());
            let (name, cause) = (name.as_str(), change.cause.as_str());
            // Of the name what is configured: the rest may be somebody's.
            let detail = format!("{breaker}: {from} to {to}, {cause}");
            self.auditor.record(Happening::own(Action::Breaker, detail));
            if change.to == State::Open {
                tracing::warn!(breaker = name, from, to, cause, "a breaker changed");
            } else {
                tracing::info!(breaker = name, from, to, cause, "a breaker changed");
            }
        }
        if said.permit.is_some() {
            metrics.granted(&breaker);
        }
        if let Some(probe) = batch.and_then(|batch| batch.probe) {
            metrics.tested(&breaker, said.settled.then_some(probe.ended));
        }
        if let Some(cause) = said.would_open {
            let label = ChangeLabel {
                breaker,
                from: "metrics_only",
                to: "would_open",
                cause: cause.as_str(),
            };
            metrics.changes.get_or_create(&label).inc();
        }
    }

    /// The breaker's label; on the way its state is counted among those of its name.
    fn place(&self, name: &BreakerName, state: State) -> String {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let configured = name.configured();
        let label = if names.contains_key(configured) || names.len() < NAMES_MAX {
            configured
        } else {
            OTHERS
        };
        let of_name = names.entry(label.to_owned()).or_default();
        // Bounded as what operators are told is.
        if of_name.len() < KNOWN_MAX || of_name.contains_key(name) {
            let before = of_name.insert(name.clone(), state);
            self.metrics.breakers.stands(label, before, state);
        }
        label.to_owned()
    }
}

#[cfg(test)]
mod tests;
