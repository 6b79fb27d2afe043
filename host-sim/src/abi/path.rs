//! The encoding of property paths: segments joined by a zero byte. It must not know any property.

/// Segments of a path as a plugin sends it; one trailing zero byte ends the last segment and adds none.
pub fn split(path: &[u8]) -> Vec<&[u8]> {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    if path.is_empty() {
        return Vec::new();
    }
    path.split(|byte| *byte == 0).collect()
}

/// The path as scenario files and traces write it, with dots.
pub fn dotted(path: &[u8]) -> String {
    let segments: Vec<_> = split(path).into_iter().map(String::from_utf8_lossy).collect();
    segments.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn segments_survive_joining(segments in proptest::collection::vec("[a-z]{1,8}", 1..6)) {
            let joined = segments.join("\0");
            let split: Vec<_> = split(joined.as_bytes()).into_iter().map(<[u8]>::to_vec).collect();
            let expected: Vec<_> = segments.iter().map(|s| s.as_bytes().to_vec()).collect();
            prop_assert_eq!(split, expected);
        }

        #[test]
        fn any_bytes_are_a_path(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(split(&bytes).len() <= bytes.len());
            prop_assert!(dotted(&bytes).len() <= bytes.len() * 3);
        }
    }

    #[test]
    fn a_trailing_zero_adds_no_segment() {
        assert_eq!(dotted(b"source\0address\0"), "source.address");
        assert_eq!(dotted(b""), "");
    }
}
