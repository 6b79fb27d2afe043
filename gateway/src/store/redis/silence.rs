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
    /// When it last answered, or when the first of those that wait began to.
    heard_us: AtomicU64,
    /// The last that waited did so in vain.
    suspect: AtomicBool,
}

/// A call that waits.
pub struct Waiting<'s> {
    silence: &'s Silence,
    heard: bool,
}

// === impl Silence ===

impl Silence {
    /// Of a node that nobody has asked, where `places` calls are under way at most: half of them may wait for one.
    pub fn new(clock: Arc<dyn Clock>, places: usize) -> Self {
        Self {
            waiting_max: (places / 2).max(WAITING_MAX),
            clock,
            waiting: AtomicUsize::new(0),
            heard_us: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
        }
    }

    /// Lets a call begin to wait; none if enough do already, and the node is silent. One that `stands_behind` others on
    /// purpose hears nothing for as long as they last, and takes that for no silence.
    pub fn enter(&self, stands_behind: bool) -> Option<Waiting<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { silence: self, heard: false };
        let now_us = self.clock.elapsed_us();
        if before == 0 && !self.suspect.load(Ordering::Relaxed) {
            self.heard_us.store(now_us, Ordering::Relaxed);
        }
        let silent_us = now_us.saturating_sub(self.heard_us.load(Ordering::Relaxed));
        let is_silent = silent_us >= SILENT_US && !stands_behind;
        let most = if is_silent { WAITING_MAX } else { self.waiting_max };
        (before < most).then_some(waiting)
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
        self.silence.suspect.store(!self.heard, Ordering::Relaxed);
        self.silence.waiting.fetch_sub(1, Ordering::Relaxed);
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
}
