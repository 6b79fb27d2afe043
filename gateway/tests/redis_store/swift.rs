//! Owns a clock for what happens once in a while: its timers end in a hundredth of their time.

use std::time::Duration;

use tidegate_gateway::clock::{Clock, Sleep, SystemClock};

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
