//! Owns what an operator may order a breaker to be.

use serde::{Deserialize, Serialize};

use super::step::{Step, jittered_ms};
use super::{Cause, State, Usual};
use crate::breaker::alone::Settings;

/// An operator's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Open, as if it had tripped.
    Trip,
    /// Closed, as if it were new.
    Reset,
    /// Nobody calls, whatever happens.
    ForceOpen,
    /// All call, whatever happens.
    Disable,
    /// All call, and what would have happened is told.
    MetricsOnly,
}

// === impl Order ===

impl Order {
    /// Every order, by its number, from 1.
    pub const ALL: [Self; 5] =
        [Self::Trip, Self::Reset, Self::ForceOpen, Self::Disable, Self::MetricsOnly];
}

// === impl Step ===

impl Step {
    pub(super) fn order(&mut self, order: Order, for_ms: u64, entropy: u32) {
        let until_ms = if for_ms == 0 { 0 } else { self.now_ms.saturating_add(for_ms) };
        match order {
            Order::Trip => {
                self.record.trips = self.record.trips.saturating_add(1);
                self.enter(State::Open, Cause::Operator);
                let open_ms = match for_ms {
                    0 => jittered_ms(u64::from(Settings::default().open_ms), entropy),
                    // As it was said, to the ms.
                    for_ms => for_ms,
                };
                self.record.until_ms = self.now_ms.saturating_add(open_ms);
            }
            Order::Reset => {
                (self.record.trips, self.record.usual) = (0, Usual::default());
                self.enter(State::Closed, Cause::Operator);
            }
            Order::ForceOpen => {
                self.enter(State::ForcedOpen, Cause::Operator);
                self.record.until_ms = until_ms;
            }
            Order::Disable => {
                self.enter(State::Disabled, Cause::Operator);
                self.record.until_ms = until_ms;
            }
            Order::MetricsOnly => {
                self.enter(State::MetricsOnly, Cause::Operator);
                self.record.until_ms = until_ms;
            }
        }
    }
}
