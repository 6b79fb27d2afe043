//! Owns the head as it is exported: where the store says that a chain ends. Knows no record.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::audit::hash::Hash;
use crate::audit::record::Head;
use crate::audit::value::{self, Object, Unfit, Value};

/// The head as it is exported: where the store says that the chain ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadClaim {
    /// The chain's name.
    pub chain: String,
    /// Its end.
    pub head: Head,
}

// === impl HeadClaim ===

impl HeadClaim {
    /// Reads `{"chain":…,"hash":…,"seq":…}` from its canonical bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        let fields = value::read(bytes)?;
        let chain = fields.get("chain").and_then(Value::as_text);
        let hash = fields.get("hash").and_then(Value::as_text).and_then(Hash::from_hex);
        let seq = fields.get("seq").and_then(Value::as_number);
        match (chain, hash, seq, fields.len()) {
            (Some(chain), Some(hash), Some(seq), 3) => {
                Ok(Self { chain: chain.to_string(), head: Head { seq, hash } })
            }
            _ => Err(Unfit::new("a head has chain, hash and seq, and nothing else")),
        }
    }

    /// Its canonical bytes.
    pub fn write(&self) -> Vec<u8> {
        let fields = [
            ("chain", Value::text(&self.chain)),
            ("hash", Value::Text(self.head.hash.to_string())),
            ("seq", Value::number(self.head.seq)),
        ];
        value::write(&Object::from_iter(fields.map(|(key, value)| (key.to_string(), value))))
    }
}
