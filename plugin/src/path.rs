//! Owns the guard of a path to a gateway: one circuit breaker per configuration and worker. Says
//! whether a callout may be made, and takes what became of it.
//!
//! Source: product row B3.

use std::cell::RefCell;

use tidegate_policy::breaker::{Admission, Breaker, Outcome, Settings, StateName, Ticket};
use tidegate_policy::exchange::Answer;

use crate::host::{self, Level};

/// The guard.
#[derive(Debug)]
pub(crate) struct Path {
    breaker: RefCell<Breaker>,
    /// What it leads to, as the log calls it.
    name: String,
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

    /// Whether a callout may be made; if not, in how many ms it makes sense to ask again. `entered`
    /// hears of a change of state.
    pub(crate) fn admit(
        &self,
        entropy: u64,
        entered: impl FnOnce(StateName),
    ) -> Result<Ticket, u64> {
        let mut breaker = self.breaker.borrow_mut();
        // A closed breaker needs no time: the healthy path costs no host call.
        let now_ms = if breaker.is_closed() { 0 } else { now_ms() };
        let (admission, changed) = breaker.admit(now_ms, entropy);
        if let Some(changed) = changed {
            self.say(changed.to);
            entered(changed.to);
        }
        match admission {
            Admission::Pass(ticket) => Ok(ticket),
            Admission::Refuse { retry_ms } => Err(retry_ms),
        }
    }

    /// Takes what became of a callout, whether or not its request still waits.
    pub(crate) fn settle(
        &self,
        ticket: Ticket,
        answer: &Answer<'_>,
        entropy: u64,
        entered: impl FnOnce(StateName),
    ) {
        let outcome = match answer {
            // Whatever it says, the gateway said it: overload and refusals prove that the path works.
            Answer::Response { marked: true, .. } => Outcome::Success,
            Answer::Response { marked: false, .. } | Answer::Reset | Answer::NotSent => {
                Outcome::Failure
            }
            Answer::CircuitOpen { .. } => Outcome::Ignored,
        };
        let mut breaker = self.breaker.borrow_mut();
        let now_ms = if breaker.is_closed() && outcome != Outcome::Failure { 0 } else { now_ms() };
        if let Some(changed) = breaker.settle(ticket, outcome, now_ms, entropy) {
            self.say(changed.to);
            entered(changed.to);
        }
    }

    fn say(&self, state: StateName) {
        let (level, what) = match state {
            StateName::Open => {
                (Level::Error, "is not asked for a while: too many callouts failed in a row")
            }
            StateName::HalfOpen => (Level::Info, "is tested"),
            StateName::Closed => (Level::Info, "answers again"),
        };
        host::log(level, &format!("tidegate: {} {what}", self.name));
    }
}

/// A host without a clock would leave an open breaker open; it then counts as long over.
fn now_ms() -> u64 {
    host::now_us().map_or(u64::MAX, |now_us| now_us / 1_000)
}
