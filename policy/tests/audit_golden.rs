//! The published test vectors of the audit chain: what another implementation is held against, and
//! what this one has to go on making bit for bit. `UPDATE_EXPECT=1` writes the file of the chain anew; a
//! change there makes every chain that exists unverifiable and needs a new version.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde_json::{Value as Json, json};
use tidegate_policy::audit::hash::{Hash, from_base64, to_base64};
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::merkle::Frontier;
use tidegate_policy::audit::note::{Checkpoint, NoteKey};
use tidegate_policy::audit::record::{
    ChainName, Event, Head, KeyVersion, Record, SignatureCheck, Signer, batch, signed,
};
use tidegate_policy::audit::value;
use tidegate_policy::audit::verify::{HeadClaim, Verdict, Verifier};

/// Everybody knows them: they sign nothing but these vectors.
const SIGNING_SEED: [u8; 32] = [1; 32];
const CHECKPOINT_SEED: [u8; 32] = [2; 32];

struct Ed25519;

impl SignatureCheck for Ed25519 {
    fn check(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(public_key)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .is_ok()
    }
}

struct Key1(SigningKey);

impl Signer for Key1 {
    fn version(&self) -> KeyVersion {
        KeyVersion(1)
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn read(name: &str) -> Json {
    let text = fs::read_to_string(path(name)).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("{key} in {json}"))
}

const EVENTS: [&str; 3] = [
    r#"{"action":"lifecycle","actor":"gateway","detail":"started","id":"gateway-0000000000000007-0","outcome":"ok","region":"eu","tenant":null,"ts":1767225600000,"v":1}"#,
    r#"{"action":"deny","actor":"filter","detail":"per-client é\"\\\n\u0001","id":"01234567-89ab-8def-8123-456789abcdef","outcome":"quota-exceeded","region":"eu","tenant":"acme","ts":1767225600001,"v":1}"#,
    r#"{"action":"deny","actor":"filter","detail":{"count":9007199254740991,"ids":["a","b"],"more":false},"id":"x","outcome":"quota-exceeded","region":"eu","tenant":"acme","ts":1767225600002,"v":1}"#,
];

/// The vectors as this implementation makes them.
fn made() -> Json {
    let chain = ChainName::new("eu").expect("a name");
    let signer = Key1(SigningKey::from_bytes(&SIGNING_SEED));
    let note_signer = SigningKey::from_bytes(&CHECKPOINT_SEED);
    let note_key = NoteKey::new("log.example/eu", note_signer.verifying_key().to_bytes());
    let note_key = note_key.expect("a name");
    let events = EVENTS.map(|event| Event::read(event.as_bytes()).expect("canonical"));
    // Two batches: the first of one event, the second of two.
    let first = batch(&chain, Head::GENESIS, &events[..1], &signer);
    let second = batch(&chain, first.head, &events[1..], &signer);
    let mut frontier = Frontier::default();
    let mut records = Vec::new();
    for (line, event) in first.lines.iter().chain(&second.lines).zip(EVENTS) {
        let record = Record::read(&line.bytes).expect("a record");
        frontier.push(&record.hash.0);
        let message = record.seal.as_ref().map(|seal| {
            let message = signed(&chain, record.seq, &record.hash, seal.version);
            message.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        records.push(json!({
            "event": event,
            "record": String::from_utf8(line.bytes.clone()).expect("text"),
            "hash": record.hash.to_string(),
            "signed": message,
            "root": frontier.root().to_string(),
        }));
    }
    let checkpoint =
        Checkpoint { origin: note_key.name().to_owned(), size: 3, root: frontier.root() };
    let note = checkpoint.note(&note_key, |text| note_signer.sign(text).to_bytes());
    let claim = HeadClaim { chain: chain.to_string(), head: second.head };
    json!({
        "about": "A chain of three records in two batches, as docs/audit.md says. `event` are the canonical bytes of an event, `record` those of its record (a line of an export), `hash` its SHA-256, `signed` the hex of what is signed, `root` the RFC 6962 root over the hashes so far. Seeds are those of RFC 8032.",
        "chain": chain.as_str(),
        "genesis": Hash::GENESIS.to_string(),
        "key_version": "v1",
        "seed": to_base64(&SIGNING_SEED),
        "public": to_base64(&signer.0.verifying_key().to_bytes()),
        "checkpoint_seed": to_base64(&CHECKPOINT_SEED),
        "checkpoint_key": note_key.to_string(),
        "records": records,
        "head": String::from_utf8(claim.write()).expect("text"),
        "checkpoint": note,
    })
}

#[test]
fn the_chain_is_made_as_it_was_published() {
    let made = made();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("text") + "\n";
        fs::write(path("audit-chain.json"), text).expect("written");
    }
    assert_eq!(made, read("audit-chain.json"));
}

/// What an auditor finds in these files: records, a checkpoint, the head. `None` if the head is not readable.
fn verdict(golden: &Json, [records, note, head]: &[Vec<u8>; 3]) -> Option<(Verdict, u64)> {
    let public = from_base64(text(golden, "public")).expect("base64").try_into().expect("32");
    let ring = KeyRing {
        chain: ChainName::new(text(golden, "chain")).expect("a name"),
        keys: [(KeyVersion(1), Key { public, revoked: None })].into_iter().collect(),
        checkpoint_keys: vec![NoteKey::read(text(golden, "checkpoint_key")).expect("a key")],
    };
    let mut verifier = Verifier::new(&ring, &Ed25519);
    verifier.expect(note);
    records.split(|byte| *byte == b'\n').for_each(|record| verifier.push(record));
    let claim = HeadClaim::read(head).ok()?;
    let report = verifier.finish(Some(&claim));
    Some((report.verdict, report.checkpoints_matched))
}

fn files(golden: &Json) -> [Vec<u8>; 3] {
    let records = golden["records"].as_array().expect("records");
    let records: Vec<&str> = records.iter().map(|record| text(record, "record")).collect();
    let whole = |text: &str| text.as_bytes().to_vec();
    [whole(&records.join("\n")), whole(text(golden, "checkpoint")), whole(text(golden, "head"))]
}

#[test]
fn the_published_chain_verifies() {
    let golden = read("audit-chain.json");
    assert_eq!(verdict(&golden, &files(&golden)), Some((Verdict::Valid, 1)));
}

/// With real signatures; every bit would take minutes, some stand for them.
#[test]
fn a_bit_that_is_flipped_in_the_published_files_is_found() {
    let golden = read("audit-chain.json");
    let sound = files(&golden);
    for (which, file) in sound.iter().enumerate() {
        for bit in (0..file.len() * 8).step_by(61) {
            let mut files = sound.clone();
            files[which][bit / 8] ^= 1 << (bit % 8);
            let found = verdict(&golden, &files);
            assert!(
                found.is_none_or(|(verdict, _)| verdict == Verdict::Invalid),
                "file {which}, bit {bit}: {found:?}"
            );
        }
    }
}

#[test]
fn canonical_bytes_are_as_published() {
    let golden = read("audit-canonical.json");
    for sound in golden["sound"].as_array().expect("texts") {
        let bytes = text(sound, "text").as_bytes();
        let object = value::read(bytes).expect("canonical");
        assert_eq!(value::write(&object), bytes);
        assert_eq!(Hash::of(&[bytes]).to_string(), text(sound, "sha256"), "{sound}");
    }
    for refused in golden["refused"].as_array().expect("texts") {
        assert!(value::read(text(refused, "text").as_bytes()).is_err(), "{refused}");
    }
}
