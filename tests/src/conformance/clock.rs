//! Owns the real time of a timeline: its moments, and waiting for them. A scenario's delays are
//! part of what it says; nothing else waits here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};

use super::record::Entry;

/// The beginning of a timeline.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begin: Instant,
    begin_unix_ms: f64,
}

// === impl Clock ===

impl Clock {
    /// A timeline that begins now.
    pub(super) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin: Instant::now(), begin_unix_ms: unix.as_secs_f64() * 1000.0 }
    }

    /// A timeline that begins later.
    pub(super) fn later(&self, by: Duration) -> Self {
        Self {
            begin: self.begin + by,
            begin_unix_ms: self.begin_unix_ms + by.as_secs_f64() * 1000.0,
        }
    }

    /// Waits for a moment of the timeline.
    pub(super) async fn until(&self, at_ns: u64) {
        sleep_until(self.moment(at_ns)).await;
    }

    /// A moment of the timeline on the machine's clock.
    pub(super) fn moment(&self, at_ns: u64) -> Instant {
        self.begin + Duration::from_nanos(at_ns)
    }

    /// Waits for a while.
    pub(super) async fn pass(&self, wait_ns: u64) {
        sleep_until(Instant::now() + Duration::from_nanos(wait_ns)).await;
    }

    /// Milliseconds since the beginning.
    pub(super) fn now_ms(&self) -> f64 {
        let now = Instant::now();
        let before = self.begin.saturating_duration_since(now).as_secs_f64();
        (now.saturating_duration_since(self.begin).as_secs_f64() - before) * 1000.0
    }

    /// An entry of this timeline on another.
    pub(super) fn moved(&self, entry: Entry, to: Self) -> Entry {
        Entry { at_ms: to.at_ms(self.begin_unix_ms + entry.at_ms), ..entry }
    }

    /// A moment of the world's clock on the timeline.
    pub(super) fn at_ms(&self, unix_ms: f64) -> f64 {
        unix_ms - self.begin_unix_ms
    }
}
