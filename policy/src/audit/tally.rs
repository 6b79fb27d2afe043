//! Owns which of many like events are told each for itself: the first of a kind, subject and window. The rest of
//! a kind is counted, and told when its window is over. An attack must not fill the chain.
//!
//! The filter's workers and the gateway use it, each with its own places, marks and windows.

use alloc::collections::{BTreeMap, BTreeSet};

/// How long a window is, in ms.
pub const WINDOW_MS: u64 = 60_000;

/// What can be one of many.
pub trait Alike: Sized {
    /// Stands for a kind or a likeness: a hash of it.
    type Mark: Ord;

    /// What makes two of them one kind, whomever they are about.
    fn kind(&self, seed: u64) -> Self::Mark;

    /// The same, and what makes two of one kind alike: whom they are about, too.
    fn marks(&self, seed: u64) -> (Self::Mark, Self::Mark);

    /// What is told of it where it is counted: nothing that differs within a kind.
    fn counted(&self) -> Self;

    /// The same where there are too many kinds: what happened, and no names.
    fn other(&self) -> Self;
}

/// What was seen in the window under way.
#[derive(Debug)]
pub struct Tally<T: Alike> {
    places: Places,
    /// Makes marks ones that nobody can prepare for.
    seed: u64,
    /// When the window began, in ms; `None` before the first event.
    began_ms: Option<u64>,
    firsts: BTreeSet<T::Mark>,
    rest: BTreeMap<T::Mark, Rest<T>>,
}

/// How much it holds of one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The most firsts; what is alike to none of them is counted.
    pub firsts: usize,
    /// The most kinds that are counted apart; those beyond it are counted by what happened alone.
    pub kinds: usize,
}

/// What came after the first of its kind.
#[derive(Debug)]
struct Rest<T> {
    like: T,
    count: u64,
}

// === impl Tally ===

impl<T: Alike> Tally<T> {
    /// Nothing was seen.
    pub fn new(places: Places, seed: u64) -> Self {
        let (firsts, rest) = (BTreeSet::new(), BTreeMap::new());
        Self { places, seed, began_ms: None, firsts, rest }
    }

    /// Whether it is the first of its kind and subject, to be told for itself; if not it is counted. The first
    /// event of a window begins it.
    pub fn is_first(&mut self, what: &T, now_ms: u64) -> bool {
        self.began_ms.get_or_insert(now_ms);
        let (kind, likeness) = what.marks(self.seed);
        let is_full = self.firsts.len() >= self.places.firsts;
        if (is_full && !self.firsts.contains(&likeness)) || !self.firsts.insert(likeness) {
            self.count_kind(kind, what);
            return false;
        }
        true
    }

    /// A first was not told after all: the next one like it is a first again.
    pub fn forget(&mut self, what: &T) {
        let (_, likeness) = what.marks(self.seed);
        self.firsts.remove(&likeness);
    }

    /// Counts one more without a look at its subject.
    pub fn count(&mut self, what: &T) {
        self.count_kind(what.kind(self.seed), what);
    }

    fn count_kind(&mut self, kind: T::Mark, what: &T) {
        if let Some(rest) = self.rest.get_mut(&kind) {
            rest.count = rest.count.saturating_add(1);
            return;
        }
        let (kind, like) = if self.rest.len() < self.places.kinds {
            (kind, what.counted())
        } else {
            let other = what.other();
            (other.kind(self.seed), other)
        };
        let rest = self.rest.entry(kind).or_insert(Rest { like, count: 0 });
        rest.count = rest.count.saturating_add(1);
    }

    /// Whether the window is over. A clock that was set back begins a new one as well.
    fn is_over(&self, now_ms: u64) -> bool {
        let over = |began_ms| now_ms < began_ms || now_ms.saturating_sub(began_ms) >= WINDOW_MS;
        self.began_ms.is_some_and(over)
    }

    /// What was counted, once the window is over: each with how many there were and when the window began. What
    /// `take` gives back, since it has no room, is counted on.
    pub fn turn(&mut self, now_ms: u64, take: impl FnMut(T, u64, u64) -> Option<T>) {
        if self.is_over(now_ms) {
            self.close(now_ms, take);
        }
    }

    /// The same now.
    pub fn close(&mut self, now_ms: u64, mut take: impl FnMut(T, u64, u64) -> Option<T>) {
        let Some(began_ms) = self.began_ms.take() else { return };
        self.firsts.clear();
        for (kind, Rest { like, count }) in core::mem::take(&mut self.rest) {
            if let Some(like) = take(like, count, began_ms) {
                self.began_ms = Some(now_ms);
                self.rest.insert(kind, Rest { like, count });
            }
        }
    }

    /// How many events stand here as counts.
    pub fn counted_events(&self) -> u64 {
        self.rest.values().map(|rest| rest.count).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A kind and whom it is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Seen(u8, u8);

    const OTHER: u8 = u8::MAX;

    impl Alike for Seen {
        type Mark = (u8, Option<u8>);

        fn kind(&self, _seed: u64) -> Self::Mark {
            (self.0, None)
        }

        fn marks(&self, seed: u64) -> (Self::Mark, Self::Mark) {
            (self.kind(seed), (self.0, Some(self.1)))
        }

        fn counted(&self) -> Self {
            Self(self.0, 0)
        }

        fn other(&self) -> Self {
            Self(OTHER, 0)
        }
    }

    const PLACES: Places = Places { firsts: 3, kinds: 2 };

    #[test]
    fn a_window_begins_with_its_first_event_and_a_clock_that_is_set_back_ends_it() {
        for (later_ms, over) in [(WINDOW_MS + 999, false), (WINDOW_MS + 1_000, true), (999, true)] {
            let mut tally = Tally::new(PLACES, 0);
            assert!(tally.is_first(&Seen(1, 1), 1_000));
            assert!(!tally.is_first(&Seen(1, 1), 1_001));
            let mut told = Vec::new();
            tally.turn(later_ms, |seen, count, began_ms| {
                told.push((seen, count, began_ms));
                None
            });
            let expected = over.then_some((Seen(1, 0), 1, 1_000));
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{later_ms}");
            assert_eq!(tally.is_first(&Seen(1, 1), later_ms), over);
        }
    }

    proptest! {
        /// Told for itself or counted: each event once, whatever the places and whoever has no room.
        #[test]
        fn every_event_is_told_once(
            seen in proptest::collection::vec((0..5_u8, 0..5_u8, 0..30_000_u64, any::<bool>()), 1..200)
        ) {
            let mut tally = Tally::new(PLACES, 0);
            let (mut now_ms, mut firsts, mut told) = (0, 0_u64, 0_u64);
            for &(kind, subject, later_ms, has_room) in &seen {
                now_ms += later_ms;
                let (mut counts, mut firsts_now) = (0, 0);
                tally.turn(now_ms, |seen, count, _| {
                    counts += 1;
                    if has_room {
                        told += count;
                        return None;
                    }
                    Some(seen)
                });
                // Those of the places, and one of all others.
                prop_assert!(counts <= PLACES.kinds + 1);
                firsts_now += u64::from(tally.is_first(&Seen(kind, subject), now_ms));
                firsts += firsts_now;
                prop_assert!(tally.firsts.len() <= PLACES.firsts);
            }
            tally.close(now_ms, |_, count, _| {
                told += count;
                None
            });
            prop_assert_eq!(firsts + told, u64::try_from(seen.len()).expect("few"));
        }
    }
}
