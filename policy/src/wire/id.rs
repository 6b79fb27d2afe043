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

    /// Its spelling, without the machinery of formats: every message has one.
    fn with_text<T>(self, give: impl FnOnce(&str) -> T) -> T {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut shift = 128u32;
        for (place, byte) in text.iter_mut().enumerate() {
            if matches!(place, 8 | 13 | 18 | 23) {
                continue;
            }
            shift = shift.saturating_sub(4);
            let digit = usize::try_from((self.0 >> shift) & 0xf).unwrap_or_default();
            *byte = DIGITS.get(digit).copied().unwrap_or_default();
        }
        // Digits and dashes are text.
        give(core::str::from_utf8(&text).unwrap_or_default())
    }

    /// All 128 bits.
    pub fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| to.serialize_str(text))
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
