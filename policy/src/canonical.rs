//! Owns the one spelling of a path that policies are compared with, so that no other spelling of
//! the same resource escapes one. Knows no pattern.
//!
//! Envoy normalises too (`normalize_path`, `merge_slashes`), but leaves what servers behind it are
//! known to take away: path parameters (`/login;x`, and with them `/x/..;/login`), and the case of
//! percent-encodings. Source: RFC 3986 §6.2.2 and §5.2.4.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::slice;

/// The path of a request target without query and fragment, in its one spelling: parameters cut
/// from every segment, unreserved characters decoded, other encodings in capitals, empty and dot
/// segments resolved. A closing slash stays. Borrowed where nothing had to change.
pub fn canonical(target: &[u8]) -> Cow<'_, [u8]> {
    let path = without_query(target);
    if !path.starts_with(b"/") || is_plain(path) {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut closing = false;
    for raw in path.split(|&b| b == b'/').skip(1) {
        let segment = spell(raw.split(|&b| b == b';').next().unwrap_or_default());
        closing = matches!(segment.as_slice(), b"" | b"." | b"..");
        match segment.as_slice() {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut whole = Vec::with_capacity(path.len());
    for segment in &segments {
        whole.push(b'/');
        whole.extend_from_slice(segment);
    }
    if closing || whole.is_empty() {
        whole.push(b'/');
    }
    Cow::Owned(whole)
}

/// Whether the path is in its one spelling for certain: nearly every request's is.
fn is_plain(path: &[u8]) -> bool {
    let marked = path.iter().any(|b| matches!(b, b'%' | b';'));
    let pairs = path.iter().zip(path.iter().skip(1));
    !marked && !pairs.into_iter().any(|(a, b)| *a == b'/' && matches!(b, b'/' | b'.'))
}

/// One piece of a target with its percent-encodings in their one spelling: unreserved characters
/// decoded, others in capitals, a stray `%` spelled out.
pub(crate) fn spell(raw: &[u8]) -> Vec<u8> {
    let mut spelled = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let encoded = match (byte, after) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let Some((high, low)) = encoded else {
            // A stray `%` is spelled out, or it could join with what follows to another encoding.
            spelled.extend_from_slice(if byte == b'%' { b"%25" } else { slice::from_ref(&byte) });
            continue;
        };
        rest = after.get(2..).unwrap_or_default();
        let value = (high << 4) | low;
        if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
            spelled.push(value);
        } else {
            spelled.extend([b'%', capital(high), capital(low)]);
        }
    }
    spelled
}

/// The octet that two hexadecimal digits mean.
pub(crate) fn octet([high, low]: [u8; 2]) -> Option<u8> {
    Some((hex(high)? << 4) | hex(low)?)
}

/// Adds the percent-encoding of an octet.
pub(crate) fn push_encoded(text: &mut String, byte: u8) {
    for part in [b'%', capital(byte >> 4), capital(byte & 0xf)] {
        text.push(char::from(part));
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn capital(nibble: u8) -> u8 {
    b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0')
}

/// The path alone. An absolute form (`http://host/path`) loses its front.
fn without_query(target: &[u8]) -> &[u8] {
    let end = target.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(target.len());
    let path = target.get(..end).unwrap_or(target);
    if path.starts_with(b"/") || path == b"*" {
        return path;
    }
    let Some(scheme_end) = path.windows(3).position(|w| w == b"://") else {
        return path;
    };
    let after = path.get(scheme_end.saturating_add(3)..).unwrap_or_default();
    match after.iter().position(|&b| b == b'/') {
        Some(slash) => after.get(slash..).unwrap_or_default(),
        None => b"/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(path: &str) -> String {
        String::from_utf8_lossy(&canonical(path.as_bytes())).into_owned()
    }

    #[test]
    fn one_resource_has_one_spelling() {
        let rows = [
            ("/login", "/login"),
            ("/login?next=/x;y", "/login"),
            ("/login;x", "/login"),
            ("/login;", "/login"),
            ("/api;v=1/x", "/api/x"),
            ("/x/..;/login", "/login"),
            ("/x/..;a=b/../login", "/login"),
            ("/login/;x", "/login/"),
            ("/%6cogin", "/login"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%", "/a%25"),
            ("/a%4", "/a%254"),
            ("/a%zz", "/a%25zz"),
            ("/%%30a", "/%250a"),
            ("//login", "/login"),
            ("/./login", "/login"),
            ("/a/%2e%2e/login", "/login"),
            ("/../../login", "/login"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/.hidden", "/.hidden"),
            ("/", "/"),
            ("/;", "/"),
            ("http://host/a;b", "/a"),
            ("http://host", "/"),
            ("*", "*"),
            ("", ""),
        ];
        for (path, expected) in rows {
            assert_eq!(text(path), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_spelling_is_its_own_spelling(path in "/[a-c%;./0-9]{0,24}") {
            let once = text(&path);
            prop_assert_eq!(text(&once), once);
        }

        #[test]
        fn any_bytes_are_survived(path in any::<std::vec::Vec<u8>>()) {
            canonical(&path);
        }
    }
}
