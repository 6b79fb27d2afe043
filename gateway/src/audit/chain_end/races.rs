//! Owns when an append that has lost a race for the chain's end is run again.

use std::time::Duration;

/// How often at once, with the head that the store gave.
pub const AT_ONCE_MAX: usize = 6;
/// Then whoever lost waits up to that long, at random, so that the losers do not meet again (product row D2).
const WAITS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40)];
/// How often at once after each wait: the head that it had before is stale by then, so that the first attempt mostly brings
/// no more than the next one.
const AFTER_A_WAIT_MAX: usize = 3;
/// All attempts.
pub const ATTEMPTS_MAX: usize = AT_ONCE_MAX + 1 + WAITS.len() * (AFTER_A_WAIT_MAX + 1);

/// What an append waits ahead of that attempt, from 0; nothing: it is run at once.
pub fn pause(attempt: usize) -> Option<Duration> {
    let most = most(attempt)?;
    let us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
    // Without randomness the whole wait is as good as any.
    Some(Duration::from_micros(getrandom::u64().map_or(us, |random| random % us.max(1))))
}

fn most(attempt: usize) -> Option<Duration> {
    let after = attempt.checked_sub(AT_ONCE_MAX + 1)?;
    let (turn, again) = (after / (AFTER_A_WAIT_MAX + 1), after % (AFTER_A_WAIT_MAX + 1));
    if again > 0 { None } else { WAITS.get(turn).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_at_once_and_four_after_each_of_three_waits() {
        let waits: Vec<u128> = (0..ATTEMPTS_MAX)
            .map(|attempt| most(attempt).map_or(0, |most| most.as_millis()))
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 20, 0, 0, 0, 40, 0, 0, 0]);
    }
}
