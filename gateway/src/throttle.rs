//! Owns "at most so many per interval, and how many were left out". Knows neither clocks nor logs:
//! the time is an argument.

use std::sync::{Mutex, PoisonError};

/// Lets the first few events of each interval through and counts the rest.
#[derive(Debug)]
pub struct Throttle {
    interval_us: u64,
    per_interval: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    started_us: Option<u64>,
    let_through: u32,
    held_back: u64,
}

// === impl Throttle ===

impl Throttle {
    /// `per_interval` events every `interval_us`.
    pub fn new(per_interval: u32, interval_us: u64) -> Self {
        Self { interval_us, per_interval, state: Mutex::default() }
    }

    /// `Some(n)` if the event at `now_us` may pass, with the number held back since the last one
    /// that passed. A clock that stepped back starts a new interval.
    pub fn admit(&self, now_us: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let running = state.started_us.is_some_and(|started| {
            now_us.checked_sub(started).is_some_and(|passed| passed < self.interval_us)
        });
        if !running {
            state.started_us = Some(now_us);
            state.let_through = 0;
        }
        if state.let_through < self.per_interval {
            state.let_through += 1;
            Some(std::mem::take(&mut state.held_back))
        } else {
            state.held_back += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_interval_pass_with_the_count_of_the_rest() {
        let throttle = Throttle::new(2, 10);
        let passed: Vec<_> = [0, 1, 2, 9, 10, 11, 12].map(|t| throttle.admit(t)).into();
        assert_eq!(passed, [Some(0), Some(0), None, None, Some(2), Some(0), None]);
        assert_eq!(throttle.admit(5), Some(1), "a step back starts anew");
    }
}
