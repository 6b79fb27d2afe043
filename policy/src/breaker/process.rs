//! Owns what the workers of one process share of a breaker: what the mesh said last, what this process
//! found out by itself, what is to be reported. Knows neither where that lies nor a clock; every method
//! is one step that is written back whole or not at all.
//!
//! A worker that sees enough failures in a row shuts its process at once. The mesh hears of it with the
//! next report, and opens for all if it agrees. Until then the process tests by itself, one request at a
//! time; once the mesh is open, the mesh alone says who may test. A process whose gateway does not
//! answer goes on alone.

pub mod codec;
mod report;
mod waits;

pub use self::report::{ALONE_MS, SOUGHT_MS};

use super::mesh::{Ended, Settled, State, Terms};
use crate::wire::breaker::BreakerState;

/// What a process does beside what the terms say for the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// The numbers of the mesh.
    pub terms: Terms,
    /// Failures in a row in one worker that shut its process; at least 1.
    pub consecutive: u32,
    /// For how long after tests closed it only a growing share of calls passes, in ms; 0: all at once.
    pub ramp_ms: u32,
}

/// What is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Changes whenever it changes who may call; what was begun under another counts no more.
    pub generation: u32,
    /// What the mesh said last.
    pub state: State,
    /// Of which epoch; 0 = it said nothing yet.
    pub epoch: u64,
    /// Whether this process tripped by itself, and the mesh has not taken over.
    pub tripped: bool,
    /// Shut: before that nobody tests. In ms by this host's clock.
    pub until_ms: u64,
    /// Closed by tests: since then, in ms by this host's clock; 0: not, or long ago.
    pub healed_at_ms: u64,
    /// Not closed: since when it is to wait until `until_ms`, by this host's clock; 0: a filter of before did not say.
    pub waits_since_ms: u64,
    /// Whether a request was refused since the last report that a test would have been for.
    pub wanted: bool,
    /// When one came last, by this host's clock; 0: none, or so long ago that nobody else is expected.
    pub sought_ms: u64,
    /// Since when it has said what the gateway has told nothing upon, by this host's clock; 0: it is told.
    pub unheard_ms: u64,
    /// Whether that has gone on for so long that the mesh is not to be had for this breaker.
    pub unheard: bool,
    /// A test that the mesh gave and nobody took yet, or one that is out.
    pub probe: Option<Probe>,
    /// Good tests in a row that this process made alone.
    pub successes: u8,
    /// The last number of a test that this process made alone.
    pub own_tests: u32,
    /// How a test of the mesh's ended, until the gateway has heard of it.
    pub ended: Option<Settled>,
    /// Counted since the last report.
    pub counts: Counts,
}

/// A test as its process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its number.
    pub id: u64,
    /// Whether the mesh gave it.
    pub of_mesh: bool,
    /// Until when it counts, by this host's clock.
    pub until_ms: u64,
    /// Whether a request has it.
    pub out: bool,
}

/// Calls that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All but ignored ones.
    pub calls: u32,
    /// Of them failures.
    pub failures: u32,
    /// Of them slow ones.
    pub slow: u32,
}

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// As long as the breaker is closed.
    Pass,
    /// As the test of this number.
    Test(u64),
    /// Not now; in so many ms it makes sense to come again. `None` if nobody knows: a test is out, or its
    /// turn comes with the next tick.
    Wait(Option<u64>),
}

// === impl Process ===

impl Default for Process {
    fn default() -> Self {
        Self {
            generation: 0,
            state: State::Closed,
            epoch: 0,
            tripped: false,
            until_ms: 0,
            healed_at_ms: 0,
            waits_since_ms: 0,
            wanted: false,
            sought_ms: 0,
            unheard_ms: 0,
            unheard: false,
            probe: None,
            successes: 0,
            own_tests: 0,
            ended: None,
            counts: Counts::default(),
        }
    }
}

impl Process {
    /// Whether all calls pass.
    pub fn passes(&self) -> bool {
        self.state.passes() && !self.tripped
    }

    /// Whether a call may be made. `alone`: the gateway does not answer.
    pub fn admit(&mut self, own: &Own, now_ms: u64, alone: bool) -> Leave {
        if self.passes() {
            return Leave::Pass;
        }
        self.bound(own, now_ms);
        // One that has an end ends when somebody asks for a test.
        if self.state == State::ForcedOpen && now_ms < self.until_ms {
            return Leave::Wait(self.wait_ms(now_ms));
        }
        match &mut self.probe {
            Some(probe) if now_ms < probe.until_ms && !probe.out => {
                probe.out = true;
                let id = probe.id;
                self.sought_ms = now_ms;
                return Leave::Test(id);
            }
            Some(probe) if now_ms < probe.until_ms => {}
            // Its request never came back: by now it is somebody else's turn.
            Some(probe) => {
                let of_mesh = probe.of_mesh;
                self.probe = None;
                if !of_mesh {
                    self.successes = 0;
                }
            }
            None => {}
        }
        let by_itself = self.state == State::Closed || alone || self.unheard;
        if by_itself && self.probe.is_none() && now_ms >= self.until_ms {
            self.own_tests = self.own_tests.wrapping_add(1);
            let id = u64::from(self.own_tests);
            let until_ms = now_ms.saturating_add(u64::from(own.terms.probe_ms));
            self.probe = Some(Probe { id, of_mesh: false, until_ms, out: true });
            return Leave::Test(id);
        }
        // Before its wait is over there is nothing to ask for.
        if self.is_due(now_ms) {
            self.wanted = true;
            self.sought_ms = now_ms;
        }
        Leave::Wait(self.wait_ms(now_ms))
    }

    /// Takes how a test ended; one that is not out any more changes nothing. Says whether it changed
    /// who may call.
    pub fn settle(&mut self, own: &Own, id: u64, ended: Ended, now_ms: u64, entropy: u32) -> bool {
        let live = self.probe.filter(|probe| {
            probe.id == id && probe.out && !self.passes() && now_ms < probe.until_ms
        });
        let Some(Probe { of_mesh, .. }) = live else { return false };
        self.probe = None;
        if of_mesh {
            self.ended = Some(Settled { id, ended });
            if ended == Ended::Failed {
                // The mesh will say the same in a moment.
                self.shut(own, now_ms, entropy);
            }
            return false;
        }
        match ended {
            Ended::GivenBack => false,
            Ended::Failed => {
                self.successes = 0;
                self.shut(own, now_ms, entropy);
                false
            }
            Ended::Ok => {
                self.successes = self.successes.saturating_add(1);
                if self.successes < own.terms.successes {
                    return false;
                }
                self.tripped = false;
                self.state = State::Closed;
                self.healed_at_ms = now_ms;
                self.change();
                true
            }
        }
    }

    /// A worker saw too many failures in a row, all of them under this generation. Says whether it
    /// changed who may call.
    pub fn trip(&mut self, own: &Own, generation: u32, now_ms: u64, entropy: u32) -> bool {
        if generation != self.generation || self.tripped || self.state != State::Closed {
            return false;
        }
        self.tripped = true;
        self.healed_at_ms = 0;
        let counts = self.counts;
        self.change();
        // The mesh has not changed: to it these calls still count.
        self.counts = counts;
        self.shut(own, now_ms, entropy);
        true
    }

    /// Adds what a worker counted under this generation.
    pub fn add(&mut self, generation: u32, counts: Counts) {
        if generation == self.generation {
            self.counts.add(counts);
        }
    }

    /// Takes what the gateway says; `sent_ms` is when it was asked, `heard` the test's end that it was
    /// told then. Says whether it changed who may call.
    pub fn told(&mut self, told: &BreakerState, heard: Option<Settled>, sent_ms: u64) -> bool {
        if heard.is_some() && self.ended == heard {
            self.ended = None;
        }
        (self.unheard_ms, self.unheard) = (0, false);
        if told.epoch < self.epoch {
            return false;
        }
        let (before, newer) = ((self.passes(), self.state), told.epoch > self.epoch);
        let known = self.epoch > 0;
        (self.state, self.epoch) = (told.state, told.epoch);
        if newer && known {
            // What it found out by itself was about another time.
            self.tripped = false;
        }
        if matches!(
            told.state,
            State::Disabled | State::MetricsOnly | State::Open | State::HalfOpen
        ) {
            self.tripped = false;
        }
        if !told.state.passes() || told.state.is_ordered() {
            let wait_ms = match told.state {
                State::HalfOpen => 0,
                _ => told.wait_ms.unwrap_or(u64::MAX),
            };
            let until_ms = sent_ms.saturating_add(wait_ms);
            // What was over and is told again was over before.
            let again = wait_ms == 0 && !newer && before.1 == told.state;
            let until_ms = if again { self.until_ms.min(until_ms) } else { until_ms };
            if newer || until_ms != self.until_ms {
                (self.until_ms, self.waits_since_ms) = (until_ms, sent_ms);
            }
        } else {
            self.waits_since_ms = 0;
        }
        self.healed_at_ms = match (told.state, told.healed_ms) {
            (State::Closed, Some(passed_ms)) => sent_ms.saturating_sub(passed_ms).max(1),
            // It found out by itself, and the mesh had never opened.
            (State::Closed, None) if !newer => self.healed_at_ms,
            _ => 0,
        };
        let changed = before != (self.passes(), self.state) || (newer && known);
        if changed {
            self.change();
        }
        if let Some(permit) = told.permit.filter(|_| self.probe.is_none_or(|probe| !probe.out)) {
            // Counted from before the gateway heard of it: never longer than the mesh counts it.
            let until_ms = sent_ms.saturating_add(permit.ms);
            self.probe = Some(Probe { id: permit.id, of_mesh: true, until_ms, out: false });
        }
        changed
    }

    fn change(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.counts = Counts::default();
        self.successes = 0;
        self.probe = None;
        self.ended = None;
        self.wanted = false;
        if self.state != State::HalfOpen {
            self.sought_ms = 0;
        }
        if self.state == State::Closed {
            self.waits_since_ms = 0;
        }
    }
}

// === impl Own ===

impl Own {
    /// Whether a call passes `passed_ms` after tests closed it: at first one of ten, in the end all.
    pub fn passes_after(&self, passed_ms: u64, entropy: u32) -> bool {
        let ramp_ms = u64::from(self.ramp_ms);
        if passed_ms >= ramp_ms {
            return true;
        }
        let share = passed_ms.saturating_mul(9).saturating_add(ramp_ms);
        let drawn = (u64::from(entropy).saturating_mul(ramp_ms.saturating_mul(10))) >> 32;
        drawn < share
    }
}

// === impl Counts ===

impl Counts {
    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
        self.slow = self.slow.saturating_add(other.slow);
    }
}

#[cfg(test)]
pub(super) mod tests;
