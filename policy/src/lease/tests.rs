//! Pools and slots one by one: who has to go, what comes back, who misses while another asks. That the
//! limit holds under all of it together is tested in gateway/tests/leases and tests/tests.

use alloc::format;
use alloc::vec::Vec;

use super::holder::{Pool, TICK_US};
use super::slice::{Offer, Slice};
use super::slot::{Key, Record, Room, Slot};
use crate::identity::{Subject, SubjectKind, SubjectName};
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
    assert!(record(&mut slot, "e", now_us).is_none(), "all were looked at within a second");

    // The first is looked at again; so the second has rested longest.
    let (again, _) = record(&mut slot, "a", now_us).expect("its own");
    again.pool.settle(now_us, &mut Slice::default(), false);
    let now_us = START_US + 1_150_000;
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
    // After a while without clients nothing is left.
    slot.sweep(START_US + 60_000_000);
    assert!(slot.is_empty());
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
