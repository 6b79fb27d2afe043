//! Owns the guard of a path to a gateway: one circuit breaker per configuration and worker. Says
//! whether a callout may be made, and takes what became of it. A host that tells no time is not guarded: what opened
//! would never be tested, and no test would ever end.
//!
//! Source: product row B3.

use std::cell::RefCell;

use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::alone::{Admission, Breaker, Settings, Ticket};
use tidegate_policy::breaker::mesh::State;
use tidegate_policy::exchange::Answer;

use crate::circuits::Told;
use crate::host::{self, Level};

/// The guard.
#[derive(Debug)]
pub(crate) struct Path {
    breaker: RefCell<Breaker>,
    /// What it leads to, as the log calls it.
    name: String,
}

/// What a guard has to say of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// What is worth counting.
    pub(crate) told: Option<Told>,
    /// The state that it changed to.
    pub(crate) entered: Option<State>,
}

// === impl Path ===

impl Path {
    pub(crate) fn new(settings: Settings, name: String) -> Self {
        Self { breaker: RefCell::new(Breaker::new(settings)), name }
    }

    /// What it leads to.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a callout may be made; if not, in how many ms it makes sense to ask again.
    pub(crate) fn admit(&self) -> (Result<Ticket, u64>, Step) {
        let mut breaker = self.breaker.borrow_mut();
        // A closed breaker needs no time: the healthy path costs no host call.
        let now_ms = if breaker.is_closed() { Some(0) } else { now_ms() };
        let Some(now_ms) = now_ms else {
            return (Ok(breaker.unguarded()), Step { told: None, entered: None });
        };
        let (admission, changed) = breaker.admit(now_ms);
        let (leave, told) = match admission {
            Admission::Pass(ticket) => (Ok(ticket), ticket.is_test().then_some(Told::Test)),
            Admission::Refuse { retry_ms } => (Err(retry_ms), Some(Told::Refused)),
        };
        (leave, self.step(told, changed.map(|changed| changed.to)))
    }

    /// Takes what became of a callout, whether or not its request still waits.
    pub(crate) fn settle(&self, ticket: Ticket, outcome: Outcome, entropy: u64) -> Step {
        let mut breaker = self.breaker.borrow_mut();
        let is_known = breaker.is_closed() && outcome != Outcome::Failure;
        let now_ms = if is_known { Some(0) } else { now_ms() };
        // A test that was out runs out by itself once there is a time again.
        let Some(now_ms) = now_ms else { return Step { told: None, entered: None } };
        let settled = breaker.settle(ticket, outcome, now_ms, entropy);
        let entered = settled.changed.map(|changed| changed.to);
        let trips = !ticket.is_test() && entered == Some(State::Open);
        let told = settled.test.map(Told::tested).or(trips.then_some(Told::Tripped));
        self.step(told, entered)
    }

    fn step(&self, told: Option<Told>, entered: Option<State>) -> Step {
        let said = match entered {
            Some(State::Open) => {
                (Level::Error, "is not asked for a while: too many callouts failed in a row")
            }
            Some(State::HalfOpen) => (Level::Info, "is tested"),
            Some(_) => (Level::Info, "answers again"),
            None => return Step { told, entered },
        };
        host::log(said.0, &format!("tidegate: {} {}", self.name, said.1));
        Step { told, entered }
    }
}

/// What an answer says of the way on which it came.
pub(crate) fn outcome(answer: &Answer<'_>) -> Outcome {
    match answer {
        // Whatever it says, the gateway said it: overload and refusals prove that the path works.
        Answer::Response { marked: true, .. } => Outcome::Success,
        Answer::Response { marked: false, .. } | Answer::Reset | Answer::NotSent => {
            Outcome::Failure
        }
        Answer::CircuitOpen { .. } => Outcome::Ignored,
    }
}

fn now_ms() -> Option<u64> {
    host::now_us().ok().map(|now_us| now_us / 1_000)
}
