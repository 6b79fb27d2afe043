//! Owns regular expressions: linear in the text, bounded in size, always over the whole text.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};

/// The longest expression.
pub const REGEX_LEN_MAX: usize = 256;
/// What an expression may compile to. Time per byte of text grows with it.
const COMPILED_BYTES_MAX: usize = 32 * 1024;

/// An expression that the whole of a text must fit. The engine takes time linear in the text,
/// whatever the text is (docs/decisions/0014-regular-expressions.md).
#[derive(Debug, Clone)]
pub struct Regex {
    text: String,
    compiled: regex_lite::Regex,
}

/// Why a text is no expression, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRegex(pub String);

// === impl Regex ===

impl Regex {
    /// Reads an expression; it need not be anchored.
    pub fn parse(text: &str) -> Result<Self, BadRegex> {
        if text.is_empty() || text.len() > REGEX_LEN_MAX {
            return Err(BadRegex(format!("write 1 to {REGEX_LEN_MAX} characters")));
        }
        // Alone first: `a)|(b` must not become sound by what is put around it.
        let build =
            |text: &str| regex_lite::RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        let compiled = build(text).and_then(|_| build(&format!("^(?:{text})$")));
        match compiled {
            Ok(compiled) => Ok(Self { text: text.to_owned(), compiled }),
            Err(error) => Err(BadRegex(error.to_string())),
        }
    }

    /// Whether the whole text fits. Bytes that are no UTF-8 stand for U+FFFD.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(&String::from_utf8_lossy(text))
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Regex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_text_must_fit() {
        let regex = Regex::parse("/v[0-9]+|/w").expect("sound");
        for (text, fits) in [("/v12", true), ("/w", true), ("/v1/x", false), ("x/w", false)] {
            assert_eq!(regex.matches(text.as_bytes()), fits, "{text}");
        }
        assert!(Regex::parse("(?s).*").expect("sound").matches(b"\xff\n"));
    }

    #[test]
    fn what_is_broken_or_too_large_is_refused() {
        let long = "a".repeat(REGEX_LEN_MAX + 1);
        for text in ["", "(", "a)|(b", "(?:a{1000}){1000}", "[z-a]", long.as_str()] {
            assert!(Regex::parse(text).is_err(), "{text}");
        }
    }

    /// Backtracking engines need exponential time here.
    #[test]
    fn a_hostile_text_takes_linear_time() {
        let regex = Regex::parse("(a*)*b").expect("sound");
        assert!(!regex.matches(&[b'a'; 8_192]));
    }
}
