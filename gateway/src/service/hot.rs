//! Owns the count of the hottest keys, in a bounded place (space-saving: Metwally et al. 2005). Knows
//! neither decisions nor time.

use std::collections::HashMap;

use serde::Serialize;

/// Keys that are counted at once.
pub const HELD: usize = 256;

/// Whose limit was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Empty if the subject does not count by it.
    pub tenant: String,
    /// The subject's kind.
    pub kind: &'static str,
    /// The subject, as it stands in keys.
    pub subject: String,
    /// `policy.limit`.
    pub limit: String,
}

/// How often a key was asked about; `asked` is too high by `doubt` at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Heat {
    /// Requests.
    pub asked: u64,
    /// Those that the limit did not admit.
    pub denied: u64,
    /// What the key took over from the one whose place it has.
    pub doubt: u64,
}

/// The keys that were asked about most. Every key that makes up more than one in [`HELD`] of all
/// requests is among them.
#[derive(Debug, Clone, Default)]
pub struct Hottest {
    /// By the key's digest, so that a key that is known costs no copy of its texts. Two keys that
    /// shared one would be counted as one; the digest is keyed anew in each process.
    places: HashMap<u64, usize>,
    entries: Vec<Entry>,
    /// Places that held `floor` when they were gathered.
    coldest: Vec<usize>,
    /// No entry was asked about less often.
    floor: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    digest: u64,
    key: Key,
    heat: Heat,
}

// === impl Hottest ===

impl Hottest {
    /// Counts one request for the key with this digest; `key` spells it if it is new.
    pub fn count(&mut self, digest: u64, denied: bool, key: impl FnOnce() -> Key) {
        let known = self.places.get(&digest).copied();
        let place = known.unwrap_or_else(|| self.place(digest, key));
        if let Some(Entry { heat, .. }) = self.entries.get_mut(place) {
            heat.asked += 1;
            heat.denied += u64::from(denied);
        }
    }

    /// All that are held.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, Heat)> {
        self.entries.iter().map(|entry| (&entry.key, entry.heat))
    }

    /// Of a key that is new: a free place, or the coldest one's, count and all.
    fn place(&mut self, digest: u64, key: impl FnOnce() -> Key) -> usize {
        let key = key();
        let mut place = self.entries.len();
        if place < HELD {
            self.entries.push(Entry { digest, key, heat: Heat::default() });
        } else {
            place = self.coldest();
            if let Some(entry) = self.entries.get_mut(place) {
                self.places.remove(&entry.digest);
                let asked = entry.heat.asked;
                *entry = Entry { digest, key, heat: Heat { asked, denied: 0, doubt: asked } };
            }
        }
        self.places.insert(digest, place);
        place
    }

    /// A place with the least count. Looks at all of them only once the places gathered last are
    /// used up: with a new key in every request that is one look in about two hundred.
    fn coldest(&mut self) -> usize {
        while let Some(place) = self.coldest.pop() {
            if self.entries.get(place).is_some_and(|entry| entry.heat.asked == self.floor) {
                return place;
            }
        }
        let counts = || self.entries.iter().map(|entry| entry.heat.asked);
        self.floor = counts().min().unwrap_or(0);
        let floor = self.floor;
        self.coldest =
            counts().enumerate().filter(|(_, n)| *n == floor).map(|(at, _)| at).collect();
        self.coldest.pop().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u64) -> Key {
        let (tenant, limit) = (String::new(), "p.l".to_owned());
        Key { tenant, kind: "ip", subject: name.to_string(), limit }
    }

    fn asked(hottest: &Hottest, name: u64) -> Option<Heat> {
        hottest.entries().find(|(held, _)| **held == key(name)).map(|(_, heat)| heat)
    }

    /// A million subjects: the memory stays, the sums stay, and who asks most is found.
    #[test]
    fn a_million_keys_take_the_place_of_a_few() {
        let mut hottest = Hottest::default();
        let mut looks = 0;
        for turn in 0..1_000_000 {
            hottest.count(turn, false, || key(turn));
            looks += u64::from(hottest.coldest.len() + 1 == HELD);
            if turn % 100 == 0 {
                hottest.count(u64::MAX, true, || key(u64::MAX));
            }
        }
        assert!(hottest.entries.len() == HELD && hottest.places.len() == HELD);
        assert!(hottest.coldest.capacity() <= 2 * HELD && hottest.entries.capacity() <= 2 * HELD);
        let heat = asked(&hottest, u64::MAX).expect("one in a hundred is held");
        let truth = 10_000;
        assert!(heat.asked >= truth && heat.asked - heat.doubt <= truth, "{heat:?}");
        let sum: u64 = hottest.entries().map(|(_, heat)| heat.asked).sum();
        assert_eq!(sum, 1_010_000, "each request is counted once");
        assert!(looks < 1_000_000 / 100, "{looks}");
    }

    #[test]
    fn the_coldest_gives_way_and_its_count_is_told_as_doubt() {
        let mut hottest = Hottest::default();
        let held = u64::try_from(HELD).expect("small");
        for name in 0..held {
            for _ in 0..=name {
                hottest.count(name, false, || key(name));
            }
        }
        hottest.count(held, true, || key(held));
        let expected = Heat { asked: 2, denied: 1, doubt: 1 };
        assert_eq!((asked(&hottest, held), asked(&hottest, 0)), (Some(expected), None));
        hottest.count(held + 1, false, || key(held + 1));
        let all: Vec<Option<Heat>> =
            [1, held, held + 1].map(|name| asked(&hottest, name)).into_iter().collect();
        assert_eq!(all.iter().flatten().count(), 2, "one of the two that were asked twice");
    }
}
