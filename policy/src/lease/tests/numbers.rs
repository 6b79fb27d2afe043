//! The numbers of a lease: how long things last for limits of every size, and how much a holder is given ahead.

use super::*;
use crate::lease::step::{Given, Times};

const NOW_US: u64 = START_US;

fn quota(limit: u32, period_us: u64, burst: u32) -> Quota {
    Quota::new(limit, period_us, burst).expect("sound")
}

/// A generation is a fourth of what the bucket takes to fill, 1 to 30 s; a busy lease lives for a sixteenth, 1 to 2 s; who
/// found too little rests for a twentieth, 20 to 250 ms.
#[test]
fn how_long_things_last_follows_from_how_long_the_bucket_takes_to_fill() {
    let (ms, minute, hour) = (1_000, 60 * SECOND_US, 3_600 * SECOND_US);
    for (numbers, [generation, short, hold]) in [
        (quota(100, SECOND_US, 10), [1_000, 1_000, 20]),
        (quota(1_000, SECOND_US, 1_000), [1_000, 1_000, 50]),
        (quota(10, 10 * SECOND_US, 10), [2_500, 1_000, 250]),
        (quota(100, 20 * SECOND_US, 100), [5_000, 1_250, 250]),
        (quota(6_000, minute, 6_000), [15_000, 2_000, 250]),
        (quota(5, hour, 5), [30_000, 2_000, 250]),
    ] {
        let [generation_us, short_us, hold_us] = [generation * ms, short * ms, hold * ms];
        assert_eq!(Times::of(numbers), Times { generation_us, short_us, hold_us }, "{numbers:?}");
    }
    assert_eq!(TICK_US, 250 * u64::from(ms));
}

/// What a bucket of which so many units are gone gives; another holder's demand stands beside.
fn given(quota: Quota, used: u32, others: u32, call: Call) -> Given {
    let now = Instant::from_unix_us(NOW_US);
    let tat = now.since_epoch_us() + f64::from(used) * quota.pace().interval;
    let mut held = Held::Arrival(Tat(tat), Reach::of(quota.pace(), quota.pace()));
    let terms = Terms { quota, cold_left_us: 0 };
    if others > 0 {
        let other =
            Call { holder: 1, seq: 1, demand: others, left: 0, back: 0, want: Want::Nothing };
        held = step(now, terms, &other, Some(&held)).1.expect("it is known").held;
    }
    step(now, terms, &call, Some(&held)).0
}

/// Half a second of what is asked of a holder, three times that while there is plenty, and at least half of it if it has some; a
/// key with fewer than three units in half a second is slow: a twentieth of the burst while there is plenty, then two, then none.
#[test]
fn a_holder_is_given_what_its_demand_needs_soon() {
    let fast = quota(1_000, SECOND_US, 1_000);
    let slow = quota(100, 60 * SECOND_US, 100);
    // Numbers, used, others' demand, demand, left, want: granted, life in s.
    for (numbers, used, others, demand, left, want, expected) in [
        (fast, 0, 0, 100, 0, Want::Ahead, (150, 1)),
        (fast, 499, 0, 100, 0, Want::Ahead, (150, 1)),
        (fast, 500, 0, 100, 0, Want::Ahead, (50, 1)),
        (fast, 600, 0, 6, 0, Want::Ahead, (3, 1)),
        (fast, 600, 0, 5, 0, Want::Ahead, (0, 1)),
        (fast, 600, 0, 5, 0, Want::Now, (2, 1)),
        (fast, 0, 0, 5, 0, Want::Now, (50, 1)),
        (fast, 0, 0, 5, 0, Want::Ahead, (0, 1)),
        (fast, 0, 0, 100, 0, Want::Nothing, (0, 1)),
        // By its share of all demand, and never less than a fiftieth.
        (fast, 600, 300, 900, 0, Want::Ahead, (300, 1)),
        (fast, 600, 100_000, 900, 0, Want::Ahead, (8, 1)),
        (slow, 0, 0, 1, 0, Want::Now, (5, 15)),
        (slow, 49, 0, 1, 0, Want::Now, (5, 15)),
        (slow, 50, 0, 1, 0, Want::Now, (1, 15)),
        (slow, 50, 0, 6, 0, Want::Now, (3, 2)),
        // What it says to have left, the bucket never gave it.
        (fast, 600, 0, 100, 30, Want::Ahead, (50, 1)),
    ] {
        let call = Call { holder: 7, seq: 1, demand, left, back: 0, want };
        let said = given(numbers, used, others, call);
        let row = (used, others, demand, want);
        assert_eq!((said.granted, said.ttl_us / SECOND_US), expected, "{row:?}");
    }
}

/// Until eight units have come back, or for as long as a busy key rests; but not until the bucket is half way to full. A slow
/// key is told when the next one comes, or two within a second.
#[test]
fn who_found_too_little_is_told_when_it_is_worth_while() {
    let fast = quota(1_000, SECOND_US, 1_000);
    let slow = quota(100, 60 * SECOND_US, 100);
    for (numbers, used, demand, granted, deny_ms) in [
        (fast, 990, 100, 10, 50),
        (fast, 1_000, 100, 0, 50),
        (slow, 90, 100, 10, 4_800),
        (slow, 100, 100, 0, 4_800),
        (quota(10, 10 * SECOND_US, 10), 10, 100, 0, 5_000),
        (slow, 100, 1, 0, 1_000),
        (quota(5, 60 * SECOND_US, 5), 5, 1, 0, 12_000),
        (fast, 0, 100, 150, 0),
    ] {
        let call = Call { holder: 7, seq: 1, demand, left: 0, back: 0, want: Want::Now };
        let said = given(numbers, used, 0, call);
        let told = (said.granted, said.deny_us / 1_000);
        assert_eq!(told, (granted, deny_ms), "{used} {demand}: {said:?}");
    }
}

/// At four fifths of a limit with four holders: a request that costs more than the burst divided by them is denied for as long as all
/// are busy, where an exact limit would let it in. That is what leases cost it. Once the holders rest and give back, it is let in.
#[test]
fn a_cost_above_what_the_bucket_keeps_waits_until_holders_give_back() {
    let quota = quota(100, SECOND_US, 100);
    let terms = Terms { quota, cold_left_us: 0 };
    let limit = limit::Terms { algorithm: limit::Algorithm::Gcra, quota, cold_left_us: 0 };
    let mut held: Option<Held> = None;
    let mut has = [0u32; 4];
    let mut says = |held: &mut Option<Held>, now_us: u64, seq: u32, spent: u32, demand: u32| {
        for (holder, units) in has.iter_mut().enumerate() {
            *units -= spent.min(*units);
            let back = if demand == 0 { core::mem::take(units) } else { 0 };
            let want = if demand == 0 { Want::Nothing } else { Want::Ahead };
            let call = Call { holder: holder as u64, seq, demand, left: *units, back, want };
            let now = Instant::from_unix_us(now_us);
            let (said, write) = step(now, terms, &call, held.as_ref());
            *units += said.granted;
            *held = write.map(|write| write.held);
        }
    };
    let asks = |held: &Option<Held>, now_us: u64, cost: u32| {
        let charge = limit::Charge { terms: limit, cost, alone: false, held: held.as_ref() };
        limit::check(Instant::from_unix_us(now_us), &[charge]).allowed
    };
    let (mut now_us, mut alone) = (NOW_US, None);
    assert!(asks(&held, now_us, 100), "nothing is leased yet");
    for tick in 1..=120 {
        says(&mut held, now_us, tick, 5, 20);
        // The same requests, decided one by one.
        let charge = limit::Charge { terms: limit, cost: 20, alone: false, held: alone.as_ref() };
        let mut checked = limit::check(Instant::from_unix_us(now_us), &[charge]);
        alone = checked.limits.remove(0).1.map(|write| write.held);
        assert!(asks(&alone, now_us, 80), "{tick}: an exact limit lets it in");
        assert!(tick < 4 || !asks(&held, now_us, 25), "{tick}: a leased one does not");
        now_us += TICK_US;
    }
    says(&mut held, now_us, 121, 0, 0);
    assert!(asks(&held, now_us + SECOND_US, 100));
}
