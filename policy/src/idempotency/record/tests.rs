//! Tests of the record's steps: every state against every step as a table, and random histories of
//! many owners held against what they must never do.

use super::*;
use crate::idempotency::stored::StoredHeaders;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const NOW_US: u64 = 1_800_000_000_000_000;
const LOCK_US: u64 = 20_000_000;
const KEEP_MS: u64 = 60_000;

/// A case, the record before, what is asked, what is said, what is written.
type Row<Ask, Said> = (&'static str, Option<Record>, Ask, Said, Option<Write>);

fn owner(number: u128) -> Owner {
    DecisionId::new(number).into()
}

fn hash(number: u8) -> RequestHash {
    RequestHash::from_bytes([number; 32])
}

fn claim(owner_number: u128, takeover: bool) -> Claim {
    Claim { owner: owner(owner_number), hash: hash(7), lock_us: LOCK_US, ttl_ms: TTL_MS, takeover }
}

fn held(owner_number: u128, fence: Fence) -> Held {
    Held { owner: owner(owner_number), fence }
}

fn answer(body: Option<&[u8]>) -> StoredAnswer {
    let headers = StoredHeaders::new(vec![(b"location".to_vec(), b"/o/1".to_vec())]);
    StoredAnswer { status: 201, headers: headers.expect("few"), body: body.map(<[u8]>::to_vec) }
}

fn record(owner_number: u128, fence: Fence, state: State) -> Record {
    Record { fence, owner: owner(owner_number), hash: Some(hash(7)), state, ended: Vec::new() }
}

/// Beside which it is remembered that these owners ended.
fn after(record: Record, owners: &[u128]) -> Record {
    Record { ended: owners.iter().map(|&number| owner(number)).collect(), ..record }
}

fn in_flight(lock_until_us: u64) -> State {
    State::InFlight { lock_until_us, lock_ms: 20_000 }
}

fn done(body: Option<&[u8]>) -> State {
    State::Done { done_us: NOW_US - 1, answer: answer(body) }
}

fn written(record: Record, ttl_ms: u64) -> Option<Write> {
    Some(Write { record, ttl_ms: Some(ttl_ms) })
}

#[test]
fn begin_in_every_state() {
    let lock = in_flight(NOW_US + LOCK_US);
    let claimed = |fence, taken_over| Begun::Claimed { fence, taken_over };
    let own = |fence| written(record(1, fence, lock.clone()), TTL_MS);
    let own_after =
        |fence, ended: &[u128]| written(after(record(1, fence, lock.clone()), ended), TTL_MS);
    let full = [2, 3, 4, 5, 6, 7, 8];
    let wait = Begun::Found(Found::InFlight { wait_us: 5 });
    let rows: [Row<bool, Begun>; 20] = [
        ("absent", None, false, claimed(1, false), own(1)),
        (
            "given back",
            Some(record(2, 3, State::Free)),
            false,
            claimed(4, false),
            own_after(4, &[2]),
        ),
        (
            "given back, after others",
            Some(after(record(9, 3, State::Free), &full)),
            false,
            claimed(4, false),
            own_after(4, &[9, 2, 3, 4, 5, 6, 7]),
        ),
        (
            "given back, before another",
            Some(after(record(2, 3, State::Free), &[3, 1])),
            false,
            Begun::Spent,
            None,
        ),
        (
            "given back, while another is at it",
            Some(after(record(2, 3, in_flight(NOW_US + 5)), &[3, 1])),
            true,
            Begun::Spent,
            None,
        ),
        (
            "its own, after others",
            Some(after(record(1, 3, in_flight(1)), &full)),
            false,
            claimed(3, false),
            own_after(3, &full),
        ),
        (
            "late, takeover, after others",
            Some(after(record(2, 3, in_flight(1)), &[3])),
            true,
            claimed(4, true),
            own_after(4, &[3]),
        ),
        ("given back by itself", Some(record(1, 3, State::Free)), true, Begun::Spent, None),
        (
            "an end without a claim",
            Some(Record { hash: None, ..record(2, 0, State::Free) }),
            false,
            claimed(1, false),
            own_after(1, &[2]),
        ),
        ("in flight", Some(record(2, 3, in_flight(NOW_US + 5))), false, wait.clone(), None),
        ("in flight, takeover", Some(record(2, 3, in_flight(NOW_US + 5))), true, wait, None),
        ("its own", Some(record(1, 3, in_flight(NOW_US + 5))), false, claimed(3, false), own(3)),
        ("its own, late", Some(record(1, 3, in_flight(1))), false, claimed(3, false), own(3)),
        ("late", Some(record(2, 3, in_flight(NOW_US))), false, Begun::Found(Found::Unknown), None),
        ("late, takeover", Some(record(2, 3, in_flight(NOW_US))), true, claimed(4, true), own(4)),
        (
            "done",
            Some(record(2, 3, done(Some(b"\0\xff")))),
            true,
            Begun::Found(Found::Done(answer(Some(b"\0\xff")))),
            None,
        ),
        (
            "done by itself",
            Some(record(1, 3, done(Some(b"")))),
            true,
            Begun::Found(Found::Done(answer(Some(b"")))),
            None,
        ),
        (
            "done without body",
            Some(record(2, 3, done(None))),
            true,
            Begun::Found(Found::Done(answer(None))),
            None,
        ),
        (
            "another request",
            Some(Record { hash: Some(hash(8)), ..record(2, 3, in_flight(1)) }),
            true,
            Begun::Found(Found::Conflict),
            None,
        ),
        (
            "another request, given back",
            Some(Record { hash: Some(hash(8)), ..record(2, 3, State::Free) }),
            true,
            Begun::Found(Found::Conflict),
            None,
        ),
    ];
    for (case, record, takeover, begun, write) in rows {
        assert_eq!(begin(NOW_US, record.as_ref(), &claim(1, takeover)), (begun, write), "{case}");
    }
}

/// Whoever asks has another length in mind: it counts for nothing.
#[test]
fn a_lock_that_ends_later_than_it_may_is_counted_anew_and_whole() {
    let ahead = Some(record(2, 3, in_flight(NOW_US + LOCK_US + 1)));
    let whole = Found::InFlight { wait_us: LOCK_US };
    for (lock_us, takeover) in [(1, true), (LOCK_US, false), (9 * LOCK_US, true)] {
        let claim = Claim { lock_us, ..claim(1, takeover) };
        let (begun, write) = begin(NOW_US, ahead.as_ref(), &claim);
        assert_eq!(begun, Begun::Found(whole.clone()));
        let cut = record(2, 3, in_flight(NOW_US + LOCK_US));
        assert_eq!(write, Some(Write { record: cut.clone(), ttl_ms: None }), "its life as it was");
        assert_eq!(begin(NOW_US, Some(&cut), &claim), (Begun::Found(whole.clone()), None));
        let (early, _) = begin(NOW_US + LOCK_US - 1, Some(&cut), &claim);
        assert_eq!(early, Begun::Found(Found::InFlight { wait_us: 1 }));
    }
    assert_eq!(lookup(NOW_US, ahead.as_ref(), None), whole, "and nothing changes");
    let state = State::InFlight { lock_until_us: NOW_US + 9 * LOCK_US, lock_ms: 0 };
    let unknown = begin(NOW_US, Some(&record(2, 3, state)), &claim(1, true));
    let wait = Begun::Found(Found::InFlight { wait_us: 9 * LOCK_US });
    assert_eq!(unknown, (wait, None), "an older gateway did not say how long it is");
}

#[test]
fn lookup_in_every_state() {
    let rows = [
        (None, Found::Absent),
        (Some(record(2, 3, State::Free)), Found::Absent),
        (Some(record(2, 3, in_flight(NOW_US + 1))), Found::InFlight { wait_us: 1 }),
        (Some(record(2, 3, in_flight(NOW_US))), Found::Unknown),
        (Some(record(2, 3, done(None))), Found::Done(answer(None))),
    ];
    for (record, found) in rows {
        assert_eq!(lookup(NOW_US, record.as_ref(), Some(&hash(7))), found);
        assert_eq!(lookup(NOW_US, record.as_ref(), None), found, "anybody who may look");
        let other = if record.is_some() { Found::Conflict } else { Found::Absent };
        assert_eq!(lookup(NOW_US, record.as_ref(), Some(&hash(8))), other);
    }
}

#[test]
fn complete_in_every_state() {
    let state = State::Done { done_us: NOW_US, answer: answer(Some(b"x")) };
    let stored = written(record(1, 3, state), TTL_MS);
    let rows: [(&str, Option<Record>, Completed, Option<Write>); 8] = [
        ("lost", None, Completed::Recovered, stored.clone()),
        ("given back", Some(record(1, 3, State::Free)), Completed::Fenced, None),
        ("in flight", Some(record(1, 3, in_flight(NOW_US + 5))), Completed::Stored, stored.clone()),
        ("late", Some(record(1, 3, in_flight(1))), Completed::Stored, stored),
        ("taken over", Some(record(2, 4, in_flight(NOW_US + 5))), Completed::Fenced, None),
        ("another fence", Some(record(1, 4, in_flight(NOW_US + 5))), Completed::Fenced, None),
        ("done", Some(record(1, 3, done(Some(b"first")))), Completed::AlreadyDone, None),
        ("done by another", Some(record(2, 4, done(None))), Completed::Fenced, None),
    ];
    for (case, record, completed, write) in rows {
        let answer = answer(Some(b"x"));
        let step = complete(NOW_US, record.as_ref(), held(1, 3), hash(7), answer, TTL_MS);
        assert_eq!(step, (completed, write), "{case}");
    }
}

#[test]
fn abandon_in_every_state() {
    let freed = written(record(1, 3, State::Free), KEEP_MS);
    let free_of =
        |owner, fence, hash| written(Record { hash, ..record(owner, fence, State::Free) }, KEEP_MS);
    let unheard = Held::unheard(owner(1));
    let at_it = |ended: &[u128]| after(record(2, 4, in_flight(1)), ended);
    let beside = |ended: &[u128]| Some(Write { record: at_it(ended), ttl_ms: None });
    let free_after =
        |fence, ended: &[u128]| written(after(record(1, fence, State::Free), ended), KEEP_MS);
    let rows: [Row<Held, Abandoned>; 16] = [
        ("lost", None, held(1, 3), Abandoned::Remembered, free_of(1, 3, None)),
        ("ahead of its begin", None, unheard, Abandoned::Remembered, free_of(1, 0, None)),
        (
            "in flight",
            Some(record(1, 3, in_flight(1))),
            held(1, 3),
            Abandoned::Freed,
            freed.clone(),
        ),
        ("unheard", Some(record(1, 3, in_flight(1))), unheard, Abandoned::Freed, freed),
        ("again", Some(record(1, 3, State::Free)), held(1, 3), Abandoned::Freed, None),
        ("another fence", Some(record(1, 4, in_flight(1))), held(1, 3), Abandoned::Fenced, None),
        ("taken over", Some(record(2, 4, in_flight(1))), held(1, 3), Abandoned::Fenced, None),
        ("another's, unheard", Some(at_it(&[])), unheard, Abandoned::Fenced, beside(&[1])),
        (
            "another's, unheard, next",
            Some(at_it(&[3])),
            unheard,
            Abandoned::Fenced,
            beside(&[1, 3]),
        ),
        (
            "another's, unheard, one too many",
            Some(at_it(&[3, 4, 5, 6, 7, 8, 9])),
            unheard,
            Abandoned::Fenced,
            beside(&[1, 3, 4, 5, 6, 7, 8]),
        ),
        ("another's, unheard, again", Some(at_it(&[3, 1])), unheard, Abandoned::Fenced, None),
        (
            "in flight, after others",
            Some(after(record(1, 4, in_flight(1)), &[3])),
            held(1, 4),
            Abandoned::Freed,
            free_after(4, &[3]),
        ),
        ("another's end", Some(record(2, 4, State::Free)), held(1, 3), Abandoned::Fenced, None),
        (
            "another's end, unheard",
            Some(record(2, 4, State::Free)),
            unheard,
            Abandoned::Remembered,
            free_after(4, &[2]),
        ),
        (
            "another's end, unheard, again",
            Some(after(record(2, 4, State::Free), &[1])),
            unheard,
            Abandoned::Freed,
            None,
        ),
        ("done", Some(record(1, 3, done(None))), held(1, 3), Abandoned::Fenced, None),
    ];
    for (case, record, held, abandoned, write) in rows {
        assert_eq!(abandon(record.as_ref(), held, KEEP_MS), (abandoned, write), "{case}");
    }
}

#[test]
fn extend_in_every_state() {
    let later = written(record(1, 3, in_flight(NOW_US + LOCK_US)), TTL_MS);
    let rows = [
        (None, Extended::Gone, None),
        (Some(record(1, 3, in_flight(NOW_US + 5))), Extended::Extended, later.clone()),
        (Some(record(1, 3, in_flight(1))), Extended::Extended, later),
        (Some(record(2, 4, in_flight(1))), Extended::Fenced, None),
        (Some(record(1, 4, in_flight(1))), Extended::Fenced, None),
        (Some(record(1, 3, State::Free)), Extended::Fenced, None),
        (Some(record(1, 3, done(None))), Extended::Fenced, None),
    ];
    for (record, extended, write) in rows {
        let step = extend(NOW_US, record.as_ref(), held(1, 3), LOCK_US, TTL_MS);
        assert_eq!(step, (extended, write), "{record:?}");
    }
}

#[test]
fn a_record_in_octets_to_the_letter() {
    let record = record(1, 0x0102, done(Some(b"\0\xff")));
    let bytes = record.to_bytes();
    let moment = (NOW_US - 1).to_le_bytes();
    let owner = owner(1).to_bytes();
    let headers = b"\x00\x08\x00\x04location/o/1";
    let parts: [&[u8]; 9] = [
        b"\x01\x02",
        &201u16.to_le_bytes(),
        b"\x02\x01\0\0\0\0\0",
        &moment[..7],
        &owner,
        &[7; 32],
        b"\x10\0\0\0",
        headers,
        b"\0\xff",
    ];
    assert_eq!(bytes, parts.concat());
    assert_eq!(self::record(1, 3, State::Free).to_bytes().len(), HEAD_LEN);
}

fn any_record() -> impl Strategy<Value = Record> {
    let headers = proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..3);
    let answer =
        (any::<u16>(), headers, any::<Option<Vec<u8>>>()).prop_map(|(status, headers, body)| {
            StoredAnswer { status, headers: StoredHeaders::new(headers).expect("few"), body }
        });
    let number = 0u64..1 << 53;
    let state = prop_oneof![
        Just(State::Free),
        (number.clone(), any::<u32>())
            .prop_map(|(lock_until_us, lock_ms)| State::InFlight { lock_until_us, lock_ms }),
        (number.clone(), answer).prop_map(|(done_us, answer)| State::Done { done_us, answer }),
    ];
    let ended = proptest::collection::vec(any::<u128>().prop_map(Owner), 0..=ENDED_MAX);
    (number, any::<u128>(), proptest::option::of(1u8..), state, ended).prop_map(
        |(fence, owner, hash, state, ended)| Record {
            fence,
            owner: Owner(owner),
            hash: hash.map(self::hash),
            ended: if matches!(state, State::Done { .. }) { Vec::new() } else { ended },
            state,
        },
    )
}

/// What one of a few owners does next.
#[derive(Debug, Clone, Copy)]
enum Act {
    Begin { takeover: bool },
    Complete,
    Abandon,
    AbandonUnheard,
    Extend,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        any::<bool>().prop_map(|takeover| Act::Begin { takeover }),
        Just(Act::Complete),
        Just(Act::Abandon),
        Just(Act::AbandonUnheard),
        Just(Act::Extend),
    ]
}

/// Seldom, and then by more than a lock.
fn clock_back() -> impl Strategy<Value = u64> {
    prop_oneof![9 => Just(0), 1 => 0..10 * LOCK_US]
}

proptest! {
    #[test]
    fn records_are_read_back(record in any_record()) {
        prop_assert_eq!(Record::from_bytes(&record.to_bytes()), Some(record));
    }

    #[test]
    fn octets_are_one_record_or_none(record in any_record(), at in 0usize..90, byte in any::<u8>(), cut in 0usize..90) {
        let mut bytes = record.to_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 8));
        if let Some(read) = Record::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }

    /// However often the clock steps back, and whatever length those who ask have in mind: the owner has all of its
    /// time, and no more than all of it anew after the last step that anybody saw.
    #[test]
    fn no_clock_that_steps_back_lets_anybody_in_early_or_keeps_them_out_for_long(
        steps in proptest::collection::vec((0..LOCK_US / 2, clock_back(), 0..3 * LOCK_US), 1..30)
    ) {
        let (mut now_us, mut real_us, mut stepped_us) = (NOW_US, 0, 0);
        let mut held_record = begin(now_us, None, &claim(1, false)).1.expect("claimed").record;
        for (passed_us, back_us, lock_us) in steps {
            (now_us, real_us) = (now_us + passed_us - back_us, real_us + passed_us);
            if back_us > 0 {
                stepped_us = real_us;
            }
            let (begun, write) = begin(now_us, Some(&held_record), &Claim { lock_us, ..claim(2, true) });
            match begun {
                Begun::Claimed { .. } => {
                    prop_assert!(real_us >= LOCK_US, "early");
                    break;
                }
                begun => prop_assert!(real_us < stepped_us + LOCK_US, "{:?}", begun),
            }
            held_record = write.map_or(held_record, |write| write.record);
        }
    }

    /// Owners begin, complete, give back and come late, in any order and repeatedly. Nobody runs while
    /// another does, unless its lock has ended and takeover is allowed; nobody runs after an answer was
    /// stored, or after its own end, however many ended before their begins came; whatever was stored first stays; fences never go back. The clock may: nobody is let in earlier for it.
    #[test]
    fn no_history_runs_twice(
        steps in proptest::collection::vec((0usize..4, act(), 0u64..LOCK_US, clock_back()), 1..60)
    ) {
        let mut held_record: Option<Record> = None;
        let mut fences = [0u64; 4];
        let mut ended = [false; 4];
        let mut stored: Option<StoredAnswer> = None;
        let (mut now_us, mut real_us, mut locked_us) = (NOW_US, 0, 0);
        for (who, act, passed_us, back_us) in steps {
            (now_us, real_us) = (now_us + passed_us - back_us, real_us + passed_us);
            let number = who as u128;
            let before = held_record.clone();
            let held = self::held(number, fences[who]);
            let write = match act {
                Act::Begin { takeover } => {
                    let (begun, write) = begin(now_us, before.as_ref(), &claim(number, takeover));
                    if let Begun::Claimed { fence, taken_over } = begun {
                        prop_assert!(stored.is_none(), "runs although the answer is there");
                        prop_assert!(!ended[who], "runs although it gave back");
                        if let Some(Record { state: State::InFlight { lock_until_us, .. }, owner, .. }) = &before {
                            let own = *owner == self::owner(number);
                            prop_assert!(own || (takeover && *lock_until_us <= now_us));
                            prop_assert!(own || real_us - locked_us >= LOCK_US, "before its lock has ended");
                            prop_assert_eq!(taken_over, !own);
                        }
                        fences[who] = fence;
                        locked_us = real_us;
                    }
                    write
                }
                Act::Complete if fences[who] == 0 => None,
                Act::Complete => {
                    let answer = StoredAnswer { status: 200 + who as u16, ..answer(Some(b"x")) };
                    let (completed, write) =
                        complete(now_us, before.as_ref(), held, hash(7), answer.clone(), TTL_MS);
                    if completed == Completed::Stored {
                        prop_assert_eq!(stored.replace(answer), None);
                    }
                    write
                }
                Act::Abandon if fences[who] == 0 => None,
                Act::Abandon | Act::AbandonUnheard => {
                    let unheard = matches!(act, Act::AbandonUnheard);
                    let held = if unheard { Held::unheard(self::owner(number)) } else { held };
                    let (abandoned, write) = abandon(before.as_ref(), held, KEEP_MS);
                    // Fewer than are remembered.
                    ended[who] |= abandoned != Abandoned::Fenced || unheard;
                    write
                }
                Act::Extend => {
                    let (extended, write) = extend(now_us, before.as_ref(), held, LOCK_US, TTL_MS);
                    if extended == Extended::Extended {
                        locked_us = real_us;
                    }
                    write
                }
            };
            if let Some(Write { record, ttl_ms }) = write {
                prop_assert_ne!(ttl_ms, Some(0));
                prop_assert!(record.fence >= before.as_ref().map_or(0, |before| before.fence));
                held_record = Some(record);
            }
            if let Some(stored) = &stored {
                let found = lookup(now_us, held_record.as_ref(), Some(&hash(7)));
                prop_assert_eq!(found, Found::Done(stored.clone()), "what was stored first stays");
            }
        }
    }
}
