//! Owns a short name for a long one, of somebody's making who wants to be found: FNV-1a with 64 bits. Keeps nothing
//! secret and withstands nobody.

/// The same octets have the same name, in every version.
pub fn hash64(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::hash64;

    /// Those of the function's authors.
    #[test]
    fn the_known_names_are_found() {
        let known: [(&[u8], u64); 3] = [
            (b"", 0xcbf2_9ce4_8422_2325),
            (b"a", 0xaf63_dc4c_8601_ec8c),
            (b"foobar", 0x8594_4171_f739_67e8),
        ];
        for (octets, name) in known {
            assert_eq!(hash64(octets), name);
        }
    }
}
