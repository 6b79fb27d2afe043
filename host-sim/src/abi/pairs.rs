//! The encoding of header maps in guest memory. It must not know where pairs come from or go to.
//!
//! A u32 count, then a key length and a value length per pair, then each key and value followed by one zero byte; all
//! numbers little-endian, and no byte may be left over.

/// Key and value, in order, duplicates kept. Bytes, because headers need not be UTF-8.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Envoy's limits: what is larger is read as an empty map.
pub const SIZE_BYTES_MAX: usize = 1024 * 1024;
/// See [`SIZE_BYTES_MAX`].
pub const PAIRS_MAX: usize = 1024;

/// Encodes a map; an empty one is no bytes at all, as the host hands it out.
pub fn encode(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut out = Vec::new();
    put_u32(&mut out, pairs.len());
    for (key, value) in pairs {
        put_u32(&mut out, key.len());
        put_u32(&mut out, value.len());
    }
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// Decodes a map as Envoy does: anything malformed or too large is an empty map, never an error.
pub fn decode(bytes: &[u8]) -> Pairs {
    try_decode(bytes).unwrap_or_default()
}

fn try_decode(bytes: &[u8]) -> Option<Pairs> {
    if bytes.len() > SIZE_BYTES_MAX {
        return None;
    }
    let mut rest = bytes;
    let count = take_u32(&mut rest)?;
    if count > PAIRS_MAX {
        return None;
    }
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        sizes.push((take_u32(&mut rest)?, take_u32(&mut rest)?));
    }
    let mut pairs = Vec::with_capacity(count);
    for (key_len, value_len) in sizes {
        pairs.push((take_text(&mut rest, key_len)?, take_text(&mut rest, value_len)?));
    }
    rest.is_empty().then_some(pairs)
}

fn put_u32(out: &mut Vec<u8>, value: usize) {
    // Guest memory is 32-bit; what does not fit could not be handed over anyway.
    out.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
}

fn take_u32(rest: &mut &[u8]) -> Option<usize> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    usize::try_from(u32::from_le_bytes(*head)).ok()
}

fn take_text(rest: &mut &[u8], len: usize) -> Option<Vec<u8>> {
    let text = rest.get(..len)?.to_vec();
    if *rest.get(len)? != 0 {
        return None;
    }
    *rest = rest.get(len + 1..)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs() -> impl Strategy<Value = Pairs> {
        let text = || proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec((text(), text()), 1..40)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(pairs in pairs()) {
            prop_assert_eq!(decode(&encode(&pairs)), pairs);
        }

        #[test]
        fn a_cut_or_longer_map_is_empty(pairs in pairs(), cut in any::<prop::sample::Index>()) {
            let whole = encode(&pairs);
            prop_assert_eq!(decode(&whole[..cut.index(whole.len())]), Pairs::new());
            let mut longer = whole;
            longer.push(0);
            prop_assert_eq!(decode(&longer), Pairs::new());
        }

        #[test]
        fn any_bytes_decode_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).len() <= PAIRS_MAX);
        }
    }

    #[test]
    fn one_pair_more_than_the_limit_is_an_empty_map() {
        let fits = vec![(b"a".to_vec(), Vec::new()); PAIRS_MAX];
        assert_eq!(decode(&encode(&fits)).len(), PAIRS_MAX);
        let over = vec![(b"a".to_vec(), Vec::new()); PAIRS_MAX + 1];
        assert_eq!(decode(&encode(&over)), Pairs::new());
    }

    #[test]
    fn more_than_a_mebibyte_is_an_empty_map() {
        let over = vec![(b"a".to_vec(), vec![b'x'; SIZE_BYTES_MAX])];
        assert_eq!(decode(&encode(&over)), Pairs::new());
    }

    #[test]
    fn a_missing_zero_after_a_key_is_an_empty_map() {
        let mut bytes = encode(&[(b"k".to_vec(), b"v".to_vec())]);
        bytes[13] = b'x';
        assert_eq!(decode(&bytes), Pairs::new());
    }
}
