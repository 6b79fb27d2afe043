//! Owns the id of a decision: its bits and its one spelling. Knows no message.

use core::fmt;

use serde::{Deserialize, Serialize};

/// Names one decision everywhere: messages, audit, answers, logs. 128 bits, written as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(u128);

// === impl DecisionId ===

impl DecisionId {
    /// From 128 bits that the caller took care to make unique (RFC 9562 version 8: the
    /// remaining 122 bits are ours).
    pub fn new(bits: u128) -> Self {
        let cleared = bits & !(0xf << 76) & !(0b11 << 62);
        Self(cleared | (8 << 76) | (0b10 << 62))
    }

    /// All 128 bits.
    pub fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            bits >> 96,
            (bits >> 80) & 0xffff,
            (bits >> 64) & 0xffff,
            (bits >> 48) & 0xffff,
            bits & 0xffff_ffff_ffff
        )
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(DecisionIdText)
    }
}

/// Reads an id without a copy of its text: every message has one.
struct DecisionIdText;

impl serde::de::Visitor<'_> for DecisionIdText {
    type Value = DecisionId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decision id: a lower-case UUID")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<DecisionId, E> {
        parse_id(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

/// Exactly what `Display` writes: lower-case digits in groups of 8, 4, 4, 4 and 12.
fn parse_id(text: &str) -> Option<DecisionId> {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let mut bits = 0u128;
    let mut groups = text.split('-');
    for len in GROUPS {
        let group = groups.next().filter(|group| group.len() == len)?;
        for byte in group.bytes() {
            let digit = match byte {
                b'0'..=b'9' => byte.wrapping_sub(b'0'),
                b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
                _ => return None,
            };
            bits = (bits << 4) | u128::from(digit);
        }
    }
    groups.next().is_none().then_some(DecisionId(bits))
}
