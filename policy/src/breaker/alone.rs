//! Owns the breaker that nobody shares: the way to a gateway, and from a gateway to its store. It is a
//! worker and its process, of which no region hears.
//!
//! Closed: calls pass, failures in a row are counted. Open: nobody calls until a jittered time is over.
//! Half open: one call at a time is a test; so many good ones in a row close it, a bad one opens it. What
//! began before it changed says nothing any more. A test is a lease: if its outcome never comes, it runs
//! out, and the next one begins.

use super::Outcome;
use super::mesh::{Cause, ENTROPY_RANGE, Ended, State, Terms, Transition, Window};
use super::process::{Leave, Own, Process};
use super::worker::Worker;

/// The numbers of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open, in ms; the real time lies within a fifth of it.
    pub open_ms: u32,
    /// Successful tests in a row that close it; at least 1.
    pub successes: u8,
    /// After that many ms a test without an outcome is given up.
    pub probe_ms: u32,
}

/// What a call that was admitted carries until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    generation: u32,
    test: Option<u64>,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes; hand the ticket in with the outcome.
    Pass(Ticket),
    /// No; it makes sense to ask again in that many ms, at least 1.
    Refuse {
        /// The wait, in ms.
        retry_ms: u64,
    },
}

/// What became of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// How a test ended; `None` for what was none, or whose time was over.
    pub test: Option<Ended>,
    /// What it changed.
    pub changed: Option<Transition>,
}

/// One breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    own: Own,
    worker: Worker,
    process: Process,
    /// What it was said to be, and since when, in ms.
    state: State,
    since_ms: u64,
}

// === impl Settings ===

impl Default for Settings {
    /// The user's numbers: 5 failures, 10 s, 3 successes.
    fn default() -> Self {
        Self { failures: 5, open_ms: 10_000, successes: 3, probe_ms: 5_000 }
    }
}

impl From<Settings> for Own {
    /// Of a region's numbers those that a process alone goes by; no window is looked at.
    fn from(settings: Settings) -> Self {
        let Settings { failures, open_ms, successes, probe_ms } = settings;
        let terms = Terms {
            window: Window::Calls(1),
            min_calls: 1,
            failure_permille: 0,
            slow_permille: 0,
            adaptive: None,
            open_ms,
            backoff: 0,
            successes,
            probe_ms,
            trip_reporters: 1,
        };
        Self { terms, consecutive: failures, ramp_ms: 0 }
    }
}

// === impl Ticket ===

impl Ticket {
    /// Whether its call is a test.
    pub fn is_test(&self) -> bool {
        self.test.is_some()
    }
}

// === impl Breaker ===

impl Breaker {
    /// A closed breaker, since the beginning of its clock.
    pub fn new(settings: Settings) -> Self {
        let process = Process::default();
        let mut worker = Worker::default();
        worker.look(&process);
        Self { own: settings.into(), worker, process, state: State::Closed, since_ms: 0 }
    }

    /// Closed, open or half open; an open breaker whose time is over is open until somebody asks.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether all calls pass; then asking for leave needs no time, and neither does a success.
    pub fn is_closed(&self) -> bool {
        self.worker.passes
    }

    /// Leave for a call while nobody knows the time. It is no test.
    pub fn unguarded(&self) -> Ticket {
        Ticket { generation: self.worker.generation, test: None }
    }

    /// Asks for leave to call.
    pub fn admit(&mut self, now_ms: u64) -> (Admission, Option<Transition>) {
        let generation = self.worker.generation;
        let pass = |test| Admission::Pass(Ticket { generation, test });
        if self.worker.passes {
            return (pass(None), None);
        }
        match self.process.admit(&self.own, now_ms, true) {
            Leave::Pass => (pass(None), None),
            Leave::Test(id) => {
                let begins = self.state == State::Open;
                let changed = begins.then(|| self.enter(State::HalfOpen, Cause::WaitOver, now_ms));
                (pass(Some(id)), changed)
            }
            Leave::Wait(wait_ms) => {
                let test_ms = self.process.probe.map(|test| test.until_ms.saturating_sub(now_ms));
                let retry_ms = wait_ms.or(test_ms).unwrap_or(0).max(1);
                (Admission::Refuse { retry_ms }, None)
            }
        }
    }

    /// Takes a call's outcome. One of before a change, or of a test that was given up, is dropped.
    /// `entropy` is any 64 bits.
    pub fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now_ms: u64,
        entropy: u64,
    ) -> Settled {
        let drawn = (u128::from(entropy) * u128::from(ENTROPY_RANGE)) >> 64;
        let entropy = u32::try_from(drawn).unwrap_or(0);
        let Ticket { generation, test } = ticket;
        let Some(id) = test else {
            let changed = self.count(generation, outcome, now_ms, entropy);
            return Settled { test: None, changed };
        };
        let ended = match outcome {
            Outcome::Success => Ended::Ok,
            Outcome::Failure => Ended::Failed,
            Outcome::Ignored => Ended::GivenBack,
        };
        let is_out = |process: &Process| process.probe.is_some_and(|probe| probe.id == id);
        let was_out = is_out(&self.process);
        let closes = self.process.settle(&self.own, id, ended, now_ms, entropy);
        if !was_out || is_out(&self.process) {
            return Settled::default();
        }
        self.worker.look(&self.process);
        let changed = if closes {
            Some(self.enter(State::Closed, Cause::ProbesSucceeded, now_ms))
        } else if ended == Ended::Failed {
            Some(self.enter(State::Open, Cause::ProbeFailed, now_ms))
        } else {
            None
        };
        Settled { test: Some(ended), changed }
    }

    fn count(
        &mut self,
        generation: u32,
        outcome: Outcome,
        now_ms: u64,
        entropy: u32,
    ) -> Option<Transition> {
        let trips = self.worker.count(generation, outcome, false, self.own.consecutive)
            && self.process.trip(&self.own, generation, now_ms, entropy);
        trips.then(|| {
            self.worker.look(&self.process);
            self.enter(State::Open, Cause::Failures, now_ms)
        })
    }

    fn enter(&mut self, to: State, cause: Cause, now_ms: u64) -> Transition {
        let after_ms = now_ms.saturating_sub(self.since_ms);
        let from = core::mem::replace(&mut self.state, to);
        self.since_ms = now_ms;
        Transition { from, to, cause, after_ms }
    }
}

#[cfg(test)]
mod tests;
