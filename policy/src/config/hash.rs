//! Owns the fingerprint of a document: by it an operator sees whether two Envoys run the same
//! configuration, however it was formatted.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tree::{Kind, Node};
use crate::audit::hash::Hash;

/// The SHA-256 of the canonical document: fields in the order of their names,
/// without blanks, without those that are `null` (which counts as absent), text in its shortest
/// spelling. Shown as its first 8 hexadecimal digits, told by all 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigHash([u8; 32]);

// === impl ConfigHash ===

impl ConfigHash {
    pub(super) fn of(root: &Node<'_>) -> Self {
        let mut hasher = Sha256::new();
        feed(root, &mut hasher);
        Self(hasher.finalize().into())
    }

    /// Reads all 64 digits.
    pub fn read(text: &str) -> Option<Self> {
        Hash::from_hex(text).map(|hash| Self(hash.0))
    }

    /// All 64 digits.
    pub fn digits(&self) -> String {
        Hash(self.0).to_string()
    }

    /// The first 32 bits: what a gauge can say.
    pub fn gauge(&self) -> u32 {
        let [first, second, third, fourth, ..] = self.0;
        u32::from_be_bytes([first, second, third, fourth])
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.gauge())
    }
}

impl From<ConfigHash> for String {
    fn from(hash: ConfigHash) -> Self {
        hash.digits()
    }
}

impl TryFrom<String> for ConfigHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::read(&text).ok_or("a configuration's hash is 64 lower-case hexadecimal digits")
    }
}

fn feed(node: &Node<'_>, hasher: &mut Sha256) {
    match &node.kind {
        Kind::Null => hasher.update(b"null"),
        Kind::Bool | Kind::Number => hasher.update(node.raw.as_bytes()),
        Kind::Text(text) => hasher.update(quoted(text).as_bytes()),
        Kind::List(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        Kind::Table(fields) => {
            let mut fields: Vec<_> =
                fields.iter().filter(|(_, value)| !matches!(value.kind, Kind::Null)).collect();
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            hasher.update(b"{");
            for (name, value) in fields {
                hasher.update(quoted(name).as_bytes());
                hasher.update(b":");
                feed(value, hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
    }
}

fn quoted(text: &str) -> String {
    // Text always serialises.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tree::parse;
    use super::*;

    fn of(document: &str) -> ConfigHash {
        ConfigHash::of(&parse(document).expect("a document"))
    }

    #[test]
    fn only_what_a_document_says_counts() {
        let hash = of(r#"{"a": [1, "x/y"], "b": {"c": true}}"#);
        for same in [
            r#"{"b":{"c":true},"a":[1,"x/y"]}"#,
            "{ \"a\" : [ 1 , \"x\\/y\" ],\n \"b\": {\"c\": true, \"d\": null}}",
        ] {
            assert_eq!(of(same), hash, "{same}");
        }
        for other in [
            r#"{"a": [1, "x/y"], "b": {"c": false}}"#,
            r#"{"a": ["x/y", 1], "b": {"c": true}}"#,
            r#"{"a": ["1", "x/y"], "b": {"c": true}}"#,
            r#"{"a": [1, "x/y", null], "b": {"c": true}}"#,
            r#"{"a": [1, "x/y", "b"], "c": true}"#,
        ] {
            assert_ne!(of(other), hash, "{other}");
        }
    }

    /// What `printf '{"a":1,}' | sha256sum` begins with.
    #[test]
    fn the_hash_is_the_canonical_texts_and_stays() {
        use std::string::ToString;
        assert_eq!(of(r#"{ "a": 1 }"#).to_string(), "aa99a5ce");
        let mut seven = [0xff; 32];
        seven[..4].copy_from_slice(&[0, 0, 0, 7]);
        let seven = ConfigHash(seven);
        assert_eq!((seven.to_string().as_str(), seven.gauge()), ("00000007", 7));
        assert_eq!(ConfigHash::read(&seven.digits()), Some(seven));
        assert!(
            seven.digits().starts_with("00000007ffff") && ConfigHash::read("00000007").is_none()
        );
    }
}
