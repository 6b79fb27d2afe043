//! Owns the `Idempotency-Key` field: what clients may send, and the one key that it means. Knows
//! neither tenants nor stores.
//!
//! Source: draft-ietf-httpapi-idempotency-key-header-07 (a Structured Field Item that is a String, RFC
//! 9651 §3.3.3) and the practice of payment APIs (no quotes, at most 255 characters).

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

/// The field, in lower case.
pub const FIELD: &str = "idempotency-key";
/// The most characters of a key, quotes and escapes not counted.
pub const KEY_LEN_MAX: usize = 255;

/// Which spellings of a key are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeySyntax {
    /// A String of RFC 9651, or the bare characters: both spellings mean one key.
    #[default]
    Lenient,
    /// Only a String of RFC 9651.
    Strict,
}

/// A client's key: 1 to [`KEY_LEN_MAX`] characters from space to `~`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(String);

/// Why a field holds no key. What it held is not repeated: keys are the client's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// The field stands there more than once.
    Repeated,
    /// Nothing, or nothing between the quotes.
    Empty,
    /// More than [`KEY_LEN_MAX`] characters.
    TooLong,
    /// A byte that may not stand there: a control, a space or a comma without quotes, or beyond ASCII.
    Byte(u8),
    /// The closing quote is missing.
    Unclosed,
    /// A backslash before anything but a quote or a backslash.
    Escape,
    /// Something behind the closing quote.
    Trailing,
    /// No quotes, where the syntax is strict.
    Unquoted,
}

// === impl KeySyntax ===

impl KeySyntax {
    /// Every syntax.
    pub const ALL: [Self; 2] = [Self::Lenient, Self::Strict];

    /// The syntax as it stands in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lenient => "lenient",
            Self::Strict => "strict",
        }
    }

    /// The key of a request whose field has these lines; `None` if it has no such field.
    pub fn read<'l>(
        self,
        lines: impl IntoIterator<Item = &'l [u8]>,
    ) -> Result<Option<IdempotencyKey>, BadKey> {
        let mut lines = lines.into_iter();
        let Some(line) = lines.next() else {
            return Ok(None);
        };
        if lines.next().is_some() {
            return Err(BadKey::Repeated);
        }
        self.read_line(trimmed(line)).map(Some)
    }

    fn read_line(self, line: &[u8]) -> Result<IdempotencyKey, BadKey> {
        let text = match (line.split_first(), self) {
            (None, _) => return Err(BadKey::Empty),
            (Some((b'"', quoted)), _) => unquoted(quoted)?,
            (Some(_), Self::Lenient) => bare(line)?,
            (Some(_), Self::Strict) => return Err(BadKey::Unquoted),
        };
        IdempotencyKey::new(&text)
    }
}

// === impl IdempotencyKey ===

impl IdempotencyKey {
    /// Accepts 1 to [`KEY_LEN_MAX`] characters from space to `~`.
    pub fn new(text: &str) -> Result<Self, BadKey> {
        if let Some(byte) = text.bytes().find(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(BadKey::Byte(byte));
        }
        match text.len() {
            0 => Err(BadKey::Empty),
            1..=KEY_LEN_MAX => Ok(Self(text.to_owned())),
            _ => Err(BadKey::TooLong),
        }
    }

    /// The key, without quotes and escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IdempotencyKey {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0
    }
}

// === impl BadKey ===

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated => f.write_str("Idempotency-Key stands there twice: send it once"),
            Self::Empty => f.write_str("Idempotency-Key is empty: send 1 to 255 characters"),
            Self::TooLong => {
                write!(f, "Idempotency-Key has over {KEY_LEN_MAX} characters: send a UUID")
            }
            Self::Byte(byte) => write!(
                f,
                "Idempotency-Key holds the byte {byte:#04x}: send visible ASCII, and in quotes if it holds a space or a comma"
            ),
            Self::Unclosed => f.write_str("Idempotency-Key has no closing quote"),
            Self::Escape => f.write_str(
                "Idempotency-Key escapes what needs no escape: only \\\" and \\\\ are there",
            ),
            Self::Trailing => f.write_str(
                "Idempotency-Key has something behind its closing quote: send one String",
            ),
            Self::Unquoted => {
                f.write_str("Idempotency-Key has no quotes: send a String, as \"8e03978e\"")
            }
        }
    }
}

impl core::error::Error for BadKey {}

/// What RFC 9651 takes away around an Item: spaces, and nothing else.
fn trimmed(line: &[u8]) -> &[u8] {
    let Some(start) = line.iter().position(|&byte| byte != b' ') else {
        return &[];
    };
    let end = line.iter().rposition(|&byte| byte != b' ').unwrap_or(start);
    line.get(start..=end).unwrap_or_default()
}

/// The rest of a String behind its opening quote.
fn unquoted(quoted: &[u8]) -> Result<String, BadKey> {
    let mut text = String::new();
    let mut rest = quoted.iter();
    loop {
        match rest.next() {
            None => return Err(BadKey::Unclosed),
            Some(b'"') => break,
            Some(b'\\') => match rest.next() {
                Some(&byte @ (b'"' | b'\\')) => text.push(char::from(byte)),
                Some(_) => return Err(BadKey::Escape),
                None => return Err(BadKey::Unclosed),
            },
            Some(&byte @ b' '..=b'~') => text.push(char::from(byte)),
            Some(&byte) => return Err(BadKey::Byte(byte)),
        }
        if text.len() > KEY_LEN_MAX {
            return Err(BadKey::TooLong);
        }
    }
    // Parameters as well: none is defined, and a key that says more than its text is not understood.
    if rest.as_slice().is_empty() { Ok(text) } else { Err(BadKey::Trailing) }
}

/// A comma is refused because two lines of one field may arrive joined by one.
fn bare(line: &[u8]) -> Result<String, BadKey> {
    if line.len() > KEY_LEN_MAX {
        return Err(BadKey::TooLong);
    }
    match line.iter().find(|byte| !matches!(byte, b'!'..=b'~') || **byte == b',') {
        Some(&byte) => Err(BadKey::Byte(byte)),
        None => Ok(line.iter().copied().map(char::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sfv::{BareItem, Item, Parser};
    use std::vec::Vec;

    fn lenient(line: &[u8]) -> Result<String, BadKey> {
        KeySyntax::Lenient.read([line]).map(|key| key.expect("there is a field").0)
    }

    fn strict(line: &[u8]) -> Result<String, BadKey> {
        KeySyntax::Strict.read([line]).map(|key| key.expect("there is a field").0)
    }

    #[test]
    fn both_spellings_mean_one_key() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        let rows: [(&str, &str); 9] = [
            (uuid, uuid),
            (r#""8e03978e-40d5-43e8-bc93-6894a57f9324""#, uuid),
            ("  a  ", "a"),
            (r#"  "a"  "#, "a"),
            (r#""a b, c""#, "a b, c"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#"a"b\c"#, r#"a"b\c"#),
            ("tenant:other:ep:{x}", "tenant:other:ep:{x}"),
            (r#"" ""#, " "),
        ];
        for (line, key) in rows {
            assert_eq!(lenient(line.as_bytes()).as_deref(), Ok(key), "{line}");
            let quoted = line.trim().starts_with('"');
            let expected = if quoted { Ok(key) } else { Err(BadKey::Unquoted) };
            assert_eq!(strict(line.as_bytes()).as_deref(), expected.as_deref());
        }
        assert_eq!(KeySyntax::Lenient.read([]), Ok(None));
    }

    #[test]
    fn what_is_no_key_says_why() {
        let long = "x".repeat(KEY_LEN_MAX);
        let longer = "x".repeat(KEY_LEN_MAX + 1);
        let rows: [(&[u8], BadKey); 17] = [
            (b"", BadKey::Empty),
            (b"   ", BadKey::Empty),
            (br#""""#, BadKey::Empty),
            (longer.as_bytes(), BadKey::TooLong),
            (b"a b", BadKey::Byte(b' ')),
            (b"a,b", BadKey::Byte(b',')),
            (b"a\0b", BadKey::Byte(0)),
            (b"a\tb", BadKey::Byte(b'\t')),
            (b"\ta", BadKey::Byte(b'\t')),
            (b"\"a\x7fb\"", BadKey::Byte(0x7f)),
            (b"\"a\nb\"", BadKey::Byte(b'\n')),
            ("\"ä\"".as_bytes(), BadKey::Byte(0xc3)),
            (br#""a"#, BadKey::Unclosed),
            (br#""a\"#, BadKey::Unclosed),
            (br#""a\b""#, BadKey::Escape),
            (br#""a", "b""#, BadKey::Trailing),
            (br#""a";p=1"#, BadKey::Trailing),
        ];
        for (line, expected) in rows {
            let shown = String::from_utf8_lossy(line).into_owned();
            assert_eq!(lenient(line), Err(expected), "{shown}");
        }
        assert_eq!(lenient(long.as_bytes()).as_deref(), Ok(long.as_str()));
        let quoted = std::format!("\"{}\"", longer);
        assert_eq!(strict(quoted.as_bytes()), Err(BadKey::TooLong));
        let escaped = std::format!("\"{}\"", r"\\".repeat(KEY_LEN_MAX));
        assert_eq!(
            strict(escaped.as_bytes()),
            Ok(r"\".repeat(KEY_LEN_MAX)),
            "escapes do not count"
        );
        let lines: [&[u8]; 2] = [b"a", b"a"];
        assert_eq!(KeySyntax::Lenient.read(lines), Err(BadKey::Repeated), "even the same twice");
    }

    /// What a library that knows RFC 9651 and nothing of ours makes of a line.
    fn by_the_book(line: &[u8]) -> Option<String> {
        let item: Item = Parser::new(line).parse().ok()?;
        match item.bare_item {
            BareItem::String(text) if item.params.is_empty() => Some(text.as_str().to_owned()),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn strict_takes_what_the_book_takes(line in r#" ?["a]["\\ab ,;~\x00é]{0,6}["a]? ?"#) {
            let expected = by_the_book(line.as_bytes()).filter(|text| !text.is_empty());
            prop_assert_eq!(strict(line.as_bytes()).ok(), expected);
        }

        #[test]
        fn what_the_book_writes_is_read_back(text in "[ -~]{1,255}") {
            let string = sfv::StringRef::from_str(&text).expect("ASCII");
            let line = sfv::ItemSerializer::new().bare_item(string).finish();
            prop_assert_eq!(strict(line.as_bytes()), Ok(text.clone()));
            prop_assert_eq!(lenient(line.as_bytes()), Ok(text.clone()));
            if !text.starts_with('"') && !text.contains([' ', ',']) {
                prop_assert_eq!(lenient(text.as_bytes()), Ok(text));
            }
        }

        #[test]
        fn any_bytes_are_survived(lines in any::<Vec<Vec<u8>>>()) {
            for syntax in KeySyntax::ALL {
                let read = syntax.read(lines.iter().map(Vec::as_slice));
                if let Ok(Some(key)) = read {
                    prop_assert!(!key.0.is_empty() && key.0.len() <= KEY_LEN_MAX);
                    prop_assert_eq!(IdempotencyKey::new(key.as_str()), Ok(key));
                }
            }
        }
    }
}
