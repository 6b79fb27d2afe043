//! Owns who is counted: from a request's facts to a subject, and the subject's one canonical
//! spelling. Knows neither keys nor where facts come from.
//!
//! The spelling is injective: no two clients share one, whatever bytes they send. Source:
//! product row A1 and E.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longer spellings are replaced by a digest.
const SUBJECT_LEN_MAX: usize = 96;

/// Where a limit's subject comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Identity {
    /// The client's address as Envoy trusts it; IPv6 cut to a prefix, since one client owns a
    /// whole network there.
    Ip {
        /// Leading bits of an IPv6 address that count, 1 to 128.
        v6_prefix: u8,
    },
    /// A request header. The client chooses it: fit for a key that something before the filter
    /// verified.
    Header {
        /// The header's name in lower case.
        name: String,
    },
}

/// The kind of a subject, as it stands in keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// A client address.
    Ip,
    /// A header's value.
    Header,
}

/// Who is counted by one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What kind of name it is.
    pub kind: SubjectKind,
    /// The canonical spelling.
    pub name: SubjectName,
}

/// A subject's canonical spelling: `A-Z a-z 0-9 . _ -` and `%XX`, or `~` and a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectName(String);

// === impl SubjectKind ===

impl SubjectKind {
    /// The kind as it stands in keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Header => "header",
        }
    }
}

// === impl SubjectName ===

impl SubjectName {
    /// Spells any bytes. Everything outside `A-Z a-z 0-9 . _ -` becomes `%XX`; what is then
    /// longer than 96 becomes `~` and the first 16 bytes of its SHA-256 in hex.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut spelled = String::with_capacity(bytes.len().min(SUBJECT_LEN_MAX));
        for &byte in bytes {
            if plain(byte) {
                spelled.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                spelled.push('%');
                spelled.push(hex_digit(byte >> 4));
                spelled.push(hex_digit(byte & 0xf));
            }
            if spelled.len() > SUBJECT_LEN_MAX {
                return Self(digest(bytes));
            }
        }
        Self(spelled)
    }

    /// The spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SubjectName {
    type Error = &'static str;

    /// Accepts exactly what [`SubjectName::from_bytes`] makes.
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let sound = match text.strip_prefix('~') {
            Some(hex) => {
                hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            }
            None => {
                !text.is_empty()
                    && text.len() <= SUBJECT_LEN_MAX
                    && unspell(&text).is_some_and(|bytes| Self::from_bytes(&bytes).0 == text)
            }
        };
        if sound {
            Ok(Self(text))
        } else {
            Err("a subject is spelled in A-Z a-z 0-9 . _ - and %XX")
        }
    }
}

impl From<SubjectName> for String {
    fn from(name: SubjectName) -> Self {
        name.0
    }
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

fn digest(bytes: &[u8]) -> String {
    let mut text = String::from("~");
    for byte in Sha256::digest(bytes).iter().take(16) {
        // Writing to a String cannot fail.
        if write!(text, "{byte:02x}").is_err() {
            break;
        }
    }
    text
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

/// What a request says of its sender, as bytes of the host's.
#[derive(Debug, Clone, Default)]
pub struct Facts<'h> {
    /// Envoy's `source.address` (`ip:port`, IPv6 in brackets).
    pub source_address: Option<Vec<u8>>,
    /// All request headers, names in lower case, in order; borrowed, since a request has dozens.
    pub headers: Fields<'h>,
}

/// Header fields, names in lower case, in order.
pub type Fields<'h> = Vec<(&'h [u8], &'h [u8])>;

// === impl Facts ===

impl Facts<'_> {
    /// The value of a header that stands once and is not empty. A header that is repeated names
    /// nobody: readers differ in which value they take, so a client could show the upstream a
    /// verified one and the limit a fresh one each time.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut values =
            self.headers.iter().filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| *value);
        let value = values.next()?;
        let alone = values.next().is_none();
        (alone && value.iter().any(|&b| b != b' ')).then_some(value)
    }

    /// One header as short printable ASCII, or nothing: for ids that travel in messages.
    pub fn token(&self, name: &str) -> Option<String> {
        let value = self.header(name)?;
        let sound = value.len() <= 128 && value.iter().all(u8::is_ascii_graphic);
        sound.then(|| core::str::from_utf8(value).ok().map(ToOwned::to_owned)).flatten()
    }
}

// === impl Identity ===

impl Identity {
    /// The subject that these facts name, or `None` if they name none.
    pub fn subject(&self, facts: &Facts<'_>) -> Option<Subject> {
        match self {
            Self::Ip { v6_prefix } => {
                let address = client_ip(facts.source_address.as_deref()?)?;
                let name = spell_ip(address, *v6_prefix);
                Some(Subject {
                    kind: SubjectKind::Ip,
                    name: SubjectName::from_bytes(name.as_bytes()),
                })
            }
            Self::Header { name } => Some(Subject {
                kind: SubjectKind::Header,
                name: SubjectName::from_bytes(facts.header(name)?),
            }),
        }
    }
}

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or either without its port.
fn client_ip(address: &[u8]) -> Option<IpAddr> {
    let text = core::str::from_utf8(address).ok()?;
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip());
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

fn spell_ip(address: IpAddr, v6_prefix: u8) -> String {
    let mut text = String::new();
    let written = match address {
        IpAddr::V4(v4) => write!(text, "{v4}"),
        // An IPv4 client on a dual-stack listener is the IPv4 client.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => write!(text, "{v4}"),
            None => {
                let keep = u32::from(v6_prefix.clamp(1, 128));
                let mask = u128::MAX.checked_shl(128 - keep).unwrap_or(u128::MAX);
                write!(text, "{}/{keep}", Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        },
    };
    // Writing to a String cannot fail.
    if written.is_err() {
        text.clear();
    }
    text
}

#[cfg(test)]
mod tests;
