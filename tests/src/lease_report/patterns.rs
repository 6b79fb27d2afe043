//! Owns the loads that leases are measured under: how many requests a second each worker sees, and when.

use crate::lab::ideal::Numbers;
use crate::lab::{Requests, SECOND};
use crate::random::Random;

/// Workers of all processes together.
pub const WORKERS: usize = 16;

/// A limit with a burst of the same size.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// As the table shows it.
    pub name: &'static str,
    /// Its numbers.
    pub numbers: Numbers,
    /// How long a load lasts, in seconds: long against what a full bucket gives at once.
    pub length_s: u64,
}

const fn limit(name: &'static str, limit: u64, period_s: u64, length_s: u64) -> Limit {
    let numbers = Numbers { limit, period_ns: period_s * SECOND, burst: limit };
    Limit { name, numbers, length_s }
}

/// The four limits.
pub const LIMITS: [Limit; 4] = [
    limit("1000/s", 1_000, 1, 9),
    limit("6000/min", 6_000, 60, 90),
    limit("100/min", 100, 60, 600),
    limit("5/min", 5, 60, 1_800),
];

/// How a load changes with time and lies over the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// 0.8 times the limit.
    Steady,
    /// 1.5 times.
    Over,
    /// 10 times.
    Attack,
    /// 3 times for a second, then nothing for two.
    Burst,
    /// 1.5 times, 90 % of it on one worker.
    Hot,
    /// 1.5 times, the nth worker with 1/n of the first one's.
    Zipf,
    /// 1.5 times, 90 % of it on one worker, another one each second.
    Rotating,
    /// 0.2 times, a third of the time 10 times, 0.2 times.
    Flash,
}

/// All of them, as the table shows them.
pub const PATTERNS: [Pattern; 8] = [
    Pattern::Steady,
    Pattern::Over,
    Pattern::Attack,
    Pattern::Burst,
    Pattern::Hot,
    Pattern::Zipf,
    Pattern::Rotating,
    Pattern::Flash,
];

// === impl Pattern ===

impl Pattern {
    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady 0.8x",
            Self::Over => "1.5x",
            Self::Attack => "10x",
            Self::Burst => "burst 3x, 1 s of 3",
            Self::Hot => "1.5x, 90 % on one worker",
            Self::Zipf => "1.5x, Zipf over workers",
            Self::Rotating => "1.5x, hot worker changes each second",
            Self::Flash => "0.2x, 10x, 0.2x",
        }
    }

    /// Whether the load is above the limit all the time, so that all of the limit can be admitted.
    pub fn is_sustained(self) -> bool {
        !matches!(self, Self::Burst | Self::Flash)
    }

    /// What comes in a second, in times the limit.
    fn load(self, second: u64, length_s: u64) -> f64 {
        match self {
            Self::Steady => 0.8,
            Self::Over | Self::Hot | Self::Zipf | Self::Rotating => 1.5,
            Self::Attack => 10.0,
            Self::Burst if second.is_multiple_of(3) => 3.0,
            Self::Burst => 0.0,
            Self::Flash if second * 3 / length_s == 1 => 10.0,
            Self::Flash => 0.2,
        }
    }

    /// A worker's part of it.
    fn part(self, second: u64, worker: usize) -> f64 {
        let others = (WORKERS - 1) as f64;
        match self {
            Self::Hot if worker == 0 => 0.9,
            Self::Rotating if worker as u64 == second * 7 % WORKERS as u64 => 0.9,
            Self::Hot | Self::Rotating => 0.1 / others,
            Self::Zipf => {
                let all: f64 = (1..=WORKERS).map(|n| 1.0 / n as f64).sum();
                1.0 / (worker + 1) as f64 / all
            }
            _ => 1.0 / WORKERS as f64,
        }
    }

    /// The requests that a range of workers sees, those numbered from 0.
    pub fn requests(
        self,
        limit: &Limit,
        workers: std::ops::Range<usize>,
        seed: u64,
    ) -> Vec<Requests> {
        let mut random = Random::new(seed);
        let per_s = limit.numbers.limit as f64 * SECOND as f64 / limit.numbers.period_ns as f64;
        let mut all = Vec::new();
        for second in 0..limit.length_s {
            for worker in workers.clone() {
                let expected =
                    per_s * self.load(second, limit.length_s) * self.part(second, worker);
                // Now one more, now one less, so that the sum is right.
                let times = (expected + random.below(1_000) as f64 / 1_000.0) as u64;
                if times == 0 {
                    continue;
                }
                let every_ns = SECOND / times;
                all.push(Requests {
                    at_ns: second * SECOND + random.below(every_ns),
                    times,
                    every_ns,
                    worker: worker - workers.start,
                    key: "k".to_owned(),
                    path: "/p",
                    units: 1,
                });
            }
        }
        all.sort_by_key(|requests| requests.at_ns);
        all
    }
}

/// Clients with a limit each, that stay on a worker for 30 seconds and then go to another one.
pub fn sticky(
    clients: u64,
    per_min: u64,
    length_s: u64,
    workers: std::ops::Range<usize>,
    seed: u64,
) -> Vec<Requests> {
    let mut all = Vec::new();
    for client in 0..clients {
        let mut random = Random::new(seed.wrapping_mul(7_919).wrapping_add(client));
        for stay in 0..length_s / 30 {
            let worker = random.below(WORKERS as u64) as usize;
            let every_ns = 60 * SECOND / per_min;
            let at_ns = stay * 30 * SECOND + random.below(every_ns);
            if workers.contains(&worker) {
                let worker = worker - workers.start;
                let (times, key) = (per_min / 2, format!("c{client}"));
                all.push(Requests { at_ns, times, every_ns, worker, key, path: "/p", units: 1 });
            }
        }
    }
    all.sort_by_key(|requests| requests.at_ns);
    all
}
