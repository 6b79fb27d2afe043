//! Owns which public keys a verifier trusts, and since when one is revoked: the keys file. Knows no
//! private key and no chain's content.
//!
//! The file is what an auditor keeps apart from the chain. Its form:
//!
//! ```json
//! {"chain": "eu",
//!  "keys": [{"version": "v1", "public": "<base64, 32 bytes>",
//!            "revoked": {"after_seq": 4711, "reason": "laptop lost"}}],
//!  "checkpoint_keys": ["tidegate.example/eu+1a2b3c4d+<base64>"]}
//! ```
//!
//! `revoked` without `after_seq` marks every signature of the key and refuses none: nobody said since
//! when it is not to be believed.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::hash::{from_base64, to_base64};
use super::note::NoteKey;
use super::record::{ChainName, KeyVersion};
use super::value::Unfit;

/// What a verifier believes before it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRing {
    /// The chain that is expected.
    pub chain: ChainName,
    /// The keys that sign records.
    pub keys: BTreeMap<KeyVersion, Key>,
    /// The keys that sign checkpoints.
    pub checkpoint_keys: Vec<NoteKey>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Ed25519.
    pub public: [u8; 32],
    /// Whether it is revoked.
    pub revoked: Option<Revocation>,
}

/// Since when a key is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Signatures behind this record are refused; those up to it are good if a checkpoint holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seq: Option<u64>,
    /// Why, for readers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRing {
    chain: String,
    keys: Vec<RawKey>,
    #[serde(default)]
    checkpoint_keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    version: String,
    public: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Revocation>,
}

// === impl KeyRing ===

impl KeyRing {
    /// Reads a keys file.
    pub fn read(text: &[u8]) -> Result<Self, Unfit> {
        let raw: RawRing = serde_json::from_slice(text)
            .map_err(|error| Unfit(format!("no keys file: {error}")))?;
        let chain = ChainName::new(&raw.chain).map_err(|bad| Unfit(format!("chain: {bad}")))?;
        let mut keys = BTreeMap::new();
        for (index, raw) in raw.keys.into_iter().enumerate() {
            let version = KeyVersion::new(&raw.version).ok_or_else(|| {
                Unfit(format!("keys[{index}].version: {:?} is none; write v1, v2, …", raw.version))
            })?;
            let public = from_base64(&raw.public).and_then(|bytes| bytes.try_into().ok());
            let public = public.ok_or_else(|| {
                Unfit(format!("keys[{index}].public: {:?} is not 32 bytes in base64", raw.public))
            })?;
            if keys.insert(version, Key { public, revoked: raw.revoked }).is_some() {
                return Err(Unfit(format!("keys[{index}].version: {version} stands twice")));
            }
        }
        let checkpoint_keys = raw.checkpoint_keys.iter().enumerate().map(|(index, text)| {
            NoteKey::read(text).map_err(|bad| Unfit(format!("checkpoint_keys[{index}]: {bad}")))
        });
        let checkpoint_keys = checkpoint_keys.collect::<Result<_, _>>()?;
        Ok(Self { chain, keys, checkpoint_keys })
    }

    /// The keys file.
    pub fn write(&self) -> String {
        let keys = self.keys.iter().map(|(version, key)| RawKey {
            version: version.to_string(),
            public: to_base64(&key.public),
            revoked: key.revoked.clone(),
        });
        let raw = RawRing {
            chain: self.chain.to_string(),
            keys: keys.collect(),
            checkpoint_keys: self.checkpoint_keys.iter().map(ToString::to_string).collect(),
        };
        serde_json::to_string_pretty(&raw).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keys_file_is_read_and_written() {
        let public = to_base64(&[7; 32]);
        let note = NoteKey::new("log.example/eu", [9; 32]).expect("a name").to_string();
        let text = format!(
            r#"{{"chain":"eu/staging","keys":[{{"version":"v2","public":"{public}","revoked":{{"after_seq":9}}}}],"checkpoint_keys":["{note}"]}}"#
        );
        let ring = KeyRing::read(text.as_bytes()).expect("sound");
        assert_eq!(KeyRing::read(ring.write().as_bytes()), Ok(ring.clone()));
        assert_eq!(ring.chain.as_str(), "eu/staging");
        let after = ring.keys[&KeyVersion(2)].revoked.as_ref().and_then(|at| at.after_seq);
        assert_eq!(after, Some(9));
        for (from, to, expected) in [
            ("eu/staging", "eu:staging", "chain: "),
            ("eu/staging", "eu/default", "leave out"),
            ("\"v2\"", "\"v02\"", "keys[0].version"),
            ("\"v2\"", "\"2\"", "keys[0].version"),
            (public.as_str(), "AAAA", "keys[0].public"),
            (note.as_str(), "x", "checkpoint_keys[0]"),
            ("\"chain\"", "\"chian\"", "unknown field"),
            ("\"chain\"", "\"chain\":\"a\",\"chain\"", "duplicate field"),
        ] {
            let error = KeyRing::read(text.replacen(from, to, 1).as_bytes()).expect_err(to);
            assert!(error.0.contains(expected), "{to}: {error}");
        }
    }
}
