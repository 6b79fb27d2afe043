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
    /// Calls that were handed on twice: as good ones by their headers, then as failures by what became of them.
    twice: u32,
}

// === impl Worker ===

impl Worker {
    /// Takes what its process says; what was counted under another generation is gone. Says how many
    /// failures in a row it had seen if it is shut now: they had been let through to what was dead.
    pub fn look(&mut self, process: &Process) -> u32 {
        let mut leaked = 0;
        if self.generation != process.generation {
            leaked = if process.passes() { 0 } else { self.in_row };
            *self = Self { generation: process.generation, ..Self::default() };
        }
        self.passes = process.passes();
        self.healed_at_ms = process.healed_at_ms;
        leaked
    }

    /// Whether a call that began under `generation` was let through before it was shut, and failed since.
    pub fn is_leaked(&self, generation: u32, outcome: Outcome) -> bool {
        outcome == Outcome::Failure && generation != self.generation && !self.passes
    }

    /// Whether only a share of calls passes, as far as it knows; then [`Worker::passes_at`] says which.
    pub fn is_ramping(&self, own: &Own) -> bool {
        self.passes && own.ramp_ms > 0 && self.healed_at_ms > 0
    }

    /// Whether a call that draws `entropy` is of the share that passes now.
    pub fn passes_at(&mut self, own: &Own, now_ms: u64, entropy: u32) -> bool {
        let Some(passed_ms) = now_ms.checked_sub(self.healed_at_ms) else {
            // The clock stepped back: nobody knows how long ago it closed.
            self.healed_at_ms = 0;
            return true;
        };
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

    /// Whether a call that began under `generation` would end a row of failures by ending well.
    pub fn is_in_row(&self, generation: u32) -> bool {
        self.in_row > 0 && generation == self.generation
    }

    /// Counts a call whose answer began well. What it says of failures in a row its end tells:
    /// [`Worker::whole`] or [`Worker::broken`].
    pub fn began(&mut self, generation: u32, slow: bool) {
        if generation == self.generation {
            self.counts.add(Counts { calls: 1, failures: 0, slow: u32::from(slow) });
        }
    }

    /// An answer that began well came to its end.
    pub fn whole(&mut self, generation: u32) {
        if generation == self.generation {
            self.in_row = 0;
        }
    }

    /// An answer that began well was cut off. Says whether its process should be shut.
    pub fn broken(&mut self, generation: u32, consecutive: u32) -> bool {
        if generation != self.generation {
            return false;
        }
        self.counts.add(Counts { calls: 0, failures: 1, slow: 0 });
        self.in_row = self.in_row.saturating_add(1);
        self.in_row >= consecutive
    }

    /// Whether there is something to hand on.
    pub fn has_counted(&self) -> bool {
        self.counts.calls > 0 || self.counts.failures > 0
    }

    /// What it counted, to be handed on. A call that was handed on before it was cut off goes along with its
    /// failure once more, and one of the next is left out for it, so that no call counts twice.
    pub fn take(&mut self) -> Option<Counts> {
        let mut counts = core::mem::take(&mut self.counts);
        let new = counts.calls.saturating_sub(self.twice);
        let left_out = counts.calls.saturating_sub(new);
        counts.calls = new.max(counts.failures).max(counts.slow);
        let again = counts.calls.saturating_sub(new);
        self.twice = self.twice.saturating_sub(left_out).saturating_add(again);
        (counts.calls > 0).then_some(counts)
    }

    /// What was taken under `generation` could not be handed on: it is, with what is counted next.
    pub fn put_back(&mut self, generation: u32, counts: Counts) {
        if generation == self.generation {
            self.counts.add(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(worker: &mut Worker) -> (u32, u32) {
        worker.take().map_or((0, 0), |counts| (counts.calls, counts.failures))
    }

    #[test]
    fn a_call_that_is_cut_off_after_its_headers_were_reported_counts_once() {
        let mut worker = Worker::default();
        (0..10).for_each(|_| worker.began(0, false));
        assert_eq!(taken(&mut worker), (10, 0));
        (0..3).for_each(|_| _ = worker.broken(0, 100));
        assert_eq!(taken(&mut worker), (3, 3), "a report's failures are some of its calls");
        worker.count(0, Outcome::Success, false, 100);
        assert_eq!(taken(&mut worker), (0, 0), "the first of three that make up for it");
        (0..5).for_each(|_| _ = worker.count(0, Outcome::Success, false, 100));
        assert_eq!(taken(&mut worker), (3, 0), "sixteen calls in all");
        // Within one report there is nothing to make up for.
        worker.began(0, false);
        worker.broken(0, 100);
        assert_eq!(taken(&mut worker), (1, 1));
        worker.count(0, Outcome::Success, false, 100);
        assert_eq!(taken(&mut worker), (1, 0));
        // What could not be handed on counts once, too.
        worker.began(0, false);
        worker.take();
        worker.broken(0, 100);
        for _ in 0..3 {
            let counts = worker.take().expect("counted");
            worker.put_back(0, counts);
        }
        assert_eq!(taken(&mut worker), (1, 1));
        worker.count(0, Outcome::Success, false, 100);
        assert_eq!(taken(&mut worker), (0, 0), "it makes up for the one");
        worker.put_back(1, Counts { calls: 9, failures: 9, slow: 9 });
        assert_eq!(taken(&mut worker), (0, 0), "of another time");
        // Of another generation nobody knows.
        worker.began(0, false);
        worker.take();
        worker.broken(0, 100);
        worker.take();
        worker.look(&Process { generation: 1, ..Process::default() });
        worker.count(1, Outcome::Success, false, 100);
        assert_eq!(taken(&mut worker), (1, 0));
    }

    #[test]
    fn a_clock_that_steps_back_behind_a_ramp_ends_it() {
        let process = Process { healed_at_ms: 60_000, ..Process::default() };
        let terms = super::super::process::tests::OWN;
        let mut worker = Worker::default();
        worker.look(&process);
        assert!(worker.is_ramping(&terms) && !worker.passes_at(&terms, 60_000, u32::MAX));
        assert!(worker.passes_at(&terms, 59_999, u32::MAX));
        assert!(!worker.is_ramping(&terms), "until it looks again");
    }

    #[test]
    fn just_so_many_failures_in_a_row_shut_its_process() {
        let mut worker = Worker::default();
        let mut fails = |outcomes: &[Outcome]| {
            outcomes
                .iter()
                .map(|outcome| worker.count(0, *outcome, false, 5))
                .position(|shuts| shuts)
        };
        let [good, bad, nothing] = [Outcome::Success, Outcome::Failure, Outcome::Ignored];
        assert_eq!(fails(&[bad, bad, bad, bad, good]), None);
        assert_eq!(fails(&[bad, bad, nothing, bad, bad, bad]), Some(5));
        assert_eq!(fails(&[bad]), Some(0), "until its process has changed");
        assert!(worker.is_in_row(0) && !worker.is_in_row(1));
        worker.whole(0);
        assert!(!worker.is_in_row(0));
    }

    proptest! {
        /// What is handed on is what there was, but for what later calls have yet to make up for; a report's failures
        /// are some of its calls.
        #[test]
        fn no_call_counts_twice(words in proptest::collection::vec(0..6_u8, 0..200)) {
            let mut worker = Worker::default();
            let (mut under_way, mut calls, mut failures) = (0_u32, 0, 0);
            let (mut told_calls, mut told_failures) = (0, 0);
            for word in words {
                match word {
                    5 => { if let Some(counts) = worker.take() { worker.put_back(0, counts); } }
                    0 => { worker.began(0, false); under_way += 1; calls += 1; }
                    1 if under_way > 0 => { worker.broken(0, 1_000); under_way -= 1; failures += 1; }
                    2 => { worker.count(0, Outcome::Success, false, 1_000); calls += 1; }
                    3 => { worker.count(0, Outcome::Failure, true, 1_000); calls += 1; failures += 1; }
                    _ => {
                        let (calls, failures) = taken(&mut worker);
                        prop_assert!(failures <= calls);
                        told_calls += calls;
                        told_failures += failures;
                    }
                }
            }
            let (last_calls, last_failures) = taken(&mut worker);
            prop_assert_eq!(told_failures + last_failures, failures);
            prop_assert_eq!(told_calls + last_calls, calls + worker.twice);
            for _ in 0..worker.twice {
                worker.count(0, Outcome::Success, false, 1_000);
            }
            prop_assert_eq!(taken(&mut worker), (0, 0), "made up for");
        }
    }
}
