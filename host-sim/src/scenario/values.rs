//! Bytes, headers and bodies in a file: text where it can be, hexadecimal where it must. It must not know who sends them.

use std::cell::Cell;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};

use crate::host::headers::HeaderMap;

/// Bytes: a string, or a map with one key, `hex` or `json`. A list joins its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Headers: a map of names, or a list of pairs where order or duplicates matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Headers(pub(crate) HeaderMap);

/// The form with a key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keyed {
    hex: Option<String>,
    json: Option<serde_json::Value>,
    /// Bytes of a given length, for bodies whose content does not matter.
    zeros: Option<usize>,
}

/// What a file may make of few characters at most; a typing error must not eat the machine's memory.
const ZEROS_MAX: usize = 64 * 1024 * 1024;

thread_local! {
    /// What is left for the file that is being read. A visitor is handed no context, so it stands beside it.
    static ZEROS_LEFT: Cell<usize> = const { Cell::new(ZEROS_MAX) };
}

/// Reads a file's values with the whole room for zeros.
pub(super) fn with_room<T>(read: impl FnOnce() -> T) -> T {
    ZEROS_LEFT.set(ZEROS_MAX);
    read()
}

fn zeros(len: usize) -> Result<Vec<u8>, String> {
    let left = ZEROS_LEFT.get().checked_sub(len);
    ZEROS_LEFT.set(
        left.ok_or_else(|| {
            format!("{len} zeros are too many: a file may have {ZEROS_MAX} in all")
        })?,
    );
    Ok(vec![0; len])
}

impl Keyed {
    fn into_bytes(self) -> Result<Vec<u8>, String> {
        match (self.hex, self.json, self.zeros) {
            (Some(hex), None, None) => from_hex(&hex),
            (None, Some(json), None) => Ok(json.to_string().into_bytes()),
            (None, None, Some(len)) => zeros(len),
            _ => Err("bytes need exactly one of hex, json, zeros".to_owned()),
        }
    }
}

pub(super) fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).ok_or_else(|| format!("{c:?} in {text:?} is no hexadecimal digit")))
        .collect::<Result<_, _>>()?;
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{text:?} has an odd number of hexadecimal digits"));
    }
    Ok(digits
        .chunks_exact(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap_or(0))
        .collect())
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or {hex: ...}, or {json: ...}, or {zeros: N}, or a list of these")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        Ok(Bytes(text.as_bytes().to_vec()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
        Ok(Bytes(number.to_string().into_bytes()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
        Ok(Bytes(number.to_string().into_bytes()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Bytes, E> {
        Ok(Bytes(number.to_string().into_bytes()))
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Bytes, E> {
        Ok(Bytes(truth.to_string().into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bytes, A::Error> {
        let keyed = Keyed::deserialize(MapAccessDeserializer::new(map))?;
        keyed.into_bytes().map(Bytes).map_err(de::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
        let mut whole = Vec::new();
        while let Some(Bytes(part)) = seq.next_element()? {
            whole.extend(part);
        }
        Ok(Bytes(whole))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of header names to values, or a list of [name, value]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = HeaderMap::default();
        while let Some((name, Bytes(value))) = map.next_entry::<String, Bytes>()? {
            headers.add(name.as_bytes(), value);
        }
        Ok(Headers(headers))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Headers, A::Error> {
        let mut headers = HeaderMap::default();
        while let Some((Bytes(name), Bytes(value))) = seq.next_element::<(Bytes, Bytes)>()? {
            headers.add(&name, value);
        }
        Ok(Headers(headers))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeadersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(yaml: &str) -> Result<Vec<u8>, String> {
        serde_saphyr::from_str::<Bytes>(yaml)
            .map(|bytes| bytes.0)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn bytes_are_text_hex_json_zeros_or_parts_of_these() {
        assert_eq!(bytes("\"a b\"").unwrap(), b"a b");
        assert_eq!(bytes("{hex: \"61 ff\"}").unwrap(), b"a\xff");
        assert_eq!(bytes("{json: {b: 1, a: [true]}}").unwrap(), br#"{"a":[true],"b":1}"#);
        assert_eq!(bytes("{zeros: 3}").unwrap(), [0, 0, 0]);
        assert_eq!(bytes("[a, {hex: \"00\"}, 1]").unwrap(), b"a\x001");
        for wrong in [
            "{hex: \"6\"}",
            "{hex: zz}",
            "{}",
            "{hex: \"61\", zeros: 1}",
            "{text: a}",
            "{zeros: 99999999999}",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_are_a_map_or_a_list_that_keeps_duplicates() {
        let headers = |yaml: &str| serde_saphyr::from_str::<Headers>(yaml).unwrap().0;
        assert_eq!(headers("{X-A: 1}").pairs(), [(b"x-a".to_vec(), b"1".to_vec())]);
        assert_eq!(
            headers("[[a, b], [a, {hex: ff}]]").pairs(),
            [(b"a".to_vec(), b"b".to_vec()), (b"a".to_vec(), vec![0xff])]
        );
    }
}
