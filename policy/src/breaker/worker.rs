//! Owns what one worker knows of a breaker: who may call, as it last looked, and what it counted since.
//! A call of a closed breaker that ends well costs an addition.

use super::Outcome;
use super::process::{Counts, Own, Process};

/// One worker's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worker {
    /// Which generation of its process it knows.
    pub generation: u32,
    /// Whether all calls pass, as far as it knows.
    pub passes: bool,
    /// Closed by tests: since then, in ms; 0: not, or so long ago that all calls pass.
    pub healed_at_ms: u64,
    /// Failures in a row.
    in_row: u32,
    /// Counted since the last time that it was handed on.
    counts: Counts,
}

// === impl Worker ===

impl Worker {
    /// Takes what its process says; what was counted under another generation is gone.
    pub fn look(&mut self, process: &Process) {
        if self.generation != process.generation {
            *self = Self { generation: process.generation, ..Self::default() };
        }
        self.passes = process.passes();
        self.healed_at_ms = process.healed_at_ms;
    }

    /// Whether only a share of calls passes, as far as it knows; then [`Worker::passes_at`] says which.
    pub fn is_ramping(&self, own: &Own) -> bool {
        self.passes && own.ramp_ms > 0 && self.healed_at_ms > 0
    }

    /// Whether a call that draws `entropy` is of the share that passes now.
    pub fn passes_at(&mut self, own: &Own, now_ms: u64, entropy: u32) -> bool {
        let passed_ms = now_ms.saturating_sub(self.healed_at_ms);
        if passed_ms >= u64::from(own.ramp_ms) {
            self.healed_at_ms = 0;
        }
        own.passes_after(passed_ms, entropy)
    }

    /// Counts a call that began under `generation`. Says whether its process should be shut.
    pub fn count(
        &mut self,
        generation: u32,
        outcome: Outcome,
        slow: bool,
        consecutive: u32,
    ) -> bool {
        if generation != self.generation || outcome == Outcome::Ignored {
            return false;
        }
        let failed = outcome == Outcome::Failure;
        self.counts.add(Counts { calls: 1, failures: u32::from(failed), slow: u32::from(slow) });
        self.in_row = if failed { self.in_row.saturating_add(1) } else { 0 };
        failed && self.in_row >= consecutive
    }

    /// What it counted, to be handed on.
    pub fn take(&mut self) -> Option<Counts> {
        let counts = core::mem::take(&mut self.counts);
        (counts.calls > 0).then_some(counts)
    }
}
