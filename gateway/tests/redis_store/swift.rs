//! Owns clocks for what happens once in a while: timers that end in a hundredth of their time, and such that end at a
//! test's word.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::{Clock, Sleep, SystemClock};
use tokio::sync::Semaphore;

/// The machine's clocks, and swift timers.
#[derive(Debug, Default)]
pub struct Swift(SystemClock);

impl Clock for Swift {
    fn unix_us(&self) -> u64 {
        self.0.unix_us()
    }

    fn elapsed_us(&self) -> u64 {
        self.0.elapsed_us()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.0.sleep(duration / 100)
    }
}

/// The machine's clocks, and timers of which those of one length end one by one, as they are let go.
#[derive(Debug)]
pub struct Held {
    clock: SystemClock,
    length: Duration,
    goes_on: Arc<Semaphore>,
}

impl Held {
    /// Holds timers of that length, each until there is a permit for it.
    pub fn new(length: Duration, goes_on: &Arc<Semaphore>) -> Self {
        Self { clock: SystemClock::new(), length, goes_on: Arc::clone(goes_on) }
    }
}

impl Clock for Held {
    fn unix_us(&self) -> u64 {
        self.clock.unix_us()
    }

    fn elapsed_us(&self) -> u64 {
        self.clock.elapsed_us()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if duration != self.length {
            return self.clock.sleep(duration);
        }
        let goes_on = Arc::clone(&self.goes_on);
        Box::pin(async move { goes_on.acquire().await.expect("never closed").forget() })
    }
}
