//! Owns the pace of a timetable: a thread of its own says which calls are due. A runtime's timer is late by a
//! millisecond, which would count as the gateway's.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver};

/// How often it is looked what is due.
const STEP: Duration = Duration::from_micros(50);

/// The numbers of the calls that are due, from 0, `per_s` of them since `begin`, for so long.
pub fn released(per_s: u64, begin: Instant, lasts: Duration) -> UnboundedReceiver<Range<u64>> {
    let (release, releases) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let mut sent = 0;
        while begin.elapsed() < lasts {
            #[expect(
                clippy::disallowed_methods,
                reason = "a timetable is kept: nothing is hoped for"
            )]
            thread::sleep(STEP);
            let passed_us = u64::try_from(begin.elapsed().as_micros()).expect("seconds");
            let until = passed_us * per_s / 1_000_000;
            if until > sent && release.send(sent..until).is_err() {
                break;
            }
            sent = until;
        }
    });
    releases
}
