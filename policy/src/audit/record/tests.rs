//! Tests of records: what is read, what is refused, what a signature covers.

use super::*;
use crate::audit::AuditEvent;
use crate::audit::tests::{Fake, FakeSigner, audit_event, chain, events, key};
use proptest::prelude::*;
use std::string::String;
use std::vec;
use std::vec::Vec;

fn made(count: u64) -> Batch {
    batch(&chain(), Head::GENESIS, &events(1..=count), &FakeSigner(1, KeyVersion(1)))
}

#[test]
fn a_batch_is_linked_and_its_last_record_signed() {
    let made = made(3);
    let records: Vec<Record> =
        made.lines.iter().map(|line| Record::read(&line.bytes).expect("a record")).collect();
    assert_eq!(records[0].prev, Hash::GENESIS);
    assert_eq!(records[1].prev, records[0].hash);
    assert_eq!(records[2].prev, records[1].hash);
    assert_eq!(made.head, Head { seq: 3, hash: records[2].hash });
    assert_eq!((&records[0].seal, &records[1].seal), (&None, &None));
    let seal = records[2].seal.as_ref().expect("signed");
    let message = signed(&chain(), 3, &records[2].hash, seal.version);
    assert!(Fake.check(&key(1), &message, &seal.signature));
    let ids: Vec<&str> = made.lines.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids, ["e-1", "e-2", "e-3"]);
    assert_eq!(batch(&chain(), made.head, &[], &FakeSigner(1, KeyVersion(1))).head, made.head);
}

/// Nothing that tells two records apart lies outside of what is signed.
#[test]
fn the_signed_bytes_differ_whenever_anything_does() {
    let name = |text: &str| ChainName::new(text).expect("a name");
    let hash = Hash::of(&[b"x"]);
    let rows = [
        signed(&name("eu"), 1, &hash, KeyVersion(1)),
        signed(&name("e"), 1, &hash, KeyVersion(1)),
        signed(&name("eu/staging"), 1, &hash, KeyVersion(1)),
        signed(&name("eu"), 2, &hash, KeyVersion(1)),
        signed(&name("eu"), 1, &Hash::of(&[b"y"]), KeyVersion(1)),
        signed(&name("eu"), 1, &hash, KeyVersion(11)),
    ];
    for (index, row) in rows.iter().enumerate() {
        assert!(!rows[index + 1..].contains(row), "{index}");
    }
}

#[test]
fn what_is_no_record_is_refused_with_the_reason() {
    let signed = made(1).lines.remove(0).bytes;
    let text = String::from_utf8(signed).expect("text");
    assert!(Record::read(text.as_bytes()).is_ok());
    let zeros = "0".repeat(64);
    for (from, to, expected) in [
        ("\"seq\":1", "\"seq\":0", "seq is no number from 1"),
        ("\"seq\":1", "\"seq\":\"1\"", "seq is no number from 1"),
        ("\"seq\":1", "\"seq\":-1", "seq is no number from 1"),
        (zeros.as_str(), "00", "prev is no hash"),
        ("\"v\":1", "\"v\":2", "v is not 1"),
        ("\"actor\":\"gateway\"", "\"actor\":1", "actor is no text"),
        ("\"detail\":\"what e-1 was\",", "", "detail is missing"),
        ("\"tenant\":null", "\"tenant\":7", "tenant is neither"),
        ("\"ts\":1767225600000", "\"ts\":null", "ts is no number"),
        ("\"id\":\"e-1\"", "\"id\":\"\"", "id is not 1 to 128"),
        ("\"id\":\"e-1\"", "\"id\":\"e 1\"", "id is not 1 to 128"),
        ("\"key_version\":\"v1\",", "", "stand together"),
        ("\"key_version\":\"v1\"", "\"key_version\":\"v01\"", "not spelled"),
        ("\"sig\":\"", "\"sig\":\"AAAA", "not spelled"),
        ("\"region\"", "\"Region\"", "not canonical"),
        ("{", "{ ", "not canonical"),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let error = Record::read(broken.as_bytes()).expect_err(to);
        assert!(error.0.contains(expected), "{to}: {error}");
    }
    let long = [b"{".as_slice(), &[b' '; RECORD_LEN_MAX]].concat();
    assert!(Record::read(&long).expect_err("long").0.contains("longer than"));
}

#[test]
fn an_event_that_could_not_be_read_back_is_refused_at_once() {
    let changed = |change: fn(&mut AuditEvent)| {
        let mut event = audit_event("e-1");
        change(&mut event);
        Event::new(&event).map(|event| event.bytes().len())
    };
    assert!(changed(|_| {}).is_ok());
    assert!(changed(|event| event.detail = "ü\u{0}\u{10ffff}".into()).is_ok());
    assert!(changed(|event| event.id = "ü".into()).is_err());
    assert!(changed(|event| event.ts_ms = 1 << 53).is_err());
    assert!(changed(|event| event.detail = "x".repeat(EVENT_LEN_MAX)).is_err());
    // The longest event still makes a record, however much its place takes.
    let room = EVENT_LEN_MAX - changed(|event| event.detail.clear()).expect("small");
    let mut longest = audit_event("e-1");
    longest.detail = "x".repeat(room);
    let event = Event::new(&longest).expect("fits");
    assert_eq!(event.bytes().len(), EVENT_LEN_MAX);
    let head = Head { seq: (1 << 53) - 2, hash: Hash::GENESIS };
    let made = batch(&chain(), head, &[event], &FakeSigner(1, KeyVersion(999_999_999)));
    assert!(Record::read(&made.lines[0].bytes).is_ok());
}

#[test]
fn an_event_reads_back_without_a_place() {
    let event = events([7]).remove(0);
    assert_eq!(Event::read(&event.bytes()), Ok(event.clone()));
    let placed = batch(&chain(), Head::GENESIS, &[event], &FakeSigner(1, KeyVersion(1)));
    assert!(Event::read(&placed.lines[0].bytes).is_err());
}

#[test]
fn key_versions_have_one_spelling() {
    assert_eq!(KeyVersion::new("v0"), Some(KeyVersion(0)));
    assert_eq!(KeyVersion::new("v999999999"), Some(KeyVersion(999_999_999)));
    for wrong in ["", "v", "1", "V1", "v01", "v+1", "v1 ", "v1000000000", "v-1"] {
        assert_eq!(KeyVersion::new(wrong), None, "{wrong}");
    }
}

/// What events can hold in their free parts, with little that has to be escaped.
fn detail() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| Value::Number(number.into())),
        "[ -~é]{0,12}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(10, 24, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[ -~]{0,3}", inner, 0..3).prop_map(Value::Object),
        ]
    })
}

/// A byte is replaced, put in or left out, or a piece is said twice.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\-0123456789v"[..])];
    prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        at().prop_map(Change::Remove),
        (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match change {
            Change::Set(at, byte) => bytes[at.index(length)] = *byte,
            Change::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Change::Remove(at) => drop(bytes.remove(at.index(length))),
            Change::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(from.min(to)..from.min(to), piece);
            }
        }
    }
    bytes
}

fn placed(detail: Value, seq: u64) -> Vec<Vec<u8>> {
    let event = Event::with_detail(&audit_event("e-1"), detail).expect("sound");
    let head = Head { seq, hash: Hash::of(&[b"x"]) };
    let twice = [event.clone(), event];
    let made = batch(&chain(), head, &twice, &FakeSigner(1, KeyVersion(7)));
    made.lines.into_iter().map(|line| line.bytes).collect()
}

proptest! {
    /// The fast reader is no second opinion.
    #[test]
    fn what_is_read_fast_is_read_the_same_slowly(
        detail in detail(),
        seq in 0..1_u64 << 50,
        changes in proptest::collection::vec(change(), 0..3),
        is_signed in any::<bool>(),
    ) {
        let bytes = placed(detail, seq).swap_remove(usize::from(is_signed));
        let bytes = changed(bytes, &changes);
        if let Some(record) = plain::read(&bytes) {
            prop_assert_eq!(Record::read_any(&bytes), Ok(record));
        }
    }

    /// Where nothing has to be escaped and nothing lies deep, it is the fast one that reads.
    #[test]
    fn plain_records_are_read_fast(text in "[ !#-Z^-~é]{0,40}", seq in 0..1_u64 << 50) {
        let inner = Object::from_iter([("a".to_owned(), Value::Text(text)), ("b".to_owned(), Value::Number(-7))]);
        for bytes in placed(Value::Array(vec![Value::Object(inner), Value::Null, Value::Bool(true)]), seq) {
            prop_assert!(plain::read(&bytes).is_some());
        }
    }

    /// Linking writes the same bytes as writing the whole record would.
    #[test]
    fn a_place_is_written_where_the_canonical_order_has_it(detail in detail(), seq in 0..1_u64 << 50) {
        for bytes in placed(detail, seq) {
            let fields = value::read(&bytes);
            prop_assert!(fields.is_ok(), "{fields:?}");
            prop_assert_eq!(value::write(&fields.expect("read")), bytes);
        }
    }
}
