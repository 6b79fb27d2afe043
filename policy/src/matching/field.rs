//! Owns conditions on headers and query parameters.

use alloc::string::String;
use alloc::vec::Vec;

use super::regex::Regex;

/// A condition on one header or one query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMatch {
    /// The header's name in lower case, or the parameter's as it is decoded.
    pub name: String,
    /// What it must be.
    pub want: Want,
}

/// What a field must be. A field that stands several times fits if one of its values does: a
/// policy must not be escaped by repeating what it looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// There, with this value.
    Equals(String),
    /// There, with a value that begins so.
    Prefix(String),
    /// There, with a value that fits.
    Regex(Regex),
}

// === impl FieldMatch ===

impl FieldMatch {
    /// Whether a request's header fields fit; names in lower case.
    pub fn matches_headers(&self, headers: &[(&[u8], &[u8])]) -> bool {
        let name = self.name.as_bytes();
        self.want.fits(headers.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value))
    }

    /// Whether a request target's query fits.
    pub fn matches_query(&self, target: &[u8]) -> bool {
        let values: Vec<Vec<u8>> = parameters(target)
            .filter(|(name, _)| decode(name) == self.name.as_bytes())
            .map(|(_, value)| decode(value))
            .collect();
        self.want.fits(values.iter().map(Vec::as_slice))
    }
}

// === impl Want ===

impl Want {
    pub(super) fn fits<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Equals(text) => values.any(|value| value == text.as_bytes()),
            Self::Prefix(text) => values.any(|value| value.starts_with(text.as_bytes())),
            Self::Regex(regex) => values.any(|value| regex.matches(value)),
        }
    }
}

/// The parameters of a request target, as written.
pub(crate) fn parameters(target: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let start =
        target.iter().position(|&b| b == b'?').map_or(target.len(), |at| at.saturating_add(1));
    let query = target.get(start..).unwrap_or_default();
    let query = query.split(|&b| b == b'#').next().unwrap_or_default();
    query.split(|&b| b == b'&').filter(|part| !part.is_empty()).map(|part| {
        match part.iter().position(|&b| b == b'=') {
            Some(at) => (
                part.get(..at).unwrap_or_default(),
                part.get(at.saturating_add(1)..).unwrap_or_default(),
            ),
            None => (part, &[][..]),
        }
    })
}

/// Percent-decoding as forms do it (`+` is a space); what is no encoding stays as it is.
pub(crate) fn decode(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let digits = match (byte, after) {
            (b'%', [high, low, ..]) => {
                char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16))
            }
            _ => None,
        };
        match digits.and_then(|(high, low)| u8::try_from((high << 4) | low).ok()) {
            Some(value) => {
                decoded.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => decoded.push(if byte == b'+' { b' ' } else { byte }),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn field(name: &str, want: Want) -> FieldMatch {
        FieldMatch { name: name.to_string(), want }
    }

    #[test]
    fn headers_fit_by_any_of_their_values() {
        let headers: [(&[u8], &[u8]); 3] =
            [(b"x-tier", b"silver"), (b"x-tier", b"gold"), (b"x-bin", b"\xff")];
        let rows = [
            ("x-tier", Want::Equals("gold".to_string()), true),
            ("x-tier", Want::Equals("Gold".to_string()), false),
            ("x-tier", Want::Prefix("sil".to_string()), true),
            ("x-tier", Want::Regex(Regex::parse("g.*").expect("sound")), true),
            ("x-tier", Want::Absent, false),
            ("x-bin", Want::Present, true),
            ("x-none", Want::Present, false),
            ("x-none", Want::Absent, true),
        ];
        for (name, want, fits) in rows {
            assert_eq!(
                field(name, want.clone()).matches_headers(&headers),
                fits,
                "{name} {want:?}"
            );
        }
    }

    #[test]
    fn parameters_are_decoded_before_they_are_compared() {
        let rows = [
            ("/x?a=1&b=2", "b", Want::Equals("2".to_string()), true),
            ("/x?%61=%31", "a", Want::Equals("1".to_string()), true),
            ("/x?a=x+y", "a", Want::Equals("x y".to_string()), true),
            ("/x?a=1&a=2", "a", Want::Equals("2".to_string()), true),
            ("/x?flag", "flag", Want::Present, true),
            ("/x?flag", "flag", Want::Equals(String::new()), true),
            ("/x?a=%zz", "a", Want::Equals("%zz".to_string()), true),
            ("/x?a=1#b=2", "b", Want::Present, false),
            ("/x", "a", Want::Absent, true),
            ("/x?&&", "", Want::Absent, true),
        ];
        for (target, name, want, fits) in rows {
            let matched = field(name, want.clone()).matches_query(target.as_bytes());
            assert_eq!(matched, fits, "{target} {name} {want:?}");
        }
    }
}
