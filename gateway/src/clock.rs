//! Owns where time comes from: the wall clock, a stopwatch, and timers. Knows nothing that uses
//! them; the service and the memory store take a [`Clock`] as an argument.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A timer that has been set.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The service's only source of time.
pub trait Clock: Send + Sync {
    /// µs since 1970-01-01T00:00:00Z. May step in either direction.
    fn unix_us(&self) -> u64;

    /// µs since a moment of the clock's own choice; never steps back. For durations.
    fn elapsed_us(&self) -> u64;

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The machine's clocks and tokio's timers.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

/// A wall clock that stands still until it is moved; timers and durations are tokio's, so a paused
/// runtime moves them. For tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    unix_us: AtomicU64,
    start: Instant,
}

// === impl SystemClock ===

impl SystemClock {
    /// Starts the stopwatch.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn unix_us(&self) -> u64 {
        // A clock before 1970 counts as 1970: the limits then see a clock that stands still.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        whole_us(since)
    }

    fn elapsed_us(&self) -> u64 {
        whole_us(self.start.elapsed())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

// === impl ManualClock ===

impl ManualClock {
    /// Stands at `unix_us`.
    pub fn at(unix_us: u64) -> Self {
        Self { unix_us: AtomicU64::new(unix_us), start: Instant::now() }
    }

    /// Moves the wall clock; backward too.
    pub fn set(&self, unix_us: u64) {
        self.unix_us.store(unix_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn unix_us(&self) -> u64 {
        self.unix_us.load(Ordering::SeqCst)
    }

    fn elapsed_us(&self) -> u64 {
        whole_us(self.start.elapsed())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A duration in µs; what exceeds 584,000 years counts as that.
pub fn whole_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
