//! Tests of the GCRA step: tables, the envelope, and an exact model in whole numbers.

use super::*;
use proptest::prelude::*;
use std::vec;

const START_US: u64 = 1_800_000_000_000_000;

fn quota(limit: u32, period_us: u64, burst: u32) -> Quota {
    Quota::new(limit, period_us, burst).expect("a sound quota")
}

/// A store of one bucket.
struct Bucket {
    quota: Quota,
    tat: Option<Tat>,
    reach: Reach,
}

impl Bucket {
    fn new(quota: Quota) -> Self {
        Self { quota, tat: None, reach: Reach::UNKNOWN }
    }

    fn take(&mut self, unix_us: u64, cost: u32) -> Reading {
        let charge = Charge { quota: self.quota, cost, tat: self.tat, reach: self.reach };
        let answer = check(Instant::from_unix_us(unix_us), &[charge]);
        let (reading, write) = answer.limits[0];
        if let Some(write) = write {
            (self.tat, self.reach) = (Some(write.tat), write.reach);
        }
        reading
    }
}

#[test]
fn five_a_minute_admits_five_at_once_and_then_one_every_twelve_seconds() {
    let mut bucket = Bucket::new(quota(5, 60_000_000, 5));
    for left in (0..5).rev() {
        let reading = bucket.take(START_US, 1);
        let expected = Reading {
            remaining: left,
            next_us: 12_000_000,
            reset_us: (5 - left) * 12_000_000,
            retry: Retry::Fits,
        };
        assert_eq!(reading, expected);
    }
    let denied = bucket.take(START_US, 1);
    assert_eq!(denied.retry, Retry::AfterUs(12_000_000));
    assert_eq!(denied.remaining, 0);
    assert_eq!(bucket.take(START_US + 11_999_999, 1).retry, Retry::AfterUs(1));
    assert_eq!(bucket.take(START_US + 12_000_000, 1).retry, Retry::Fits);
    assert_eq!(bucket.take(START_US + 12_000_000, 1).retry, Retry::AfterUs(12_000_000));
}

#[test]
fn costs_peeks_and_what_never_fits() {
    let mut bucket = Bucket::new(quota(10, 1_000_000, 4));
    assert_eq!(bucket.take(START_US, 0).remaining, 4);
    assert_eq!(bucket.take(START_US, 3).remaining, 1);
    assert_eq!(bucket.take(START_US, 2).retry, Retry::AfterUs(100_000));
    assert_eq!(bucket.take(START_US, 0).remaining, 1, "a denial costs nothing");
    assert_eq!(bucket.take(START_US, 5).retry, Retry::Never);
    assert_eq!(
        bucket.take(START_US + 10_000_000, 0),
        Reading { remaining: 4, next_us: 0, reset_us: 0, retry: Retry::Fits }
    );
}

#[test]
fn all_or_nothing_over_several_limits() {
    let wide =
        Charge { quota: quota(100, 1_000_000, 100), cost: 1, tat: None, reach: Reach::UNKNOWN };
    let now = Instant::from_unix_us(START_US);
    let used = check(
        now,
        &[Charge { quota: quota(1, 1_000_000, 1), cost: 1, tat: None, reach: Reach::UNKNOWN }],
    )
    .limits[0]
        .1
        .map(|w| w.tat);
    let tight = Charge { quota: quota(1, 1_000_000, 1), cost: 1, tat: used, reach: Reach::UNKNOWN };
    let answer = check(now, &[wide, tight]);
    assert!(!answer.allowed);
    assert_eq!(answer.limits[0].0.remaining, 100, "the wide limit is untouched");
    assert!(answer.limits.iter().all(|(_, write)| write.is_none()));
}

#[test]
fn a_clock_that_steps_back_and_a_limit_that_shrinks_are_clamped() {
    let mut bucket = Bucket::new(quota(10, 1_000_000, 10));
    bucket.take(START_US, 10);
    let early_us = START_US - 3_600_000_000;
    // As if in debt, since a stored time does not say why it lies so far ahead.
    assert_eq!(bucket.take(early_us, 1).retry, Retry::AfterUs(1_100_000));
    assert_eq!(bucket.take(early_us + 1_100_000, 1).retry, Retry::Fits, "and it keeps its word");
    bucket.take(START_US, 10);
    bucket.quota = quota(2, 1_000_000, 2);
    assert_eq!(bucket.take(START_US, 1).retry, Retry::AfterUs(500_000));
}

#[test]
fn quotas_that_cannot_be_are_refused() {
    assert_eq!(Quota::new(0, 1, 1), Err(BadQuota::Zero));
    assert_eq!(Quota::new(1, 1, 0), Err(BadQuota::Zero));
    assert_eq!(Quota::new(2, 1, 1), Err(BadQuota::TooFast));
    assert_eq!(Quota::new(1, 86_400_000_000, 1_000_000), Err(BadQuota::TooSlow));
    assert_eq!(Quota::new(u32::MAX, u64::MAX, u32::MAX), Err(BadQuota::TooSlow));
}

/// The same bucket in whole numbers of 1/16 µs.
struct Exact {
    interval: u128,
    burst: u128,
    tat: Option<u128>,
}

impl Exact {
    /// How far off the horizon the cost is, in 1/16 µs; it fits at 0 and below.
    fn take(&mut self, now_us: u128, cost: u128) -> i128 {
        let now = now_us * 16;
        let horizon = now + self.burst * self.interval;
        let tat = self.tat.unwrap_or(now).clamp(now, horizon);
        let after = tat + cost * self.interval;
        let over = after as i128 - horizon as i128;
        if over <= 0 && cost > 0 {
            self.tat = Some(after);
        }
        over
    }
}

fn steps() -> impl Strategy<Value = (u32, u64, u32, Vec<(u64, u32)>)> {
    let quota = (1u32..2_000, 1_000u64..100_000_000, 1u32..3_000);
    let moves = prop::collection::vec((0u64..2_000_000, 0u32..6), 1..300);
    (quota, moves).prop_map(|((limit, period_us, burst), moves)| {
        (limit, period_us.max(limit.into()), burst, moves)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Doubles and whole numbers agree to the bit, over any number of steps.
    #[test]
    fn agrees_with_the_exact_model((limit, period_us, burst, moves) in steps()) {
        let mut bucket = Bucket::new(quota(limit, period_us, burst));
        let interval = (u128::from(period_us) * 16).div_ceil(limit.into());
        let mut exact = Exact { interval, burst: burst.into(), tat: None };
        let mut now_us = START_US;
        for (wait_us, cost) in moves {
            now_us += wait_us;
            let cost = cost.min(burst);
            let reading = bucket.take(now_us, cost);
            let over = exact.take(u128::from(now_us - EPOCH_US), cost.into());
            let expected = match u64::try_from(over) {
                Ok(over) if over > 0 => Retry::AfterUs(over.div_ceil(16)),
                _ => Retry::Fits,
            };
            prop_assert_eq!(reading.retry, expected);
            let tat = exact.tat.map(|tat| Tat(tat as f64 / 16.0));
            prop_assert_eq!(bucket.tat, tat);
        }
    }

    /// The contract: at most burst + t * limit / period in every interval, and a denied client
    /// that waits as told gets in.
    #[test]
    fn keeps_the_envelope_and_its_word((limit, period_us, burst, moves) in steps()) {
        let mut bucket = Bucket::new(quota(limit, period_us, burst));
        let mut admitted: Vec<(u64, u64)> = vec![];
        let mut now_us = START_US;
        for (wait_us, cost) in moves {
            now_us += wait_us;
            match bucket.take(now_us, cost).retry {
                Retry::Fits => admitted.push((now_us, cost.into())),
                Retry::AfterUs(wait) => {
                    now_us += wait;
                    prop_assert_eq!(bucket.take(now_us, cost).retry, Retry::Fits);
                    admitted.push((now_us, cost.into()));
                }
                Retry::Never => prop_assert!(cost > burst),
            }
        }
        for (index, (from, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (at, cost) in &admitted[index..] {
                sum += cost;
                let envelope = u128::from(burst) * u128::from(period_us) + u128::from(at - from) * u128::from(limit);
                prop_assert!(u128::from(sum) * u128::from(period_us) <= envelope);
            }
        }
    }
}
