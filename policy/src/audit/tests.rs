//! Owns stand-ins for Ed25519 in this crate's tests: a signature is a hash that anyone could make.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::hash::Hash;
use super::keys::{Key, KeyRing};
use super::note::{Checkpoint, NoteKey};
use super::record::{ChainName, Event, Head, KeyVersion, SignatureCheck, Signer, batch};
use super::{Action, AuditEvent, Basis, Durability, Thinning};
use crate::scope::{Region, Tenant};

/// Checks what [`sign`] makes.
pub struct Fake;

/// Signs as the key of its number.
pub struct FakeSigner(pub u8, pub KeyVersion);

pub fn key(number: u8) -> [u8; 32] {
    Hash::of(&[b"key", &[number]]).0
}

pub fn sign(number: u8, message: &[u8]) -> [u8; 64] {
    signature(&key(number), message)
}

fn signature(public: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let (Hash(a), Hash(b)) =
        (Hash::of(&[b"a", public, message]), Hash::of(&[b"b", public, message]));
    let mut whole = [0; 64];
    whole[..32].copy_from_slice(&a);
    whole[32..].copy_from_slice(&b);
    whole
}

impl SignatureCheck for Fake {
    fn check(&self, public_key: &[u8; 32], message: &[u8], given: &[u8; 64]) -> bool {
        signature(public_key, message) == *given
    }
}

impl Signer for FakeSigner {
    fn version(&self) -> KeyVersion {
        self.1
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        sign(self.0, message)
    }
}

pub fn chain() -> ChainName {
    ChainName::new("eu").expect("a name")
}

/// Key 1 is v1, key 2 is v2; key 9 signs checkpoints.
pub fn ring() -> KeyRing {
    let entry =
        |number: u8| (KeyVersion(number.into()), Key { public: key(number), revoked: None });
    KeyRing {
        chain: chain(),
        keys: [entry(1), entry(2)].into_iter().collect(),
        checkpoint_keys: [note_key()].into_iter().collect(),
    }
}

pub fn note_key() -> NoteKey {
    NoteKey::new("log.example/eu", key(9)).expect("a name")
}

pub fn audit_event(id: &str) -> AuditEvent {
    AuditEvent {
        id: String::from(id),
        ts_ms: 1_767_225_600_000,
        region: Region::new("eu").expect("a region"),
        actor: "gateway".into(),
        tenant: Tenant::None,
        action: Action::Admin,
        outcome: "ok".into(),
        detail: format!("what {id} was"),
        durability: Durability::Async,
        thinning: Thinning::Each,
        about: Vec::new(),
        basis: Basis::default(),
    }
}

pub fn events(ids: impl IntoIterator<Item = u64>) -> Vec<Event> {
    let event = |id: u64| Event::new(&audit_event(&format!("e-{id}"))).expect("sound");
    ids.into_iter().map(event).collect()
}

/// A chain as it is exported: batches of these lengths signed by v1, and where it ends.
pub fn export(batches: &[u64]) -> (Vec<Vec<u8>>, Head) {
    let mut lines = Vec::new();
    let mut head = Head::GENESIS;
    for length in batches {
        let events = events((1..=*length).map(|n| head.seq + n));
        let made = batch(&chain(), head, &events, &FakeSigner(1, KeyVersion(1)));
        head = made.head;
        lines.extend(made.lines.into_iter().map(|line| line.bytes));
    }
    (lines, head)
}

/// A signed checkpoint over the first `size` lines.
pub fn checkpoint(lines: &[Vec<u8>], size: usize) -> String {
    let mut frontier = super::merkle::Frontier::default();
    for line in lines.iter().take(size) {
        frontier.push(&super::record::Record::read(line).expect("a record").hash.0);
    }
    let root = frontier.root();
    let checkpoint = Checkpoint { origin: "log.example/eu".into(), size: frontier.size(), root };
    checkpoint.note(&note_key(), |text| sign(9, text))
}
