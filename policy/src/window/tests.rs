//! Tests of the window: tables, and the promise against a log of every unit.

use super::*;
use crate::gcra::EPOCH_US;
use proptest::prelude::*;
use std::vec;

const PERIOD_US: u64 = 60_000_000;
/// The end of a tick of a minute's window, and of every shorter one.
const START_US: u64 = 63_072_000_000_000 | (TICK_US - 1);
/// A minute's tick.
const TICK_US: u64 = 1 << 18;

/// A store of one window.
struct Window {
    terms: Terms,
    held: Option<Groups>,
}

impl Window {
    fn of(limit: u32, period_us: u64) -> Self {
        let grain = Grain::of(limit, period_us);
        let terms = Terms { limit, warm_limit: limit, period_us, grain, cold_left_us: 0 };
        Self { terms, held: None }
    }

    fn take(&mut self, at_us: u64, cost: u32) -> Reading {
        let now = at(at_us);
        let row = weigh(now, self.terms, self.held.as_ref(), cost);
        let fits = row.retry == Retry::Fits;
        let (reading, write) = settle(now, row, fits);
        if let Some(write) = write {
            assert!(write.groups.groups.len() <= 11);
            assert!(write.groups.to_bytes().len() <= 43);
            self.held = Some(write.groups);
        }
        reading
    }
}

fn at(us: u64) -> Instant {
    Instant::from_unix_us(EPOCH_US + us)
}

#[test]
fn a_burst_comes_back_exactly_one_period_later() {
    let mut window = Window::of(5, PERIOD_US);
    for left in (0..5).rev() {
        let reading = window.take(START_US, 1);
        let next_us = PERIOD_US;
        let expected =
            Reading { remaining: left, next_us, reset_us: PERIOD_US, retry: Retry::Fits };
        assert_eq!(reading, expected);
    }
    assert_eq!(window.take(START_US, 1).retry, Retry::AfterUs(PERIOD_US));
    assert_eq!(window.take(START_US + PERIOD_US - 1, 1).retry, Retry::AfterUs(1));
    assert_eq!(window.take(START_US + PERIOD_US, 5).remaining, 0);
    let full = Reading { remaining: 5, next_us: 0, reset_us: 0, retry: Retry::Fits };
    let later_us = START_US + 2 * PERIOD_US + TICK_US;
    assert_eq!(window.take(later_us, 0), full);
    assert_eq!(window.take(later_us, 6).retry, Retry::Never);
}

#[test]
fn one_slot_is_one_group_and_its_units_stay_as_long_as_its_latest() {
    let mut window = Window::of(10, PERIOD_US);
    let slot_us = window.terms.grain.slot_us;
    assert_eq!(slot_us, 23 * TICK_US, "a tenth of a minute, in whole ticks");
    let start_us = START_US.next_multiple_of(slot_us) - 1 + TICK_US;
    window.take(start_us, 3);
    window.take(start_us + 5 * TICK_US - 7, 1);
    window.take(start_us + 23 * TICK_US, 2);
    assert_eq!(window.held.as_ref().map(|held| held.groups.len()), Some(2));
    let now_us = start_us + 23 * TICK_US;
    assert_eq!(window.take(now_us, 9).retry, Retry::AfterUs(PERIOD_US));
    assert_eq!(window.take(now_us, 8).retry, Retry::AfterUs(PERIOD_US - 18 * TICK_US));
    assert_eq!(window.take(start_us + PERIOD_US, 0).remaining, 4);
    assert_eq!(window.take(start_us + 5 * TICK_US - 1 + PERIOD_US, 0).remaining, 4);
    assert_eq!(window.take(start_us + 5 * TICK_US + PERIOD_US, 0).remaining, 8);
}

#[test]
fn ticks_and_slots_are_as_fine_as_the_bytes_allow() {
    let rows = [
        (5, 1, 4, 16),
        (5, 254 << 4, 4, 26 << 4),
        (5, (254 << 4) + 1, 5, 13 << 5),
        (32_767, PERIOD_US, 18, 23 << 18),
        (32_768, PERIOD_US, 18, 29 << 18),
        (8_388_608, PERIOD_US, 18, 39 << 18),
        (LIMIT_MAX, 10 * 366 * 86_400_000_000, 41, 24 << 41),
    ];
    for (limit, period_us, exponent, slot_us) in rows {
        assert_eq!(Grain::of(limit, period_us), Grain { exponent, slot_us }, "{limit} {period_us}");
    }
}

#[test]
fn a_clock_that_steps_back_makes_nobody_wait_longer_than_a_period() {
    let mut window = Window::of(2, PERIOD_US);
    window.take(START_US + 3_600_000_000, 2);
    assert_eq!(window.take(START_US, 1).retry, Retry::AfterUs(PERIOD_US));
    assert_eq!(window.take(START_US + PERIOD_US, 1).retry, Retry::Fits, "and it keeps its word");
}

#[test]
fn while_cold_half_and_a_cost_above_it_waits_for_the_warmth() {
    let mut window = Window::of(7, PERIOD_US);
    window.terms.limit = 3;
    window.terms.cold_left_us = 299_000_000;
    assert_eq!(window.take(START_US, 3).remaining, 0);
    assert_eq!(window.take(START_US, 1).retry, Retry::AfterUs(PERIOD_US));
    assert_eq!(window.take(START_US, 4).retry, Retry::AfterUs(299_000_000));
    assert_eq!(window.take(START_US, 8).retry, Retry::Never);
    window.terms = Window::of(7, PERIOD_US).terms;
    assert_eq!(window.take(START_US, 4).remaining, 0);
}

#[test]
fn what_is_settled_is_bounded_and_old_charges_are_not_given_back() {
    let terms = Window::of(5, PERIOD_US).terms;
    let group = |ticks, units| Group { last_us: START_US + ticks * TICK_US, units };
    let held = Groups { exponent: 18, groups: vec![group(0, 2), group(40, 3)] };
    let now_us = START_US + 80 * TICK_US;
    let more = |held, by| charge_more(at(now_us), terms, held, by);
    let write = more(Some(&held), 9).expect("something to write");
    assert_eq!(write.groups.groups.last(), Some(&group(80, 5)), "a debt of one limit at most");
    assert_eq!(more(Some(&write.groups), 1), None);
    let back = |units, age_us| {
        let write = give_back(at(now_us), terms, Some(&held), units, age_us);
        write.map(|write| write.groups.groups)
    };
    assert_eq!(back(3, 80 * TICK_US), Some(vec![group(40, 2)]), "the oldest gives first");
    assert_eq!(back(9, 40 * TICK_US), Some(vec![group(0, 2)]), "only what is young enough");
    assert_eq!(back(1, 40 * TICK_US - 1), None);
}

#[test]
fn the_stored_form_is_as_wide_as_its_units() {
    let bytes = |units: &[u32]| {
        let group =
            |(n, &units): (u64, _)| Group { last_us: 0x0102_0304_0506_07ff + (n << 8), units };
        let groups = (0u64..).zip(units).map(group).collect();
        Groups { exponent: 8, groups }.to_bytes()
    };
    assert!(bytes(&[]).is_empty());
    assert_eq!(bytes(&[255]), [32, 7, 6, 5, 4, 3, 2, 0, 255]);
    assert_eq!(bytes(&[256, 1]), [33, 8, 6, 5, 4, 3, 2, 1, 0, 1, 0, 1, 0]);
    assert_eq!(bytes(&[0x0a0b_0c0d]), [35, 7, 6, 5, 4, 3, 2, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
}

fn steps() -> impl Strategy<Value = (u32, u64, Vec<(u64, u32)>)> {
    let moves = prop::collection::vec((0u64..400_000, 0u32..4), 1..300);
    (1u32..30, 3u64..3_000_000, moves)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The promise, and that a denied client that waits as told gets in.
    #[test]
    fn never_more_than_the_limit_in_any_period((limit, period_us, moves) in steps()) {
        let mut window = Window::of(limit, period_us);
        let mut admitted: Vec<(u64, u32)> = vec![];
        let mut now_us = START_US;
        for (wait_us, cost) in moves {
            now_us += wait_us;
            let cost = cost.min(limit);
            if let Retry::AfterUs(wait) = window.take(now_us, cost).retry {
                prop_assert!(wait < period_us + (1 << window.terms.grain.exponent));
                now_us += wait;
                prop_assert_eq!(window.take(now_us, cost).retry, Retry::Fits);
            }
            admitted.push((now_us, cost));
        }
        for (index, (from_us, _)) in admitted.iter().enumerate() {
            let within = admitted[index..].iter().take_while(|(at, _)| at - from_us < period_us);
            prop_assert!(within.map(|(_, cost)| cost).sum::<u32>() <= limit);
        }
    }

    /// Under steady pressure at most a tenth of the limit is lost.
    #[test]
    fn a_limit_that_is_always_used_up_gives_nearly_all_of_it(
        limit in 1u32..50, period_us in 1_000u64..1_000_000, every in 1u64..200
    ) {
        let mut window = Window::of(limit, period_us);
        let periods = 20;
        let mut admitted = 0u64;
        let mut now_us = START_US;
        let step_us = (period_us / every).max(1);
        while now_us < START_US + periods * period_us {
            admitted += u64::from(window.take(now_us, 1).retry == Retry::Fits);
            now_us += step_us;
        }
        let demand = (periods * period_us).div_ceil(step_us);
        // One slot, one tick and one step late, each time.
        let Grain { exponent, slot_us } = window.terms.grain;
        let round_us = period_us + slot_us + (1 << exponent) + step_us;
        let full = u64::from(limit) * (periods * period_us / round_us);
        prop_assert!(admitted >= full.min(demand), "{admitted} of {full}");
    }

    /// What is given back never lets in more than if it had never been charged.
    #[test]
    fn a_refund_is_no_gain(
        limit in 1u32..12, charged in 1u32..12, back in 1u32..12,
        waits in prop::collection::vec((0u64..30_000_000, 0u32..5), 0..20), age_us in 0u64..90_000_000,
    ) {
        let charged = charged.min(limit);
        let back = back.min(charged);
        let (mut with, mut without) = (Window::of(limit, PERIOD_US), Window::of(limit, PERIOD_US));
        prop_assert_eq!(with.take(START_US, charged).retry, Retry::Fits);
        without.take(START_US, charged - back);
        let mut now_us = START_US;
        for (wait_us, cost) in waits {
            now_us += wait_us;
            // Both see the same admissions: those that the charged one admits.
            if with.take(now_us, cost).retry == Retry::Fits {
                prop_assert_eq!(without.take(now_us, cost).retry, Retry::Fits);
            }
        }
        // The age that is told is never less than the true one.
        let age_us = age_us.max(now_us - START_US);
        let written = give_back(at(now_us), with.terms, with.held.as_ref(), back, age_us);
        if let Some(write) = written {
            with.held = Some(write.groups);
        }
        for step in 0..12 {
            let at_us = now_us + step * 6_000_000;
            prop_assert!(with.take(at_us, 0).remaining <= without.take(at_us, 0).remaining);
        }
    }
}
