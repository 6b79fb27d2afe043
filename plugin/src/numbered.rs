//! Owns how what belongs to a stream is found: by the number that its host gave it. Knows nothing of what that is.
//!
//! A stream is looked for a dozen times. Beside 15 others a B-tree took a third of all that a request costs the filter:
//! half of it to look, half to move what lies behind the one that goes, and the oldest goes first.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What there is, by the host's number of it.
pub(crate) type Numbered<T> = HashMap<u32, T, BuildHasherDefault<Spread>>;

/// Spreads numbers that a host counts up, by one multiplication. Nobody outside can choose them, so nobody can
/// make them meet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread(u32);

/// Nothing yet.
pub(crate) const fn nothing<T>() -> Numbered<T> {
    HashMap::with_hasher(BuildHasherDefault::new())
}

// === impl Spread ===

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0.into()
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b1);
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }
}
