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

use alloc::vec::Vec;

use crate::config::CircuitBreaker;

/// How many lie in one bucket.
pub const BUCKET: usize = 8;
/// Whom the others are written as: no value is spelled so.
pub const OTHERS: &str = "~others";

/// The places of one configuration.
#[derive(Debug, Default)]
pub struct Places {
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
    pub fn of(breakers: &[CircuitBreaker]) -> Self {
        let mut this = Self::default();
        for breaker in breakers {
            let buckets = breaker.many.map_or(0, |max| max.div_ceil(BUCKET));
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
        let hash = hashed(whose.as_bytes());
        let start = |bits: u64| {
            let bucket = usize::try_from(bits & 0xffff_ffff).unwrap_or(0) % region.buckets;
            region.first.saturating_add(2).saturating_add(bucket.saturating_mul(BUCKET))
        };
        Some([start(hash), start(hash >> 32)])
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

/// FNV-1a, its halves mixed: spreads, and keeps nothing secret.
pub fn hashed(octets: &[u8]) -> u64 {
    let hash = octets.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    fn places(breakers: &str) -> Places {
        let document = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "circuit_breakers": {{{breakers}}}, "policies": []}}"#
        );
        Places::of(&Config::read(&document).config.expect("a configuration").circuit_breakers)
    }

    #[test]
    fn every_place_is_of_one_breaker_and_each_finds_its_own() {
        let places = places(
            r#""a": {}, "b": {"by": "ip", "max": 17}, "c": {}, "d": {"by": "ip", "max": 8}"#,
        );
        assert_eq!(places.count(), 1 + 2 + 24 + 1 + 2 + 8);
        assert_eq!(places.at(0), Some((0, Lies::Alone)));
        assert_eq!(places.at(1), Some((1, Lies::Alone)));
        assert_eq!(places.at(2), Some((1, Lies::Others)));
        assert_eq!(places.at(26), Some((1, Lies::Somebody(23))));
        assert_eq!(places.at(27), Some((2, Lies::Alone)));
        assert_eq!(places.at(places.count()), None);
        assert_eq!(places.buckets(0, "x"), None);
        for value in 0..1_000 {
            for start in places.buckets(1, &value.to_string()).expect("buckets") {
                assert_eq!(places.at(start).map(|(breaker, _)| breaker), Some(1));
                assert!(matches!(places.at(start + BUCKET - 1), Some((1, Lies::Somebody(_)))));
            }
        }
    }

    /// Two choices of eight: the fullest bucket is two above the average, so the first finds no room well before
    /// all places are taken.
    #[test]
    fn three_of_four_places_are_taken_before_anybody_finds_none() {
        let places = places(r#""a": {"by": "ip", "max": 10000}"#);
        let mut held = vec![0_usize; places.count()];
        let mut placed = 0;
        while let Some(start) = places
            .buckets(0, &format!("tenant-{placed}"))
            .and_then(|two| two.into_iter().min_by_key(|start| held[*start]))
            .filter(|start| held[*start] < BUCKET)
        {
            held[start] += 1;
            placed += 1;
        }
        assert!(placed > 7_500, "{placed} of 10,000");
    }
}
