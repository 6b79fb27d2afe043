//! Owns how many calls may wait for one node of a Cluster that answers nobody. Knows no connections.
//!
//! The places of the gateway are for all nodes: without this bound one that stands still would take them all,
//! and the clients of the others would be turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::clock::Clock;

/// So many may wait for a node that is silent.
const WAITING_MAX: usize = 16;
/// A node that answered nobody for that long, while calls waited, is silent.
const SILENT_US: u64 = 50_000;

/// What one node was asked and has not answered.
pub struct Silence {
    clock: Arc<dyn Clock>,
    /// So many may wait, whatever the node does.
    waiting_max: usize,
    waiting: AtomicUsize,
    /// Those that stand behind others on purpose. That they hear nothing says nothing of the node.
    behind: AtomicUsize,
    /// When it last answered, or when the first of those that wait began to.
    heard_us: AtomicU64,
    /// The last that waited did so in vain.
    suspect: AtomicBool,
}

/// A call that waits.
pub struct Waiting<'s> {
    silence: &'s Silence,
    stands_behind: bool,
    heard: bool,
}

// === impl Silence ===

impl Silence {
    /// Of a node that nobody has asked, where `places` calls are under way at most: half of them may wait for one.
    pub fn new(clock: Arc<dyn Clock>, places: usize) -> Self {
        Self {
            waiting_max: (places / 2).max(1),
            clock,
            waiting: AtomicUsize::new(0),
            behind: AtomicUsize::new(0),
            heard_us: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
        }
    }

    /// Lets a call that is about to be sent wait; none if enough do already, and the node is silent. One that
    /// `stands_behind` others on purpose hears nothing for as long as they last, and takes that for no silence.
    pub fn enter(&self, stands_behind: bool) -> Option<Waiting<'_>> {
        let before = self.count(stands_behind).fetch_add(1, Ordering::Relaxed);
        if self.takes(before, stands_behind) {
            return Some(Waiting { silence: self, stands_behind, heard: false });
        }
        self.count(stands_behind).fetch_sub(1, Ordering::Relaxed);
        None
    }

    fn takes(&self, before: usize, stands_behind: bool) -> bool {
        let others = self.count(!stands_behind).load(Ordering::Relaxed);
        if before.saturating_add(others) >= self.waiting_max {
            return false;
        }
        if stands_behind {
            return true;
        }
        let now_us = self.clock.elapsed_us();
        if before == 0 && !self.suspect.load(Ordering::Relaxed) {
            self.heard_us.store(now_us, Ordering::Relaxed);
        }
        let silent_us = now_us.saturating_sub(self.heard_us.load(Ordering::Relaxed));
        silent_us < SILENT_US || before < WAITING_MAX
    }

    fn count(&self, stands_behind: bool) -> &AtomicUsize {
        if stands_behind { &self.behind } else { &self.waiting }
    }
}

// === impl Waiting ===

impl Waiting<'_> {
    /// The node has answered, whatever it said.
    pub fn heard(mut self) {
        self.heard = true;
        self.silence.heard_us.store(self.silence.clock.elapsed_us(), Ordering::Relaxed);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.stands_behind {
            self.silence.suspect.store(!self.heard, Ordering::Relaxed);
        }
        self.silence.count(self.stands_behind).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_keeps_sixteen_waiting_and_a_slow_one_as_many_as_come() {
        let silence = Silence::new(Arc::new(ManualClock::at(0)), 100);
        let pass = async |ms| tokio::time::advance(Duration::from_millis(ms)).await;
        pass(1_000).await;
        let mut waiting: Vec<Waiting<'_>> =
            (0..49).map(|_| silence.enter(false).expect("new")).collect();
        pass(49).await;
        waiting.push(silence.enter(false).expect("not silent yet"));
        assert!(silence.enter(false).is_none(), "half of the places");
        waiting.pop();
        pass(1).await;
        assert!(silence.enter(false).is_none());
        pass(1).await;
        assert!(silence.enter(true).is_some(), "behind others");
        assert!(silence.enter(false).is_none(), "who stood behind others was not sent in vain");
        waiting.swap_remove(0).heard();
        assert!(silence.enter(false).is_some(), "it answers, if slowly");
        // All give up at once. That is no new beginning: sixteen try.
        pass(50).await;
        waiting.clear();
        pass(5_000).await;
        waiting.extend((0..16).map(|_| silence.enter(false).expect("a try")));
        assert!(silence.enter(false).is_none());
        drop(waiting.pop());
        waiting.push(silence.enter(false).expect("one of them gave up, another may try"));
        assert!(silence.enter(false).is_none());
        waiting.into_iter().for_each(Waiting::heard);
        pass(5_000).await;
        let again: Vec<Waiting<'_>> =
            (0..17).map(|_| silence.enter(false).expect("calm")).collect();
        assert_eq!(again.len(), 17, "nobody waited meanwhile: that is no silence");
    }

    /// Claims that wait for replicas hear nothing for as long as WAIT lasts: no silence for anybody else.
    #[tokio::test(start_paused = true)]
    async fn those_that_stand_behind_others_on_purpose_make_no_node_silent() {
        let silence = Silence::new(Arc::new(ManualClock::at(0)), 100);
        let behind: Vec<_> = (0..40).map(|_| silence.enter(true).expect("room")).collect();
        tokio::time::advance(Duration::from_millis(500)).await;
        let calls: Vec<_> = (0..10).map(|_| silence.enter(false).expect("room")).collect();
        assert!(silence.enter(false).is_none(), "but half of the places are all of them");
        assert!(silence.enter(true).is_none());
        calls.into_iter().for_each(Waiting::heard);
        drop(behind);
        tokio::time::advance(Duration::from_secs(5)).await;
        let calls: Vec<_> = (0..17).map(|_| silence.enter(false).expect("calm")).collect();
        assert_eq!(calls.len(), 17, "and what came of them says nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn of_few_places_half_are_fewer_than_sixteen() {
        for (places, most) in [(1, 1), (10, 5), (31, 15)] {
            let silence = Silence::new(Arc::new(ManualClock::at(0)), places);
            let waiting: Vec<_> = std::iter::from_fn(|| silence.enter(false)).collect();
            assert_eq!(waiting.len(), most, "{places}");
        }
    }
}
