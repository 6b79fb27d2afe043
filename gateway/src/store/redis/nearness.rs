//! Owns what the store remembers of how near to its end each shard was, to ask the tightest first. A
//! guess that costs nothing when it is wrong. Knows no keys' spelling.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU8, Ordering};

use tidegate_policy::gcra::Quota;

use crate::store::Standing;

/// A power of two; two shards that share a place share a guess.
const PLACES: usize = 4_096;

/// One byte per place: 0 is full, 255 used up.
pub struct Nearness {
    hasher: RandomState,
    places: Vec<AtomicU8>,
}

// === impl Nearness ===

impl Nearness {
    /// Nothing is known.
    pub fn new() -> Self {
        let places = (0..PLACES).map(|_| AtomicU8::new(0)).collect();
        Self { hasher: RandomState::new(), places }
    }

    /// What is remembered: 0 is full, 255 used up.
    pub fn of(&self, name: &str) -> u8 {
        self.place(name).map_or(0, |place| place.load(Ordering::Relaxed))
    }

    /// Remembers the limit that is nearest to its end.
    pub fn note(&self, name: &str, quotas: &[Quota], limits: &[Standing]) {
        let used = quotas.iter().zip(limits).map(|(quota, standing)| {
            let of = u64::from(quota.burst()).max(1);
            let left = standing.reading.remaining.min(of);
            u8::try_from(255 - left.saturating_mul(255) / of).unwrap_or(u8::MAX)
        });
        if let (Some(place), Some(most)) = (self.place(name), used.max()) {
            place.store(most, Ordering::Relaxed);
        }
    }

    fn place(&self, name: &str) -> Option<&AtomicU8> {
        let hash = usize::try_from(self.hasher.hash_one(name) % 4_096).ok()?;
        self.places.get(hash)
    }
}
