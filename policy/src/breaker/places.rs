//! Owns where each breaker of a configuration lies: a number for each, the same in all workers. Knows
//! neither shared data nor what lies there.
//!
//! ```text
//! one for all:           name
//! one for each of many:  name │ the others │ buckets of eight, each value may lie in either of two
//! ```
//!
//! The name alone of one that is for each of many is what operators shut it by for all; the others are those
//! that name nobody or for whom there is no room.
//!
//! A table has half as many places again as there are to be, so that all of those find one: of two buckets each
//! takes the emptier, and the fullest of many such buckets stays within a few of the average (Azar et al.,
//! "Balanced Allocations", 1999). Which two they are is keyed, so that nobody who chooses his name chooses them.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::config::CircuitBreaker;
use crate::fnv;

/// How many lie in one bucket.
pub const BUCKET: usize = 8;
/// Whom the others are written as: no value is spelled so.
pub const OTHERS: &str = "~others";

/// A secret of the workers that share places: what is keyed by it no sender of requests can foresee.
pub type PlacesKey = [u8; 16];

/// The places of one configuration.
#[derive(Debug, Default)]
pub struct Places {
    key: PlacesKey,
    /// One for each breaker of the configuration, by where it begins.
    regions: Vec<Region>,
    count: usize,
}

#[derive(Debug, Clone, Copy)]
struct Region {
    first: usize,
    /// 0 for one that is for all.
    buckets: usize,
}

/// What lies in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    /// The breaker by its name alone.
    Alone,
    /// That of the others.
    Others,
    /// Whoever took it: the so-and-so-manieth of its table.
    Somebody(usize),
}

// === impl Places ===

impl Places {
    /// Those of a configuration's breakers, in its order.
    pub fn of(breakers: &[CircuitBreaker], key: PlacesKey) -> Self {
        let mut this = Self { key, ..Self::default() };
        for breaker in breakers {
            let roomy = |max: usize| max.saturating_add(max / 2).div_ceil(BUCKET);
            let buckets = breaker.many.map_or(0, roomy);
            let size =
                if buckets == 0 { 1 } else { buckets.saturating_mul(BUCKET).saturating_add(2) };
            this.regions.push(Region { first: this.count, buckets });
            this.count = this.count.saturating_add(size);
        }
        this
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The place of a breaker by its name alone.
    pub fn alone(&self, breaker: usize) -> Option<usize> {
        self.regions.get(breaker).map(|region| region.first)
    }

    /// That of the others.
    pub fn others(&self, breaker: usize) -> Option<usize> {
        self.regions.get(breaker).map(|region| region.first.saturating_add(1))
    }

    /// Where somebody's may lie: two buckets, or twice the same.
    pub fn buckets(&self, breaker: usize, whose: &str) -> Option<[usize; 2]> {
        let region = self.regions.get(breaker).filter(|region| region.buckets > 0)?;
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.key).chain_update(whose).finalize().into();
        let number = |octets: &[u8]| {
            octets.iter().fold(0_usize, |number, octet| (number << 8) | usize::from(*octet))
        };
        let (one, other) = digest.split_at(16);
        let drawn = |octets: &[u8], of: usize| {
            let octets = octets.get(..3).unwrap_or_default();
            number(octets).checked_rem(of).unwrap_or(0)
        };
        let first = drawn(one, region.buckets);
        // Never the same one twice, where there are two.
        let step = drawn(other, region.buckets.saturating_sub(1)).saturating_add(1);
        let second = first.saturating_add(step) % region.buckets;
        let start = |bucket: usize| {
            region.first.saturating_add(2).saturating_add(bucket.saturating_mul(BUCKET))
        };
        Some([start(first), start(second)])
    }

    /// Whether it is for each of many.
    pub fn is_of_many(&self, breaker: usize) -> bool {
        self.regions.get(breaker).is_some_and(|region| region.buckets > 0)
    }

    /// Which breaker a place belongs to, and what lies there.
    pub fn at(&self, place: usize) -> Option<(usize, Lies)> {
        let after = self.regions.partition_point(|region| region.first <= place);
        let breaker = after.checked_sub(1)?;
        let region = self.regions.get(breaker)?;
        let lies = match place.checked_sub(region.first)? {
            0 => Lies::Alone,
            1 if region.buckets > 0 => Lies::Others,
            index => {
                let index = index.checked_sub(2)?;
                (index < region.buckets.saturating_mul(BUCKET)).then_some(Lies::Somebody(index))?
            }
        };
        Some((breaker, lies))
    }
}

/// FNV-1a, its halves mixed: tells layouts apart, and keeps nothing secret.
pub fn hashed(octets: &[u8]) -> u64 {
    let hash = fnv::hash64(octets);
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec;

    fn places(breakers: &str) -> Places {
        let document = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "circuit_breakers": {{{breakers}}}, "policies": []}}"#
        );
        let config = Config::read(&document).config.expect("a configuration");
        Places::of(&config.circuit_breakers, [7; 16])
    }

    #[test]
    fn every_place_is_of_one_breaker_and_each_finds_its_own() {
        let places = places(
            r#""a": {}, "b": {"by": "ip", "max": 17}, "c": {}, "d": {"by": "ip", "max": 8}"#,
        );
        assert_eq!(places.count(), 1 + 2 + 32 + 1 + 2 + 16);
        assert_eq!(places.at(0), Some((0, Lies::Alone)));
        assert_eq!(places.at(1), Some((1, Lies::Alone)));
        assert_eq!(places.at(2), Some((1, Lies::Others)));
        assert_eq!(places.at(34), Some((1, Lies::Somebody(31))));
        assert_eq!(places.at(35), Some((2, Lies::Alone)));
        assert_eq!(places.at(places.count()), None);
        assert_eq!(places.buckets(0, "x"), None);
        for value in 0..1_000 {
            for start in places.buckets(1, &value.to_string()).expect("buckets") {
                assert_eq!(places.at(start).map(|(breaker, _)| breaker), Some(1));
                assert!(matches!(places.at(start + BUCKET - 1), Some((1, Lies::Somebody(_)))));
            }
        }
    }

    /// How many of so many names find a place before the first finds none.
    fn taken(places: &Places, names: impl Iterator<Item = String>) -> usize {
        let mut held = vec![0_usize; places.count()];
        names
            .take_while(|name| {
                let two = places.buckets(0, name).expect("a table");
                let emptier = two.into_iter().min_by_key(|start| held[*start]);
                let start = emptier.filter(|start| held[*start] < BUCKET);
                start.is_some_and(|start| {
                    held[start] += 1;
                    true
                })
            })
            .count()
    }

    #[test]
    fn as_many_as_there_are_to_be_find_a_place_whatever_the_key() {
        for (max, keys) in [(8, 200), (16, 200), (100, 100), (1_000, 20), (10_000, 4)] {
            for key in 0..keys {
                let mut places = places(&format!(r#""a": {{"by": "ip", "max": {max}}}"#));
                places.key = [key; 16];
                let found = taken(&places, (0..max * 2).map(|n| format!("tenant-{n}")));
                assert!((max..=max * 3 / 2 + BUCKET).contains(&found), "{found} of {max}, {key}");
            }
        }
    }

    /// Somebody who knows everything but the key takes names that fall into one bucket; under the key they do not.
    #[test]
    fn nobody_who_chooses_names_chooses_their_places() {
        let mut known = places(r#""a": {"by": "ip", "max": 1000}"#);
        let aimed = known.buckets(0, "victim").expect("a table");
        let of_them = |places: &Places, name: &str| {
            places.buckets(0, name).expect("a table").iter().any(|start| aimed.contains(start))
        };
        let names: Vec<String> =
            (0..10_000).map(|n| format!("n{n}")).filter(|name| of_them(&known, name)).collect();
        assert!(names.len() > 100, "{}", names.len());
        known.key = [9; 16];
        let victims = known.buckets(0, "victim").expect("a table");
        assert_ne!(victims, aimed);
        let near = names.iter().filter(|name| of_them(&known, name)).count();
        assert!(near < names.len() / 10, "{near} of {}", names.len());
        assert_eq!(taken(&known, names.iter().take(500).cloned()), 500.min(names.len()));
    }
}
