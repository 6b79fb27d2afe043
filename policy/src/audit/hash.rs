//! Owns hashes as the chain spells them: SHA-256, lower-case hex, and base64 for what the note format
//! wants in base64. Knows no record.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use sha2::{Digest, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// === impl Hash ===

impl Hash {
    /// What the first record of a chain is linked to.
    pub const GENESIS: Self = Self([0; 32]);

    /// The hash of the parts, one behind the other.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut digest = Sha256::new();
        parts.iter().for_each(|part| digest.update(part));
        Self(digest.finalize().into())
    }

    /// Reads 64 lower-case hex digits; capitals would be a second spelling.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = pair.first().zip(pair.get(1))?;
            *byte = (digit(*high)? << 4) | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

fn letter(digit: u8) -> u8 {
    if digit < 10 { b'0'.saturating_add(digit) } else { b'a'.saturating_add(digit - 10) }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[letter(byte >> 4), letter(byte & 15)]);
        }
        f.write_str(core::str::from_utf8(&text).map_err(|_none| fmt::Error)?)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 4648 §4, padded.
pub fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3).saturating_mul(4));
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = (at(0) << 16) | (at(1) << 8) | at(2);
        for place in 0..4_usize {
            let six = usize::try_from((word >> (18 - 6 * place)) & 63).unwrap_or_default();
            let letter = BASE64.get(six).copied().unwrap_or(b'=');
            text.push(char::from(if place <= chunk.len() { letter } else { b'=' }));
        }
    }
    text
}

/// Reads exactly what [`to_base64`] writes: bits that say nothing must be zero.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    for chunk in text.as_bytes().chunks(4) {
        let letters = chunk.iter().take_while(|&&letter| letter != b'=');
        let mut word: u32 = 0;
        let mut count: u32 = 0;
        for letter in letters {
            let six = BASE64.iter().position(|known| known == letter)?;
            word = (word << 6) | u32::try_from(six).ok()?;
            count = count.saturating_add(1);
        }
        let word = word.checked_shl(6_u32.saturating_mul(4_u32.saturating_sub(count)))?;
        let [_, whole @ ..] = word.to_be_bytes();
        bytes.extend(whole.iter().take(usize::try_from(count.saturating_sub(1)).ok()?));
    }
    (to_base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn base64_has_one_spelling() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(to_base64(bytes.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "Zg==Zg==", "Zm 9v", "Zm9v\n"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = Hash::of(&[b"ab", b"c"]);
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash.to_string(), text);
        assert_eq!(Hash::from_hex(text), Some(hash));
        for wrong in [&text[1..], &text.to_uppercase(), &text.replace('b', "g"), ""] {
            assert_eq!(Hash::from_hex(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn base64_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes));
        }

        #[test]
        fn base64_is_never_repaired(text in "[A-D=/]{0,9}") {
            if let Some(bytes) = from_base64(&text) {
                prop_assert_eq!(to_base64(&bytes), text);
            }
        }
    }
}
