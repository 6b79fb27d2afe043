//! What lay in a worker's memory when that was gone, while its process keeps the key busy: how long it counts as
//! left, and that it does not count for a shorter time than it may be spent.

use super::*;
use crate::lease::holder::Report;

/// A process that is asked for one limit all the time, and the limit's bucket.
struct Busy {
    pool: Pool,
    slices: [Slice; 2],
    terms: Terms,
    held: Option<Held>,
    now_us: u64,
    turns: usize,
    /// What an ideal bucket has, and how far it was below nothing.
    level: f64,
    worst: f64,
}

impl Busy {
    fn new(quota: Quota) -> Self {
        Self {
            pool: Pool::new(7, START_US),
            slices: Default::default(),
            terms: Terms { quota, cold_left_us: 0 },
            held: None,
            now_us: START_US,
            turns: 0,
            level: f64::from(quota.burst()),
            worst: 0.0,
        }
    }

    /// Sent, heard and answered in the same moment.
    fn says(&mut self, report: Option<Report>) {
        let Some(Report { seq, demand, left, back, want }) = report else { return };
        let holder = self.pool.holder();
        let call = Call { holder, seq, demand, left, back, want };
        let now = Instant::from_unix_us(self.now_us);
        let (given, write) = step(now, self.terms, &call, self.held.as_ref());
        if let Some(write) = write {
            self.held = Some(write.held);
        }
        let answer = LeaseGrant {
            deny_us: given.deny_us,
            remaining: given.remaining,
            scarce: given.scarce,
            ..grant(&self.pool, seq, given.granted, given.ttl_us)
        };
        assert!(self.pool.finish(self.now_us, &answer, 0));
    }

    /// Whether it is let through.
    fn request(&mut self, worker: usize) -> bool {
        let slice = &mut self.slices[worker];
        let offer = match slice.take(self.now_us, 1) {
            Offer::Empty => self.pool.meet(self.now_us, slice, 1),
            offer => offer,
        };
        let want = match offer {
            Offer::Taken(reserved) => {
                slice.spend(reserved);
                self.level -= 1.0;
                self.worst = self.worst.max(-self.level);
                self.pool.runs_low(self.now_us).then_some(Want::Ahead)
            }
            Offer::Empty => Some(Want::Now),
            Offer::Denied { .. } => None,
        };
        let report = want.and_then(|want| self.pool.begin(self.now_us, want, TIMEOUT_US));
        self.says(report);
        matches!(offer, Offer::Taken(_))
    }

    /// 10 ms: a request of one worker, then of the other; a tick of all in each fourth of a second.
    fn turn(&mut self) -> bool {
        (self.now_us, self.turns) = (self.now_us + 10_000, self.turns + 1);
        let quota = self.terms.quota;
        let refill = f64::from(quota.limit()) * 10_000.0 / quota.period_us() as f64;
        self.level = (self.level + refill).min(f64::from(quota.burst()));
        if self.turns.is_multiple_of(25) {
            for slice in &mut self.slices {
                told(&mut self.pool, slice, self.now_us);
            }
            let report = self.pool.tick(self.now_us, TIMEOUT_US);
            self.says(report);
        }
        self.request(self.turns % 2)
    }

    /// How many were let through in a second.
    fn second(&mut self) -> usize {
        (0..100).filter(|_| self.turn()).count()
    }

    /// The next request that is let through ends its worker; if none is for two seconds, nobody.
    fn vanishes(&mut self) {
        if (0..200).any(|_| self.turn()) {
            self.slices[self.turns % 2] = Slice::default();
        }
    }
}

/// Each worker that goes takes with it what it had, and its process is never at rest. However often that happens, what is
/// gone comes back within two lives, and the key is worth its rate again; never more than that.
#[test]
fn workers_that_vanish_lock_no_busy_key() {
    for (burst, times) in [(2, 2), (8, 8), (100, 60)] {
        let mut busy = Busy::new(Quota::new(20, SECOND_US, burst).expect("sound"));
        (0..6).for_each(|_| assert!(busy.second() > 0, "burst {burst}"));
        (0..times).for_each(|_| busy.vanishes());
        let seconds: Vec<usize> = (0..12).map(|_| busy.second()).collect();
        let row = format!("burst {burst}, {times} vanished: {seconds:?} admitted a second");
        std::println!("{row}");
        // Two lives of a busy key's lease.
        let after: usize = seconds.iter().skip(4).sum();
        assert!(after >= 8 * 20 * 95 / 100, "{row}");
        assert!(busy.worst < 1e-6, "{row}: {} units too many", busy.worst);
    }
}

/// It counts as left for as long as it may be spent, and for as long again as a clock may step back without being seen;
/// then it does not, although its process was never at rest.
#[test]
fn who_is_gone_is_forgotten_a_moment_after_the_end() {
    const MARGIN_US: u64 = 300_000;
    /// A worker looks at its clock with each tick, and sees a step that is larger than that.
    const UNSEEN_US: u64 = TICK_US + 10_000;
    let (mut pool, mut gone) = (Pool::new(7, START_US), Slice::default());
    filled(&mut pool, START_US, 8, 2 * SECOND_US);
    let ends_us = START_US + 2 * SECOND_US - 2_000 - MARGIN_US;
    busy(&mut pool, &mut gone, START_US + 2_000, 1);
    assert_eq!((gone.units(), pool.units()), (1, 6), "one of two is spent, and nobody heard of it");
    // Two units are out, of which one may still be spent: at that moment, or if the clock steps back then.
    for (now_us, left, spends, spends_then) in [
        (START_US + SECOND_US, 8, true, true),
        (ends_us - 1, 8, true, true),
        (ends_us, 8, false, true),
        (ends_us + MARGIN_US - 1, 8, false, false),
        (ends_us + MARGIN_US, 6, false, false),
    ] {
        // Another worker's tick, a message, and an answer that renews what the pool has.
        pool.settle(now_us, &mut Slice::default(), false);
        pool = Pool::from_bytes(&pool.to_bytes());
        let report = pool.begin(now_us, Want::Ahead, TIMEOUT_US).expect("nothing is under way");
        assert!(pool.finish(now_us, &grant(&pool, report.seq, 0, 2 * SECOND_US), 0));
        let may = |now_us| matches!(gone.clone().take(now_us, 1), Offer::Taken(_));
        let found = (report.left, may(now_us), may(now_us - UNSEEN_US));
        assert_eq!(found, (left, spends, spends_then), "{} µs", now_us - START_US);
    }
    // Whoever comes back after that is of no epoch that is known.
    let now_us = ends_us + MARGIN_US;
    pool.settle(now_us, &mut gone, true);
    assert_eq!((gone.units(), pool.units()), (0, 6));
    assert_eq!(pool.begin(now_us, Want::Nothing, TIMEOUT_US).map(|said| said.left), Some(6));
}
