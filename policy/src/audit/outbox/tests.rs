//! Tests of the outbox: what is told, counted, sent again and lost.

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::audit::tally::WINDOW_MS;
use crate::audit::{About, Durability};
use crate::config::{ConfigHash, Rung};
use crate::identity::{Subject, SubjectKind, SubjectName};
use crate::reason::Reason;
use crate::scope::{CallerScope, Environment, KeyFormat, Tenant, TenantId};
use crate::wire;
use crate::wire::audit::{AuditRequest, BRIEFS_MAX};

fn id(number: usize) -> DecisionId {
    DecisionId::new(u128::try_from(number).expect("small"))
}

fn denial(limit: &str, subject: &str) -> Testimony {
    let name = SubjectName::from_bytes(subject.as_bytes());
    let about =
        About { limit: limit.to_string(), subject: Subject { kind: SubjectKind::Ip, name } };
    Testimony {
        decision: Some(id(7)),
        names: vec![limit.to_string()],
        about: vec![about],
        ..Testimony::own(Action::Deny, "quota-exceeded", String::new())
    }
}

fn allow() -> Testimony {
    Testimony::own(Action::Allow, "ok", String::new())
}

fn sent(outbox: &mut Outbox, number: usize) -> Vec<AuditNote> {
    outbox.batch(id(number)).map(heard).unwrap_or_default()
}

/// What of so many events became what; of a gateway that does not read briefs.
fn each(kept: &[Kept]) -> Said<'_> {
    Said::Each { kept, briefs: false }
}

/// A batch as a gateway hears it.
fn heard(batch: Batch<'_>) -> Vec<AuditNote> {
    AuditRequest::decode(&encoded(batch)).expect("sound").events
}

fn encoded(Batch { events, briefs }: Batch<'_>) -> Vec<u8> {
    let scope = CallerScope {
        region: None,
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    };
    let (v, id, urgent) = (wire::VERSION, id(1), false);
    let (timeout_ms, config) = (1_000, None);
    wire::encode(&AuditRequest { v, id, scope, timeout_ms, urgent, config, events, briefs })
}

/// Everything that comes out while the gateway keeps all.
fn drained(outbox: &mut Outbox) -> Vec<AuditNote> {
    let mut all = Vec::new();
    for number in 0.. {
        let batch = sent(outbox, number);
        if batch.is_empty() {
            break;
        }
        outbox.answered(id(number), each(&vec![Kept::Kept; batch.len()]));
        all.extend(batch);
    }
    all
}

#[test]
fn the_first_of_a_subject_and_window_is_an_event_and_the_rest_is_one_that_counts() {
    let mut outbox = Outbox::new(0xabc, 1_000);
    for _ in 0..500 {
        outbox.record(denial("p.ip", "192.0.2.1"));
        outbox.record(denial("p.ip", "192.0.2.2"));
        outbox.record(denial("p.key", "192.0.2.1"));
    }
    let firsts = drained(&mut outbox);
    assert_eq!(firsts.len(), 3, "{firsts:?}");
    assert!(firsts.iter().all(|note| note.more == 0 && note.about.len() == 1));
    assert_eq!(firsts[0].id, format!("{:032x}-1", 0xabc));
    assert_eq!(firsts[0].detail, format!("names=p.ip decision={}", id(7)));
    outbox.tick(1_000 + WINDOW_MS - 1);
    assert!(outbox.is_empty(), "the window is not over");
    outbox.tick(1_000 + WINDOW_MS);
    let counted = drained(&mut outbox);
    let mut told: Vec<_> = counted.iter().map(|note| (note.detail.as_str(), note.more)).collect();
    told.sort_unstable();
    assert_eq!(told, [("names=p.ip", 998), ("names=p.key", 499)]);
    assert!(counted.iter().all(|note| note.about.is_empty()), "nobody is named by a count");
    // A new window begins with a first again.
    outbox.record(denial("p.ip", "192.0.2.1"));
    assert_eq!(drained(&mut outbox).len(), 1);
    assert_eq!(outbox.counts(), Counts { kept: 1_501, refused: 0, lost: 0 });
}

#[test]
fn an_attack_of_many_subjects_and_kinds_leaves_a_bounded_number_and_loses_none() {
    let mut outbox = Outbox::new(1, 0);
    for n in 0..10_000 {
        outbox
            .record(denial(&format!("p{}.ip", n % 100), &format!("10.0.{}.{}", n / 256, n % 256)));
    }
    assert_eq!(drained(&mut outbox).len(), PLACES.firsts);
    outbox.tick(WINDOW_MS);
    let counted = drained(&mut outbox);
    assert_eq!(counted.len(), PLACES.kinds + 1);
    let total: u32 = counted.iter().map(|note| note.more).sum();
    assert_eq!(usize::try_from(total).expect("small"), 10_000 - PLACES.firsts);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_with_the_same_ids_and_in_order() {
    let mut outbox = Outbox::new(1, 0);
    for _ in 0..3 {
        outbox.record(allow());
    }
    let first = sent(&mut outbox, 1);
    assert_eq!(first.len(), 3);
    assert!(outbox.batch(id(2)).is_none(), "one at a time");
    // Another message's answer is none of this one's.
    outbox.answered(id(9), each(&[Kept::Kept; 3]));
    assert_eq!(outbox.len(), 3);
    outbox.answered(id(1), each(&[Kept::Later, Kept::Kept, Kept::Later]));
    let ids = |notes: &[AuditNote]| notes.iter().map(|note| note.id.clone()).collect::<Vec<_>>();
    let second = sent(&mut outbox, 2);
    assert_eq!(ids(&second), [first[0].id.clone(), first[2].id.clone()]);
    // No answer: again, but not at once.
    outbox.answered(id(2), Said::Nothing);
    assert!(outbox.batch(id(3)).is_none());
    outbox.tick(RETRY_MS);
    let third = sent(&mut outbox, 3);
    assert_eq!(ids(&third), ids(&second));
    assert_eq!(third[0].age_ms, 1_000);
    outbox.answered(id(3), each(&[Kept::Kept, Kept::Refused]));
    assert_eq!(outbox.counts(), Counts { kept: 2, refused: 1, lost: 0 });
    assert!(outbox.is_empty());
}

/// It may be in the chain, and for a fresh event nobody looks far back.
#[test]
fn a_clock_that_is_set_back_makes_no_event_younger() {
    let mut outbox = Outbox::new(1, 100_000);
    outbox.record(allow());
    assert_eq!(sent(&mut outbox, 1)[0].age_ms, 0);
    outbox.tick(105_000);
    outbox.tick(50_000);
    outbox.answered(id(1), Said::Nothing);
    outbox.tick(51_000);
    assert_eq!(sent(&mut outbox, 2)[0].age_ms, 6_000);
}

#[test]
fn what_is_alike_is_told_in_brief_to_who_reads_that_and_nothing_else_is() {
    let other = |decision: usize, subject: &str| {
        let decision = Some(id(decision));
        Testimony { decision, ..denial("p.ip", subject) }
    };
    let told = [
        other(1, "192.0.2.1"),
        other(2, "192.0.2.2"),
        Testimony { outcome: "temporary-reduced-capacity", ..other(3, "192.0.2.3") },
        other(4, "192.0.2.4"),
        Testimony { action: Action::Overload, ..other(5, "192.0.2.5") },
        Testimony {
            tenant: Tenant::Named(TenantId::new("acme").expect("a name")),
            ..other(6, "192.0.2.6")
        },
        Testimony { decision: None, ..other(7, "192.0.2.7") },
        Testimony { config: ConfigHash::read(&"a".repeat(64)), ..other(8, "192.0.2.8") },
        Testimony { cause: Some(Reason::StoreTimeout), ..other(9, "192.0.2.9") },
        Testimony { rungs: vec![Rung::Deny], ..other(10, "192.0.2.10") },
        Testimony { names: vec!["p.other".to_string()], ..other(11, "192.0.2.11") },
        Testimony { text: "why".to_string(), ..other(12, "192.0.2.12") },
        Testimony { share_bp: 1, ..other(13, "192.0.2.13") },
        Testimony { durability: Durability::Sampled, ..other(14, "192.0.2.14") },
        Testimony { about: Vec::new(), ..other(15, "192.0.2.15") },
        Testimony { about: denial("p.key", "192.0.2.16").about, ..other(16, "192.0.2.16") },
    ];
    let last = other(17, "192.0.2.17");
    let (mut reads, mut does_not) = (Outbox::new(0xabc, 0), Outbox::new(0xabc, 0));
    for (outbox, briefs) in [(&mut reads, true), (&mut does_not, false)] {
        outbox.record(allow());
        assert!(outbox.batch(id(1)).is_some_and(|batch| batch.briefs.is_empty()));
        outbox.answered(id(1), Said::Each { kept: &[Kept::Kept], briefs });
        for event in told.iter().chain([&last]) {
            outbox.record_each(Box::new(event.clone()));
        }
        outbox.tick(7);
    }
    let batch = reads.batch(id(2)).expect("there is one");
    let brief = |batch: &Batch<'_>| {
        batch.briefs.iter().map(|brief| (brief.like, brief.number)).collect::<Vec<_>>()
    };
    // The last one finds none that it is like among the latest, and the first is too long ago.
    assert_eq!(brief(&batch), [(0, 3), (0, 5)]);
    let whole = does_not.batch(id(2)).expect("there is one");
    assert!(whole.briefs.is_empty());
    let mut from_brief = heard(batch);
    from_brief.sort_by_key(AuditNote::number);
    assert_eq!(from_brief, heard(whole));
    // Of those in the message's order; what is not kept, and after silence all, is told as a whole again.
    let mut kept = [Kept::Kept; 17];
    (kept[0], kept[16]) = (Kept::Later, Kept::Later);
    reads.answered(id(2), Said::Each { kept: &kept, briefs: true });
    let batch = reads.batch(id(3)).expect("there is one");
    assert_eq!((batch.events.len(), brief(&batch)), (1, vec![(0, 5)]));
    assert_eq!(batch.events[0].number(), Some(2));
    reads.answered(id(3), Said::Nothing);
    reads.tick(7 + RETRY_MS);
    let batch = reads.batch(id(4)).expect("there is one");
    assert_eq!((batch.events.len(), brief(&batch)), (2, vec![]));
    for (now_ms, is_brief) in [(7 + WHOLE_MS - 1, false), (7 + WHOLE_MS, true)] {
        reads.answered(id(4), Said::Each { kept: &[Kept::Kept; 17], briefs: true });
        (0..2).for_each(|_| reads.record_each(Box::new(last.clone())));
        reads.tick(now_ms);
        let batch = reads.batch(id(4)).expect("there is one");
        assert_eq!((batch.len(), brief(&batch).is_empty()), (2, !is_brief));
    }
    // Nor for longer by a clock that is set back.
    reads.answered(id(4), Said::Nothing);
    for (now_ms, is_brief) in [(0, false), (WHOLE_MS, true)] {
        reads.tick(now_ms);
        let batch = reads.batch(id(5));
        assert_eq!(batch.is_some_and(|batch| !brief(&batch).is_empty()), is_brief, "{now_ms} ms");
        reads.answered(id(5), Said::Each { kept: &[], briefs: true });
    }
}

/// What a gateway reads of a message, less what stands around its events.
const OCTETS_READ: usize = 64 * 1_024 - 2_048;

#[test]
fn a_message_holds_768_events_where_they_are_brief_and_no_more_than_its_octets() {
    let mut outbox = Outbox::new(1, 0);
    let kept = |outbox: &mut Outbox, number: usize| {
        let batch = outbox.batch(id(number)).expect("there is one");
        let (count, briefs) = (batch.len(), batch.briefs.len());
        let octets = encoded(batch).len();
        outbox.answered(id(number), Said::Each { kept: &[Kept::Kept; BRIEFS_MAX], briefs: true });
        (count, briefs, octets)
    };
    (0..2_000).for_each(|_| outbox.record_each(Box::new(denial("p.ip", "192.0.2.1"))));
    assert_eq!(kept(&mut outbox, 1).0, EVENTS_MAX);
    let (count, briefs, octets) = kept(&mut outbox, 2);
    assert_eq!((count, briefs), (BRIEFS_MAX, BRIEFS_MAX - 1));
    assert!(octets < OCTETS_READ, "{octets}");
    // None of them like another: as many as are told as a whole.
    let mut outbox = Outbox { reads_briefs: true, ..Outbox::new(1, 0) };
    (0..100).for_each(|n| outbox.record(denial(&format!("p.l{n}"), "192.0.2.1")));
    assert_eq!(kept(&mut outbox, 1).0, EVENTS_MAX);
    // Long names.
    let mut outbox = Outbox { reads_briefs: true, ..Outbox::new(1, 0) };
    let long = "n".repeat(500);
    (0..200).for_each(|_| outbox.record_each(Box::new(denial("p.ip", &long))));
    let (count, briefs, octets) = kept(&mut outbox, 1);
    assert!(briefs > 60 && briefs + 1 == count, "{count}");
    assert!(octets < OCTETS_READ, "{octets}");
    // Decisions of many workers, and the largest numbers there are.
    let mut outbox = Outbox { reads_briefs: true, made: 1 << 63, ..Outbox::new(1, 0) };
    for n in 0..1_000 {
        let far = DecisionId::of_halves(n << 52, !n << 49);
        let what = Testimony { decision: Some(far), ..denial("p.ip", "192.0.2.1") };
        outbox.record_each(Box::new(what));
    }
    outbox.tick(u64::from(u32::MAX));
    let (count, briefs, octets) = kept(&mut outbox, 1);
    assert!(briefs > 500 && briefs + 1 == count && count < BRIEFS_MAX, "{count}");
    assert!(octets < OCTETS_READ, "{octets}");
}

#[test]
fn a_message_is_due_at_once_when_it_is_a_whole_one_and_none_is_on_its_way() {
    let mut outbox = Outbox::new(1, 0);
    let record = |outbox: &mut Outbox, count: usize| {
        for _ in 1..count {
            outbox.record_each(Box::new(allow()));
            assert!(!outbox.is_due(), "of {count}");
        }
        outbox.record_each(Box::new(allow()));
        outbox.is_due()
    };
    assert!(record(&mut outbox, EVENTS_MAX), "nobody has said that he reads briefs");
    assert!(outbox.batch(id(1)).is_some() && !outbox.is_due(), "it is on its way");
    outbox.answered(id(1), Said::Each { kept: &[Kept::Kept; EVENTS_MAX], briefs: true });
    assert!(record(&mut outbox, BRIEFS_MAX));
    // What a decision waits for goes beside it.
    let urgent = outbox.record_urgent(Box::new(allow()), id(2), false);
    assert!(matches!(urgent, Urgent::Send(_)) && outbox.is_due());
    assert!(outbox.batch(id(3)).is_some());
    // One that is not answered is not sent again before its time.
    outbox.answered(id(3), Said::Nothing);
    assert!(!outbox.is_due());
    outbox.tick(RETRY_MS);
    assert!(outbox.is_due());
}

/// A gateway that reads briefs has 64 at a time of those that are alike in nothing: the others do not wait for a tick each.
#[test]
fn what_found_no_room_in_a_message_goes_with_the_answer_to_it() {
    let mut outbox = Outbox { reads_briefs: true, ..Outbox::new(1, 0) };
    (0..150).for_each(|n| outbox.record(denial(&format!("p.l{n}"), "192.0.2.1")));
    for (number, (count, is_more)) in (1..).zip([(64, true), (64, true), (24, false)]) {
        assert_eq!(sent(&mut outbox, number).len(), count);
        // What comes meanwhile is gathered.
        outbox.record_each(Box::new(allow()));
        let said = Said::Each { kept: &[Kept::Kept; EVENTS_MAX], briefs: true };
        assert_eq!(outbox.answered(id(number), said), is_more, "{number}");
    }
}

#[test]
fn a_dead_gateway_is_asked_less_and_less_often_and_a_live_one_at_once() {
    let mut outbox = Outbox::new(1, 0);
    outbox.record(allow());
    let (mut now_ms, mut tries) = (0, Vec::new());
    while now_ms < 100_000 {
        outbox.tick(now_ms);
        if outbox.batch(id(1)).is_some() {
            tries.push(now_ms);
            outbox.answered(id(1), Said::Nothing);
        }
        now_ms += 1_000;
    }
    assert_eq!(tries, [0, 1_000, 3_000, 7_000, 15_000, 31_000, 61_000, 91_000]);
    // A clock that is set back stops nothing for long.
    outbox.tick(10);
    outbox.tick(10 + RETRY_MS_MAX);
    for _ in 0..200 {
        outbox.record(allow());
    }
    assert_eq!(sent(&mut outbox, 2).len(), EVENTS_MAX);
    assert!(outbox.answered(id(2), each(&[Kept::Kept; EVENTS_MAX])), "there is more");
    assert_eq!(sent(&mut outbox, 3).len(), EVENTS_MAX);
}

#[test]
fn an_answer_that_never_comes_and_a_message_that_nobody_reads_block_nothing() {
    let mut outbox = Outbox::new(1, 0);
    outbox.record(allow());
    assert_eq!(sent(&mut outbox, 1).len(), 1);
    outbox.tick(FLIGHT_MS_MAX);
    assert!(outbox.batch(id(2)).is_none());
    outbox.tick(FLIGHT_MS_MAX + 1);
    assert_eq!(sent(&mut outbox, 2).len(), 1);
    outbox.answered(id(2), Said::Unreadable);
    assert_eq!(outbox.counts(), Counts { kept: 0, refused: 1, lost: 0 });
    outbox.record(allow());
    assert_eq!(sent(&mut outbox, 3).len(), 1);
    outbox.close();
    assert_eq!(outbox.counts().lost, 1);
}

#[test]
fn beyond_the_bound_the_newest_are_lost_counted_and_told() {
    let mut outbox = Outbox::new(1, 0);
    for _ in 0..WAITING_MAX + 5 {
        outbox.record(allow());
    }
    assert_eq!((outbox.len(), outbox.counts().lost), (WAITING_MAX, 5));
    let first = drained(&mut outbox);
    assert_eq!(first.len(), WAITING_MAX);
    outbox.tick(1_000);
    let told = drained(&mut outbox);
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].action, told[0].detail.as_str()),
        (Action::Loss, "5 events of a filter found no room")
    );
    // Denials that find no room are counted with their kind, and none is lost.
    for _ in 0..WAITING_MAX {
        outbox.record(allow());
    }
    outbox.record(denial("p.ip", "192.0.2.1"));
    assert_eq!(outbox.len(), WAITING_MAX);
    outbox.tick(1_000 + WINDOW_MS);
    outbox.tick(2_000 + WINDOW_MS);
    assert_eq!(drained(&mut outbox).len(), WAITING_MAX);
    outbox.tick(2_000 + 2 * WINDOW_MS);
    let counted = drained(&mut outbox);
    assert_eq!(counted.iter().map(|note| note.more).collect::<Vec<_>>(), [1]);
    assert_eq!(outbox.counts().lost, 0);
}

#[test]
fn the_largest_events_fit_the_message_and_the_gateway_reads_them() {
    let mut outbox = Outbox::new(u128::MAX, 0);
    let name = |n: usize| format!("{}{n:03}.{}", "p".repeat(60), "l".repeat(63));
    for n in 0..100 {
        let names: Vec<String> = (0..64).map(name).collect();
        let kind = SubjectKind::FilterState;
        let spelling = SubjectName::from_bytes(format!("{}{n}", "x".repeat(90)).as_bytes());
        let about = |limit: &String| About {
            limit: limit.clone(),
            subject: Subject { kind, name: spelling.clone() },
        };
        outbox.record(Testimony {
            tenant: serde_json::from_str(&format!("{:?}", "t".repeat(64))).expect("a tenant"),
            decision: Some(id(n)),
            cause: Some(crate::reason::Reason::CalloutCircuitOpen),
            rungs: vec![crate::config::Rung::Lease, crate::config::Rung::LocalShare],
            about: names.iter().map(about).collect(),
            names,
            ..Testimony::own(Action::Rung, "policy-store-unavailable", "y".repeat(100))
        });
    }
    let mut all = 0;
    for number in 0.. {
        let events = sent(&mut outbox, number);
        if events.is_empty() {
            break;
        }
        let count = events.len();
        let id = id(number);
        outbox.answered(id, each(&vec![Kept::Kept; count]));
        all += count;
    }
    assert!(all > 32, "{all} of 100");
}

#[derive(Debug, Clone)]
enum Step {
    Allow,
    Deny(u8, u8),
    Tick(u16),
    Send,
    /// What becomes of each, and whether this gateway reads briefs.
    Answer(Vec<u8>, bool),
    Nothing,
    /// An event that its decision waits for.
    Urgent(u8),
    /// What becomes of the newest urgent message: 0 is not yet, 1 no answer, 2 on record though nobody hears so, 3 on record.
    Told(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Allow),
        4 => (0_u8..4, 0_u8..6).prop_map(|(limit, subject)| Step::Deny(limit, subject)),
        2 => (0_u16..40_000).prop_map(Step::Tick),
        3 => Just(Step::Send),
        2 => (proptest::collection::vec(0_u8..3, 0..70), any::<bool>()).prop_map(|(fates, briefs)| Step::Answer(fates, briefs)),
        1 => Just(Step::Nothing),
        2 => (0_u8..6).prop_map(Step::Urgent),
        2 => (0_u8..4).prop_map(Step::Told),
    ]
}

proptest! {
    /// Whatever the gateway answers, and whether it is heard: the records, one for each id, tell of each
    /// event exactly once.
    #[test]
    fn nothing_is_lost_or_told_twice(steps in proptest::collection::vec(step(), 1..400)) {
        let mut outbox = Outbox::new(5, 0);
        let (mut now_ms, mut number, mut happened) = (0_u64, 0_usize, 0_u64);
        let mut chain: BTreeMap<String, u64> = BTreeMap::new();
        let mut seen: BTreeMap<String, AuditNote> = BTreeMap::new();
        let mut flight: Option<Vec<AuditNote>> = None;
        let (mut urgent, mut made) = (Vec::<(DecisionId, AuditNote)>::new(), 0_usize);
        for step in steps {
            match step {
                Step::Allow => {
                    happened += 1;
                    outbox.record(allow());
                }
                Step::Deny(limit, subject) => {
                    happened += 1;
                    outbox.record(denial(&format!("p.l{limit}"), &format!("s{subject}")));
                }
                Step::Tick(by_ms) => {
                    now_ms += u64::from(by_ms);
                    outbox.tick(now_ms);
                }
                Step::Send => {
                    if let Some(notes) = outbox.batch(id(number + 1)).map(heard) {
                        number += 1;
                        for note in &notes {
                            let first = seen.entry(note.id.clone()).or_insert_with(|| note.clone());
                            let age_ms = first.age_ms;
                            prop_assert_eq!(&*first, &AuditNote { age_ms, ..note.clone() });
                        }
                        flight = Some(notes);
                    }
                }
                Step::Answer(fates, briefs) => {
                    let notes = flight.take().unwrap_or_default();
                    let fates: Vec<Kept> = fates
                        .iter()
                        .map(|fate| if *fate == 0 { Kept::Later } else { Kept::Kept })
                        .collect();
                    for (note, fate) in notes.iter().zip(&fates) {
                        if *fate == Kept::Kept {
                            chain.insert(note.id.clone(), u64::from(note.more.max(1)));
                        }
                    }
                    outbox.answered(id(number), Said::Each { kept: &fates, briefs });
                }
                Step::Urgent(subject) => {
                    happened += 1;
                    made += 1;
                    let event = Box::new(denial("p.urgent", &format!("s{subject}")));
                    let message = id(1_000_000 + made);
                    if let Urgent::Send(note) = outbox.record_urgent(event, message, false) {
                        seen.insert(note.id.clone(), (*note).clone());
                        urgent.push((message, *note));
                    }
                }
                Step::Told(fate) => {
                    let Some((message, note)) = urgent.pop() else { continue };
                    if fate > 1 {
                        chain.insert(note.id, 1);
                    }
                    let said = match fate {
                        0 => each(&[Kept::Later]),
                        1 | 2 => Said::Nothing,
                        _ => each(&[Kept::Kept]),
                    };
                    outbox.urgent_answered(message, said, false);
                }
                Step::Nothing => {
                    flight = None;
                    outbox.answered(id(number), Said::Nothing);
                }
            }
            prop_assert!(outbox.len() <= WAITING_MAX);
        }
        outbox.answered(id(number), Said::Nothing);
        // Those that were never answered wait like the others in the end.
        outbox.tick(now_ms + FLIGHT_MS_MAX + 1);
        for _ in 0..4 {
            now_ms += WINDOW_MS;
            outbox.tick(now_ms);
            for note in drained(&mut outbox) {
                chain.insert(note.id, u64::from(note.more.max(1)));
            }
        }
        let kept: u64 = chain.values().sum();
        prop_assert_eq!(kept, happened);
        prop_assert_eq!(outbox.counts(), Counts { kept: happened, refused: 0, lost: 0 });
    }
}

#[test]
fn an_event_that_its_decision_waits_for_goes_alone_and_waits_with_the_others_if_it_must() {
    let mut outbox = Outbox::new(1, 0);
    outbox.record(allow());
    let urgent = outbox.record_urgent(Box::new(denial("p.ip", "a")), id(90), false);
    let Urgent::Send(note) = urgent else { panic!("{urgent:?}") };
    // The like of it is counted, and a batch takes along what is not on its way.
    assert_eq!(outbox.record_urgent(Box::new(denial("p.ip", "a")), id(91), false), Urgent::Counted);
    assert_eq!(sent(&mut outbox, 1).len(), 1);
    assert!(!outbox.urgent_answered(id(1), each(&[Kept::Kept]), false), "another's answer");
    assert!(!outbox.urgent_answered(id(90), each(&[Kept::Later]), false));
    assert!(!outbox.urgent_answered(id(90), each(&[Kept::Kept]), false), "it came before");
    outbox.answered(id(1), each(&[Kept::Kept]));
    let again = sent(&mut outbox, 2);
    assert_eq!(again.iter().map(|n| &n.id).collect::<Vec<_>>(), [&note.id]);
    outbox.answered(id(2), each(&[Kept::Kept]));
    assert_eq!(outbox.counts(), Counts { kept: 2, refused: 0, lost: 0 });
}

#[test]
fn what_is_told_each_time_is_never_counted_and_is_lost_beyond_the_bound() {
    let mut outbox = Outbox::new(1, 0);
    for _ in 0..WAITING_MAX + 3 {
        outbox.record_each(Box::new(denial("p.ip", "a")));
    }
    outbox.tick(WINDOW_MS);
    let told = drained(&mut outbox);
    assert!(told.iter().all(|note| note.more == 0), "{told:?}");
    assert_eq!(outbox.counts(), Counts { kept: WAITING_MAX as u64, refused: 0, lost: 3 });
}

#[test]
fn what_a_refused_decision_would_have_told_is_told_by_the_next_one_like_it() {
    let mut outbox = Outbox::new(1, 0);
    let like = || Box::new(denial("p.ip", "a"));
    assert!(matches!(outbox.record_urgent(like(), id(1), true), Urgent::Send(_)));
    // It never left: nothing is told of it.
    outbox.withdraw(id(1));
    assert_eq!((outbox.len(), outbox.bytes), (0, 0));
    // It left, and nobody knows whether it was heard.
    assert!(matches!(outbox.record_urgent(like(), id(2), true), Urgent::Send(_)));
    assert!(!outbox.urgent_answered(id(2), Said::Nothing, true));
    assert!(matches!(outbox.record_urgent(like(), id(3), true), Urgent::Send(_)));
    assert!(outbox.urgent_answered(id(3), each(&[Kept::Kept]), true));
    assert_eq!(outbox.record_urgent(like(), id(4), true), Urgent::Counted);
    assert_eq!(outbox.len(), 1);
    for _ in 0..WAITING_MAX {
        outbox.record(allow());
    }
    let other = || Box::new(denial("p.ip", "b"));
    assert_eq!(outbox.record_urgent(other(), id(5), true), Urgent::NoRoom);
    assert_eq!(outbox.record_urgent(other(), id(5), false), Urgent::NoRoom);
    assert_eq!(outbox.record_urgent(other(), id(5), false), Urgent::Counted);
}
