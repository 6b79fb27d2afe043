//! Owns what a request says of its sender, as bytes of the host's: headers, cookies, query, path
//! and properties. Decides nothing about who is counted.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::secrets::Secrets;
use crate::canonical::canonical;
use crate::matching::{decode, parameters};

/// What a request says of its sender.
#[derive(Debug, Clone, Default)]
pub struct Facts<'h> {
    /// Envoy's `source.address` (`ip:port`, IPv6 in brackets).
    pub source_address: Option<Vec<u8>>,
    /// All request headers, names in lower case, in order; borrowed, since a request has dozens.
    pub headers: Fields<'h>,
    /// `:path` as it came, with its query.
    pub target: Option<&'h [u8]>,
    /// Whether a body follows the headers.
    pub has_body: bool,
    /// The host's properties that were asked for and are there, by path (parts joined by NUL).
    pub properties: BTreeMap<&'h str, Vec<u8>>,
    /// The keys of this configuration.
    pub secrets: Secrets,
    /// Set where `headers` were left unread: then they are empty.
    pub peek: Peek<'h>,
}

/// Reads one header field by its name, for requests whose header fields no policy looks at.
#[derive(Clone, Copy, Default)]
pub struct Peek<'h>(pub Option<&'h ReadHeader<'h>>);

/// The first value of a header by its name, if it is there and can be read.
pub type ReadHeader<'h> = dyn Fn(&str) -> Option<Vec<u8>> + 'h;

/// Header fields, names in lower case, in order.
pub type Fields<'h> = Vec<(&'h [u8], &'h [u8])>;

// === impl Peek ===

impl fmt::Debug for Peek<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peek").field(&self.0.is_some()).finish()
    }
}

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
        (alone && !blank(value)).then_some(value)
    }

    /// The value of a header that decides nothing about who is counted, and is told to others: also
    /// where headers were left unread.
    pub(crate) fn told(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self.peek.0 {
            Some(peek) => peek(name).filter(|value| !blank(value)).map(Cow::Owned),
            None => self.header(name).map(Cow::Borrowed),
        }
    }

    /// One header as short printable ASCII, or nothing: for ids that travel in messages.
    pub fn token(&self, name: &str) -> Option<String> {
        let value = self.told(name)?;
        let sound = value.len() <= 128 && value.iter().all(u8::is_ascii_graphic);
        sound.then(|| core::str::from_utf8(&value).ok().map(ToOwned::to_owned)).flatten()
    }

    /// The value of a cookie that stands once in all `cookie` headers together and is not empty;
    /// without the quotes around it, which some servers take away. One without `=` counts, too.
    pub(super) fn cookie(&self, name: &str) -> Option<&[u8]> {
        let headers = self.headers.iter().filter(|(key, _)| *key == b"cookie");
        let pairs = headers.flat_map(|(_, value)| value.split(|&b| b == b';')).map(trim);
        let mut values = pairs.filter_map(|pair| {
            let (key, value) = match pair.iter().position(|&b| b == b'=') {
                Some(at) => (pair.get(..at)?, pair.get(at.saturating_add(1)..)?),
                None => (pair, &[][..]),
            };
            (trim(key) == name.as_bytes()).then(|| unquote(trim(value)))
        });
        let value = values.next()?;
        let alone = values.next().is_none();
        (alone && !blank(value)).then_some(value)
    }

    /// The decoded value of a query parameter that stands once and is not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<Vec<u8>> {
        let mut values = parameters(self.target?)
            .filter(|(key, _)| decode(key) == name.as_bytes())
            .map(|(_, value)| value);
        let value = decode(values.next()?);
        let alone = values.next().is_none();
        (alone && !blank(&value)).then_some(value)
    }

    /// A segment of the path in its one spelling, counted from 0.
    pub(super) fn segment(&self, index: usize) -> Option<Vec<u8>> {
        let path: Cow<'_, [u8]> = canonical(self.target?);
        let rest = path.strip_prefix(b"/")?;
        let segment = rest.split(|&b| b == b'/').nth(index)?;
        (!blank(segment)).then(|| segment.to_owned())
    }

    /// A property that is there and not empty.
    pub(super) fn property(&self, path: &str) -> Option<&[u8]> {
        self.properties.get(path).map(Vec::as_slice).filter(|value| !blank(value))
    }
}

fn blank(value: &[u8]) -> bool {
    value.iter().all(|b| matches!(b, b' ' | b'\t'))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}
