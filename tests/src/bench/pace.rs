//! Owns the pace of a timetable: a thread of its own says which calls are due. A runtime's timer is late by a
//! millisecond, which would count as the gateway's.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver};

/// It is looked no more often than that what is due.
const STEP: Duration = Duration::from_micros(50);

/// The numbers of the calls that are due, from 0, `per_s` of them since `begin`, for so long.
pub fn released(per_s: u64, begin: Instant, lasts: Duration) -> UnboundedReceiver<Range<u64>> {
    let (release, releases) = mpsc::unbounded_channel();
    thread::spawn(move || {
        wakes_in_time();
        let mut sent = 0;
        while begin.elapsed() < lasts {
            let wait = due(sent, per_s).saturating_sub(begin.elapsed());
            rest(wait.max(STEP));
            let passed_us = u64::try_from(begin.elapsed().as_micros()).expect("seconds");
            // The first is due at once.
            let until = passed_us * per_s / 1_000_000 + 1;
            if until > sent && release.send(sent..until).is_err() {
                break;
            }
            sent = until;
        }
    });
    releases
}

/// Until the next call is due.
#[expect(clippy::disallowed_methods, reason = "a timetable is kept: nothing is hoped for")]
pub fn rest(wait: Duration) {
    thread::sleep(wait);
}

/// How long after the beginning a call is due.
pub fn due(nth: u64, per_s: u64) -> Duration {
    Duration::from_micros(nth * 1_000_000 / per_s)
}

/// The kernel lets a thread's timers be late by 50 µs otherwise.
fn wakes_in_time() {
    // SAFETY: it takes no memory, and concerns the calling thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}
