//! Owns what a request costs: a number, or where it is told, before the upstream is asked or only by
//! its answer. Knows no host call and no gateway.
//!
//! A request never costs less than one unit when it is admitted: what costs nothing is let through
//! also where nothing is left. What a value that cannot be read means is a rule and never a guess:
//! a request's costs the most, so that garbage is no way to pay less; an answer's changes nothing.

use alloc::string::String;
use alloc::vec::Vec;

use crate::identity::Facts;
use crate::matching::{decode, parameters};

/// The most units that anything may cost: the most that a limit may hold.
pub const COST_MAX: u32 = 1_000_000_000;

/// What a request costs a limit, in units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// This much.
    Fixed(u32),
    /// What the request says.
    Request(RequestCost),
    /// What its body's length says.
    Body(BodyCost),
    /// What only the answer says; until then a reserve is charged.
    Response(ResponseCost),
}

/// A cost that the request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestCost {
    /// Where.
    pub source: RequestSource,
    /// What it costs if nothing is said; 1 to `max`.
    pub default: u32,
    /// The most; 1 to [`COST_MAX`].
    pub max: u32,
}

/// Where a request says what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestSource {
    /// A header, by its name in lower case.
    Header(String),
    /// A query parameter, by its decoded name.
    Query(String),
}

/// A cost by the length of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyCost {
    /// Bytes per unit, begun ones counting; at least 1.
    pub unit_bytes: u32,
    /// What a body costs whose length nobody announces.
    pub unknown: u32,
    /// The most; `None`: as much as it is, even if that never fits.
    pub max: Option<u32>,
}

/// A cost that only the answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseCost {
    /// Where.
    pub source: ResponseSource,
    /// What is charged until then, and stays if nothing is said; 1 to `max`.
    pub reserve: u32,
    /// The most; 1 to [`COST_MAX`].
    pub max: u32,
}

/// Where an answer says what its request cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseSource {
    /// A response header, by its name in lower case.
    Header(String),
    /// A response trailer, by its name in lower case.
    Trailer(String),
    /// Dynamic metadata: the path of the property, parts joined by NUL.
    Metadata(String),
}

/// A cost, and whether a value that says it had to be left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priced {
    /// Units.
    pub units: u32,
    /// Whether the value cannot be read.
    pub malformed: bool,
}

// === impl Cost ===

impl Default for Cost {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

impl Cost {
    /// What is charged when the request comes.
    pub fn before(&self, facts: &Facts<'_>) -> Priced {
        let plain = |units| Priced { units, malformed: false };
        match self {
            Self::Fixed(units) => plain(*units),
            Self::Request(cost) => cost.of(facts),
            Self::Body(cost) => plain(cost.of(facts)),
            Self::Response(cost) => plain(cost.reserve),
        }
    }

    /// Whether a header field of the request says it.
    pub(crate) fn reads_headers(&self) -> bool {
        match self {
            Self::Fixed(_) | Self::Response(_) => false,
            Self::Request(cost) => matches!(cost.source, RequestSource::Header(_)),
            Self::Body(_) => true,
        }
    }

    /// Where the answer says what is left to settle, if it does.
    pub fn after(&self) -> Option<&ResponseCost> {
        match self {
            Self::Response(cost) => Some(cost),
            Self::Fixed(_) | Self::Request(_) | Self::Body(_) => None,
        }
    }
}

// === impl RequestCost ===

impl RequestCost {
    fn of(&self, facts: &Facts<'_>) -> Priced {
        let values: Vec<Vec<u8>> = match &self.source {
            RequestSource::Header(name) => {
                let named = facts.headers.iter().filter(|(key, _)| *key == name.as_bytes());
                named.map(|(_, value)| value.to_vec()).take(2).collect()
            }
            RequestSource::Query(name) => parameters(facts.target.unwrap_or_default())
                .filter(|(key, _)| decode(key) == name.as_bytes())
                .map(|(_, value)| decode(value))
                .take(2)
                .collect(),
        };
        let value = match values.as_slice() {
            [] => return Priced { units: self.default, malformed: false },
            [value] => whole(value),
            // Readers differ in which of two they take.
            [_, ..] => None,
        };
        match value {
            Some(units) => Priced { units: clamp(units, self.max).max(1), malformed: false },
            None => Priced { units: self.max, malformed: true },
        }
    }
}

// === impl BodyCost ===

impl BodyCost {
    fn of(&self, facts: &Facts<'_>) -> u32 {
        let length = match facts.header("content-length").and_then(whole) {
            Some(length) => length,
            None if !facts.has_body => 0,
            None => return self.unknown,
        };
        let units = length.div_ceil(u64::from(self.unit_bytes.max(1)));
        clamp(units, self.max.unwrap_or(u32::MAX)).max(1)
    }
}

// === impl ResponseCost ===

impl ResponseCost {
    /// What the request did cost, by what the answer says; `None` if it says nothing.
    pub fn said(&self, value: Option<&[u8]>) -> Option<Priced> {
        Some(match number(value?) {
            Some(units) => Priced { units: clamp(units, self.max), malformed: false },
            None => Priced { units: self.reserve, malformed: true },
        })
    }
}

fn clamp(units: u64, max: u32) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX).min(max)
}

/// Digits and nothing else; what is beyond all bounds is only large.
fn whole(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(core::str::from_utf8(text).ok()?.parse().unwrap_or(u64::MAX))
}

/// As [`whole`], or a double, which is how the host hands out numbers of metadata: eight bytes,
/// little-endian. No count has a double that looks like eight digits.
fn number(value: &[u8]) -> Option<u64> {
    if let Some(units) = whole(value) {
        return Some(units);
    }
    let double = f64::from_le_bytes(value.try_into().ok()?);
    if !(double.is_finite() && double >= 0.0) {
        return None;
    }
    Some(rounded_up(double))
}

#[expect(clippy::as_conversions, reason = "the cast saturates, and what it cuts off is looked at")]
fn rounded_up(double: f64) -> u64 {
    let whole = double as u64;
    whole.saturating_add(u64::from((whole as f64) < double))
}

#[cfg(test)]
mod tests;
