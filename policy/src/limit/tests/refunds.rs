//! Tests of what is given back, against the world in which it was never charged.

use super::*;
use crate::limit::refund::kept_us;

/// One charge that was admitted.
#[derive(Debug, Clone, Copy)]
struct Made {
    receipt: Receipt,
    units: u32,
    back: u32,
}

/// A limit, and what was asked of it.
struct World {
    store: Store,
    now_us: u64,
    made: Vec<Made>,
    /// What was charged before is forgotten.
    forgotten_us: u64,
}

impl World {
    fn new(quota: Quota) -> Self {
        let terms = Terms { algorithm: Algorithm::Gcra, quota, cold_left_us: 0 };
        Self { store: Store::new(terms), now_us: START_US, made: Vec::new(), forgotten_us: 0 }
    }

    fn charge(&mut self, units: u32) {
        let reading = self.store.take(self.now_us, units);
        if reading.retry == Retry::Fits && units > 0 {
            let receipt = Receipt { at_us: self.now_us, full_us: reading.reset_us, cold: false };
            self.made.push(Made { receipt, units, back: 0 });
        }
    }

    /// By an operator's word, or with its region.
    fn forget(&mut self, resets: bool) {
        (self.store.held, self.store.refunds) = (None, Refunds::default());
        let now = Instant::from_unix_us(self.now_us);
        self.now_us += 1;
        if resets {
            self.store.refunds = Refunds::reset(now, kept_us(self.store.terms.quota));
        } else {
            self.store.began_us = self.now_us;
        }
        self.forgotten_us = self.now_us;
    }

    /// As a filter does it whose clock says that the charge is `late_us` older than it is.
    fn give_back(&mut self, index: usize, units: u32, late_us: u64, has_receipt: bool) {
        let made = &mut self.made[index];
        made.back = units;
        let age_us = self.now_us - made.receipt.at_us + late_us;
        let receipt = Some(made.receipt).filter(|_| has_receipt);
        self.store.settle_with(self.now_us, -i64::from(units), age_us, receipt);
    }

    /// In how many µs the limit counts nothing any more.
    fn left_us(&self) -> f64 {
        let now = Instant::from_unix_us(self.now_us).since_epoch_us();
        match &self.store.held {
            Some(Held::Arrival(Tat(tat), _)) if *tat > now => tat - now,
            _ => 0.0,
        }
    }

    /// The same, had nothing been charged that was given back.
    fn left_without_us(&self) -> f64 {
        let mut without = Self::new(self.store.terms.quota);
        for made in self.made.iter().filter(|made| made.receipt.at_us >= self.forgotten_us) {
            without.now_us = made.receipt.at_us;
            without.charge(made.units - made.back);
        }
        without.now_us = self.now_us;
        without.left_us()
    }

    /// Whether it is as had nothing been charged that was given back, but for what a receipt rounds.
    fn is_exact(&self) -> bool {
        let (left_us, without_us) = (self.left_us(), self.left_without_us());
        let rounded_us = self.made.len() as f64;
        left_us >= without_us && left_us - without_us <= rounded_us
    }
}

fn quota(limit: u32, burst: u32) -> Quota {
    Quota::new(limit, 1_000_000, burst).expect("sound")
}

/// A second's limits, slow and fast; 7 a second does not divide evenly.
fn quotas() -> impl Strategy<Value = Quota> {
    (prop::sample::select(vec![7, 100, 1_000, 50_000]), 1u32..60).prop_map(|(l, b)| quota(l, b))
}

#[test]
fn one_unit_of_a_fast_limit_comes_back() {
    for limit in [22, 100, 1_000] {
        for (used, waited_us) in [(0, 0), (0, 400), (3, 400), (5, 2_000)] {
            let mut world = World::new(quota(limit, 10));
            world.charge(used);
            world.charge(1);
            world.now_us += waited_us;
            // What a message may take, beyond which nothing of such a unit was given back by its age.
            world.give_back(world.made.len() - 1, 1, 45_000, true);
            assert!(world.is_exact(), "{limit} {used} {waited_us}: {}", world.left_us());
        }
    }
}

/// One is given back, another one is charged: the bucket stands where it stood, and yet it would have
/// been full for a while.
#[test]
fn a_bucket_that_stands_where_it_stood_may_have_been_full_between() {
    let mut world = World::new(quota(100, 10));
    world.charge(1);
    world.charge(1);
    world.give_back(0, 1, 0, true);
    world.now_us += 9_999;
    world.charge(1);
    assert_eq!(world.left_us(), 10_001.0, "as after the second");
    world.give_back(1, 1, 0, true);
    assert!(world.left_us() >= world.left_without_us(), "{}", world.left_us());
    assert!(world.is_exact(), "{}", world.left_us());
}

#[test]
fn a_charge_that_was_forgotten_takes_nothing_of_others() {
    let mut world = World::new(quota(10, 10));
    world.charge(9);
    world.store.held = None;
    world.charge(5);
    world.give_back(0, 9, 0, true);
    assert_eq!(world.left_us(), 500_000.0);
}

/// Half of an hour's window is reserved, Redis is flushed, and others use the half that a cold region has: the reserve
/// is none of theirs.
#[test]
fn a_reserve_that_was_flushed_gives_nothing_of_a_cold_half_back() {
    for algorithm in Algorithm::ALL {
        let mut store = Store::new(terms(algorithm, 100, 100, 0));
        let reset_us = store.take(START_US, 50).reset_us;
        let receipt = Receipt { at_us: START_US, full_us: reset_us, cold: false };
        (store.held, store.refunds) = (None, Refunds::default());
        (store.began_us, store.terms.cold_left_us) = (START_US + 1, MINUTE_US);
        let now_us = START_US + 1_000_000;
        while store.take(now_us, 1).retry == Retry::Fits {}
        let held = store.held.clone();
        for receipt in [Some(receipt), None] {
            store.settle_with(now_us, -49, 1_045_000, receipt);
            assert_eq!(store.held, held, "{algorithm:?}");
        }
        // One of now comes back all the same.
        let full_us = store.take(now_us, 0).reset_us;
        let receipt = Receipt { at_us: now_us, full_us, cold: true };
        store.settle_with(now_us, -1, 45_000, Some(receipt));
        assert_ne!(store.held, held, "{algorithm:?}");
    }
}

/// A clock that stepped back says nothing of what was before.
#[test]
fn after_a_clock_stepped_back_only_the_age_counts() {
    let mut world = World::new(quota(100, 10));
    world.now_us += 1_000_000;
    world.charge(5);
    let receipt = world.made[0].receipt;
    world.now_us -= 10_000;
    world.store.settle_with(world.now_us, -5, 45_000, Some(receipt));
    assert_eq!(world.left_us(), 60_000.0 - 5_000.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Flushed with its region or reset by an operator: others' units stay where they are, whoever gives back what was
    /// charged before, and until all of it has run out by itself.
    #[test]
    fn what_was_forgotten_takes_nothing_of_others(
        (limit, period_us, burst) in super::quota(), window in any::<bool>(), resets in any::<bool>(),
        before in prop::collection::vec((0u64..200_000, 1u32..5), 1..10),
        after in prop::collection::vec((0u64..200_000, 1u32..5), 1..10),
        backs in prop::collection::vec((0u64..9_000_000, any::<u16>(), any::<bool>()), 1..10),
    ) {
        let algorithm = if window { Algorithm::Window } else { Algorithm::Gcra };
        let burst = if window { limit } else { burst };
        let quota = algorithm.quota(limit, period_us.max(limit.into()), burst).expect("sound");
        let mut store = Store::new(Terms { algorithm, quota, cold_left_us: 0 });
        let mut now_us = START_US;
        let mut made = vec![];
        for (wait_us, cost) in before {
            now_us += wait_us;
            let reading = store.take(now_us, cost);
            if reading.retry == Retry::Fits {
                made.push((cost, Receipt { at_us: now_us, full_us: reading.reset_us, cold: false }));
            }
        }
        store.held = None;
        if resets {
            store.refunds = Refunds::reset(Instant::from_unix_us(now_us), kept_us(quota));
            now_us += 1;
        } else {
            now_us += 1;
            (store.refunds, store.began_us) = (Refunds::default(), now_us);
        }
        for (wait_us, cost) in after {
            now_us += wait_us;
            let reading = store.take(now_us, cost);
            // What was charged since comes back as ever, and does not push the reset out.
            if reading.retry == Retry::Fits && cost == 1 {
                let receipt = Receipt { at_us: now_us, full_us: reading.reset_us, cold: false };
                store.settle_with(now_us, -1, 45_000, Some(receipt));
            }
        }
        for (wait_us, number, knows) in backs {
            now_us += wait_us;
            store.take(now_us, 1);
            let Some(&(cost, receipt)) = made.get(usize::from(number) % made.len().max(1)) else { continue };
            let held = store.held.clone();
            let age_us = now_us - receipt.at_us + 45_000;
            store.settle_with(now_us, -i64::from(cost), age_us, knows.then_some(receipt));
            prop_assert_eq!(&store.held, &held);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever was charged and given back, in whatever order, by filters that know and that do not.
    #[test]
    fn nothing_lets_in_more_than_if_it_had_never_been_charged(
        quota in quotas(),
        moves in prop::collection::vec((0u64..81, any::<u16>(), 1u32..4, any::<bool>()), 1..80),
        knows in any::<bool>(),
    ) {
        let interval_us = 1_000_000 / u64::from(quota.limit()) + 1;
        let mut world = World::new(quota);
        for (kind, number, units, other) in moves {
            match kind % 4 {
                _ if kind == 80 => world.forget(other),
                0 => world.now_us += u64::from(number) % (interval_us * 4),
                1 | 2 => world.charge(units),
                _ => {
                    let open = |(_, made): &(usize, &Made)| made.back == 0;
                    let open: Vec<usize> =
                        world.made.iter().enumerate().filter(open).map(|(index, _)| index).collect();
                    let Some(&index) = open.get(usize::from(number) % open.len().max(1)) else { continue };
                    let units = units.min(world.made[index].units);
                    let late_us = if other { 45_000 } else { 0 };
                    world.give_back(index, units, late_us, knows || other);
                }
            }
            let (left_us, without_us) = (world.left_us(), world.left_without_us());
            prop_assert!(left_us >= without_us, "{left_us} of {without_us}");
        }
    }

    /// Nobody else came since.
    #[test]
    fn who_was_alone_gets_all_back(
        quota in quotas(), before in prop::collection::vec((0u64..30_000, 1u32..4), 0..20),
        units in 1u32..4, waited_us in 0u64..30_000, some in 1u32..4,
    ) {
        let mut world = World::new(quota);
        for (wait_us, units) in before {
            world.now_us += wait_us;
            world.charge(units);
        }
        let count = world.made.len();
        world.charge(units);
        if world.made.len() > count {
            world.now_us += waited_us;
            world.give_back(count, some.min(units), 45_000, true);
        }
        prop_assert!(world.is_exact(), "{} of {}", world.left_us(), world.left_without_us());
    }

    /// As long as the bucket would not have been full, all comes back, in whatever order.
    #[test]
    fn who_shares_a_busy_bucket_gets_all_back(
        moves in prop::collection::vec((1u64..2_000, any::<u16>(), any::<bool>()), 1..120),
    ) {
        let mut world = World::new(quota(100, 1_000));
        // They take 240 ms at most, and some are remembered by twos.
        world.charge(100);
        for (wait_us, number, charges) in moves {
            world.now_us += wait_us;
            let open: Vec<usize> = (1..world.made.len()).filter(|i| world.made[*i].back == 0).collect();
            match open.get(usize::from(number) % open.len().max(1)) {
                Some(&index) if !charges => world.give_back(index, 1, 45_000, true),
                _ => world.charge(1),
            }
        }
        prop_assert!(world.is_exact(), "{} of {}", world.left_us(), world.left_without_us());
    }

    /// All are refused and come back in the order in which they came, as behind an open circuit: nothing
    /// stays, however many there were, though 14 are under way.
    #[test]
    fn what_is_refused_in_turn_leaves_nothing(
        quota in quotas(), between_us in 1u64..3_000, under_way in 1usize..15,
    ) {
        let mut world = World::new(quota);
        let mut given_back = 0;
        for _ in 0..200 {
            world.now_us += between_us;
            world.charge(1);
            if world.made.len() - given_back >= under_way {
                world.give_back(given_back, 1, 45_000, true);
                given_back += 1;
            }
        }
        for index in given_back..world.made.len() {
            world.give_back(index, 1, 45_000, true);
        }
        prop_assert!(world.left_us() <= 2.0, "{}", world.left_us());
    }
}
