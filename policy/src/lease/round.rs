//! Owns whose turn it is to be asked for again: pools that deny, some with each tick of a process and all
//! in turn, so that neither the message nor the gateway's work grows with the clients that are over a limit.

use super::holder::TICK_US;
use super::slot::RECORDS_MAX;

/// From the beginning of one round to that of the next, in µs; a tick may come a little early.
const ROUND_US: u64 = 2_000_000 - TICK_US / 10;
/// The most pools of a tick: half of what a message holds.
pub const ASKS_MAX: usize = 64;

/// A round through the slots of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rounds {
    begun_us: u64,
    /// The first slot that had no turn in this round.
    next: u16,
    /// How many may be asked for in this tick.
    left: usize,
    /// The last tick's were too few for all.
    is_short: bool,
}

// === impl Rounds ===

impl Rounds {
    /// A tick begins; its slots follow in ascending order.
    pub fn tick(&mut self, now_us: u64) {
        // A clock that stepped back must not end the rounds.
        let is_due = now_us.checked_sub(self.begun_us).is_none_or(|us| us >= ROUND_US);
        if is_due && !self.is_short {
            (self.begun_us, self.next) = (now_us, 0);
        }
        (self.left, self.is_short) = (ASKS_MAX, false);
    }

    /// Whether the pools of this slot have their turn now, all of them.
    pub fn reaches(&mut self, slot: u16) -> bool {
        if slot < self.next {
            return false;
        }
        if self.left < RECORDS_MAX {
            self.is_short = true;
            return false;
        }
        self.next = slot.saturating_add(1);
        true
    }

    /// So many of them were asked for.
    pub fn asked(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }
}
