//! Any octets as an export, a checkpoint, a head and a keys file; and changes to sound ones. Nothing breaks the
//! verifier, and nothing but the sound files is valid.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::merkle::Frontier;
use tidegate_policy::audit::note::{Checkpoint, NoteKey};
use tidegate_policy::audit::record::{
    ChainName, Event, Head, KeyVersion, Record, SignatureCheck, Signer, batch,
};
use tidegate_policy::audit::verify::{HeadClaim, Verdict, Verifier};

/// No signatures: hashes under the public key, which no fuzzer finds.
struct Hashed;

impl SignatureCheck for Hashed {
    fn check(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        *signature == sign(public_key, message)
    }
}

impl Signer for Hashed {
    fn version(&self) -> KeyVersion {
        KeyVersion(1)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        sign(&KEY, message)
    }
}

const KEY: [u8; 32] = [1; 32];
const NOTE_KEY: [u8; 32] = [9; 32];

fn sign(public: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let half = |number: u8| Hash::of(&[&[number], public, message]).0;
    let mut both = [0; 64];
    both[..32].copy_from_slice(&half(1));
    both[32..].copy_from_slice(&half(2));
    both
}

/// Files as an auditor has them.
#[derive(Clone, PartialEq)]
struct Files {
    records: Vec<u8>,
    note: Vec<u8>,
    head: Vec<u8>,
}

static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing {
    chain: ChainName::new("eu").expect("a name"),
    keys: [(KeyVersion(1), Key { public: KEY, revoked: None })].into(),
    checkpoint_keys: vec![NoteKey::new("log.example/eu", NOTE_KEY).expect("a name")],
});

static SOUND: LazyLock<Files> = LazyLock::new(|| {
    let (mut records, mut end, mut frontier) = (Vec::new(), Head::GENESIS, Frontier::default());
    for count in [2_u64, 1, 3] {
        let event = |n: u64| {
            let number = end.seq + n;
            let text = format!(
                r#"{{"action":"deny","actor":"filter","detail":{{"limits":[{{"kind":"ip","limit":"p.ip"}}],"more":{number}}},"id":"e-{number}","outcome":"quota-exceeded","region":"eu","tenant":null,"ts":1767225600000,"v":1}}"#
            );
            Event::read(text.as_bytes()).expect("canonical")
        };
        let events: Vec<Event> = (1..=count).map(event).collect();
        let made = batch(&RING.chain, end, &events, &Hashed);
        end = made.head;
        for line in made.lines {
            frontier.push(&Record::read(&line.bytes).expect("a record").hash.0);
            records.extend(line.bytes);
            records.push(b'\n');
        }
    }
    let checkpoint =
        Checkpoint { origin: "log.example/eu".into(), size: end.seq, root: frontier.root() };
    let note = checkpoint.note(&RING.checkpoint_keys[0], |text| sign(&NOTE_KEY, text));
    let head = HeadClaim { chain: RING.chain.to_string(), head: end }.write();
    Files { records, note: note.into_bytes(), head }
});

fn verdict(files: &Files) -> Option<Verdict> {
    let mut verifier = Verifier::new(&RING, &Hashed);
    verifier.expect(&files.note);
    let lines = files.records.strip_suffix(b"\n").unwrap_or(&files.records);
    lines.split(|octet| *octet == b'\n').for_each(|line| verifier.push(line));
    let head = HeadClaim::read(&files.head).ok()?;
    Some(verifier.finish(Some(&head)).verdict)
}

/// Six octets are a change: which file, where, until where, what.
fn changed(octets: &[u8]) -> Files {
    let mut files = SOUND.clone();
    for step in octets.chunks_exact(6) {
        let file = match step[0] % 4 {
            0 => &mut files.note,
            1 => &mut files.head,
            _ => &mut files.records,
        };
        let number = |at: usize| usize::from(u16::from_be_bytes([step[at], step[at + 1]]));
        if file.is_empty() {
            continue;
        }
        let (from, to) = (number(1) % file.len(), number(3) % file.len());
        let (from, to) = (from.min(to), from.max(to));
        match step[0] >> 5 {
            0 => file[from] ^= 1 << (step[5] % 8),
            1 => file[from] = step[5],
            2 => file.insert(from, step[5]),
            3 => drop(file.drain(from..to)),
            4 => file.extend_from_within(from..to),
            _ => file.swap(from, to),
        }
    }
    files
}

fuzz_target!(|octets: &[u8]| {
    let files = changed(octets);
    let is_sound = files.records == SOUND.records && files.note == SOUND.note;
    // The last line may lack its end.
    let is_cut = [files.records.as_slice(), b"\n"].concat() == SOUND.records;
    if verdict(&files) == Some(Verdict::Valid) {
        assert!((is_sound || is_cut) && files.head == SOUND.head, "{:?}", files.records);
    }
    let raw = Files { records: octets.to_vec(), note: octets.to_vec(), head: octets.to_vec() };
    assert_ne!(verdict(&raw), Some(Verdict::Valid));
    let only_records = Files { records: octets.to_vec(), ..SOUND.clone() };
    assert!(verdict(&only_records) != Some(Verdict::Valid) || octets == SOUND.records);
    drop((KeyRing::read(octets), Event::read(octets), Event::of_record(octets)));
});
