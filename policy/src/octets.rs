//! Owns sets of octets that are asked for each octet of a text. Knows no text.

/// A set of octets.
pub(crate) struct Octets([bool; 256]);

// === impl Octets ===

impl Octets {
    /// All octets from the first to the last of each pair, both included.
    pub(crate) const fn of(mut ranges: &[(u8, u8)]) -> Self {
        let mut holds = [false; 256];
        while let [(first, last), others @ ..] = ranges {
            let mut octet = 0u8;
            let mut rest: &mut [bool] = &mut holds;
            while let Some((place, after)) = rest.split_first_mut() {
                *place |= *first <= octet && octet <= *last;
                octet = octet.wrapping_add(1);
                rest = after;
            }
            ranges = others;
        }
        Self(holds)
    }

    /// Whether it is one of them.
    pub(crate) fn has(&self, octet: u8) -> bool {
        self.0.get(usize::from(octet)).is_some_and(|holds| *holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_lies_in_its_ranges_and_nothing_else() {
        static SET: Octets = Octets::of(&[(0, 0), (b'a', b'c'), (255, 255)]);
        for octet in 0..=255 {
            assert_eq!(SET.has(octet), matches!(octet, 0 | b'a'..=b'c' | 255), "{octet}");
        }
    }
}
