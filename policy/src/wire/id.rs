//! Owns the id of a decision: its bits and its one spelling. Knows no message.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A one in each octet.
const EACH: u64 = 0x0101_0101_0101_0101;

/// Names one decision everywhere: messages, audit, answers, logs. 128 bits, written as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId {
    // Not one of 128 bits: what holds such a number is aligned to 16 octets, for which the filter's allocator takes long.
    upper: u64,
    lower: u64,
}

// === impl DecisionId ===

impl DecisionId {
    /// From 128 bits that the caller took care to make unique (RFC 9562 version 8: the
    /// remaining 122 bits are ours).
    pub const fn new(bits: u128) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
        let upper = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Self::of_halves(upper, u64::from_be_bytes([i, j, k, l, m, n, o, p]))
    }

    /// The same from its upper and its lower half.
    pub const fn of_halves(upper: u64, lower: u64) -> Self {
        let (version, variant) = (8 << 12, 0b10 << 62);
        let (upper, lower) = (upper & !(0xf << 12) | version, lower & !(0b11 << 62) | variant);
        Self { upper, lower }
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
        let quarter = |half: u64| u32::try_from(half & 0xffff_ffff).unwrap_or(0);
        let [upper, lower] = self.halves();
        [quarter(upper >> 32), quarter(upper), quarter(lower >> 32), quarter(lower)]
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
        u128::from(self.upper) << 64 | u128::from(self.lower)
    }

    /// Its upper and its lower 64 bits.
    pub fn halves(self) -> [u64; 2] {
        [self.upper, self.lower]
    }
}

/// The eight digits of a number, all at once: a byte for each.
fn digits(number: u32) -> [u8; 8] {
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
    let spelled: &[u8; 36] = text.as_bytes().try_into().ok()?;
    // Where the eight digits of each quarter stand: two times four of them.
    let quarter = |first: usize, second: usize| {
        let four =
            |at: usize| spelled.get(at..)?.first_chunk::<4>().copied().map(u32::from_be_bytes);
        let eight = (u64::from(four(first)?) << 32) | u64::from(four(second)?);
        Some(u64::from(number(eight)))
    };
    let upper = (quarter(0, 4)? << 32) | quarter(9, 14)?;
    let lower = (quarter(19, 24)? << 32) | quarter(28, 32)?;
    let id = DecisionId { upper, lower };
    // What was no digit, or no dash, is spelled in another way.
    id.with_text(|right| right == text).then_some(id)
}

/// The number that these eight digits are, if they are digits: [`digits`] the other way.
fn number(text: u64) -> u32 {
    let letters = (text >> 6) & EACH;
    let nibbles = (text & (0x0f * EACH)).wrapping_add(letters.wrapping_mul(9));
    let bytes = (nibbles | (nibbles >> 4)) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | (bytes >> 8)) & 0x0000_ffff_0000_ffff;
    u32::try_from((halves | (halves >> 16)) & 0xffff_ffff).unwrap_or_default()
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

        #[test]
        fn what_is_spelled_in_another_way_is_none(at in 0usize..36, other in any::<char>()) {
            let spelled = DecisionId::new(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).to_text();
            let changed: String =
                spelled.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
            let is_digit = matches!(other, '0'..='9' | 'a'..='f');
            let is_sound = if [8, 13, 18, 23].contains(&at) { other == '-' } else { is_digit };
            prop_assert_eq!(parse_id(&changed).is_some(), is_sound, "{}", changed);
            for wrong in [&spelled[1..], &spelled[..35], &format!("{spelled}0"), ""] {
                prop_assert_eq!(parse_id(wrong), None, "{}", wrong);
            }
        }
    }
}
