//! Owns the fingerprint of a document: by it an operator sees whether two Envoys run the same
//! configuration, however it was formatted.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

use super::tree::{Kind, Node};

/// The first 32 bits of the SHA-256 of the canonical document: fields in the order of their names,
/// without blanks, without those that are `null` (which counts as absent), text in its shortest
/// spelling. Shown as 8 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigHash(pub u32);

// === impl ConfigHash ===

impl ConfigHash {
    pub(super) fn of(root: &Node<'_>) -> Self {
        let mut hasher = Sha256::new();
        feed(root, &mut hasher);
        Self(hasher.finalize().iter().take(4).fold(0, |sum, &byte| (sum << 8) | u32::from(byte)))
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
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
        assert_eq!(ConfigHash(7).to_string(), "00000007");
    }
}
