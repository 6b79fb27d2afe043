//! Owns one append to a chain's store, the twin of `lua/audit_append.lua`: the same step on a shelf in
//! memory. Knows neither records' content nor keys' spelling.
//!
//! A chain's records lie in segments, numbered from 0. Ids are kept per segment, so that whole segments
//! can go once they are archived.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::hash::Hash;
use super::record::{Head, Line};

/// Where a chain ends in its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The last record.
    pub head: Head,
    /// The segment in which it lies.
    pub segment: u64,
    /// The number of that segment's first record; `head.seq + 1` while it is empty.
    pub segment_first: u64,
}

/// What is to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Append<'a> {
    /// Where the caller believes the chain to end.
    pub expected: Place,
    /// The segment for these records: the expected one or the one after it.
    pub segment: u64,
    /// Ids are looked up in this segment and all later ones.
    pub ids_from: u64,
    /// The last record's hash.
    pub hash: Hash,
    /// The records.
    pub lines: &'a [Line],
    /// Whatever the ids say: these are not of the event.
    pub refuted: &'a [Noted],
}

/// That an event's record is noted to be in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    /// Which of the records, from 0.
    pub index: usize,
    /// The number under which its event is noted.
    pub seq: u64,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All are appended.
    Done(Place),
    /// Nothing is: the chain ends elsewhere, with that record; it is empty where that lies in another segment than the
    /// one that was named.
    Moved(Place, Vec<u8>),
    /// Nothing is: some of the events are noted to be in the chain already.
    Duplicates(Place, Vec<Noted>),
    /// Nothing is: the segment's list holds that many records, and the head counts others. Only records that lie there
    /// already are appended then.
    Torn(Place, u64),
}

/// A chain in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// Where it ends.
    pub place: Place,
    /// The records by segment.
    pub segments: BTreeMap<u64, Vec<Vec<u8>>>,
    /// The numbers of the events by segment and id.
    pub ids: BTreeMap<u64, BTreeMap<String, u64>>,
}

// === impl Place ===

impl Place {
    /// The end of a chain without records.
    pub const GENESIS: Self = Self { head: Head::GENESIS, segment: 0, segment_first: 1 };

    /// How many records the segment holds.
    pub fn segment_len(&self) -> u64 {
        self.head.seq.saturating_add(1).saturating_sub(self.segment_first)
    }
}

impl Append<'_> {
    /// Where a chain that ended at `before` ends afterwards.
    fn after(&self, before: Place) -> Place {
        let count = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        let Place { head, segment, segment_first } = before;
        Place {
            head: Head { seq: head.seq.saturating_add(count), hash: self.hash },
            segment: self.segment,
            segment_first: if self.segment == segment {
                segment_first
            } else {
                head.seq.saturating_add(1)
            },
        }
    }
}

// === impl Shelf ===

impl Default for Shelf {
    fn default() -> Self {
        Self { place: Place::GENESIS, segments: BTreeMap::new(), ids: BTreeMap::new() }
    }
}

impl Shelf {
    /// Appends all or nothing. The head comes first, since most appends that are not done have lost a race:
    /// ids are looked up where it is the expected one, so that an append whose reply was lost is found when
    /// it is repeated behind the chain's end.
    pub fn append(&mut self, append: &Append<'_>) -> Outcome {
        let Place { head, segment, .. } = append.expected;
        if (self.place.head, self.place.segment) != (head, segment) {
            let is_here = self.place.segment == append.segment;
            let records = self.segments.get(&append.segment).filter(|_| is_here);
            let last = records.and_then(|records| records.last()).cloned();
            return Outcome::Moved(self.place, last.unwrap_or_default());
        }
        let records = self.segments.get(&append.segment).map_or(&[][..], Vec::as_slice);
        // None where the head says that its segment begins behind the next record.
        let counted = if segment == append.segment {
            let behind = self.place.head.seq.saturating_add(1);
            behind.checked_sub(self.place.segment_first)
        } else {
            Some(0)
        };
        let counted = counted.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let is_torn = Some(records.len()) != counted;
        let behind = counted.and_then(|counted| records.get(counted..)).unwrap_or_default();
        if is_torn && !starts_with(behind, append.lines) {
            return Outcome::Torn(self.place, u64::try_from(records.len()).unwrap_or(u64::MAX));
        }
        // Of records that are there the ids are, too.
        let later = self.ids.range(append.ids_from..=append.segment).rev().filter(|_| !is_torn);
        let noted = later.flat_map(|(_, ids)| {
            let seqs = append.lines.iter().enumerate().map(|(at, line)| (at, ids.get(&line.id)));
            seqs.filter_map(|(index, seq)| Some(Noted { index, seq: *seq? }))
        });
        // No record of this chain has a number that is still to come: it was cut off, or never was.
        let noted = noted.filter(|noted| noted.seq <= self.place.head.seq);
        let twice: Vec<Noted> = noted.filter(|noted| !append.refuted.contains(noted)).collect();
        if !twice.is_empty() {
            return Outcome::Duplicates(self.place, twice);
        }
        let records = self.segments.entry(append.segment).or_default();
        let ids = self.ids.entry(append.segment).or_default();
        let mut seq = self.place.head.seq;
        for line in append.lines {
            seq = seq.saturating_add(1);
            if !is_torn {
                records.push(line.bytes.clone());
            }
            ids.insert(line.id.clone(), seq);
        }
        self.place = append.after(self.place);
        Outcome::Done(self.place)
    }
}

fn starts_with(records: &[Vec<u8>], lines: &[Line]) -> bool {
    let mut pairs = records.iter().zip(lines);
    records.len() >= lines.len() && pairs.all(|(record, line)| *record == line.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::vec;

    fn line(id: &str) -> Line {
        Line { id: id.to_owned(), bytes: id.as_bytes().to_vec() }
    }

    fn append<'a>(expected: Place, segment: u64, lines: &'a [Line]) -> Append<'a> {
        let hash = Hash::of(&[lines[0].id.as_bytes(), &expected.head.hash.0]);
        let ids_from = segment.saturating_sub(1);
        Append { expected, segment, ids_from, hash, lines, refuted: &[] }
    }

    fn noted(pairs: &[(usize, u64)]) -> Vec<Noted> {
        pairs.iter().map(|&(index, seq)| Noted { index, seq }).collect()
    }

    #[test]
    fn all_or_nothing_and_nothing_twice() {
        let mut shelf = Shelf::default();
        let ab = [line("a"), line("b")];
        let first = append(Place::GENESIS, 0, &ab);
        let place = Place { head: Head { seq: 2, hash: first.hash }, ..Place::GENESIS };
        assert_eq!(shelf.append(&first), Outcome::Done(place));
        let before = shelf.clone();
        // Its reply was lost.
        assert_eq!(shelf.append(&first), Outcome::Moved(place, b"b".to_vec()));
        let again = append(place, 0, &ab);
        assert_eq!(shelf.append(&again), Outcome::Duplicates(place, noted(&[(0, 1), (1, 2)])));
        // Somebody was faster.
        let c = [line("c")];
        assert_eq!(
            shelf.append(&append(Place::GENESIS, 0, &c)),
            Outcome::Moved(place, b"b".to_vec())
        );
        let elsewhere = append(Place::GENESIS, 1, &c);
        assert_eq!(shelf.append(&elsewhere), Outcome::Moved(place, vec![]));
        let bc = [line("b"), line("c")];
        assert_eq!(
            shelf.append(&append(place, 0, &bc)),
            Outcome::Duplicates(place, noted(&[(0, 2)]))
        );
        assert_eq!(shelf, before);
        // A new segment begins.
        let third = append(place, 1, &c);
        let Outcome::Done(place) = shelf.append(&third) else { panic!("{shelf:?}") };
        assert_eq!((place.segment, place.segment_first, place.segment_len()), (1, 3, 1));
        assert_eq!(
            shelf.append(&append(place, 1, &bc)),
            Outcome::Duplicates(place, noted(&[(1, 3), (0, 2)]))
        );
        // Two segments on, what is not looked for is not found.
        let d = [line("d")];
        let Outcome::Done(place) = shelf.append(&append(place, 2, &d)) else { panic!("{shelf:?}") };
        let a = [line("a")];
        let far = Append { ids_from: 0, ..append(place, 2, &a) };
        assert_eq!(shelf.append(&far), Outcome::Duplicates(place, noted(&[(0, 1)])));
        assert!(matches!(shelf.append(&append(place, 2, &a)), Outcome::Done(_)));
    }

    /// Whoever writes to the store may note an event as appended that is not.
    #[test]
    fn what_is_refuted_counts_as_not_noted() {
        let head = Head { seq: 9, hash: Hash::of(&[b"ninth"]) };
        let place = Place { head, segment: 1, segment_first: 10 };
        let mut shelf = Shelf { place, ..Shelf::default() };
        let ab = [line("a"), line("b")];
        for (segment, seq) in [(0, 7), (1, 9)] {
            shelf.ids.entry(segment).or_default().insert("b".to_owned(), seq);
        }
        // Nothing can be under a number that is still to come.
        shelf.ids.entry(0).or_default().insert("a".to_owned(), 10);
        let mut append = append(place, 1, &ab);
        let both = noted(&[(1, 9), (1, 7)]);
        assert_eq!(shelf.append(&append), Outcome::Duplicates(place, both.clone()));
        append.refuted = &both[..1];
        let other = Outcome::Duplicates(place, both[1..].to_vec());
        assert_eq!(shelf.append(&append), other);
        append.refuted = &both;
        let Outcome::Done(place) = shelf.append(&append) else { panic!("{shelf:?}") };
        assert_eq!((place.head.seq, shelf.ids[&1]["b"]), (11, 11));
    }

    /// Somebody set the head back, or took it away, and left the records.
    #[test]
    fn only_what_lies_behind_the_head_already_is_appended_there() {
        let mut shelf = Shelf::default();
        let (ab, cd, e) = ([line("a"), line("b")], [line("c"), line("d")], [line("e")]);
        let mut places = vec![Place::GENESIS];
        for (segment, lines) in [(0, &ab[..]), (0, &cd[..]), (1, &e[..])] {
            let append = append(places[places.len() - 1], segment, lines);
            let Outcome::Done(place) = shelf.append(&append) else { panic!("{shelf:?}") };
            places.push(place);
        }
        let whole = shelf.clone();
        let x = [line("x")];
        for (to, segment, held) in [(0, 0, 4), (1, 0, 4), (2, 1, 1)] {
            shelf.place = places[to];
            let torn = Outcome::Torn(places[to], held);
            assert_eq!(shelf.append(&append(places[to], segment, &x)), torn, "{to}");
        }
        // A part of what lies there, and more than that.
        shelf.place = places[1];
        let (d, cde) = ([line("d")], [line("c"), line("d"), line("e")]);
        for lines in [&d[..], &cde] {
            let append = append(places[1], 0, lines);
            assert_eq!(shelf.append(&append), Outcome::Torn(places[1], 4));
        }
        shelf.place = places[0];
        // Whoever took the head took ids, too.
        shelf.ids.clear();
        for (segment, lines) in [(0, &ab[..]), (0, &cd[..]), (1, &e[..])] {
            let append = append(shelf.place, segment, lines);
            assert!(matches!(shelf.append(&append), Outcome::Done(_)), "{shelf:?}");
        }
        assert_eq!(shelf, whole);
        // The head says that its segment begins behind the next record.
        let place = Place { segment: 2, segment_first: 7, ..places[3] };
        shelf.place = place;
        assert_eq!(shelf.append(&append(place, 2, &x)), Outcome::Torn(place, 0));
        shelf.place = places[3];
        // Records are missing that the head counts.
        shelf.segments.insert(1, vec![]);
        let append = append(places[3], 1, &x);
        assert_eq!(shelf.append(&append), Outcome::Torn(places[3], 0));
    }
}
