//! Owns the numbers that choose what a test does: a seed gives the same ones on every machine.

/// Splitmix64: enough for choosing steps, and nothing else.
#[derive(Debug, Clone)]
pub struct Random(u64);

// === impl Random ===

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Whether something happens that does so `of` times in a thousand.
    pub fn happens(&mut self, of: u64) -> bool {
        self.below(1_000) < of
    }

    /// The same for 32 bits.
    pub fn small(&mut self, bound: u32) -> u32 {
        u32::try_from(self.below(bound.into())).expect("small")
    }

    /// The same for an octet; `bound` is at most 256.
    pub fn octet(&mut self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).expect("small")
    }

    /// The same for a place in a list.
    pub fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("small")
    }

    /// So many octets.
    pub fn octets(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.index(choices.len());
        choices[index]
    }
}
