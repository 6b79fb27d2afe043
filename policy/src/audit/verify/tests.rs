//! Tests of the verifier: every row of its table of tampering, and any bit that is flipped.

use super::*;
use crate::audit::keys::{Key, Revocation};
use crate::audit::record::{ChainName, Event, batch};
use crate::audit::tests::{
    Fake, FakeSigner, chain, checkpoint, events, export, key, note_key, ring, sign,
};
use proptest::prelude::*;
use std::borrow::ToOwned;
use std::string::String;
use std::sync::LazyLock;
use std::vec;
use std::vec::Vec;

const BATCHES: [u64; 5] = [4, 1, 3, 5, 2];

/// A chain of 15 records, signed at 4, 5, 8, 13 and 15, with checkpoints at 5 and 13.
#[derive(Clone)]
struct Case {
    ring: KeyRing,
    lines: Vec<Vec<u8>>,
    notes: Vec<String>,
    head: Option<Head>,
}

fn case() -> Case {
    static SOUND: LazyLock<Case> = LazyLock::new(|| {
        let (lines, head) = export(&BATCHES);
        let notes = vec![checkpoint(&lines, 5), checkpoint(&lines, 13)];
        Case { ring: ring(), lines, notes, head: Some(head) }
    });
    SOUND.clone()
}

impl Case {
    fn verify(&self) -> Report {
        let mut verifier = Verifier::new(&self.ring, &Fake);
        self.notes.iter().for_each(|note| verifier.expect(note.as_bytes()));
        self.lines.iter().for_each(|line| verifier.push(line));
        let claim = self.head.map(|head| HeadClaim { chain: "eu".to_owned(), head });
        verifier.finish(claim.as_ref())
    }

    fn kinds(&self) -> Vec<Kind> {
        self.verify().findings.iter().map(|finding| finding.kind).collect()
    }

    /// The record with another text in it, not signed anew.
    fn edit(&mut self, seq: usize, from: &str, to: &str) {
        let line = String::from_utf8(self.lines[seq - 1].clone()).expect("text");
        let edited = line.replacen(from, to, 1);
        assert_ne!(edited, line);
        self.lines[seq - 1] = edited.into_bytes();
    }

    /// From record `seq` on as another writes it who has this key.
    fn rewrite(&mut self, seq: usize, signer: &FakeSigner) {
        let kept = Record::read(&self.lines[seq - 2]).expect("a record");
        let head = Head { seq: kept.seq, hash: kept.hash };
        let count = self.lines.len() as u64;
        let made = batch(&chain(), head, &events(100 + head.seq..100 + count), signer);
        self.lines.truncate(seq - 1);
        self.lines.extend(made.lines.into_iter().map(|line| line.bytes));
        self.head = Some(made.head);
    }
}

#[test]
fn a_sound_chain_is_valid() {
    let report = case().verify();
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!((report.records, report.last_seq, report.proven_seq), (15, 15, 15));
    assert_eq!((report.checkpoints_matched, report.checkpoint_size), (2, 13));
    assert_eq!(report.signatures, [("v1".to_owned(), 5)].into_iter().collect());
    assert_eq!((report.first_bad, report.findings_total), (None, 0));
    assert!(report.root.is_some());
}

/// What was done, what is found, and the first bad record.
#[test]
fn every_tampering_of_the_table_is_found_and_its_place_named() {
    type Row = (&'static str, fn(&mut Case), Kind, u64);
    let rows: [Row; 17] = [
        ("edit", |c| c.edit(7, "what e-7", "what e_7"), Kind::BrokenLink, 7),
        ("edit of a signed one", |c| c.edit(8, "what e-8", "what e_8"), Kind::BadSignature, 8),
        ("edit of the first", |c| c.edit(1, "what e-1", "what e_1"), Kind::BrokenLink, 1),
        ("edit of the last", |c| c.edit(15, "what e-15", "what e_15"), Kind::BadSignature, 15),
        (
            "edit behind a signed one",
            |c| c.edit(6, "\"prev\":\"", "\"prev\":\"0"),
            Kind::Unreadable,
            6,
        ),
        ("delete", |c| drop(c.lines.remove(6)), Kind::Gap, 7),
        ("delete the first", |c| drop(c.lines.remove(0)), Kind::Gap, 1),
        ("swap", |c| c.lines.swap(5, 6), Kind::OutOfOrder, 6),
        ("insert a copy", |c| c.lines.insert(9, c.lines[8].clone()), Kind::Repeated, 9),
        (
            "insert another",
            |c| {
                let mut other = case();
                other.edit(9, "what e-9", "what e_9");
                c.lines.insert(9, other.lines[8].clone());
            },
            Kind::Fork,
            9,
        ),
        ("a number that is not the next", |c| c.edit(9, "\"seq\":9", "\"seq\":10"), Kind::Gap, 9),
        ("another's key", |c| c.rewrite(6, &FakeSigner(7, KeyVersion(7))), Kind::UnknownKey, 6),
        (
            "another's key under our name",
            |c| c.rewrite(6, &FakeSigner(7, KeyVersion(1))),
            Kind::BadSignature,
            6,
        ),
        (
            "unsigned tail",
            |c| {
                c.lines.truncate(14);
                let last = Record::read(&c.lines[13]).expect("a record");
                c.head = Some(Head { seq: 14, hash: last.hash });
            },
            Kind::UnsignedTail,
            14,
        ),
        ("truncation, head kept", |c| c.lines.truncate(13), Kind::Truncated, 14),
        (
            "truncation, head set back",
            |c| {
                c.lines.truncate(8);
                let last = Record::read(&c.lines[7]).expect("a record");
                c.head = Some(Head { seq: 8, hash: last.hash });
            },
            Kind::Truncated,
            9,
        ),
        (
            "rewritten with the stolen key",
            |c| c.rewrite(7, &FakeSigner(1, KeyVersion(1))),
            Kind::CheckpointDiffers,
            6,
        ),
    ];
    for (name, tamper, kind, first_bad) in rows {
        let mut case = case();
        tamper(&mut case);
        let report = case.verify();
        assert_eq!(report.verdict, Verdict::Invalid, "{name}");
        assert!(report.findings.iter().any(|found| found.kind == kind), "{name}: {report:?}");
        assert_eq!(report.first_bad, Some(first_bad), "{name}: {report:?}");
        assert!(report.proven_seq < first_bad, "{name}: {report:?}");
    }
}

/// What the chain alone cannot tell: that is what checkpoints are for, and as far as they reach.
#[test]
fn a_stolen_key_is_found_up_to_the_last_checkpoint_and_not_behind_it() {
    let mut behind = case();
    behind.rewrite(14, &FakeSigner(1, KeyVersion(1)));
    let report = behind.verify();
    assert_eq!((report.verdict, report.checkpoint_size), (Verdict::Valid, 13));
    let mut without = case();
    without.notes.clear();
    without.rewrite(7, &FakeSigner(1, KeyVersion(1)));
    assert_eq!(without.verify().verdict, Verdict::Valid);
}

#[test]
fn a_head_that_is_not_the_last_record_is_found() {
    for (head, kind, first_bad) in [
        (Head { seq: 15, hash: Hash::GENESIS }, Kind::HeadDiffers, 15),
        (Head { seq: 14, hash: Hash::GENESIS }, Kind::HeadDiffers, 15),
        (Head { seq: 16, hash: Hash::GENESIS }, Kind::Truncated, 16),
    ] {
        let case = Case { head: Some(head), ..case() };
        let report = case.verify();
        assert_eq!((report.findings[0].kind, report.first_bad), (kind, Some(first_bad)));
    }
    let (ring, (lines, head)) = (ring(), export(&[2]));
    let mut verifier = Verifier::new(&ring, &Fake);
    lines.iter().for_each(|line| verifier.push(line));
    let report = verifier.finish(Some(&HeadClaim { chain: "us".to_owned(), head }));
    assert_eq!(report.findings[0].kind, Kind::HeadDiffers);
}

#[test]
fn a_record_of_another_chain_is_found_although_the_key_is_the_same() {
    let other = ChainName::new("us").expect("a name");
    let made = batch(&other, Head::GENESIS, &events(1..=3), &FakeSigner(1, KeyVersion(1)));
    let lines = made.lines.into_iter().map(|line| line.bytes).collect();
    let case = Case { ring: ring(), lines, notes: vec![], head: Some(made.head) };
    assert_eq!(case.kinds(), [Kind::BadSignature]);
    assert_eq!(case.verify().proven_seq, 0);
}

#[test]
fn an_event_that_was_appended_twice_is_found() {
    let (mut lines, head) = export(&[3]);
    let made = batch(&chain(), head, &events([2]), &FakeSigner(1, KeyVersion(1)));
    lines.extend(made.lines.into_iter().map(|line| line.bytes));
    let case = Case { ring: ring(), lines, notes: vec![], head: Some(made.head) };
    assert_eq!(case.kinds(), [Kind::DoubledEvent]);
}

#[test]
fn several_keys_verify_side_by_side() {
    let (mut lines, head) = export(&[3, 2]);
    let made = batch(&chain(), head, &events(6..=9), &FakeSigner(2, KeyVersion(2)));
    lines.extend(made.lines.into_iter().map(|line| line.bytes));
    let case = Case { ring: ring(), lines, notes: vec![], head: Some(made.head) };
    let report = case.verify();
    assert_eq!(report.verdict, Verdict::Valid);
    assert_eq!(
        report.signatures,
        [("v1".to_owned(), 2), ("v2".to_owned(), 1)].into_iter().collect()
    );
}

#[test]
fn a_revoked_key_still_verifies_what_it_signed_before() {
    let revoked = |after_seq, notes: &[usize]| {
        let mut case = case();
        case.notes = notes.iter().map(|size| checkpoint(&case.lines, *size)).collect();
        let revoked = Some(Revocation { after_seq, reason: String::new() });
        case.ring.keys.insert(KeyVersion(1), Key { public: key(1), revoked });
        case.verify()
    };
    // Nobody said since when.
    let report = revoked(None, &[]);
    assert_eq!(report.verdict, Verdict::ValidRevokedKey, "{report:?}");
    assert_eq!(report.revoked_signatures["v1"], 5);
    // A checkpoint from before proves that the records are older than the revocation.
    let report = revoked(Some(15), &[15]);
    assert_eq!((report.verdict, report.revoked_unproven_from), (Verdict::ValidRevokedKey, None));
    let report = revoked(Some(15), &[5]);
    assert_eq!(report.revoked_unproven_from, Some(8));
    // Used behind it.
    let report = revoked(Some(12), &[5]);
    assert_eq!((report.verdict, report.first_bad), (Verdict::Invalid, Some(13)));
    assert_eq!(report.proven_seq, 8);
    let kinds: Vec<(Kind, Option<u64>)> = report.findings.iter().map(|f| (f.kind, f.seq)).collect();
    let expected = [(Kind::RevokedKey, Some(13)), (Kind::RevokedKey, Some(15))];
    assert_eq!(kinds, expected);
}

#[test]
fn checkpoints_that_cannot_be_or_contradict_each_other_are_found() {
    let mut two = case();
    let mut other = case();
    other.rewrite(4, &FakeSigner(1, KeyVersion(1)));
    two.notes.push(checkpoint(&other.lines, 5));
    assert!(two.kinds().contains(&Kind::CheckpointFork));
    let mut garbled = case();
    garbled.notes.push("nothing".to_owned());
    assert_eq!(garbled.kinds(), [Kind::BadCheckpoint]);
    let mut foreign = case();
    let text = Checkpoint { origin: "log.example/us".to_owned(), size: 5, root: Hash::GENESIS };
    foreign.notes.push(text.note(&note_key(), |text| sign(9, text)));
    assert_eq!(foreign.kinds(), [Kind::BadCheckpoint]);
    let mut empty = case();
    empty.notes = vec![checkpoint(&empty.lines, 0)];
    assert_eq!(empty.verify().checkpoints_matched, 1);
    // Behind a gap there is no root to compare with; that is said, not passed over.
    let mut gap = case();
    gap.lines.remove(6);
    assert_eq!(gap.verify().checkpoints_unchecked, 1);
}

#[test]
fn what_holds_no_record_is_unreadable_and_not_tampered() {
    for lines in [vec![], vec![vec![]], vec![b"hello".to_vec(), b"{}".to_vec()]] {
        let case = Case { lines, notes: vec![], head: None, ring: ring() };
        assert_eq!(case.verify().verdict, Verdict::Unreadable);
    }
    let mut one = case();
    one.lines[3] = b"hello".to_vec();
    assert_eq!(one.verify().verdict, Verdict::Invalid);
}

#[test]
fn findings_are_bounded_and_counted() {
    let lines = vec![b"x".to_vec(); 1_000];
    let report = Case { lines, notes: vec![], head: None, ring: ring() }.verify();
    assert_eq!((report.findings.len(), report.findings_total), (report::FINDINGS_MAX, 1_000));
}

/// 8 records, checkpoints at 5 and 8; the store loses all behind 5, and 4 more follow.
fn rolled_back() -> (Vec<Vec<u8>>, Head, Vec<String>) {
    let (mut lines, _) = export(&[4, 1, 3]);
    let notes = vec![checkpoint(&lines, 5), checkpoint(&lines, 8)];
    lines.truncate(5);
    let kept = Record::read(&lines[4]).expect("a record");
    let mut told = crate::audit::tests::audit_event("rollback-1");
    told.action = crate::audit::Action::Rollback;
    let detail = Rollback { kept: 5, known: 8, common: 5 }.detail();
    let told = [Event::with_detail(&told, detail).expect("sound")];
    let mut head = Head { seq: 5, hash: kept.hash };
    // As gateways do it: alone, and then what comes.
    for events in [&told[..], &events(6..=8)] {
        let made = batch(&chain(), head, events, &FakeSigner(1, KeyVersion(1)));
        lines.extend(made.lines.into_iter().map(|line| line.bytes));
        head = made.head;
    }
    (lines, head, notes)
}

#[test]
fn records_that_the_store_lost_are_told_and_contradict_no_checkpoint_once_somebody_knows() {
    let (lines, head, notes) = rolled_back();
    let ring = ring();
    let verify = |accept: Option<u64>, notes: &[String]| {
        let mut verifier = Verifier::new(&ring, &Fake);
        accept.into_iter().for_each(|seq| verifier.accept_rollback(seq));
        notes.iter().for_each(|note| verifier.expect(note.as_bytes()));
        lines.iter().for_each(|line| verifier.push(line));
        verifier.finish(Some(&HeadClaim { chain: "eu".to_owned(), head }))
    };
    let report = verify(None, &notes);
    let kinds: Vec<Kind> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!((kinds, report.first_bad), (vec![Kind::RolledBack], Some(6)), "{report:?}");
    let report = verify(Some(6), &notes);
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    let counted = (report.rollbacks, report.checkpoints_lost, report.checkpoints_matched);
    assert_eq!(counted, (vec![6], 1, 1));
    // What the chain looks like under its new origin is compared again; under the old one it is lost.
    let renamed = |epoch| {
        let text = checkpoint(&lines, 9);
        let root = text.lines().nth(2).expect("a root").to_owned();
        let bytes = crate::audit::hash::from_base64(&root).expect("base64");
        let root = Hash(bytes.try_into().expect("32 bytes"));
        let checkpoint = Checkpoint { origin: origin_of("log.example/eu", epoch), size: 9, root };
        checkpoint.note(&note_key(), |text| sign(9, text))
    };
    let report = verify(Some(6), &[renamed(1)]);
    assert_eq!((report.verdict, report.checkpoint_size), (Verdict::Valid, 9), "{report:?}");
    let report = verify(Some(6), &[renamed(0)]);
    assert_eq!((report.checkpoints_lost, report.checkpoints_matched), (1, 0));
}

/// Whoever may write to the store can write that it had lost records, and wait until a gateway signs behind it.
#[test]
fn a_rollback_that_no_gateway_signed_explains_nothing() {
    let (sound, head, notes) = rolled_back();
    let ring = ring();
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).expect("text");
    let seal = |line: &str| {
        let from = line.find("\"sig\":\"").expect("signed") + 7;
        line[from..from + 88].to_owned()
    };
    let told = text(&sound[5]);
    let unsigned = told.replace(&format!("\"sig\":\"{}\",", seal(&told)), "");
    let unsigned = unsigned.replace("\"key_version\":\"v1\",", "");
    let another = told.replace(&seal(&told), &seal(&text(&sound[8])));
    for (line, kind) in [(unsigned, Kind::UnsignedRollback), (another, Kind::BadSignature)] {
        assert_ne!(line, told);
        let mut lines = sound.clone();
        lines[5] = line.into_bytes();
        let mut verifier = Verifier::new(&ring, &Fake);
        verifier.accept_rollbacks();
        notes.iter().for_each(|note| verifier.expect(note.as_bytes()));
        lines.iter().for_each(|line| verifier.push(line));
        let report = verifier.finish(Some(&HeadClaim { chain: "eu".to_owned(), head }));
        let kinds: Vec<Kind> = report.findings.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [kind, Kind::CheckpointDiffers], "{report:?}");
        assert_eq!((report.first_bad, report.rollbacks.len()), (Some(6), 0));
    }
}

/// What a follower asks each time that it has come to where the store says that the chain ends.
#[test]
fn an_end_that_is_not_signed_is_found_once_and_stays_found() {
    let case = case();
    let mut verifier = Verifier::new(&case.ring, &Fake);
    for (at, line) in case.lines.iter().enumerate() {
        verifier.push(line);
        if [3, 13].contains(&at) {
            (0..2).for_each(|_| verifier.ends());
        }
    }
    assert_eq!(verifier.sound(), None);
    let report = verifier.finish(None);
    let kinds: Vec<Kind> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!((kinds, report.first_bad), (vec![Kind::UnsignedTail], Some(14)));
}

/// Lost from 5 on, and grown to 9 by a gateway that did not know, with a checkpoint at 8 by either: then the one
/// that knew of 8 records says so.
#[test]
fn checkpoints_of_records_whose_places_others_took_are_lost_and_prove_nothing() {
    let ring = ring();
    let (before, _) = export(&[4, 1, 3]);
    let kept = Record::read(&before[4]).expect("a record");
    let signer = FakeSigner(1, KeyVersion(1));
    let head = Head { seq: 5, hash: kept.hash };
    let grown = batch(&chain(), head, &events(101..=104), &signer);
    let mut told = crate::audit::tests::audit_event("rollback-1");
    told.action = crate::audit::Action::Rollback;
    let detail = Rollback { kept: 9, known: 8, common: 5 }.detail();
    let told = [Event::with_detail(&told, detail).expect("sound")];
    let told = batch(&chain(), grown.head, &told, &signer);
    let last = batch(&chain(), told.head, &events(6..=8), &signer);
    let mut lines = before[..5].to_vec();
    let added = [grown.lines, told.lines, last.lines].into_iter().flatten();
    lines.extend(added.map(|line| line.bytes));
    let notes = [checkpoint(&before, 5), checkpoint(&before, 8), checkpoint(&lines, 8)];
    let verify = |accept: bool, until: usize| {
        let mut verifier = Verifier::new(&ring, &Fake);
        if accept {
            verifier.accept_rollback(10);
        }
        notes.iter().for_each(|note| verifier.expect(note.as_bytes()));
        lines[..until].iter().for_each(|line| verifier.push(line));
        verifier.finish(None)
    };
    let kinds = |report: &Report| report.findings.iter().map(|f| f.kind).collect::<Vec<_>>();
    // Before anybody has said so it looks like a lie.
    let report = verify(true, 9);
    assert_eq!(kinds(&report), [Kind::CheckpointFork, Kind::CheckpointDiffers], "{report:?}");
    assert_eq!((report.first_bad, report.checkpoint_size), (Some(8), 5));
    let report = verify(false, lines.len());
    assert_eq!((kinds(&report), report.first_bad), (vec![Kind::RolledBack], Some(10)));
    let report = verify(true, lines.len());
    assert_eq!((report.verdict, report.proven_seq), (Verdict::Valid, 13), "{report:?}");
    assert_eq!((report.checkpoints_lost, report.checkpoints_matched), (1, 2));
    assert_eq!(report.checkpoint_size, 5);
}

#[test]
fn a_rollback_stands_behind_what_it_kept_and_tells_of_what_was_lost() {
    let (lines, ..) = rolled_back();
    let read = |from: &str, to: &str| {
        let line = String::from_utf8(lines[5].clone()).expect("text").replacen(from, to, 1);
        Record::read(line.as_bytes()).map(|record| record.rollback)
    };
    assert_eq!(read("", ""), Ok(Some(Rollback { kept: 5, known: 8, common: 5 })));
    for (common, known) in [(5, 8), (4, 5), (0, 1)] {
        let detail = format!("\"common\":{common},\"kept\":5,\"known\":{known}");
        let told = Rollback { kept: 5, known, common };
        assert_eq!(read("\"kept\":5,\"known\":8", &detail), Ok(Some(told)), "{detail}");
    }
    for (from, to) in [
        ("\"kept\":5", "\"kept\":4"),
        ("\"known\":8", "\"known\":5"),
        ("\"kept\":5", "\"common\":6,\"kept\":5"),
        ("\"kept\":5", "\"common\":\"4\",\"kept\":5"),
        ("\"kept\":5,\"known\":8", "\"common\":4,\"kept\":5,\"known\":4"),
        ("\"kept\":5,\"known\":8", "\"common\":4,\"kept\":5"),
    ] {
        assert!(read(from, to).is_err(), "{to}");
    }
    for (origin, epoch) in [
        ("a", Some(0)),
        ("a#1", Some(1)),
        ("a#10", Some(10)),
        ("a#0", None),
        ("a#01", None),
        ("a#", None),
        ("b", None),
        ("ab", None),
    ] {
        assert_eq!(epoch_of(origin, "a"), epoch, "{origin}");
    }
}

#[test]
fn a_head_has_one_spelling() {
    let claim = HeadClaim { chain: "eu".to_owned(), head: case().head.expect("a head") };
    assert_eq!(HeadClaim::read(&claim.write()), Ok(claim.clone()));
    let text = String::from_utf8(claim.write()).expect("text");
    for (from, to) in [("\"seq\":", "\"seq\": "), ("{", "{\"a\":1,"), ("\"chain\"", "\"chaim\"")] {
        assert!(HeadClaim::read(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
}

fn flip(bytes: &mut [u8], at: usize) {
    let bit = at % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

/// As files lie on a disk: records with their line ends, notes, and the head.
fn verify_files(records: &[u8], notes: &[Vec<u8>], head: &[u8]) -> Option<Report> {
    let ring = ring();
    let mut verifier = Verifier::new(&ring, &Fake);
    notes.iter().for_each(|note| verifier.expect(note));
    let lines = records.strip_suffix(b"\n")?;
    lines.split(|byte| *byte == b'\n').for_each(|line| verifier.push(line));
    let claim = HeadClaim::read(head).ok()?;
    Some(verifier.finish(Some(&claim)))
}

#[test]
fn the_files_that_bits_are_flipped_in_are_valid() {
    let case = case();
    let records: Vec<u8> = case.lines.iter().flat_map(|l| [l.as_slice(), b"\n"].concat()).collect();
    let notes: Vec<Vec<u8>> = case.notes.iter().map(|n| n.clone().into_bytes()).collect();
    let head = HeadClaim { chain: "eu".to_owned(), head: case.head.expect("a head") }.write();
    let report = verify_files(&records, &notes, &head).expect("readable");
    assert_eq!(report.verdict, Verdict::Valid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bit_that_is_flipped_is_found(which in 0..4_usize, at in any::<usize>()) {
        let case = case();
        let mut records: Vec<u8> = case.lines.iter().flat_map(|l| [l.as_slice(), b"\n"].concat()).collect();
        let mut notes: Vec<Vec<u8>> = case.notes.iter().map(|n| n.clone().into_bytes()).collect();
        let mut head = HeadClaim { chain: "eu".to_owned(), head: case.head.expect("a head") }.write();
        match which {
            0 => flip(&mut head, at),
            1 => flip(&mut notes[at % 2], at / 2),
            // Most of the bits are there.
            _ => flip(&mut records, at),
        }
        if let Some(report) = verify_files(&records, &notes, &head) {
            prop_assert_eq!(report.verdict, Verdict::Invalid, "{:?}", report);
        }
    }

    /// What is reported as the first bad record never lies behind the one that was changed.
    #[test]
    fn the_first_bad_record_is_not_named_too_late(seq in 1..=15_usize, at in any::<usize>()) {
        let mut case = case();
        flip(&mut case.lines[seq - 1], at);
        let report = case.verify();
        prop_assert!(report.first_bad.is_some_and(|first| first <= seq as u64), "{:?}", report);
        // A flipped number may be that of an earlier record, which is then there twice.
        let renumbered = |kind| matches!(kind, Kind::Fork | Kind::OutOfOrder | Kind::Repeated);
        let early = report.first_bad.is_some_and(|first| first + 1 < seq as u64);
        prop_assert!(
            !early || report.findings.iter().any(|found| renumbered(found.kind)),
            "{:?}",
            report
        );
        prop_assert!(report.proven_seq < seq as u64, "{:?}", report);
    }

    /// Whatever is cut, doubled, swapped, overwritten or moved in the file: it is the same file, or it is found.
    #[test]
    fn no_mangled_file_is_valid(steps in proptest::collection::vec((0..5_u8, any::<usize>(), any::<usize>(), any::<u8>()), 1..5)) {
        let case = case();
        let sound: Vec<u8> = case.lines.iter().flat_map(|l| [l.as_slice(), b"\n"].concat()).collect();
        let notes: Vec<Vec<u8>> = case.notes.iter().map(|n| n.clone().into_bytes()).collect();
        let head = HeadClaim { chain: "eu".to_owned(), head: case.head.expect("a head") }.write();
        let mut mangled = sound.clone();
        for (step, a, b, byte) in steps {
            let Some(length) = mangled.len().checked_sub(1).filter(|length| *length > 0) else { break };
            let (from, to) = (a % length, b % length);
            let (from, to) = (from.min(to), from.max(to));
            match step {
                0 => drop(mangled.drain(from..to)),
                1 => mangled.extend_from_within(from..to),
                2 => mangled.swap(from, to),
                3 => mangled[from] = byte,
                // A whole line goes elsewhere.
                _ => {
                    let mut lines: Vec<Vec<u8>> = mangled.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                    let line = lines.remove(a % lines.len());
                    lines.insert(b % (lines.len() + 1), line);
                    mangled = lines.concat();
                }
            }
        }
        if let Some(report) = verify_files(&mangled, &notes, &head) {
            prop_assert_eq!(report.verdict == Verdict::Valid, mangled == sound, "{:?}", report);
        }
    }

    #[test]
    fn hostile_lines_do_no_harm(lines in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
        let case = Case { lines, notes: vec![], head: None, ring: ring() };
        prop_assert_eq!(case.verify().verdict, Verdict::Unreadable);
    }
}
