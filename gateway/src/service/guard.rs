//! Owns the guard of the path to a store: the circuit breaker's machine behind a lock, with the
//! gateway's clock, metrics and log. Knows nothing of what is called.
//!
//! Source: product row B3.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::audit::Action;
use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::alone::{Admission, Breaker, Settings, Ticket};
use tidegate_policy::breaker::mesh::{State, Transition};

use crate::audit::{Auditor, Happening};
use crate::clock::Clock;
use crate::metrics::SharedMetrics;
use crate::store::StoreRole;

/// The guard of one store.
pub struct Guard {
    role: StoreRole,
    /// Its name in metrics: none that is configured begins so.
    name: String,
    breaker: Mutex<Breaker>,
    clock: Arc<dyn Clock>,
    /// Of this gateway alone: when it began.
    seed: u64,
    metrics: SharedMetrics,
    auditor: Arc<Auditor>,
}

/// A call that was admitted. Dropped without an outcome (its caller left) it says nothing.
pub struct Trial<'g> {
    guard: &'g Guard,
    ticket: Option<Ticket>,
}

// === impl Guard ===

impl Guard {
    /// Closed.
    pub fn new(
        role: StoreRole,
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: SharedMetrics,
        auditor: Arc<Auditor>,
    ) -> Self {
        let seed = clock.unix_us();
        let name = format!("~store-{role}");
        metrics.breakers.stands(&name, None, Some(State::Closed));
        let breaker = Mutex::new(Breaker::new(settings));
        Self { role, name, breaker, clock, seed, metrics, auditor }
    }

    /// Leave to call, or none for now.
    pub fn admit(&self) -> Option<Trial<'_>> {
        let (admission, changed) = self.with(|breaker| breaker.admit(self.now_ms()));
        self.note(changed);
        let Admission::Pass(ticket) = admission else { return None };
        if ticket.is_test() {
            self.metrics.breakers.granted(&self.name);
        }
        Some(Trial { guard: self, ticket: Some(ticket) })
    }

    /// The state.
    pub fn state(&self) -> State {
        self.with(|breaker| breaker.state())
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) {
        let (now_ms, entropy) = (self.now_ms(), self.entropy());
        let settled = self.with(|breaker| breaker.settle(ticket, outcome, now_ms, entropy));
        if ticket.is_test() {
            self.metrics.breakers.tested(&self.name, settled.test);
        }
        self.note(settled.changed);
    }

    /// A breaker is whole between its calls, so one that panicked elsewhere is still good.
    fn with<T>(&self, step: impl FnOnce(&mut Breaker) -> T) -> T {
        step(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now_ms(&self) -> u64 {
        self.clock.elapsed_us() / 1_000
    }

    /// Bits that differ between gateways and moments: they spread, and guard nothing.
    fn entropy(&self) -> u64 {
        let elapsed_us = self.clock.elapsed_us();
        let mixed = (self.seed ^ elapsed_us.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn note(&self, changed: Option<Transition>) {
        let Some(change) = changed else { return };
        self.metrics.breakers.changed(&self.name, &change);
        self.metrics.breakers.stands(&self.name, Some(change.from), Some(change.to));
        let to = change.to;
        let detail = format!("the store {} is {}", self.role, to.as_str());
        self.auditor.record(Happening::own(Action::Breaker, detail));
        match to {
            State::Open => tracing::error!(
                critical = true,
                store = %self.role,
                "too many store calls failed in a row: none is made for a while"
            ),
            State::HalfOpen => tracing::info!(store = %self.role, "the store is tested"),
            _ => tracing::info!(store = %self.role, "the store answers again"),
        }
    }
}

// === impl Trial ===

impl Trial<'_> {
    /// Hands in the outcome.
    pub fn end(mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            self.guard.settle(ticket, outcome);
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.guard.settle(ticket, Outcome::Ignored);
        }
    }
}
