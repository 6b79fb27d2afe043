//! Pools and slots one by one: who has to go, what comes back, who misses while another asks. That the
//! limit holds under all of it together is tested in gateway/tests/leases and tests/tests.

use alloc::format;
use alloc::vec::Vec;

use super::holder::{Pool, TICK_US};
use super::round::{ASKS_MAX, Rounds};
use super::slice::{Offer, Slice};
use super::slot::{Key, Record, Room, SLOTS, Slot};
use super::step::{Call, Terms, step};
use crate::gcra::{Instant, Quota, Reach, Tat};
use crate::identity::{Subject, SubjectKind, SubjectName};
use crate::limit::{self, Held};
use crate::scope::Tenant;
use crate::wire::{HolderId, LeaseGrant, Want};

const START_US: u64 = 1_767_225_600_000_000;
const TIMEOUT_US: u64 = 45_000;

fn key(name: &str) -> Key {
    Key {
        id: "p.l".into(),
        subject: Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(name.as_bytes()) },
        tenant: Tenant::None,
        limit: 1_000,
        period_us: 1_000_000,
        burst: 1_000,
    }
}

fn grant(pool: &Pool, seq: u32, granted: u32, ttl_us: u64) -> LeaseGrant {
    LeaseGrant {
        holder: HolderId(pool.holder()),
        seq,
        granted,
        ttl_us,
        deny_us: 0,
        remaining: 500,
        scarce: false,
        limit: None,
    }
}

/// A pool with units that live for `ttl_us`.
fn filled(pool: &mut Pool, now_us: u64, units: u32, ttl_us: u64) {
    let report = pool.begin(now_us, Want::Ahead, TIMEOUT_US).expect("nothing is under way");
    assert!(pool.finish(now_us + 1_000, &grant(pool, report.seq, units, ttl_us), 0));
    assert_eq!(pool.units(), units);
}

fn record<'s>(
    slot: &'s mut Slot,
    name: &str,
    now_us: u64,
) -> Option<(&'s mut Record, Option<Record>)> {
    let key = key(name);
    match slot.room(key.place(), &key, now_us, now_us) {
        Room::Found(record, gone) => Some((record, gone)),
        Room::None => None,
    }
}

/// The one that rested longest makes room, and says so with all that it held; whoever is in use stays.
#[test]
fn a_key_without_room_takes_the_place_of_the_one_that_rested_longest() {
    let mut slot = Slot::default();
    for (nth, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let now_us = START_US + 100_000 * nth as u64;
        let (record, gone) = record(&mut slot, name, now_us).expect("room");
        assert!(gone.is_none());
        filled(&mut record.pool, now_us, 10 + nth as u32, 30_000_000);
    }
    let now_us = START_US + 900_000;
    assert!(record(&mut slot, "e", now_us).is_none(), "all were needed within a second");

    // A request needs the first again; so the second has rested longest. That a tick looks at all of them is no use.
    let (again, _) = record(&mut slot, "a", now_us).expect("its own");
    let mut asked = Slice::default();
    assert_eq!(asked.take(now_us, 1), Offer::Empty);
    again.pool.settle(now_us, &mut asked, false);
    let now_us = START_US + 1_150_000;
    for one in slot.records() {
        assert_eq!(one.pool.tick(now_us, TIMEOUT_US), None);
        one.pool.settle(now_us, &mut Slice::default(), false);
    }
    let (_, gone) = record(&mut slot, "e", now_us).expect("room");
    let mut gone = gone.expect("with units to give back");
    let report = gone.pool.return_all(now_us, TIMEOUT_US).expect("a message");
    assert_eq!((report.back, report.left, report.want), (11, 0, Want::Nothing));
    let call = gone.call(report).expect("it says all that its message needs");
    assert_eq!((call.subject, call.limit), (key("b").subject, 1_000));
    assert!(slot.pool(key("a").place()).is_some() && slot.pool(key("b").place()).is_none());
}

/// However many clients come, a slot stays as small as it is.
#[test]
fn a_slot_never_grows_beyond_its_records() {
    let mut slot = Slot::default();
    for nth in 0..1_000u64 {
        let now_us = START_US + nth * 10_000;
        if let Some((record, _)) = record(&mut slot, &format!("client-{nth}"), now_us) {
            filled(&mut record.pool, now_us, 5, 2_000_000);
        }
        assert!(slot.records().count() <= 4);
        assert!(slot.to_bytes().len() <= 4 * 400, "{}", slot.to_bytes().len());
    }
    // Nothing that a tick says or drops is left once all has run out, and after a while nothing at all.
    let mut now_us = START_US + 10_000_000;
    let mut looks = 0;
    while slot.sweep(now_us) {
        slot.records().for_each(|one| _ = one.pool.tick(now_us, TIMEOUT_US));
        (now_us, looks) = (now_us + TICK_US, looks + 1);
        assert!(looks < 400, "{slot:?}");
    }
    assert!(looks > 0 && !slot.is_empty(), "a slow key stays the same holder");
    assert!(slot.sweep(START_US + 75_000_000), "it is written once more");
    assert!(slot.is_empty() && !slot.sweep(START_US + 76_000_000));
}

/// Of a bucket that nobody has asked for a while nobody knows that there is too little.
#[test]
fn who_comes_back_after_a_rest_is_not_denied_while_the_first_asks() {
    for (rests_us, deny_us, denied) in [
        (0, 0, true),
        (900_000, 0, true),
        (1_100_000, 0, false),
        (1_100_000, 3_000_000, true),
        (4_100_000, 3_000_000, false),
    ] {
        let mut pool = Pool::new(7, START_US);
        let report = pool.begin(START_US, Want::Now, TIMEOUT_US).expect("nothing is under way");
        let answer =
            LeaseGrant { scarce: true, deny_us, ..grant(&pool, report.seq, 0, 30_000_000) };
        assert!(pool.finish(START_US, &answer, 0));
        let now_us = START_US + rests_us;
        let mut slice = Slice::default();
        let first = pool.meet(now_us, &mut slice, 1);
        if rests_us >= deny_us {
            assert_eq!(first, Offer::Empty, "{rests_us}");
            pool.begin(now_us, Want::Now, TIMEOUT_US).expect("it asks");
        }
        let others = pool.meet(now_us + 1_000, &mut Slice::default(), 1);
        assert_eq!(matches!(others, Offer::Denied { .. }), denied, "{rests_us} {deny_us}");
    }
}

/// A busy pool: so many requests, one each ms, all of them admitted.
fn busy(pool: &mut Pool, slice: &mut Slice, mut now_us: u64, requests: u32) -> u64 {
    for _ in 0..requests {
        now_us += 1_000;
        let offer = match slice.take(now_us, 1) {
            Offer::Empty => pool.meet(now_us, slice, 1),
            offer => offer,
        };
        let Offer::Taken(reserved) = offer else { continue };
        slice.spend(reserved);
    }
    now_us
}

/// An Envoy that gets no more requests, since it is drained, has given all back before long.
#[test]
fn who_is_asked_no_more_gives_all_back_within_seconds() {
    let (mut pool, mut slice) = (Pool::new(7, START_US), Slice::default());
    filled(&mut pool, START_US, 500, 2_000_000);
    let mut now_us = busy(&mut pool, &mut slice, START_US + 2_000, 400);
    let (mut returned, mut kept) = (0, u32::MAX);
    for _ in 0..20 {
        now_us += TICK_US;
        let (owes, idle) = slice.rest();
        if owes {
            pool.settle(now_us, &mut slice, idle);
        }
        if let Some(report) = pool.tick(now_us, TIMEOUT_US) {
            (returned, kept) = (returned + report.back, report.left);
            // The gateway gives nothing more, and what is left lives on.
            assert!(pool.finish(now_us + 1_000, &grant(&pool, report.seq, 0, 2_000_000), 0));
        }
    }
    assert_eq!((returned, kept, pool.units()), (100, 0, 0), "spent 400 of 500");
    assert_eq!(pool.expired, 0, "nothing ran out instead");
}

/// What runs out unspent is counted wherever it lay: in the pool, with a worker that is heard of, with one that is gone.
#[test]
fn what_runs_out_in_slices_is_counted_with_the_pools_own() {
    for (is_heard, steps_back) in [(true, false), (false, false), (true, true)] {
        let (mut pool, mut slice) = (Pool::new(7, START_US), Slice::default());
        filled(&mut pool, START_US, 40, 2_000_000);
        let Offer::Taken(one) = pool.meet(START_US + 2_000, &mut slice, 1) else {
            panic!("filled")
        };
        slice.spend(one);
        let mut other = Slice::default();
        let lies = (pool.units(), slice.units());
        assert!(lies.0 > 0 && lies.1 > 0, "{lies:?}");
        let (mut now_us, mut expired) = (START_US + 3_000, 0);
        if steps_back {
            slice.drop_all();
        }
        for _ in 0..40 {
            now_us += TICK_US;
            pool.settle(now_us, if is_heard { &mut slice } else { &mut other }, false);
            expired += core::mem::take(&mut pool.expired);
        }
        // Who is gone does not report what it spent, either.
        let unheard = u32::from(!is_heard);
        assert_eq!(expired, lies.0 + lies.1 + unheard, "{is_heard} {steps_back}");
    }
}

/// While a message is under way nobody sends another one for the same pool.
#[test]
fn who_misses_while_another_asks_sends_no_message_of_its_own() {
    let mut pool = Pool::new(7, START_US);
    let mut slices = [Slice::default(), Slice::default()];
    let now_us = START_US + 10_000;
    let offers: Vec<Offer> = slices.iter_mut().map(|slice| pool.meet(now_us, slice, 1)).collect();
    assert_eq!(offers, [Offer::Empty, Offer::Empty], "the gateway decides both");
    let report = pool.begin(now_us, Want::Now, TIMEOUT_US).expect("the first one's");
    assert_eq!(pool.begin(now_us, Want::Now, TIMEOUT_US), None);
    // Once it is given up, by its answer or by time, the next one may.
    assert!(pool.finish(now_us + 1_000, &grant(&pool, report.seq, 8, 2_000_000), 0));
    assert!(pool.begin(now_us + 2_000, Want::Now, TIMEOUT_US).is_some());
    assert!(pool.begin(now_us + 2_000 + TIMEOUT_US + 100_000, Want::Now, TIMEOUT_US).is_some());
}

/// Of a busy key a message brings some for all; of a slow one it brings nothing but its own request's verdict.
#[test]
fn an_answer_is_worth_waiting_for_while_it_is_out_and_the_key_is_busy() {
    for (requests, brings) in [(1, false), (20, true)] {
        let (mut pool, mut slice) = (Pool::new(7, START_US), Slice::default());
        let now_us = busy(&mut pool, &mut slice, START_US, requests);
        assert!(!pool.brings(now_us, 0), "nothing is out");
        let seq = pool.begin(now_us, Want::Now, TIMEOUT_US).expect("the first").seq;
        assert_eq!((pool.brings(now_us, seq), pool.is_out(now_us, seq)), (brings, true));
        assert!(!pool.brings(now_us, seq + 1) && !pool.is_out(now_us, seq + 1), "another message");
        let late_us = now_us + TIMEOUT_US + 100_000;
        assert!(!pool.brings(late_us, seq) && !pool.is_out(late_us, seq), "nobody waits any more");
        assert!(pool.finish(now_us + 1_000, &grant(&pool, seq, 8, 2_000_000), 0));
        assert!(!pool.brings(now_us + 1_000, seq) && !pool.is_out(now_us + 1_000, seq));
    }
}

const SECOND_US: u64 = 1_000_000;
const HOUR_US: u64 = 3_600 * SECOND_US;

/// A pool that was told `wait_us` from [`START_US`] on, and the slice of a client that was denied there.
fn denied(wait_us: u64) -> (Pool, Slice) {
    let (mut pool, mut slice) = (Pool::new(7, START_US), Slice::default());
    assert_eq!(pool.meet(START_US, &mut slice, 1), Offer::Empty);
    let seq = pool.begin(START_US, Want::Now, TIMEOUT_US).expect("the first").seq;
    let deny = LeaseGrant { deny_us: wait_us, ..grant(&pool, seq, 0, 2_000_000) };
    assert!(pool.finish(START_US, &deny, 0));
    assert_eq!(slice.take(START_US, 1), Offer::Empty, "it was told nothing yet");
    assert_eq!(pool.meet(START_US, &mut slice, 1), Offer::Denied { wait_us });
    (pool, slice)
}

/// Its worker's tick: what was asked is told, and what became of the denial is heard.
fn told(pool: &mut Pool, slice: &mut Slice, now_us: u64) {
    let (owes, idle) = slice.rest();
    if owes {
        pool.settle(now_us, slice, idle);
    }
}

/// Who is told to wait for long is asked for again while he keeps coming, once for all that came; who is not, is
/// not asked for.
#[test]
fn a_denied_pool_is_asked_for_again_while_somebody_comes_and_the_wait_is_long() {
    for (wait_us, comes, under_way, asks) in [
        (HOUR_US, true, false, true),
        (7 * SECOND_US, true, false, true),
        (HOUR_US, false, false, false),
        (HOUR_US, true, true, false),
        (6 * SECOND_US, true, false, false),
        (SECOND_US, true, false, false),
    ] {
        let row = (wait_us, comes, under_way);
        let (mut pool, mut slice) = denied(wait_us);
        let mut now_us = START_US + TICK_US;
        told(&mut pool, &mut slice, now_us);
        if let Some(first) = pool.ask_again(now_us, TIMEOUT_US) {
            let deny = LeaseGrant { deny_us: wait_us - TICK_US, ..grant(&pool, first.seq, 0, 1) };
            assert!(pool.finish(now_us, &deny, 0));
        }
        now_us += TICK_US;
        if comes {
            let wait_us = START_US + wait_us - now_us;
            assert_eq!(slice.take(now_us, 1), Offer::Denied { wait_us }, "{row:?}");
        }
        told(&mut pool, &mut slice, now_us);
        let mut pool = Pool::from_bytes(&pool.to_bytes());
        if under_way {
            pool.begin(now_us, Want::Now, TIMEOUT_US).expect("nothing is under way");
        }
        let said = pool.ask_again(now_us, TIMEOUT_US);
        assert_eq!(said.is_some(), asks, "{row:?}");
        let Some(said) = said else { continue };
        assert_eq!((said.want, said.left, said.back), (Want::Ahead, 0, 0));
        pool.give_up(said.seq);
        assert_eq!(pool.ask_again(now_us, TIMEOUT_US), None, "nobody came since");
    }
}

/// What is in force in a cold region is told of what is taken and denied here, too, until an answer says otherwise.
#[test]
fn a_lowered_limit_is_known_until_an_answer_says_otherwise() {
    let (mut pool, mut slice) = denied(HOUR_US);
    assert_eq!(slice.stands().1, None);
    let mut now_us = START_US;
    for limit in [Some(500), Some(250), None, Some(1)] {
        now_us += TICK_US;
        slice.take(now_us, 1);
        told(&mut pool, &mut slice, now_us);
        let before = slice.stands().1;
        let said = pool.ask_again(now_us, TIMEOUT_US).expect("somebody came");
        let answer = LeaseGrant { limit, deny_us: HOUR_US, ..grant(&pool, said.seq, 0, 1) };
        assert!(pool.finish(now_us, &answer, 0));
        assert_eq!(slice.stands().1, before, "its worker has not heard it yet");
        pool = Pool::from_bytes(&pool.to_bytes());
        slice.take(now_us, 1);
        told(&mut pool, &mut slice, now_us);
        assert_eq!(slice.stands().1, limit);
        // So does who is new there.
        let mut fresh = Slice::default();
        assert!(matches!(pool.meet(now_us, &mut fresh, 1), Offer::Denied { .. }));
        assert_eq!(fresh.stands().1, limit);
    }
}

/// What is heard of a denial ends it or brings its end nearer. It is never put off: clients were told a time.
#[test]
fn an_answer_ends_a_denial_or_leaves_the_time_that_was_told() {
    let now_us = START_US + 600 * SECOND_US;
    let left_us = HOUR_US - 600 * SECOND_US;
    for (granted, deny_us, offer) in [
        // Renewed, also if others took what came back meanwhile.
        (0, left_us, Offer::Denied { wait_us: left_us }),
        (0, 2 * HOUR_US, Offer::Denied { wait_us: left_us }),
        // Nearer, by less and by more than what spreads those who wait.
        (0, left_us - SECOND_US, Offer::Denied { wait_us: left_us }),
        (0, 400 * SECOND_US, Offer::Denied { wait_us: 500 * SECOND_US }),
        // A limit that was reset, or a grant: of a slow key the next request asks.
        (0, 0, Offer::Empty),
    ] {
        let row = (granted, deny_us);
        let (mut pool, mut slice) = denied(HOUR_US);
        slice.take(now_us, 1);
        told(&mut pool, &mut slice, now_us);
        let said = pool.ask_again(now_us, TIMEOUT_US).expect("somebody came");
        let answer = LeaseGrant { deny_us, ..grant(&pool, said.seq, granted, 2_000_000) };
        assert!(pool.finish(now_us, &answer, u64::MAX), "{row:?}");
        assert!(slice.denies(now_us, 1), "{row:?}: its worker has not heard it yet");
        slice.take(now_us, 1);
        told(&mut pool, &mut slice, now_us);
        assert_eq!(slice.take(now_us, 1), offer, "{row:?}");
    }
    // Units of a busy key are handed out, and what is told afterwards is new.
    let (mut pool, mut slice) = denied(HOUR_US);
    slice.take(now_us, 1);
    told(&mut pool, &mut slice, now_us);
    let said = pool.ask_again(now_us, TIMEOUT_US).expect("somebody came");
    let answer = LeaseGrant { deny_us: HOUR_US, ..grant(&pool, said.seq, 1, 2_000_000) };
    assert!(pool.finish(now_us, &answer, 0));
    slice.take(now_us, 1);
    told(&mut pool, &mut slice, now_us);
    assert_eq!(slice.take(now_us, 1), Offer::Empty, "its pool has some");
    assert!(matches!(pool.meet(now_us, &mut slice, 1), Offer::Taken(_)));
    assert_eq!(pool.meet(now_us, &mut slice, 1), Offer::Denied { wait_us: HOUR_US });
}

/// Whoever has to go for another key is not heard of any more: its slice denies nobody.
#[test]
fn a_slice_without_its_pool_forgets_a_denial() {
    let (_, mut slice) = denied(HOUR_US);
    assert!(slice.denies(START_US + 1, 1));
    slice.orphan(START_US + 1);
    assert_eq!(slice.take(START_US + 1, 1), Offer::Empty);
}

/// However many pools deny, a tick asks for so many of them; each has its turn once before any has another, and
/// no two turns are closer than a round.
#[test]
fn denied_pools_are_asked_for_in_turn() {
    for (slots, pools) in [(1usize, 1usize), (128, 4), (usize::from(SLOTS), 4)] {
        let mut rounds = Rounds::default();
        let mut turns: Vec<Vec<u64>> = (0..slots).map(|_| Vec::new()).collect();
        for tick in 0..400 {
            let now_us = START_US + tick * TICK_US;
            rounds.tick(now_us);
            let mut asks = 0;
            for (slot, turns) in (0u16..).zip(&mut turns) {
                if rounds.reaches(slot) {
                    rounds.asked(pools);
                    asks += pools;
                    turns.push(now_us);
                }
            }
            assert!(asks <= ASKS_MAX, "{asks} asked for in one tick");
        }
        let every_us = (slots * pools).div_ceil(ASKS_MAX) as u64 * TICK_US;
        let every_us = every_us.max(2 * SECOND_US);
        for turns in turns {
            assert!(turns.len() >= 4, "{slots} slots: {turns:?}");
            for pair in turns.windows(2) {
                assert_eq!(pair[1] - pair[0], every_us, "{slots} slots");
            }
        }
    }
    // A clock that stepped back by an hour ends no rounds.
    let mut rounds = Rounds::default();
    for (now_us, reaches) in [
        (START_US, true),
        (START_US + TICK_US, false),
        (START_US - HOUR_US, true),
        (START_US - HOUR_US + TICK_US, false),
        (START_US - HOUR_US + 2 * SECOND_US, true),
    ] {
        rounds.tick(now_us);
        assert_eq!(rounds.reaches(3), reaches, "{now_us}");
    }
}

/// While an operator's grant stands, requests are to ask: what is granted is theirs, and not a holder's.
#[test]
fn a_bucket_with_a_grant_denies_no_holder() {
    let now = Instant::from_unix_us(START_US);
    let quota = Quota::new(5, 3_600 * SECOND_US, 5).expect("sound");
    let terms = Terms { quota, cold_left_us: 0 };
    let empty = Held::Arrival(Tat(now.since_epoch_us() + 3_600e6), Reach::UNKNOWN);
    let granted = limit::grant::grant(now, Some(&empty), empty.clone(), 3, SECOND_US, 1).held;
    for demand in [0, 40] {
        for want in [Want::Nothing, Want::Ahead, Want::Now] {
            let call = Call { holder: 7, seq: 1, demand, left: 0, back: 0, want };
            let wanted = want != Want::Nothing;
            let (bare, _) = step(now, terms, &call, Some(&empty));
            let denies = (bare.granted, bare.deny_us > 0, bare.scarce);
            assert_eq!(denies, (0, wanted, wanted && demand > 0), "{want:?} at {demand}/s");
            let (given, _) = step(now, terms, &call, Some(&granted));
            let denies = (given.granted, given.deny_us, given.scarce);
            assert_eq!(denies, (0, 0, false), "{want:?} at {demand}/s, with a grant");
            let over = Instant::from_unix_us(START_US + SECOND_US);
            let (given, _) = step(over, terms, &call, Some(&granted));
            assert_eq!(given.deny_us > 0, wanted, "{want:?} at {demand}/s, after it");
        }
    }
}

mod numbers;
mod vanishing;
