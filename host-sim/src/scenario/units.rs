//! Durations, moments and sizes as people write them. It must not know which field they stand in.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A duration: `10ms`, `1.5s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Span {
    pub(crate) ns: u64,
}

/// A moment or a range of moments since the run began, both ends included: `300ms` or `300ms..320ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moments {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

/// A number of bytes: `64KiB`, `1MiB`, `1GiB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
}

const UNITS_NS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const UNITS_BYTES: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

pub(crate) fn parse_span(text: &str) -> Result<Span, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = UNITS_NS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let ns = scale.and_then(|scale| scaled(number, scale));
    ns.map(|ns| Span { ns })
        .ok_or_else(|| format!("{text:?} is no duration; write 10ms, 1.5s, 2m or 1h"))
}

/// Digits with an optional fraction, exactly; none when it does not fit or is finer than a nanosecond.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut ns = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    let mut unit = scale;
    for digit in fraction.chars() {
        if !unit.is_multiple_of(10) {
            return None;
        }
        unit /= 10;
        ns = ns.checked_add(u64::from(digit.to_digit(10)?).checked_mul(unit)?)?;
    }
    Some(ns)
}

fn parse_moments(text: &str) -> Result<Moments, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let (from, to) = (parse_span(from.trim())?, parse_span(to.trim())?);
    if from > to {
        return Err(format!("{text:?} ends before it begins"));
    }
    Ok(Moments { from_ns: from.ns, to_ns: to.ns })
}

fn parse_size(text: &str) -> Result<Size, String> {
    let (number, scale) = UNITS_BYTES
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, *scale)))
        .unwrap_or((text, 1));
    let bytes = number.trim().parse::<u64>().ok().and_then(|count| count.checked_mul(scale));
    bytes
        .map(|bytes| Size { bytes })
        .ok_or_else(|| format!("{text:?} is no size; write 64KiB, 1MiB or 1GiB"))
}

/// Deserializes from text through a parser; the error keeps its place in the file.
struct Parsed<T> {
    parse: fn(&str) -> Result<T, String>,
    what: &'static str,
}

impl<T> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Parsed { parse: parse_span, what: "a duration like 10ms or 5s" })
    }
}

impl<'de> Deserialize<'de> for Moments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed {
            parse: parse_moments,
            what: "a moment like 300ms or a range like 300ms..320ms",
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Parsed { parse: parse_size, what: "a size like 64MiB" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact_or_refused() {
        let rows = [
            ("10ms", Some(10_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0s", Some(0)),
            ("2m", Some(120_000_000_000)),
            ("250us", Some(250_000)),
            ("10", None),
            ("ms", None),
            ("-1s", None),
            ("1.5ns", None),
            ("1.2.3s", None),
            ("99999999999h", None),
            ("10 ms", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_span(text).ok().map(|span| span.ns), expected, "{text}");
        }
    }

    #[test]
    fn moments_are_one_or_a_range() {
        assert_eq!(
            parse_moments("1s").unwrap(),
            Moments { from_ns: 1_000_000_000, to_ns: 1_000_000_000 }
        );
        assert_eq!(
            parse_moments("1ms..2ms").unwrap(),
            Moments { from_ns: 1_000_000, to_ns: 2_000_000 }
        );
        assert!(parse_moments("2ms..1ms").is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("64KiB").unwrap().bytes, 65536);
        assert_eq!(parse_size("7").unwrap().bytes, 7);
        assert!(parse_size("64KB").is_err());
    }
}
