//! Owns the endpoint under which keys are recorded: the method and the path, with ids replaced by what
//! they look like. Knows neither tenants nor bodies.
//!
//! A guess that merges two endpoints only makes one tenant's namespace wider: the request hash covers
//! the path with its real ids, so the second request is a conflict (422) and never gets the first one's
//! answer. A configured template always wins over guessing.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::canonical;

/// The most bytes of a path that has an endpoint.
pub const PATH_LEN_MAX: usize = 4_096;
/// The most segments of one.
pub const SEGMENTS_MAX: usize = 32;
/// The most characters of a method (RFC 9110 §9 knows none above 7).
const METHOD_LEN_MAX: usize = 32;
/// A path of the most bytes, each spelled in three, behind a method.
const TEXT_LEN_MAX: usize = METHOD_LEN_MAX + 1 + 3 * PATH_LEN_MAX;

/// An endpoint as it stands in names: `POST /v1/orders/:int/refund`. Visible ASCII and one space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(String);

/// Why a request has no endpoint. It is refused (400) where idempotency applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadEndpoint {
    /// No token of 1 to 32 characters.
    Method,
    /// It does not begin with `/`.
    NoPath,
    /// Longer than [`PATH_LEN_MAX`].
    TooLong,
    /// More than [`SEGMENTS_MAX`] segments.
    TooDeep,
    /// A slash, a backslash or a control, as it stands or percent-encoded: servers differ on what it
    /// means.
    Ambiguous(u8),
    /// A `%` without two hexadecimal digits.
    Escape,
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of a request. `template` is the configured one (`/v1/orders/{id}/refund`), and the
    /// path then says nothing but that it is sound.
    pub fn of(method: &[u8], target: &[u8], template: Option<&str>) -> Result<Self, BadEndpoint> {
        let sound_method = (1..=METHOD_LEN_MAX).contains(&method.len()) && method.iter().all(token);
        if !sound_method {
            return Err(BadEndpoint::Method);
        }
        let path = sound_path(target)?;
        let mut text: String = method.iter().copied().map(char::from).collect();
        text.push(' ');
        match template {
            Some(template) => text.push_str(&escaped(template.as_bytes())),
            None => text.push_str(&guessed(&path)?),
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Endpoint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let sound = text.len() <= TEXT_LEN_MAX
            && text.split_once(' ').is_some_and(|(method, path)| {
                (1..=METHOD_LEN_MAX).contains(&method.len())
                    && method.bytes().all(|byte| token(&byte))
                    && path.starts_with('/')
                    && path.bytes().all(|byte| byte.is_ascii_graphic())
            });
        if sound { Ok(Self(text)) } else { Err("an endpoint is a method, a space and a path") }
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0
    }
}

// === impl BadEndpoint ===

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method => f.write_str("the method is none"),
            Self::NoPath => f.write_str("the request's target has no path"),
            Self::TooLong => write!(f, "the path is longer than {PATH_LEN_MAX} bytes"),
            Self::TooDeep => write!(f, "the path has more than {SEGMENTS_MAX} segments"),
            Self::Ambiguous(byte) => write!(
                f,
                "the path holds the byte {byte:#04x}, encoded or not: servers differ on what it means"
            ),
            Self::Escape => f.write_str("the path holds a % without two hexadecimal digits"),
        }
    }
}

impl core::error::Error for BadEndpoint {}

/// RFC 9110 §5.6.2.
fn token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The path in its one spelling, if every server reads the same out of it.
fn sound_path(target: &[u8]) -> Result<Vec<u8>, BadEndpoint> {
    let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
    let raw = target.get(..end).unwrap_or_default();
    if raw.len() > PATH_LEN_MAX {
        return Err(BadEndpoint::TooLong);
    }
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let mut value = byte;
        if byte == b'%' {
            let digits = after.first_chunk().copied().ok_or(BadEndpoint::Escape)?;
            value = canonical::octet(digits).ok_or(BadEndpoint::Escape)?;
            rest = after.get(2..).unwrap_or_default();
        }
        let encoded_slash = byte == b'%' && value == b'/';
        if value.is_ascii_control() || value == b'\\' || encoded_slash {
            return Err(BadEndpoint::Ambiguous(value));
        }
    }
    let path = canonical::canonical(raw);
    if path.starts_with(b"/") { Ok(path.into_owned()) } else { Err(BadEndpoint::NoPath) }
}

/// A path with placeholders for what looks like an id.
fn guessed(path: &[u8]) -> Result<String, BadEndpoint> {
    let segments = path.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty());
    let mut text = String::with_capacity(path.len());
    for (index, segment) in segments.enumerate() {
        if index >= SEGMENTS_MAX {
            return Err(BadEndpoint::TooDeep);
        }
        text.push('/');
        match placeholder(segment) {
            Some(placeholder) => text.push_str(placeholder),
            None => match segment.strip_prefix(b":") {
                // A literal that could be taken for a placeholder.
                Some(rest) => {
                    text.push_str("%3A");
                    text.push_str(&escaped(rest));
                }
                None => text.push_str(&escaped(segment)),
            },
        }
    }
    if text.is_empty() {
        text.push('/');
    }
    Ok(text)
}

/// What may not stand in a path as it is (RFC 3986 §3.3, and all beyond ASCII) becomes `%XX`; a `%` is
/// left, since it begins an encoding. Braces stand only in templates.
fn escaped(path: &[u8]) -> String {
    let template = |byte: u8| path.starts_with(b"/") && matches!(byte, b'{' | b'}');
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,=:@/".contains(&byte) || template(byte) {
            text.push(char::from(byte));
        } else {
            canonical::push_encoded(&mut text, byte);
        }
    }
    text
}

/// What an id of the usual makes looks like.
fn placeholder(segment: &[u8]) -> Option<&'static str> {
    let all = |is: fn(&u8) -> bool| segment.iter().all(is);
    let some = |is: fn(&u8) -> bool| segment.iter().any(is);
    let len = segment.len();
    if is_uuid(segment) {
        Some(":uuid")
    } else if len > 0 && all(u8::is_ascii_digit) {
        Some(":int")
    } else if is_ulid(segment) {
        Some(":ulid")
    } else if len >= 12 && all(u8::is_ascii_hexdigit) && some(u8::is_ascii_digit) {
        Some(":hex")
    } else if is_date(segment) {
        Some(":date")
    } else if is_prefixed(segment) {
        Some(":pid")
    } else if len >= 16
        && all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && some(u8::is_ascii_digit)
        && some(u8::is_ascii_uppercase)
        && some(u8::is_ascii_lowercase)
    {
        Some(":tok")
    } else {
        None
    }
}

/// RFC 9562.
fn is_uuid(segment: &[u8]) -> bool {
    let dash = |index: usize| matches!(index, 8 | 13 | 18 | 23);
    let right = |(index, byte): (usize, &u8)| {
        if dash(index) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    segment.len() == 36 && segment.iter().enumerate().all(right)
}

/// 26 digits of Crockford's base 32; 128 bits leave the first at most 7.
fn is_ulid(segment: &[u8]) -> bool {
    let digit = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            && !matches!(byte.to_ascii_uppercase(), b'I' | b'L' | b'O' | b'U')
    };
    segment.len() == 26
        && segment.first().is_some_and(|byte| matches!(byte, b'0'..=b'7'))
        && segment.iter().all(digit)
}

/// RFC 3339 `full-date`.
fn is_date(segment: &[u8]) -> bool {
    let right = |(index, byte): (usize, &u8)| {
        if matches!(index, 4 | 7) { *byte == b'-' } else { byte.is_ascii_digit() }
    };
    segment.len() == 10 && segment.iter().enumerate().all(right)
}

/// `ch_3MmlLrLkdIwHu7ix0snN0B15`: lower-case words, and behind the last `_` at least 8 letters and
/// digits with one digit among them.
fn is_prefixed(segment: &[u8]) -> bool {
    let Some(at) = segment.iter().rposition(|&byte| byte == b'_') else {
        return false;
    };
    let (prefix, tail) = segment.split_at(at);
    let tail = tail.strip_prefix(b"_").unwrap_or_default();
    prefix.first().is_some_and(u8::is_ascii_lowercase)
        && prefix.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
        && tail.len() >= 8
        && tail.iter().all(u8::is_ascii_alphanumeric)
        && tail.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests;
