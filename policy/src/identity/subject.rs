//! Owns a subject and its one canonical spelling. Knows neither facts nor keys of a store.
//!
//! The spelling is injective: no two lists of values share one, whatever bytes they hold.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::octets::Octets;

/// Longer spellings of one value are replaced by a digest.
const VALUE_LEN_MAX: usize = 96;
/// The most values that one subject is made of.
pub const VALUES_MAX: usize = 4;
/// Stands between two values. Neither it nor [`OF_KIND`] occurs in a value.
const AND: char = '+';
/// Stands between a kind and its value, where a subject has several.
const OF_KIND: char = '!';

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// The kind of a subject, as it stands in keys.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum SubjectKind {
            $($(#[$doc])* $variant,)*
        }

        impl SubjectKind {
            /// Every kind.
            pub const ALL: &'static [SubjectKind] = &[$(SubjectKind::$variant,)*];

            /// The kind as it stands in keys.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    /// A client address.
    Ip => "ip",
    /// A header's value.
    Header => "header",
    /// A cookie's value.
    Cookie => "cookie",
    /// A query parameter's value.
    Query => "query",
    /// A part of the path.
    Path => "path",
    /// A claim of a verified token.
    Jwt => "jwt",
    /// What a client's certificate says.
    Mtls => "mtls",
    /// What another filter noted.
    FilterState => "filter_state",
    /// An id that carries a signature.
    Signed => "signed",
    /// Device, user agent and TLS together.
    Fingerprint => "fingerprint",
    /// The tenant, wherever its name comes from.
    Tenant => "tenant",
    /// Everybody whose identity is missing, in one.
    Shared => "shared",
    /// Several values, or one that stands in for a missing one; the name says which.
    Combined => "combined",
}

/// Who is counted by one limit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of name it is.
    pub kind: SubjectKind,
    /// The canonical spelling.
    pub name: SubjectName,
}

/// A subject's canonical spelling. One value is `A-Z a-z 0-9 . _ -` and `%XX`, or `~` and a digest.
/// Several are joined by `+`, each with its kind and `!` in front; what stands in for a missing
/// identity has its place in the chain behind the kind: `tenant!acme+ip.1!192.0.2.7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SubjectName(String);

/// One value of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) kind: SubjectKind,
    /// 0 for the identity that was asked for, else the place of what stands in for it.
    pub(crate) rank: usize,
    pub(crate) spelling: SubjectName,
}

// === impl Subject ===

impl Subject {
    /// Puts values together; `None` if there is none.
    pub(crate) fn of(mut values: Vec<Value>) -> Option<Self> {
        let plain = matches!(values.as_slice(), [one] if one.rank == 0);
        if plain {
            let Value { kind, spelling, .. } = values.pop()?;
            return Some(Self { kind, name: spelling });
        }
        let mut name = String::new();
        for Value { kind, rank, spelling } in &values {
            if !name.is_empty() {
                name.push(AND);
            }
            name.push_str(kind.as_str());
            // Writing to a String cannot fail.
            if *rank > 0 && write!(name, ".{rank}").is_err() {
                return None;
            }
            name.push(OF_KIND);
            name.push_str(&spelling.0);
        }
        (!name.is_empty()).then_some(Self { kind: SubjectKind::Combined, name: SubjectName(name) })
    }

    /// Whether it is counted for one tenant alone, and not for all of them together.
    pub fn is_of_tenant(&self) -> bool {
        match self.kind {
            SubjectKind::Tenant => true,
            SubjectKind::Combined => {
                let tenant = SubjectKind::Tenant.as_str();
                let kind = |part: &'_ str| part.split([OF_KIND, '.']).next() == Some(tenant);
                self.name.0.split(AND).any(kind)
            }
            _ => false,
        }
    }
}

// === impl SubjectName ===

impl SubjectName {
    /// Spells any bytes. Everything outside `A-Z a-z 0-9 . _ -` becomes `%XX`; what is then
    /// longer than 96 becomes `~` and the first 16 bytes of its SHA-256 in hex.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match percent(bytes) {
            Some(spelled) => Self(spelled),
            None => Self(marked(&Sha256::digest(bytes))),
        }
    }

    /// Spells a digest that stands for a value: `~` and its first 16 bytes in hex.
    pub(crate) fn from_digest(digest: &[u8]) -> Self {
        Self(marked(digest))
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SubjectName {
    type Error = &'static str;

    /// Accepts exactly what subjects are spelled as.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let sound = if text.contains([AND, OF_KIND]) {
            text.split(AND).count() <= VALUES_MAX && text.split(AND).all(sound_part)
        } else {
            sound_value(&text)
        };
        if sound {
            Ok(Self(text))
        } else {
            Err(
                "a subject is spelled in A-Z a-z 0-9 . _ - and %XX, several as kind!value+kind!value",
            )
        }
    }
}

impl From<SubjectName> for String {
    fn from(name: SubjectName) -> Self {
        name.0
    }
}

fn sound_part(part: &str) -> bool {
    let Some((kind, value)) = part.split_once(OF_KIND) else {
        return false;
    };
    let (kind, rank) = match kind.split_once('.') {
        Some((kind, rank)) => (kind, matches!(rank.as_bytes(), [b'1'..=b'9'])),
        None => (kind, true),
    };
    rank && SubjectKind::ALL.iter().any(|known| known.as_str() == kind) && sound_value(value)
}

fn sound_value(text: &str) -> bool {
    match text.strip_prefix('~') {
        Some(hex) => hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        None => {
            !text.is_empty()
                && text.len() <= VALUE_LEN_MAX
                && unspell(text).is_some_and(|bytes| percent(&bytes).as_deref() == Some(text))
        }
    }
}

/// `None` if it gets too long.
fn percent(bytes: &[u8]) -> Option<String> {
    // Nearly every value is spelled as it is.
    if bytes.len() <= VALUE_LEN_MAX && bytes.iter().all(|octet| PLAIN.has(*octet)) {
        return core::str::from_utf8(bytes).ok().map(ToOwned::to_owned);
    }
    let mut spelled = String::with_capacity(bytes.len().min(VALUE_LEN_MAX));
    for &byte in bytes {
        if PLAIN.has(byte) {
            spelled.push(char::from(byte));
        } else {
            spelled.push('%');
            spelled.push(hex_digit(byte >> 4).to_ascii_uppercase());
            spelled.push(hex_digit(byte & 0xf).to_ascii_uppercase());
        }
        if spelled.len() > VALUE_LEN_MAX {
            return None;
        }
    }
    Some(spelled)
}

/// What is written as it is: every name of a request is looked at.
static PLAIN: Octets = Octets::of(&[
    (b'0', b'9'),
    (b'A', b'Z'),
    (b'a', b'z'),
    (b'.', b'.'),
    (b'_', b'_'),
    (b'-', b'-'),
]);

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn marked(digest: &[u8]) -> String {
    let mut text = String::from("~");
    text.push_str(&hex(digest, 16));
    text
}

/// The first `bytes` bytes in lower-case hexadecimal digits.
pub(crate) fn hex(digest: &[u8], bytes: usize) -> String {
    digest.iter().take(bytes).flat_map(|b| [hex_digit(b >> 4), hex_digit(b & 0xf)]).collect()
}

fn unspell(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let value = if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()?
        } else {
            byte
        };
        bytes.push(value);
    }
    Some(bytes)
}
