//! Owns the circuit breaker's state machine: who may call, what an outcome changes, when to try
//! again. Knows neither what is called nor a clock; time and entropy come in as values.
//!
//! Closed: calls pass, failures in a row are counted. Open: nobody calls until a jittered time is
//! over. Half-open: one call at a time is a test; so many successes in a row close, one failure
//! opens. Every transition begins a new epoch and forgets every count; what was begun in an older
//! epoch changes nothing any more. A test is a lease: if its outcome never comes, it runs out.
//!
//! Source: product rows B1 to B3.

pub mod by;
pub mod kept;
pub mod mesh;
pub mod outcome;
pub mod places;
pub mod process;
pub mod worker;

/// The numbers of one breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row that open it; at least 1.
    pub failures: u32,
    /// How long it stays open, in ms; the real time lies within a fifth of it.
    pub open_ms: u32,
    /// Successful tests in a row that close it; at least 1.
    pub successes: u32,
    /// After that many ms a test without an outcome is given up.
    pub probe_ms: u32,
}

/// The state, as metrics and logs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateName {
    /// Calls pass.
    Closed,
    /// Nobody calls.
    Open,
    /// One call at a time is a test.
    HalfOpen,
}

/// What a call that was admitted carries until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    epoch: u64,
    probe: Option<u64>,
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

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was called works.
    Success,
    /// It does not.
    Failure,
    /// It says nothing about what was called.
    Ignored,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// What it was.
    pub from: StateName,
    /// What it is.
    pub to: StateName,
}

/// Tests without an outcome in a row that open it again: then nobody is there to finish one.
const EXPIRED_MAX: u32 = 3;

#[derive(Debug, Clone, Copy)]
struct Probe {
    id: u64,
    until_ms: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { since_ms: u64, until_ms: u64 },
    HalfOpen { successes: u32, expired: u32, probe: Option<Probe> },
}

/// One breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: Settings,
    state: State,
    epoch: u64,
    probes: u64,
}

// === impl Settings ===

impl Default for Settings {
    /// The user's numbers: 5 failures, 10 s, 3 successes.
    fn default() -> Self {
        Self { failures: 5, open_ms: 10_000, successes: 3, probe_ms: 5_000 }
    }
}

// === impl StateName ===

impl StateName {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, epoch: 0, probes: 0 }
    }

    /// The state; an open breaker whose time is over is open until somebody asks.
    pub fn state(&self) -> StateName {
        match self.state {
            State::Closed { .. } => StateName::Closed,
            State::Open { .. } => StateName::Open,
            State::HalfOpen { .. } => StateName::HalfOpen,
        }
    }

    /// Whether the next outcome can change the state, so that a time has to be known for it. A
    /// closed breaker needs none for a success.
    pub fn is_closed(&self) -> bool {
        self.state() == StateName::Closed
    }

    /// Asks for leave to call. `entropy` is any 64 bits.
    pub fn admit(&mut self, now_ms: u64, entropy: u64) -> (Admission, Option<Transition>) {
        match self.state {
            State::Closed { .. } => (Admission::Pass(self.ticket(None)), None),
            State::Open { since_ms, until_ms } if now_ms < until_ms => {
                // A clock that stepped back must not make the wait longer than it was meant.
                let until_ms = if now_ms < since_ms {
                    let until_ms = now_ms.saturating_add(until_ms.saturating_sub(since_ms));
                    self.state = State::Open { since_ms: now_ms, until_ms };
                    until_ms
                } else {
                    until_ms
                };
                (refuse(now_ms, until_ms), None)
            }
            State::Open { .. } => {
                let changed = self.enter(State::HalfOpen { successes: 0, expired: 0, probe: None });
                (self.probe(now_ms, 0, 0), Some(changed))
            }
            State::HalfOpen { successes, expired, probe: None } => {
                (self.probe(now_ms, successes, expired), None)
            }
            State::HalfOpen { expired, probe: Some(probe), .. } => {
                let lease_ms = u64::from(self.settings.probe_ms);
                // The second part: a clock that stepped back must not keep a lost test alive.
                if now_ms < probe.until_ms && probe.until_ms.saturating_sub(now_ms) <= lease_ms {
                    return (refuse(now_ms, probe.until_ms), None);
                }
                let expired = expired.saturating_add(1);
                if expired < EXPIRED_MAX {
                    return (self.probe(now_ms, 0, expired), None);
                }
                let until_ms = self.open_until(now_ms, entropy);
                let changed = self.enter(State::Open { since_ms: now_ms, until_ms });
                (refuse(now_ms, until_ms), Some(changed))
            }
        }
    }

    /// Takes a call's outcome. One of an older epoch, or of a test that was given up, is dropped.
    pub fn settle(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now_ms: u64,
        entropy: u64,
    ) -> Option<Transition> {
        if ticket.epoch != self.epoch {
            return None;
        }
        match self.state {
            State::Closed { failures } => match outcome {
                Outcome::Ignored => None,
                Outcome::Success => {
                    self.state = State::Closed { failures: 0 };
                    None
                }
                Outcome::Failure => {
                    let failures = failures.saturating_add(1);
                    if failures < self.settings.failures {
                        self.state = State::Closed { failures };
                        return None;
                    }
                    let until_ms = self.open_until(now_ms, entropy);
                    Some(self.enter(State::Open { since_ms: now_ms, until_ms }))
                }
            },
            State::Open { .. } => None,
            State::HalfOpen { successes, probe, .. } => {
                let live = probe.filter(|probe| Some(probe.id) == ticket.probe)?;
                if now_ms >= live.until_ms {
                    return None;
                }
                match outcome {
                    Outcome::Ignored => {
                        self.state = State::HalfOpen { successes, expired: 0, probe: None };
                        None
                    }
                    Outcome::Success if successes.saturating_add(1) < self.settings.successes => {
                        let successes = successes.saturating_add(1);
                        self.state = State::HalfOpen { successes, expired: 0, probe: None };
                        None
                    }
                    Outcome::Success => Some(self.enter(State::Closed { failures: 0 })),
                    Outcome::Failure => {
                        let until_ms = self.open_until(now_ms, entropy);
                        Some(self.enter(State::Open { since_ms: now_ms, until_ms }))
                    }
                }
            }
        }
    }

    fn ticket(&self, probe: Option<u64>) -> Ticket {
        Ticket { epoch: self.epoch, probe }
    }

    fn enter(&mut self, state: State) -> Transition {
        let from = self.state();
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        Transition { from, to: self.state() }
    }

    fn probe(&mut self, now_ms: u64, successes: u32, expired: u32) -> Admission {
        self.probes = self.probes.wrapping_add(1);
        let id = self.probes;
        let until_ms = now_ms.saturating_add(u64::from(self.settings.probe_ms));
        let probe = Some(Probe { id, until_ms });
        self.state = State::HalfOpen { successes, expired, probe };
        Admission::Pass(self.ticket(Some(id)))
    }

    /// A fifth earlier to a fifth later, so that instances do not move in step (product row B2).
    fn open_until(&self, now_ms: u64, entropy: u64) -> u64 {
        let open_ms = u64::from(self.settings.open_ms);
        let fifth_ms = open_ms / 5;
        let spread = u128::from(fifth_ms * 2 + 1);
        let later_ms = u64::try_from((spread * u128::from(entropy)) >> 64).unwrap_or(0);
        now_ms.saturating_add(open_ms - fifth_ms).saturating_add(later_ms)
    }
}

fn refuse(now_ms: u64, until_ms: u64) -> Admission {
    Admission::Refuse { retry_ms: until_ms.saturating_sub(now_ms).max(1) }
}

#[cfg(test)]
mod tests;
