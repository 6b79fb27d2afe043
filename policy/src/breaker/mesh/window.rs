//! Owns what a breaker looks back on: calls in buckets, by time or by count, and whether they are too
//! many failures. Buckets by time are named by their time, so that none is reset and none counts twice.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Batch, Cause, Terms, Usual};

/// A window is at most that many buckets, and one that fills.
pub const BUCKETS_MAX: usize = 11;
const PARTS: u64 = 10;
const COUNT_MAX: u64 = 0xffff_ffff;

/// What is looked back on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The last so many ms, in tenths: up to a tenth less is seen.
    Ms(u32),
    /// The last so many calls, and up to one report more.
    Calls(u32),
}

/// A part of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Which part of time, counted from 1970; 0 in a window by count.
    pub number: u64,
    /// Calls, at most 2^32 - 1.
    pub calls: u64,
    /// Of them failures.
    pub failures: u64,
    /// Of them slow ones.
    pub slow: u64,
}

/// A tenth of the window, at least 1.
pub(super) fn part(span: u32) -> u64 {
    (u64::from(span) / PARTS).max(1)
}

/// Takes out what is over, and hands it on.
pub(super) fn swept(
    buckets: &mut Vec<Bucket>,
    window: &Window,
    now_ms: u64,
    mut over: impl FnMut(&Bucket),
) {
    match *window {
        Window::Ms(span) => {
            let current = now_ms / part(span);
            buckets.retain(|bucket| {
                let is_over = bucket.number.saturating_add(PARTS) <= current;
                if is_over {
                    over(bucket);
                }
                // A clock that stepped back: what lies ahead of it is forgotten.
                !is_over && bucket.number <= current
            });
        }
        Window::Calls(_) => {}
    }
}

/// Adds a report.
pub(super) fn add(buckets: &mut Vec<Bucket>, window: &Window, now_ms: u64, batch: &Batch) {
    let (number, room) = match *window {
        Window::Ms(span) => (now_ms / part(span), u64::MAX),
        Window::Calls(span) => (0, part(span)),
    };
    if !buckets.last().is_some_and(|last| last.number == number && last.calls < room) {
        buckets.push(Bucket { number, calls: 0, failures: 0, slow: 0 });
    }
    if let Some(last) = buckets.last_mut() {
        last.calls = last.calls.saturating_add(u64::from(batch.calls)).min(COUNT_MAX);
        last.failures = last.failures.saturating_add(u64::from(batch.failures)).min(COUNT_MAX);
        last.slow = last.slow.saturating_add(u64::from(batch.slow)).min(COUNT_MAX);
    }
    let beyond = |buckets: &[Bucket]| match *window {
        Window::Ms(_) => false,
        Window::Calls(span) => {
            let rest = buckets.iter().skip(1).map(|bucket| bucket.calls).sum::<u64>();
            buckets.len() > 1 && rest >= u64::from(span)
        }
    };
    while beyond(buckets) || buckets.len() > BUCKETS_MAX {
        buckets.remove(0);
    }
}

/// Calls, failures and slow calls.
pub(super) fn sums(buckets: &[Bucket]) -> (u64, u64, u64) {
    buckets.iter().fold((0, 0, 0), |(calls, failures, slow), bucket| {
        (calls + bucket.calls, failures + bucket.failures, slow + bucket.slow)
    })
}

/// Whether it is too much.
pub(super) fn judged(buckets: &[Bucket], usual: &Usual, terms: &Terms) -> Option<Cause> {
    let (calls, failures, slow) = sums(buckets);
    if calls == 0 || calls < u64::from(terms.min_calls) {
        return None;
    }
    let reached =
        |count: u64, permille: u16| permille > 0 && count * 1_000 >= calls * u64::from(permille);
    if reached(failures, terms.failure_permille) {
        Some(Cause::Failures)
    } else if reached(slow, terms.slow_permille) {
        Some(Cause::Slow)
    } else if terms.adaptive.is_some_and(|one| one.is_unusual(usual, calls, failures)) {
        Some(Cause::Unusual)
    } else {
        None
    }
}
