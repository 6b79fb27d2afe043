//! Owns what a process says to the mesh of a breaker: when it asks for a test, and how long it keeps one that nobody
//! came for.
//!
//! The request that is refused never gets the test that it is the wish for: that comes with a tick, and the next
//! request may come much later. So the process goes on wanting one for [`SOUGHT_MS`], and keeps what it got. No
//! process keeps it for longer than [`TURN_MS`] at once, and whoever gives it back lets a tick pass before it asks
//! again, so that another one that wants it gets its turn.

use super::super::mesh::{Batch, Ended, Settled, State};
use super::{Counts, Own, Probe, Process};
use crate::wire::breaker::BreakerState;

/// For how long after a request was refused another one is expected, for which a test is fetched, in ms.
pub const SOUGHT_MS: u64 = 600_000;
/// A gateway that did not answer for that long does not, in ms. So does one that leaves a breaker out of its answers.
pub const ALONE_MS: u64 = 2_000;
/// For how long at most a test is kept that nobody came for, in ms; never for more than half of its time.
const TURN_MS: u64 = 4_000;

// === impl Process ===

impl Process {
    /// Whether it has more to say than what it counted, or will have.
    pub fn is_pending(&self) -> bool {
        let has_test = self.ended.is_some() || self.probe.is_some();
        self.tripped || self.wanted || self.sought_ms > 0 || has_test
    }

    /// Whether it stands as one of which nobody knows anything.
    pub fn is_quiet(&self) -> bool {
        self.state == State::Closed && !self.is_pending() && self.counts.calls == 0
    }

    /// Whether it refuses, at nobody's order, and nobody tests it.
    pub fn is_shut(&self) -> bool {
        let is_tested = self.probe.is_some_and(|probe| probe.out);
        let is_shut = match self.state {
            State::Open | State::HalfOpen => true,
            // By itself, and the mesh did not agree.
            State::Closed => self.tripped,
            State::ForcedOpen | State::Disabled | State::MetricsOnly => false,
        };
        is_shut && !is_tested
    }

    /// The gateway was sent the epoch `said` and answers with `told`. If that is of an earlier one it does not believe the other,
    /// which was of a store whose clock was far ahead: what it says is of this time, and is to be taken.
    pub fn disbelieved(&mut self, said: u64, told: &BreakerState) {
        if told.epoch < self.epoch && said == self.epoch {
            self.epoch = told.epoch.saturating_sub(1).max(1);
        }
    }

    /// Whether it is told, unasked, of an epoch before its own: an old word, or that of a store that lost its records under a
    /// clock that went back. Who reports on the breaker finds out which; what is forced open has nothing to report.
    pub fn doubts(&self, told: &BreakerState) -> bool {
        told.epoch < self.epoch
    }

    /// What the process has to say, if anything; the counts are taken out.
    pub fn report(&mut self, own: &Own, now_ms: u64) -> Option<Batch> {
        self.bound(own, now_ms);
        if self.state.passes() {
            self.lapse(now_ms);
        }
        if now_ms.saturating_sub(self.sought_ms) >= SOUGHT_MS {
            self.sought_ms = 0;
        }
        let kept = self.probe.filter(|probe| probe.of_mesh && !probe.out);
        let gives_back =
            kept.filter(|probe| self.sought_ms == 0 || probe.had_its_turn(own, now_ms));
        if let Some(Probe { id, .. }) = gives_back {
            self.probe = None;
            self.ended = Some(Settled { id, ended: Ended::GivenBack });
        }
        self.probe.take_if(|probe| now_ms >= probe.until_ms);
        let wants = self.wanted || (self.sought_ms > 0 && gives_back.is_none());
        let ask = self.is_due(now_ms) && wants && self.probe.is_none();
        let Counts { calls, failures, slow } = core::mem::take(&mut self.counts);
        let says = calls > 0 || self.tripped || self.ended.is_some() || ask;
        self.wanted = false;
        self.unheard_ms = match self.unheard_ms {
            // While it tests by itself there is nothing to ask for.
            since_ms if !says && self.probe.is_some() => since_ms,
            _ if !says => 0,
            0 => now_ms.max(1),
            since_ms => since_ms,
        };
        self.unheard = self.unheard_ms > 0 && now_ms.saturating_sub(self.unheard_ms) >= ALONE_MS;
        says.then_some(Batch {
            epoch: self.epoch,
            calls,
            failures,
            slow,
            tripped: self.tripped,
            probe: self.ended,
            ask,
        })
    }
}

// === impl Probe ===

impl Probe {
    /// Whether it is another process's turn. How long a turn lasts is spread by its number, so that requests that
    /// come at regular times do not meet the moment between two turns again and again.
    fn had_its_turn(&self, own: &Own, now_ms: u64) -> bool {
        let life_ms = u64::from(own.terms.probe_ms);
        let longest_ms = TURN_MS.min(life_ms / 2);
        let spread = self.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let turn_ms = longest_ms.saturating_sub(spread % (longest_ms / 2).max(1));
        now_ms.saturating_add(life_ms) >= self.until_ms.saturating_add(turn_ms)
    }
}
