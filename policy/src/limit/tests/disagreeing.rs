//! Tests of two filters with other numbers for one limit: each keeps within its own, whatever the other
//! one asks.

use super::*;

/// Two filters' numbers, and what one key holds.
struct Both {
    quotas: [Quota; 2],
    held: Option<Held>,
    now_us: u64,
}

impl Both {
    fn ask(&mut self, who: usize, cost: u32) -> Reading {
        let terms = Terms { algorithm: Algorithm::Gcra, quota: self.quotas[who], cold_left_us: 0 };
        let charge = Charge { terms, cost, alone: false, held: self.held.as_ref() };
        let answer = check(Instant::from_unix_us(self.now_us), &[charge]);
        let (reading, write) = answer.limits.into_iter().next().expect("one");
        self.held = write.map(|write| write.held).or(self.held.take());
        reading
    }

    fn settle(&mut self, who: usize, by: i64) {
        let terms = Terms { algorithm: Algorithm::Gcra, quota: self.quotas[who], cold_left_us: 0 };
        let held = self.held.as_ref();
        let (age_us, charged_cold, receipt, began_us) = (0, false, None, 0);
        let change = Change { terms, by, age_us, charged_cold, receipt, began_us, held };
        let mut refunds = Refunds::default();
        let write = settle(Instant::from_unix_us(self.now_us), &change, &mut refunds);
        self.held = write.map(|write| write.held).or(self.held.take());
    }

    fn burst(&mut self, who: usize) -> usize {
        (0..10_000).take_while(|_| self.ask(who, 1).retry == Retry::Fits).count()
    }
}

fn quota(limit: u32, period_s: u64, burst: u32) -> Quota {
    Quota::new(limit, period_s * 1_000_000, burst).expect("a quota")
}

#[test]
fn what_a_larger_limit_charged_is_not_forgotten_for_a_smaller_one() {
    for (small, large) in [
        (quota(10, 60, 10), quota(1_000, 3_600, 1_000)),
        (quota(10, 60, 10), quota(10, 60, 500)),
        (quota(1, 1, 1), quota(1_000_000, 86_400, 1_000_000)),
    ] {
        let mut both = Both { quotas: [small, large], held: None, now_us: 1_800_000_000_000_000 };
        assert_eq!(both.burst(1), usize::try_from(large.burst()).expect("small").min(10_000));
        for _ in 0..20 {
            assert_ne!(both.ask(0, 1).retry, Retry::Fits, "{small:?} {large:?}");
            both.settle(0, 1);
        }
        let left = usize::try_from(large.burst().saturating_sub(10_000)).expect("small");
        assert_eq!(both.burst(1), left.min(10_000), "{small:?} {large:?}");
    }
}

#[test]
fn a_bucket_that_was_full_again_knows_only_who_came_last() {
    let (small, large) = (quota(10, 60, 10), quota(1_000, 3_600, 1_000));
    let mut both = Both { quotas: [small, large], held: None, now_us: 1_800_000_000_000_000 };
    both.burst(1);
    both.now_us += 3_600_000_000;
    both.burst(0);
    // A clock an hour too fast is forgiven after one burst's debt.
    both.now_us -= 3_600_000_000;
    assert_eq!(both.ask(0, 1).retry, Retry::AfterUs(66_000_000));
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1..50u32, 1..100u64, 1..200u32)
        .prop_map(|(limit, period_s, burst)| quota(limit, period_s, burst))
}

proptest! {
    /// For each: at most burst + t * limit / period in every interval, and for both together the sum of
    /// what each costs by its own numbers is at most the longer span and t.
    #[test]
    fn each_keeps_within_its_own_numbers(
        one in quotas(),
        other in quotas(),
        moves in proptest::collection::vec((0..2usize, 0..40_000_000u64, 0..4u32, 0..3i64), 1..120),
    ) {
        let mut both = Both { quotas: [one, other], held: None, now_us: 1_800_000_000_000_000 };
        let mut admitted: Vec<(u64, usize, u32)> = Vec::new();
        for (who, wait_us, cost, by) in moves {
            both.now_us += wait_us;
            while both.ask(who, cost.max(1)).retry == Retry::Fits {
                admitted.push((both.now_us, who, cost.max(1)));
                if wait_us % 3 == 0 {
                    break;
                }
            }
            both.settle(who, by);
        }
        for (index, (from, ..)) in admitted.iter().enumerate() {
            let mut spent = [0.0f64; 2];
            for (at, who, cost) in &admitted[index..] {
                let pace = both.quotas[*who].pace();
                spent[*who] += f64::from(*cost) * pace.interval;
                let passed = (at - from) as f64;
                prop_assert!(spent[*who] <= pace.span + passed);
                let longer = one.pace().span.max(other.pace().span);
                prop_assert!(spent[0] + spent[1] <= longer + passed);
            }
        }
    }
}
