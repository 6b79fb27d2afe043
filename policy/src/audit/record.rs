//! Owns the record: an event at its place in the chain, its bytes, its hash and its signature. Knows
//! neither who else is in the chain nor where records are kept.
//!
//! ```text
//! record    the canonical bytes (see `value`) of one object; as it is stored and exported, one a line
//! hash      SHA-256("audit.v1\0" | prev, 32 bytes | u64be length | bytes without key_version and sig)
//! signed    "audit.sig.v1\0" | length of the chain's name, 1 byte | name | u64be seq | hash | key_version
//! ```
//!
//! Ed25519. One signature covers every record before it, since each is hashed into the next; a batch
//! is signed on its last record. Vectors: `policy/tests/golden/audit-chain.json`. Record 0046.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

pub use self::event::Event;
use super::Action;
use super::hash::{Hash, from_base64};
use super::value::{self, Object, Unfit, Value};
use crate::scope::{Environment, Region};

mod event;
mod plain;

/// The longest record in bytes: what a tile of a transparency log can hold.
pub const RECORD_LEN_MAX: usize = 65_535;
/// The longest event in bytes: what is left of a record beside its place and its signature.
pub const EVENT_LEN_MAX: usize = 65_000;
/// The longest id in bytes.
pub const ID_LEN_MAX: usize = 128;

const HASH_PREFIX: &[u8] = b"audit.v1\0";
const SIGNED_PREFIX: &[u8] = b"audit.sig.v1\0";
const VERSION: u64 = 1;

/// The name of a chain: its region, and its environment unless that is the default one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainName(String);

/// Which of the signing keys: `v1`, `v2`, …; `v0` is the one that was given without a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyVersion(pub u32);

/// Who signs. The key itself stays outside of this crate.
pub trait Signer {
    /// The key's version.
    fn version(&self) -> KeyVersion;

    /// Ed25519 over `message`.
    fn sign(&self, message: &[u8]) -> [u8; 64];
}

/// Who checks signatures.
pub trait SignatureCheck {
    /// Whether `signature` is the Ed25519 signature of `message` by `public_key`; strictly, so that no
    /// second signature passes for the same message without the key.
    fn check(&self, public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;
}

/// The last record of a chain: where the next one is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number, from 1; 0 is the empty chain.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// Records that go into the chain together, the last one signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The records in order.
    pub lines: Vec<Line>,
    /// Where the chain ends with them.
    pub head: Head,
}

/// One record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The event's id.
    pub id: String,
    /// The record's bytes, without a line's end.
    pub bytes: Vec<u8>,
}

/// A signature and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The key.
    pub version: KeyVersion,
    /// Ed25519.
    pub signature: [u8; 64],
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1.
    pub seq: u64,
    /// The hash of the one before.
    pub prev: Hash,
    /// The event's id.
    pub id: String,
    /// The event's time in ms since 1970, as its gateway saw it.
    pub ts_ms: u64,
    /// Its own hash.
    pub hash: Hash,
    /// The signature, if it is signed.
    pub seal: Option<Seal>,
    /// What a gateway says of records that the store had lost, if this is such a record.
    pub rollback: Option<Rollback>,
}

/// The store had lost records; the chain goes on behind those that were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// The last record that was left: the one before this.
    pub kept: u64,
    /// How far the chain is known to have been.
    pub known: u64,
    /// The last record that is known to be of the chain as it was: behind it others may have taken the lost
    /// ones' places before anybody knew. A record that does not say so means all that was kept.
    pub common: u64,
}

// === impl ChainName ===

impl ChainName {
    /// The chain of a region's environment. `/` stands in no part, so that no two share a name.
    pub fn of(region: &Region, environment: &Environment) -> Self {
        if *environment == Environment::default() {
            return Self(region.to_string());
        }
        Self(format!("{region}/{environment}"))
    }

    /// Reads `region` or `region/environment`.
    pub fn new(text: &str) -> Result<Self, Unfit> {
        let (region, environment) = text.split_once('/').unwrap_or((text, "default"));
        let region = Region::new(region).map_err(|bad| Unfit(bad.to_string()))?;
        let environment = Environment::new(environment).map_err(|bad| Unfit(bad.to_string()))?;
        let chain = Self::of(&region, &environment);
        if chain.0 == text {
            Ok(chain)
        } else {
            Err(Unfit::new("leave out the environment default"))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl KeyVersion ===

impl KeyVersion {
    /// Reads `v` and a number without leading zeros, at most `v999999999`.
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('v').filter(|digits| (1..=9).contains(&digits.len()))?;
        let version = Self(digits.parse().ok()?);
        (version.to_string() == text).then_some(version)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

// === impl Head ===

impl Head {
    /// The end of a chain without records.
    pub const GENESIS: Self = Self { seq: 0, hash: Hash::GENESIS };
}

/// Links the events behind `head` in order and signs the last of them.
pub fn batch(chain: &ChainName, head: Head, events: &[Event], signer: &dyn Signer) -> Batch {
    let mut end = head;
    let mut lines = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        let (prev, seq) = (end.hash, end.seq.saturating_add(1));
        let mut bytes = event.placed(&prev, seq, None);
        end = Head { seq, hash: hash_of(&prev, &[&bytes]) };
        if index.saturating_add(1) == events.len() {
            let version = signer.version();
            let signature = signer.sign(&signed(chain, seq, &end.hash, version));
            bytes = event.placed(&prev, seq, Some((version, signature)));
        }
        lines.push(Line { id: event.id().to_owned(), bytes });
    }
    Batch { lines, head: end }
}

/// Of the canonical bytes, which may come in pieces: at most three, what is left without a signature.
fn hash_of(prev: &Hash, pieces: &[&[u8]]) -> Hash {
    let length = pieces.iter().map(|piece| piece.len()).fold(0, usize::saturating_add);
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let [a, b, c] = [0, 1, 2].map(|at| pieces.get(at).copied().unwrap_or_default());
    Hash::of(&[HASH_PREFIX, &prev.0, &length.to_be_bytes(), a, b, c])
}

/// What is signed for the record `seq` with that hash.
pub fn signed(chain: &ChainName, seq: u64, hash: &Hash, version: KeyVersion) -> Vec<u8> {
    let name = chain.as_str().as_bytes();
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    let version = version.to_string();
    let parts: [&[u8]; 6] =
        [SIGNED_PREFIX, &[length], name, &seq.to_be_bytes(), &hash.0, version.as_bytes()];
    parts.concat()
}

// === impl Record ===

impl Record {
    /// Reads a record from exactly its canonical bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        if bytes.len() > RECORD_LEN_MAX {
            return Err(Unfit(format!("longer than {RECORD_LEN_MAX} bytes")));
        }
        match plain::read(bytes) {
            Some(record) => Ok(record),
            None => Self::read_any(bytes),
        }
    }

    /// The same for any spelling that a record may have.
    fn read_any(bytes: &[u8]) -> Result<Self, Unfit> {
        let mut fields = value::read(bytes)?;
        let seal = take_seal(&mut fields)?;
        let seq = fields.get("seq").and_then(Value::as_number).filter(|seq| *seq > 0);
        let seq = seq.ok_or_else(|| Unfit::new("seq is no number from 1"))?;
        let prev = fields.get("prev").and_then(Value::as_text).and_then(Hash::from_hex);
        let prev = prev.ok_or_else(|| Unfit::new("prev is no hash in 64 lower-case hex digits"))?;
        let (id, ts_ms) = check_event(&fields)?;
        let hash = match seal {
            None => hash_of(&prev, &[bytes]),
            Some(_) => hash_of(&prev, &[&value::write(&fields)]),
        };
        let rollback = rollback(&fields, seq)?;
        Ok(Self { seq, prev, id, ts_ms, hash, seal, rollback })
    }
}

fn take_seal(fields: &mut Object) -> Result<Option<Seal>, Unfit> {
    match (fields.remove("key_version"), fields.remove("sig")) {
        (None, None) => Ok(None),
        (Some(Value::Text(version)), Some(Value::Text(signature))) => {
            let version = KeyVersion::new(&version);
            let signature = from_base64(&signature).and_then(|bytes| bytes.try_into().ok());
            let seal = version.zip(signature);
            let seal = seal.map(|(version, signature)| Some(Seal { version, signature }));
            seal.ok_or_else(|| Unfit::new("key_version or sig is not spelled as it has to be"))
        }
        _ => Err(Unfit::new("key_version and sig are texts and stand together")),
    }
}

fn rollback(fields: &Object, seq: u64) -> Result<Option<Rollback>, Unfit> {
    if fields.get("action").and_then(Value::as_text) != Some(Action::Rollback.as_str()) {
        return Ok(None);
    }
    let told = match fields.get("detail") {
        Some(Value::Object(told)) => told,
        _ => return Err(Unfit::new("a rollback's detail is no object")),
    };
    let number = |key: &str| told.get(key).and_then(Value::as_number);
    let kept = number("kept").filter(|kept| kept.saturating_add(1) == seq);
    let kept = kept.ok_or_else(|| {
        Unfit::new("a rollback does not stand behind the last record that it kept")
    })?;
    let common = if told.contains_key("common") { number("common") } else { Some(kept) };
    match (common, number("known")) {
        (Some(common), Some(known)) if common <= kept && common < known => {
            Ok(Some(Rollback { kept, known, common }))
        }
        _ => Err(Unfit::new("a rollback tells of no record that was lost")),
    }
}

impl Rollback {
    /// The detail of its event.
    pub fn detail(self) -> Value {
        // Where all that was kept is common it is spelled as it was before there was this field.
        let common = (self.common < self.kept).then_some(("common", self.common));
        let fields = common.into_iter().chain([("kept", self.kept), ("known", self.known)]);
        let fields = fields.map(|(key, number)| (key.to_owned(), Value::number(number)));
        Value::Object(Object::from_iter(fields))
    }
}

/// The fields that every record has, at least; others are hashed and say nothing to this version.
fn check_event(fields: &Object) -> Result<(String, u64), Unfit> {
    if fields.get("v").and_then(Value::as_number) != Some(VERSION) {
        return Err(Unfit(format!("v is not {VERSION}")));
    }
    for key in ["region", "actor", "action", "outcome"] {
        if fields.get(key).and_then(Value::as_text).is_none() {
            return Err(Unfit(format!("{key} is no text")));
        }
    }
    if !matches!(fields.get("tenant"), Some(Value::Null | Value::Text(_))) {
        return Err(Unfit::new("tenant is neither text nor null"));
    }
    if !fields.contains_key("detail") {
        return Err(Unfit::new("detail is missing"));
    }
    let ts_ms = fields.get("ts").and_then(Value::as_number);
    let ts_ms = ts_ms.ok_or_else(|| Unfit::new("ts is no number of ms since 1970"))?;
    let id = fields.get("id").and_then(Value::as_text).filter(|id| {
        (1..=ID_LEN_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let id = id.ok_or_else(|| Unfit(format!("id is not 1 to {ID_LEN_MAX} visible characters")))?;
    Ok((id.to_owned(), ts_ms))
}

#[cfg(test)]
mod tests;
