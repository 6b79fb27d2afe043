//! Owns what this gateway has seen of breakers, for its metrics: their changes and tests, and how many of a name stand
//! where. Who was not seen for as long as a record lives is forgotten, and so is whose record is gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_policy::audit::Action;
use tidegate_policy::breaker::mesh::{Batch, LIFE_MS, Said, State};
use tidegate_policy::wire::breaker::BreakerName;

use crate::audit::{Auditor, Happening};
use crate::clock::Clock;
use crate::metrics::{ChangeLabel, SharedMetrics};

/// Names in metrics; more share one.
const NAMES_MAX: usize = 1_000;
/// Breakers of one name whose states are counted.
const KNOWN_MAX: usize = 10_000;
const OTHERS: &str = "others";
/// Who is gone is looked for that often at most, in ms.
const SWEPT_MS: u64 = 60_000;

/// What this gateway knows of breakers.
pub struct Seen {
    metrics: SharedMetrics,
    auditor: Arc<Auditor>,
    clock: Arc<dyn Clock>,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// By label, and then by name.
    of: HashMap<String, HashMap<BreakerName, Standing>>,
    /// When who is gone was looked for, in ms of the clock's own.
    swept_ms: u64,
}

/// Where a breaker stood when it was last seen.
struct Standing {
    state: State,
    /// Until when its record lives if nobody uses it, in ms of the clock's own; `None` = for good.
    until_ms: Option<u64>,
}

// === impl Seen ===

impl Seen {
    /// Nothing yet.
    pub fn new(metrics: SharedMetrics, auditor: Arc<Auditor>, clock: Arc<dyn Clock>) -> Self {
        Self { metrics, auditor, clock, names: Mutex::default() }
    }

    /// Counts what a step did.
    pub fn note(&self, name: &BreakerName, batch: Option<&Batch>, said: &Said) {
        if said.fresh && batch.is_none() && said.transitions.is_empty() {
            // A look at nothing.
            return self.forget(name);
        }
        let breaker = self.place(name, said);
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

    /// Forgets who is gone, so that nobody is counted for good.
    pub fn sweep(&self) {
        self.swept(&mut self.names(), self.now_ms());
    }

    /// The breaker's label; on the way its state is counted among those of its name.
    fn place(&self, name: &BreakerName, said: &Said) -> String {
        let now_ms = self.now_ms();
        let mut names = self.names();
        if now_ms.saturating_sub(names.swept_ms) >= SWEPT_MS {
            self.swept(&mut names, now_ms);
        }
        let configured = name.configured();
        let label = if names.of.contains_key(configured) || names.of.len() < NAMES_MAX {
            configured
        } else {
            OTHERS
        };
        let of_name = names.of.entry(label.to_owned()).or_default();
        // Bounded as what operators are told is.
        if of_name.len() < KNOWN_MAX || of_name.contains_key(name) {
            let is_endless = said.state.is_ordered() && said.wait_ms.is_none();
            let life_ms = LIFE_MS.saturating_add(said.wait_ms.unwrap_or(0));
            let until_ms = (!is_endless).then(|| now_ms.saturating_add(life_ms));
            let standing = Standing { state: said.state, until_ms };
            let before = of_name.insert(name.clone(), standing).map(|before| before.state);
            self.metrics.breakers.stands(label, before, Some(said.state));
        }
        if label != OTHERS {
            // It stood there while there was no room for its name.
            self.forget_of(&mut names, OTHERS, name);
        }
        label.to_owned()
    }

    fn forget(&self, name: &BreakerName) {
        let mut names = self.names();
        for label in [name.configured(), OTHERS] {
            self.forget_of(&mut names, label, name);
        }
    }

    fn forget_of(&self, names: &mut Names, label: &str, name: &BreakerName) {
        let gone = names.of.get_mut(label).and_then(|of_name| of_name.remove(name));
        if let Some(Standing { state, .. }) = gone {
            self.metrics.breakers.stands(label, Some(state), None);
        }
    }

    fn swept(&self, names: &mut Names, now_ms: u64) {
        names.swept_ms = now_ms;
        names.of.retain(|label, of_name| {
            of_name.retain(|_, standing| {
                let lives = standing.until_ms.is_none_or(|until_ms| now_ms < until_ms);
                if !lives {
                    self.metrics.breakers.stands(label, Some(standing.state), None);
                }
                lives
            });
            !of_name.is_empty()
        });
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.clock.elapsed_us() / 1_000
    }
}
