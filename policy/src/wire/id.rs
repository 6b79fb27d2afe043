//! Owns the id of a decision: its bits and its one spelling. Knows no message.

use alloc::borrow::ToOwned;
use alloc::string::String;
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
        let [first, second, third, fourth] = self.quarters().map(digits);
        let [a, b, c, d, e, f, g, h] = second;
        let [i, j, k, l, rest @ ..] = third;
        let mut text = [b'-'; 36];
        let groups: [(usize, &[u8]); 6] = [
            (0, &first),
            (9, &[a, b, c, d]),
            (14, &[e, f, g, h]),
            (19, &[i, j, k, l]),
            (24, &rest),
            (28, &fourth),
        ];
        for (at, group) in groups {
            if let Some(place) = text.get_mut(at..at.saturating_add(group.len())) {
                place.copy_from_slice(group);
            }
        }
        // Digits and dashes are text.
        give(core::str::from_utf8(&text).unwrap_or_default())
    }

    fn quarters(self) -> [u32; 4] {
        let quarter = |shift: u32| u32::try_from((self.0 >> shift) & 0xffff_ffff).unwrap_or(0);
        [quarter(96), quarter(64), quarter(32), quarter(0)]
    }

    /// Appends its spelling.
    pub fn push_to(self, text: &mut String) {
        self.with_text(|spelling| text.push_str(spelling));
    }

    /// Its spelling.
    pub fn to_text(self) -> String {
        self.with_text(ToOwned::to_owned)
    }

    /// All 128 bits.
    pub fn bits(self) -> u128 {
        self.0
    }
}

/// The eight digits of a number, all at once: a byte for each.
fn digits(number: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let number = u64::from(number);
    let halves = (number | (number << 16)) & 0x0000_ffff_0000_ffff;
    let bytes = (halves | (halves << 8)) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (bytes | (bytes << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    // One for each that is a letter; no byte overflows into the next.
    let letters = (nibbles.wrapping_add(6 * EACH) >> 4) & EACH;
    let to_letters = u64::from(b'a' - b'9' - 1);
    let text = nibbles.wrapping_add(u64::from(b'0') * EACH);
    text.wrapping_add(letters.wrapping_mul(to_letters)).to_be_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    proptest! {
        #[test]
        fn an_id_is_spelled_as_a_formatter_spells_it_and_is_read_back(bits: u128) {
            let id = DecisionId::new(bits);
            let digits = format!("{:032x}", id.bits());
            let ends = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
            let spelled = ends.map(|(from, to)| digits.get(from..to).unwrap_or_default()).join("-");
            prop_assert_eq!(&id.to_text(), &spelled);
            prop_assert_eq!(parse_id(&spelled), Some(id));
        }
    }
}
