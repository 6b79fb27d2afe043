//! Owns what the bytes of one of the host's properties mean as text. The host gives them without
//! their type: text as it is, a number as a double, a truth value as one byte.

use alloc::borrow::Cow;
use alloc::string::ToString;

/// Text as it is, a whole number in decimal digits; a list, a table and a truth value are neither.
/// Whatever is no UTF-8 or has control characters in it is no text.
pub(crate) fn text(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if core::str::from_utf8(value).is_ok_and(|text| !text.chars().any(char::is_control)) {
        return Some(Cow::Borrowed(value));
    }
    let number = f64::from_le_bytes(value.try_into().ok()?);
    let text = number.to_string();
    let whole = text.strip_prefix('-').unwrap_or(&text);
    // 2^53: beyond it a double stands for several numbers, and two names would be one.
    let exact = whole.parse::<u64>().is_ok_and(|n| n < 1 << 53);
    exact.then(|| Cow::Owned(text.into_bytes()))
}

/// The same, with `true` and `false` for truth values.
pub(crate) fn text_or_truth(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    match value {
        [0] => Some(Cow::Borrowed(b"false")),
        [1] => Some(Cow::Borrowed(b"true")),
        other => text(other),
    }
}
