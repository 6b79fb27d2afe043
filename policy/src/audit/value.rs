//! Owns canonical bytes: the one spelling of a JSON value that hashes are taken of, how it is
//! written, and a reader that refuses every other spelling. Knows no record.
//!
//! It is RFC 8785 (JCS) over fewer values: whole numbers below 2^53, keys of ASCII. So sorting by
//! bytes is sorting as JCS does, and its rules for fractions are not needed. Record 0046.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The largest whole number that every JSON reader keeps exactly: 2^53 - 1.
pub const NUMBER_MAX: i64 = 9_007_199_254_740_991;
/// How deep arrays and objects may lie in one another.
pub const DEPTH_MAX: usize = 16;

/// An object: its keys in order of their bytes.
pub type Object = BTreeMap<String, Value>;

/// What can be hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, at most [`NUMBER_MAX`] from zero.
    Number(i64),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// Why a value or a text has no canonical bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

// === impl Unfit ===

impl Unfit {
    pub(super) fn new(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Unfit {}

// === impl Value ===

impl Value {
    /// A text.
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// A count or an instant. Beyond [`NUMBER_MAX`] it is refused by [`check`].
    pub fn number(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one and not below 0.
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

/// Whether the object can be written so that it reads back.
pub fn check(object: &Object) -> Result<(), Unfit> {
    check_object(object, DEPTH_MAX)
}

fn check_object(object: &Object, depth: usize) -> Result<(), Unfit> {
    for (key, value) in object {
        if !key.is_ascii() {
            return Err(Unfit(format!("the key {key:?} is not ASCII")));
        }
        check_value(value, depth)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize) -> Result<(), Unfit> {
    let below = || {
        let why = || Unfit(format!("nested deeper than {DEPTH_MAX}"));
        depth.checked_sub(1).filter(|left| *left > 0).ok_or_else(why)
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Text(_) => Ok(()),
        Value::Number(number) if number.unsigned_abs() <= NUMBER_MAX.unsigned_abs() => Ok(()),
        Value::Number(number) => Err(Unfit(format!("{number} is beyond 2^53 - 1"))),
        Value::Array(items) => {
            let depth = below()?;
            items.iter().try_for_each(|item| check_value(item, depth))
        }
        Value::Object(object) => check_object(object, below()?),
    }
}

/// The canonical bytes of an object that passes [`check`].
pub fn write(object: &Object) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_object(&mut out, object);
    out
}

/// The same bytes, and where in them each of these keys, which the object does not have and which are in order,
/// would go with a comma before it.
pub(super) fn write_with_cuts<const N: usize>(
    object: &Object,
    keys: [&str; N],
) -> (Vec<u8>, [usize; N]) {
    let mut out = Vec::with_capacity(512);
    let mut cuts = keys.map(|key| (key, None));
    out.push(b'{');
    for (index, (key, value)) in object.iter().enumerate() {
        for (_, cut) in cuts.iter_mut().filter(|(other, cut)| cut.is_none() && *other < key) {
            *cut = Some(out.len());
        }
        if index > 0 {
            out.push(b',');
        }
        write_text(&mut out, key);
        out.push(b':');
        write_value(&mut out, value);
    }
    let end = out.len();
    out.push(b'}');
    (out, cuts.map(|(_, cut)| cut.unwrap_or(end)))
}

fn write_object(out: &mut Vec<u8>, object: &Object) {
    out.push(b'{');
    for (index, (key, value)) in object.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Text(text) => write_text(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        Value::Object(object) => write_object(out, object),
    }
}

/// RFC 8785 §3.2.2.2: the two-character escapes where there are any, `\u00xx` for other controls,
/// everything else as it is.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Reads an object from exactly its canonical bytes. Refuses a key that stands twice, fractions,
/// and any other spelling of the same value.
pub fn read(bytes: &[u8]) -> Result<Object, Unfit> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| Unfit(format!("no JSON: {e}")))?;
    let Value::Object(object) = value else {
        return Err(Unfit::new("no object"));
    };
    check(&object)?;
    if write(&object) == bytes { Ok(object) } else { Err(Unfit::new("not canonical")) }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number, a boolean, null, an array or an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Number)
            .map_err(|_beyond| E::custom("a number beyond 2^53 - 1"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::text(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn one_value_has_one_spelling() {
        let sound =
            r#"{"a":[1,null,true,{}],"b":-7,"c":"é\b\t\n\f\r\u001f\"\\/","d":9007199254740991}"#;
        let object = read(sound.as_bytes()).expect("canonical");
        assert_eq!(write(&object), sound.as_bytes());
        let rows: [(&str, &str); 14] = [
            ("", "no JSON"),
            ("[]", "no object"),
            ("{}\n", "not canonical"),
            (" {}", "not canonical"),
            (r#"{"b":1,"a":2}"#, "not canonical"),
            (r#"{"a":1,"a":1}"#, "stands twice"),
            (r#"{"a":{"x":1,"x":2}}"#, "stands twice"),
            (r#"{"a":1.0}"#, "floating point"),
            (r#"{"a":1e3}"#, "floating point"),
            (r#"{"a":-0}"#, "floating point"),
            (r#"{"a":9007199254740992}"#, "beyond 2^53"),
            (r#"{"é":1}"#, "not ASCII"),
            (r#"{"a":"\u0041"}"#, "not canonical"),
            (r#"{"a":"\u001F"}"#, "not canonical"),
        ];
        for (text, expected) in rows {
            let error = read(text.as_bytes()).expect_err(text);
            assert!(error.0.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| {
            let mut text = String::from("{\"a\":");
            text.push_str(&"[".repeat(depth));
            text.push_str(&"]".repeat(depth));
            text.push('}');
            text
        };
        assert!(read(nested(DEPTH_MAX - 1).as_bytes()).is_ok());
        assert!(read(nested(DEPTH_MAX).as_bytes()).is_err());
        assert!(read(nested(100_000).as_bytes()).is_err());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-NUMBER_MAX..=NUMBER_MAX).prop_map(Value::Number),
            any::<String>().prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::btree_map("[ -~]{0,4}", inner, 0..4).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in value()) {
            let object = Object::from_iter([("x".to_owned(), value)]);
            prop_assert_eq!(check(&object), Ok(()));
            prop_assert_eq!(read(&write(&object)), Ok(object));
        }

        #[test]
        fn whatever_is_read_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(object) = read(&bytes) {
                prop_assert_eq!(write(&object), bytes);
            }
        }
    }

    #[test]
    fn unfit_values_are_refused_before_they_are_written() {
        let deep = (0..DEPTH_MAX).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        for value in [Value::Number(NUMBER_MAX + 1), Value::Number(i64::MIN), deep] {
            assert!(check(&Object::from_iter([("x".to_owned(), value)])).is_err());
        }
    }
}
