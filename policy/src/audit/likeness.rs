//! Owns the hash by which like events are told from others: fast, since a request pays for it, and keyed, since a
//! client can choose what is hashed. Knows no event.
//!
//! One multiplication a word, by a factor that is the key's. It is no hash for evidence: that is SHA-256, in the chain. Who
//! found two alike would have one counted where it might have been told.

const START: u64 = 0xa076_1d64_78bd_642f;
const FACTOR: u64 = 0xe703_7ed1_a0b4_28db;

/// A hash under way.
#[derive(Debug, Clone, Copy)]
pub struct Likeness {
    factor: u64,
    state: u64,
}

// === impl Likeness ===

impl Likeness {
    /// Of nothing yet.
    pub fn new(seed: u64) -> Self {
        // Odd: of two states none becomes one.
        Self { factor: (FACTOR ^ seed) | 1, state: START ^ seed.rotate_left(32) }
    }

    /// Adds a text; where one ends and the next begins makes a difference.
    pub fn text(&mut self, text: &str) {
        let (words, rest) = text.as_bytes().as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        // At most seven octets, and above them how many there were in all.
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX) << 56;
        let last = rest.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        self.word(last | length);
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) {
        self.word(number);
    }

    /// The hash.
    pub fn end(mut self) -> u64 {
        self.word(FACTOR);
        self.word(START);
        self.state
    }

    fn word(&mut self, word: u64) {
        let product = (self.state ^ word).wrapping_mul(self.factor);
        self.state = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    fn of(seed: u64, texts: &[String]) -> u64 {
        let mut likeness = Likeness::new(seed);
        texts.iter().for_each(|text| likeness.text(text));
        likeness.end()
    }

    #[test]
    fn a_million_subjects_are_a_million() {
        for seed in [0, 1, FACTOR, u64::MAX] {
            let all: BTreeSet<u64> =
                (0..1_000_000).map(|n| of(seed, &[format!("10.{n}.0.1")])).collect();
            assert_eq!(all.len(), 1_000_000, "{seed}");
        }
    }

    proptest! {
        #[test]
        fn other_texts_and_other_seeds_are_another_hash(
            one in proptest::collection::vec(".{0,20}", 0..4),
            other in proptest::collection::vec(".{0,20}", 0..4),
            seed in any::<u64>(),
        ) {
            let (one, other): (Vec<String>, Vec<String>) = (one, other);
            prop_assert_eq!(of(seed, &one) == of(seed, &other), one == other);
            prop_assert_ne!(of(seed, &one), of(seed.wrapping_add(2), &one));
        }
    }
}
