//! Owns the guard of the path to a store: the circuit breaker's machine behind a lock, with the
//! gateway's clock, metrics and log. Knows nothing of what is called.
//!
//! Source: product row B3.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::audit::Action;
use tidegate_policy::breaker::{
    Admission, Breaker, Outcome, Settings, StateName, Ticket, Transition,
};

use crate::audit::{Auditor, Happening};
use crate::clock::Clock;
use crate::metrics::{SharedMetrics, StateLabel};
use crate::store::StoreRole;

/// The guard of one store.
pub struct Guard {
    role: StoreRole,
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
        let breaker = Mutex::new(Breaker::new(settings));
        Self { role, breaker, clock, seed, metrics, auditor }
    }

    /// Leave to call, or none for now.
    pub fn admit(&self) -> Option<Trial<'_>> {
        let (now_ms, entropy) = self.now();
        let (admission, changed) = self.with(|breaker| breaker.admit(now_ms, entropy));
        self.note(changed);
        match admission {
            Admission::Pass(ticket) => Some(Trial { guard: self, ticket: Some(ticket) }),
            Admission::Refuse { .. } => None,
        }
    }

    /// The state, for the status.
    pub fn state(&self) -> StateName {
        self.with(|breaker| breaker.state())
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) {
        let (now_ms, entropy) = self.now();
        self.note(self.with(|breaker| breaker.settle(ticket, outcome, now_ms, entropy)));
    }

    /// A breaker is whole between its calls, so one that panicked elsewhere is still good.
    fn with<T>(&self, step: impl FnOnce(&mut Breaker) -> T) -> T {
        step(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time, and bits that differ between gateways and moments: they spread, and guard nothing.
    fn now(&self) -> (u64, u64) {
        let elapsed_us = self.clock.elapsed_us();
        let mixed = (self.seed ^ elapsed_us.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (elapsed_us / 1_000, mixed ^ (mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    }

    fn note(&self, changed: Option<Transition>) {
        let Some(Transition { to, .. }) = changed else { return };
        let label = StateLabel { role: self.role.as_str(), to: to.as_str() };
        self.metrics.breaker_transitions.get_or_create(&label).inc();
        let detail = format!("the store {} is {}", self.role, to.as_str());
        self.auditor.record(Happening::own(Action::Breaker, detail));
        match to {
            StateName::Open => tracing::error!(
                critical = true,
                store = %self.role,
                "too many store calls failed in a row: none is made for a while"
            ),
            StateName::HalfOpen => tracing::info!(store = %self.role, "the store is tested"),
            StateName::Closed => tracing::info!(store = %self.role, "the store answers again"),
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
