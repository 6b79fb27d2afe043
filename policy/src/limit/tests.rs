//! Tests of the joint step: mixed algorithms, cold regions, and what is settled afterwards.

use super::*;
use crate::gcra::EPOCH_US;
use proptest::prelude::*;
use std::vec;

/// The end of a tick of a minute's window.
const START_US: u64 = EPOCH_US + (63_072_000_000_000 | ((1 << 18) - 1));
const MINUTE_US: u64 = 60_000_000;

fn terms(algorithm: Algorithm, limit: u32, burst: u32, cold_left_us: u64) -> Terms {
    Terms { algorithm, quota: Quota::new(limit, MINUTE_US, burst).expect("sound"), cold_left_us }
}

/// A store of one limit.
struct Store {
    terms: Terms,
    held: Option<Held>,
    refunds: Refunds,
    began_us: u64,
}

impl Store {
    fn new(terms: Terms) -> Self {
        Self { terms, held: None, refunds: Refunds::default(), began_us: 0 }
    }

    fn take(&mut self, unix_us: u64, cost: u32) -> Reading {
        let charge = Charge { terms: self.terms, cost, alone: false, held: self.held.as_ref() };
        let answer = check(Instant::from_unix_us(unix_us), &[charge]);
        let (reading, write) = answer.limits.into_iter().next().expect("one");
        self.held = write.map(|write| write.held).or(self.held.take());
        reading
    }

    fn settle(&mut self, unix_us: u64, by: i64, age_us: u64) {
        self.settle_with(unix_us, by, age_us, None);
    }

    fn settle_with(&mut self, unix_us: u64, by: i64, age_us: u64, receipt: Option<Receipt>) {
        let held = self.held.as_ref();
        let (terms, charged_cold, began_us) = (self.terms, false, self.began_us);
        let change = Change { terms, by, age_us, charged_cold, receipt, began_us, held };
        if let Some(write) = settle(Instant::from_unix_us(unix_us), &change, &mut self.refunds) {
            self.held = Some(write.held);
        }
    }
}

#[test]
fn a_gcra_and_a_window_are_charged_together_or_not_at_all() {
    let now = Instant::from_unix_us(START_US);
    let gcra = terms(Algorithm::Gcra, 10, 10, 0);
    let window = terms(Algorithm::Window, 3, 3, 0);
    let both = |cost, held: [Option<&Held>; 2]| {
        let [one, two] = held;
        let charge = |terms, held| Charge { terms, cost, alone: false, held };
        check(now, &[charge(gcra, one), charge(window, two)])
    };
    let admitted = both(3, [None, None]);
    assert!(admitted.allowed);
    let writes: Vec<Held> =
        admitted.limits.into_iter().map(|(_, write)| write.expect("charged").held).collect();
    let denied = both(1, [writes.first(), writes.get(1)]);
    assert!(!denied.allowed);
    assert!(denied.limits.iter().all(|(_, write)| write.is_none()), "nobody is charged");
    assert_eq!(denied.limits[0].0.remaining, 7);
    assert_eq!(denied.limits[1].0.retry, Retry::AfterUs(MINUTE_US));
}

#[test]
fn what_counts_for_itself_denies_nobody_and_stops_no_other() {
    let now = Instant::from_unix_us(START_US);
    for algorithm in Algorithm::ALL {
        let one = terms(algorithm, 1, 1, 0);
        let many = terms(algorithm, 10, 10, 0);
        let mut used = Store::new(one);
        used.take(START_US, 1);
        let charge = |terms, alone, held| Charge { terms, cost: 1, alone, held };
        let step = |others, held| {
            check(
                now,
                &[
                    charge(one, true, used.held.as_ref()),
                    charge(many, true, None),
                    charge(others, false, held),
                ],
            )
        };
        let answer = step(many, None);
        assert!(answer.allowed, "{algorithm:?}");
        let [(one_says, None), (_, Some(_)), (_, Some(_))] = answer.limits.as_slice() else {
            panic!("{algorithm:?} {:?}", answer.limits);
        };
        assert_ne!(one_says.retry, Retry::Fits);
        let answer = step(one, used.held.as_ref());
        assert!(!answer.allowed);
        assert!(answer.limits.iter().all(|(_, write)| write.is_none()), "{algorithm:?}");
    }
}

/// Product row A2, literally: 500 requests over the first minute.
#[test]
fn a_cold_minute_admits_at_most_half() {
    for algorithm in Algorithm::ALL {
        for limit in [1u32, 2, 3, 4, 5, 10, 99, 100, 400] {
            let burst = if algorithm == Algorithm::Gcra { limit.min(60) } else { limit };
            let mut store = Store::new(terms(algorithm, limit, burst, 300_000_000));
            let fits = |n: &u64| store.take(START_US + n * MINUTE_US / 499, 1).retry == Retry::Fits;
            let admitted = (0..500u64).filter(fits).count();
            let half = usize::try_from(limit / 2).expect("small").max(1);
            // A window forgets what is a whole period old; the last request is just that.
            let more = usize::from(algorithm == Algorithm::Window) * half;
            assert!((half..=half + more).contains(&admitted), "{algorithm:?} {limit}: {admitted}");
            assert!(admitted == half || algorithm == Algorithm::Window, "{limit}: {admitted}");
        }
    }
}

#[test]
fn what_is_above_a_cold_burst_waits_until_the_region_is_warm() {
    let mut store = Store::new(terms(Algorithm::Gcra, 100, 100, 123_000_000));
    assert_eq!(store.take(START_US, 26).retry, Retry::AfterUs(123_000_000));
    assert_eq!(store.take(START_US, 101).retry, Retry::Never);
    assert_eq!(store.take(START_US, 25).remaining, 0);
}

#[test]
fn warmth_brings_the_rest_and_not_a_second_burst() {
    let mut store = Store::new(terms(Algorithm::Gcra, 100, 100, 1));
    assert_eq!(store.take(START_US, 25).remaining, 0);
    store.terms.cold_left_us = 0;
    let warm = store.take(START_US, 0).remaining;
    assert!(warm <= 75, "{warm}: what was charged while cold weighs no less now");
    assert_eq!(store.take(START_US + MINUTE_US, 0).remaining, 100);
}

/// Two gateways that disagree on how long a region is cold take turns: what the one admitted is not
/// written down by the other.
#[test]
fn a_gateway_that_finds_the_region_cold_forgets_nothing_that_another_admitted() {
    for algorithm in Algorithm::ALL {
        let burst = if algorithm == Algorithm::Gcra { 400 } else { 100 };
        let (warm, cold) =
            (terms(algorithm, 100, burst, 0), terms(algorithm, 100, burst, MINUTE_US));
        let mut store = Store::new(warm);
        let mut admitted = 0;
        for turn in 0..2_000u64 {
            store.terms = if turn % 2 == 0 { warm } else { cold };
            let reading = store.take(START_US + turn, 1);
            admitted += u32::from(reading.retry == Retry::Fits);
            if turn % 100 == 51 {
                store.settle(START_US + turn, 1, 0);
            }
        }
        assert!(admitted <= burst, "{algorithm:?}: {admitted} of {burst}");
    }
}

/// Another master takes over whose clock differs by half a minute. Where it is behind it admits nothing
/// more; where it is ahead, what comes back within the difference. Nobody waits longer than it takes to
/// pay a burst and a debt.
#[test]
fn a_master_whose_clock_differs_admits_at_most_what_comes_back_in_the_difference() {
    const APART_US: u64 = 30_000_000;
    for (algorithm, [level, behind, ahead]) in
        [(Algorithm::Gcra, [120, 120, 150]), (Algorithm::Window, [60, 60, 120])]
    {
        let clocks = [(APART_US, level), (0, behind), (2 * APART_US, ahead)];
        for (then_us, most) in clocks {
            let mut store = Store::new(terms(algorithm, 60, 60, 0));
            let mut admitted = 0;
            for turn in 0..600u64 {
                let clock_us = if turn < 300 { APART_US } else { then_us };
                let reading = store.take(START_US + turn * 100_000 + clock_us, 1);
                admitted += u64::from(reading.retry == Retry::Fits);
                if let Retry::AfterUs(wait_us) = reading.retry {
                    assert!(wait_us <= 2 * MINUTE_US, "{algorithm:?}: {wait_us}");
                }
            }
            assert!(admitted <= most, "{algorithm:?} {then_us}: {admitted} of {most}");
            assert!(then_us != APART_US || admitted + 1 >= most, "{algorithm:?}: {admitted}");
        }
    }
}

#[test]
fn debt_is_paid_before_anything_is_admitted_and_is_bounded() {
    for algorithm in Algorithm::ALL {
        let mut store = Store::new(terms(algorithm, 10, 10, 0));
        assert_eq!(store.take(START_US, 4).remaining, 6);
        store.settle(START_US, 8, 0);
        let reading = store.take(START_US, 0);
        assert_eq!(reading.remaining, 0, "{algorithm:?}");
        assert_ne!(reading.retry, Retry::Fits, "{algorithm:?}: in debt nobody looks in for free");
        store.settle(START_US, 1_000_000, 0);
        let wait_us = match store.take(START_US, 1).retry {
            Retry::AfterUs(wait_us) => wait_us,
            other => panic!("{algorithm:?} {other:?}"),
        };
        let expected = match algorithm {
            Algorithm::Gcra => 66_000_000,
            Algorithm::Window => MINUTE_US,
        };
        assert_eq!(wait_us, expected, "{algorithm:?}: ten of debt and one more");
        assert_eq!(store.take(START_US + wait_us, 1).retry, Retry::Fits, "{algorithm:?}");
    }
}

#[test]
fn what_was_reserved_too_much_comes_back_once_and_not_what_ran_out_by_itself() {
    let mut store = Store::new(terms(Algorithm::Gcra, 10, 10, 0));
    store.take(START_US, 8);
    store.settle(START_US, -5, 0);
    assert_eq!(store.take(START_US, 0).remaining, 7);
    store.take(START_US, 7);
    // Of five units, three came back by themselves in 18 s.
    store.settle(START_US + 18_000_000, -5, 18_000_000);
    assert_eq!(store.take(START_US + 18_000_000, 0).remaining, 5);
    store.settle(START_US + 18_000_000, -5, 30_000_000);
    assert_eq!(store.take(START_US + 18_000_000, 0).remaining, 5, "too old");
    let mut empty = Store::new(terms(Algorithm::Gcra, 10, 10, 0));
    empty.settle(START_US, -5, 0);
    assert_eq!(empty.held, None, "nothing is held, so nothing can be given back");
}

fn quota() -> impl Strategy<Value = (u32, u64, u32)> {
    (1u32..60, 1_000u64..10_000_000, 1u32..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// While a region is cold at most half in any period, its ends included for GCRA.
    #[test]
    fn a_cold_region_admits_at_most_half_in_any_period(
        (limit, period_us, burst) in quota(), window in any::<bool>(),
        moves in prop::collection::vec((0u64..300_000, 1u32..4), 1..300),
    ) {
        let algorithm = if window { Algorithm::Window } else { Algorithm::Gcra };
        let burst = if window { limit } else { burst };
        let quota = algorithm.quota(limit, period_us, burst).expect("sound");
        let mut store = Store::new(Terms { algorithm, quota, cold_left_us: u64::MAX });
        let mut admitted: Vec<(u64, u64)> = vec![];
        let mut now_us = START_US;
        for (wait_us, cost) in moves {
            now_us += wait_us;
            match store.take(now_us, cost).retry {
                Retry::Fits => {}
                Retry::AfterUs(u64::MAX) | Retry::Never => continue,
                Retry::AfterUs(wait) => {
                    now_us += wait;
                    prop_assert_eq!(store.take(now_us, cost).retry, Retry::Fits);
                }
            }
            admitted.push((now_us, cost.into()));
        }
        let half = u64::from((limit / 2).max(1));
        for (index, (from_us, _)) in admitted.iter().enumerate() {
            let within = |at_us: u64| match algorithm {
                Algorithm::Window => at_us - from_us < period_us,
                Algorithm::Gcra => at_us - from_us <= period_us,
            };
            let sum: u64 =
                admitted[index..].iter().take_while(|(at, _)| within(*at)).map(|(_, c)| c).sum();
            prop_assert!(sum <= half, "{sum} of {half}");
        }
    }

    /// Of GCRA: what is given back never lets in more than if it had never been charged.
    #[test]
    fn a_refund_is_no_gain(
        (limit, period_us, burst) in quota(), charged in 1u32..40, back in 1u32..40,
        waits in prop::collection::vec((0u64..500_000, 0u32..5), 0..20),
    ) {
        let quota = Quota::new(limit, period_us.max(limit.into()), burst).expect("sound");
        let terms = Terms { algorithm: Algorithm::Gcra, quota, cold_left_us: 0 };
        let charged = charged.min(burst);
        let back = back.min(charged);
        let (mut with, mut without) = (Store::new(terms), Store::new(terms));
        with.take(START_US, charged);
        without.take(START_US, charged - back);
        let mut now_us = START_US;
        for (wait_us, cost) in waits {
            now_us += wait_us;
            if with.take(now_us, cost).retry == Retry::Fits {
                prop_assert_eq!(without.take(now_us, cost).retry, Retry::Fits);
            }
        }
        with.settle(now_us, -i64::from(back), now_us - START_US);
        prop_assert!(with.take(now_us, 0).remaining <= without.take(now_us, 0).remaining);
    }
}
mod disagreeing;
mod refunds;
