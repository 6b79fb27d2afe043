//! Owns what a gateway appended last, byte by byte: what it can give back to a store that lost it. Knows no
//! store.
//!
//! It is in memory, and in two files beside the spool, so that a gateway that is killed together with the
//! store can give it back as well. The files are not forced to the disk: that would cost more than the append.
//! One append is a line of its place, then its records:
//!
//! ```text
//! <seq> <hash> <segment> <first of it> <segment of the records> <segment from which ids are looked up> <hash> <records>
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tidegate_policy::audit::append::{Append, Place};
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::{Event, Head, Line, Record};

use super::private;

/// Records that are kept: what four busy gateways append in the seconds that a store can lose.
const RECORDS_MAX: usize = 20_000;
/// Events of lost replies that are kept besides.
const LOOSE_MAX: usize = 2_000;
const NAME: &str = "recent";
const NAME_BEFORE: &str = "recent-before";
const NAME_NEXT: &str = "recent.next";
const NAME_NEW: &str = "recent.new";
/// Where both files are to be written anew and the disk takes neither, it is asked again each time after so many appends,
const STALE_EACH: u64 = 32;
/// and after that long: there may be no more appends.
const CATCH_UP_US: u64 = 30_000_000;

/// One append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Where the chain ended before it.
    pub start: Place,
    /// The segment that the records went into.
    pub segment: u64,
    /// From which segment on ids were looked up.
    pub ids_from: u64,
    /// The last record's hash.
    pub hash: Hash,
    /// The records.
    pub lines: Vec<Line>,
}

/// The last appends, in the chain's order.
#[derive(Debug)]
pub struct Ring {
    dir: PathBuf,
    file: File,
    in_file: usize,
    /// Up to here the file is whole; behind it may stand half of an append that the disk did not take.
    whole: u64,
    is_torn: bool,
    appends: VecDeque<Appended>,
    records: usize,
    /// So many of the last ones are in no file, since the disk took none.
    owed: usize,
    /// Whether both files have to be written anew before anything else, and how often that was due since.
    stale: Option<u64>,
    /// When it was asked last without an append, in µs of the clock.
    asked_us: u64,
    /// Events that were found in the chain, appended nobody remembers where: with the segment from which
    /// their ids are to be looked up.
    loose: VecDeque<(u64, Event)>,
}

// === impl Appended ===

impl Appended {
    /// The same append again, where the chain ends at `expected` now.
    pub fn call(&self, expected: Place) -> Append<'_> {
        let Self { segment, ids_from, hash, ref lines, .. } = *self;
        Append { expected, segment, ids_from, hash, lines, refuted: &[] }
    }

    /// The ids of its events.
    pub fn ids(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.id.as_str()).collect()
    }

    /// Where the chain ended with it.
    pub fn end(&self) -> Place {
        let count = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        let Place { head, segment, segment_first } = self.start;
        let first =
            if self.segment == segment { segment_first } else { head.seq.saturating_add(1) };
        let head = Head { seq: head.seq.saturating_add(count), hash: self.hash };
        Place { head, segment: self.segment, segment_first: first }
    }

    fn write(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Place { head, segment, segment_first } = self.start;
        let Self { segment: own, ids_from, hash, lines, .. } = self;
        let (seq, before, count) = (head.seq, head.hash, lines.len());
        writeln!(out, "{seq} {before} {segment} {segment_first} {own} {ids_from} {hash} {count}")?;
        for line in lines {
            out.extend_from_slice(&line.bytes);
            out.push(b'\n');
        }
        Ok(())
    }

    /// The next append of a file; `None` at its end, and where a crash cut it off.
    fn read(lines: &mut impl Iterator<Item = io::Result<String>>) -> Option<Self> {
        let first = lines.next()?.ok()?;
        let words: Vec<&str> = first.split(' ').collect();
        let [seq, before, segment, segment_first, own, ids_from, hash, count] = words.as_slice()
        else {
            return None;
        };
        let head = Head { seq: seq.parse().ok()?, hash: Hash::from_hex(before)? };
        let (segment, segment_first) = (segment.parse().ok()?, segment_first.parse().ok()?);
        let hash = Hash::from_hex(hash)?;
        let mut end = head;
        let mut records = Vec::new();
        for _ in 0..count.parse::<usize>().ok()? {
            let bytes = lines.next()?.ok()?.into_bytes();
            let record = Record::read(&bytes).ok().filter(|record| record.prev == end.hash)?;
            end = Head { seq: record.seq, hash: record.hash };
            records.push(Line { id: record.id, bytes });
        }
        let start = Place { head, segment, segment_first };
        let (segment, ids_from) = (own.parse().ok()?, ids_from.parse().ok()?);
        (end.hash == hash).then_some(Self { start, segment, ids_from, hash, lines: records })
    }
}

// === impl Ring ===

impl Ring {
    /// Reads what a run before this one appended, from that folder.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut ring = Self {
            dir: dir.to_owned(),
            file: next(dir)?,
            in_file: 0,
            whole: 0,
            is_torn: false,
            appends: VecDeque::new(),
            records: 0,
            owed: 0,
            stale: None,
            asked_us: 0,
            loose: VecDeque::new(),
        };
        for name in [NAME_BEFORE, NAME] {
            let file = match File::open(dir.join(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut lines = BufReader::new(file).lines();
            while let Some(appended) = Appended::read(&mut lines) {
                ring.keep(appended);
            }
        }
        // Without what a crash cut off. Where the disk is full they stay as they are: decisions have to go on.
        if let Err(error) = ring.write_all() {
            (ring.owed, ring.stale) = (ring.appends.len(), Some(0));
            tracing::error!(
                critical = true, folder = %dir.display(), %error,
                "the folder of the audit chain takes nothing: what is appended is only in memory and in the store"
            );
        }
        Ok(ring)
    }

    /// Keeps an append; the oldest ones go. What the disk does not take now it is given again with the next one.
    pub fn push(&mut self, appended: Appended) {
        self.keep(appended);
        let is_told = self.owed > 0;
        self.owed = self.owed.saturating_add(1).min(self.appends.len());
        if let Err(error) = self.write_owed()
            && !is_told
        {
            tracing::warn!(%error, owed = self.owed, "what was appended to the audit chain could not be noted");
        }
    }

    fn keep(&mut self, appended: Appended) {
        self.records = self.records.saturating_add(appended.lines.len());
        self.appends.push_back(appended);
        while self.records > RECORDS_MAX
            && let Some(old) = self.appends.pop_front()
        {
            self.records = self.records.saturating_sub(old.lines.len());
        }
    }

    /// Gives the disk what it did not take, if that was not tried for half a minute. Now is in µs of a clock that never
    /// steps back.
    pub fn catch_up_at(&mut self, now: u64) {
        if now.saturating_sub(self.asked_us) >= CATCH_UP_US {
            self.asked_us = now;
            self.catch_up();
        }
    }

    /// Gives the disk what it did not take: this may be the end.
    pub fn catch_up(&mut self) {
        let done = if self.stale.is_some() { self.write_all() } else { self.write_owed() };
        if let Err(error) = done {
            tracing::debug!(%error, owed = self.owed, "the disk still takes nothing of the audit chain");
        }
    }

    /// In order, and one by one: a disk that takes nothing is not asked for much.
    fn write_owed(&mut self) -> io::Result<()> {
        if let Some(due) = &mut self.stale {
            *due = due.saturating_add(1);
            if !due.is_multiple_of(STALE_EACH) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            return self.write_all();
        }
        while let Some(first) = self.appends.len().checked_sub(self.owed)
            && let Some(appended) = self.appends.get(first)
        {
            let mut bytes = Vec::new();
            appended.write(&mut bytes)?;
            let count = appended.lines.len();
            self.write(&bytes, count)?;
            self.owed = self.owed.saturating_sub(1);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], count: usize) -> io::Result<()> {
        if self.in_file >= RECORDS_MAX {
            self.begin_file()?;
        }
        if self.is_torn {
            // Whoever reads the file would stop at it.
            self.file.set_len(self.whole)?;
            self.is_torn = false;
        }
        self.file.seek(SeekFrom::Start(self.whole))?;
        self.is_torn = true;
        self.file.write_all(bytes)?;
        self.is_torn = false;
        self.whole = self.whole.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.in_file = self.in_file.saturating_add(count);
        Ok(())
    }

    fn begin_file(&mut self) -> io::Result<()> {
        // Before anything is moved: the gateway may have no handle left.
        let file = next(&self.dir)?;
        match fs::rename(self.dir.join(NAME), self.dir.join(NAME_BEFORE)) {
            // It was moved, and what should follow it was not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        self.follow_with(file)
    }

    /// Both files anew.
    fn write_all(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.appends.iter().try_for_each(|appended| appended.write(&mut bytes))?;
        let (new, before) = (self.dir.join(NAME_NEW), self.dir.join(NAME_BEFORE));
        let written = private::create(&new).and_then(|mut file| file.write_all(&bytes));
        let file = written
            .and_then(|()| next(&self.dir))
            .and_then(|file| fs::rename(&new, before).map(|()| file));
        // What was begun takes room that others may need.
        let file = file.inspect_err(|_| drop(fs::remove_file(&new)))?;
        (self.owed, self.stale) = (0, None);
        self.follow_with(file)
    }

    fn follow_with(&mut self, file: File) -> io::Result<()> {
        fs::rename(self.dir.join(NAME_NEXT), self.dir.join(NAME))?;
        (self.file, self.in_file, self.whole, self.is_torn) = (file, 0, 0, false);
        Ok(())
    }

    /// The append that came right behind that place.
    pub fn behind(&self, place: Place) -> Option<&Appended> {
        // The newest first: it is what came of the chain.
        self.appends.iter().rev().find(|kept| kept.start.head == place.head)
    }

    /// Keeps an event that was found in the chain.
    pub fn loosen(&mut self, ids_from: u64, event: Event) {
        if self.loose.len() >= LOOSE_MAX {
            self.loose.pop_front();
        }
        self.loose.push_back((ids_from, event));
    }

    /// All that are kept, in order.
    pub fn appends(&self) -> impl Iterator<Item = &Appended> {
        self.appends.iter()
    }

    /// The events of the appends at these places, and those that were found in the chain: each with the
    /// segment from which its id is to be looked up.
    pub fn events_of(&self, lost: &BTreeSet<usize>) -> Vec<(u64, Event)> {
        let appends = lost.iter().filter_map(|index| self.appends.get(*index));
        let lines = appends.flat_map(|one| one.lines.iter().map(|line| (one.ids_from, line)));
        // They were events before they were records.
        let each =
            lines.filter_map(|(from, line)| Some((from, Event::of_record(&line.bytes).ok()?)));
        self.loose.iter().cloned().chain(each).collect()
    }

    /// The same ones are kept elsewhere: takes them out.
    pub fn forget(&mut self, lost: &BTreeSet<usize>) {
        let owed_from = self.appends.len().saturating_sub(self.owed);
        self.owed = self.owed.saturating_sub(lost.range(owed_from..).count());
        let mut index = 0..;
        self.appends.retain(|_| !index.next().is_some_and(|at| lost.contains(&at)));
        self.records = self.appends.iter().map(|one| one.lines.len()).sum();
        self.loose.clear();
        if let Err(error) = self.write_all() {
            tracing::warn!(%error, "what the audit store lost could not be taken off the disk");
        }
    }
}

/// The file that takes the place of the one that is full.
fn next(dir: &Path) -> io::Result<File> {
    private::create(&dir.join(NAME_NEXT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain_end::tests::{TestSigner, chain, event};
    use tidegate_policy::audit::record::batch;

    fn append(start: Place, ids: &[&str]) -> (Appended, Place) {
        let events: Vec<Event> = ids.iter().map(|id| event(id)).collect();
        let made = batch(&chain(), start.head, &events, &TestSigner(1));
        let hash = made.head.hash;
        let appended = Appended { start, segment: 0, ids_from: 0, hash, lines: made.lines };
        (appended, Place { head: made.head, ..start })
    }

    #[test]
    fn what_was_appended_outlives_the_process_except_for_half_a_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ring = Ring::open(dir.path()).expect("opened");
        let (first, middle) = append(Place::GENESIS, &["a", "b"]);
        let (second, end) = append(middle, &["c"]);
        ring.push(first.clone());
        ring.push(second.clone());
        drop(ring);
        let ring = Ring::open(dir.path()).expect("opened");
        assert_eq!(ring.behind(Place::GENESIS), Some(&first));
        assert_eq!((ring.behind(middle), ring.behind(end)), (Some(&second), None));
        drop(ring);
        // Killed within a write, and somebody else's bytes.
        let path = dir.path().join(NAME_BEFORE);
        let whole = fs::read(&path).expect("read");
        for (length, left) in [(whole.len() - 9, 1), (whole.len() - 1, 2), (60, 0)] {
            fs::write(&path, &whole[..length]).expect("written");
            fs::write(dir.path().join(NAME), "").expect("written");
            assert_eq!(Ring::open(dir.path()).expect("opened").appends.len(), left, "{length}");
        }
    }

    #[test]
    fn what_is_forgotten_is_gone_and_its_events_were_there_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut ring = Ring::open(dir.path()).expect("opened");
        let (first, middle) = append(Place::GENESIS, &["a", "b"]);
        let (second, end) = append(middle, &["c", "d"]);
        let (third, _) = append(end, &["e"]);
        for one in [first, second, third] {
            ring.push(one);
        }
        let lost = BTreeSet::from([1]);
        assert_eq!(ring.events_of(&lost), [(0, event("c")), (0, event("d"))]);
        drop(ring);
        let mut ring = Ring::open(dir.path()).expect("opened");
        assert_eq!((ring.appends.len(), ring.records), (3, 5), "nothing is gone yet");
        ring.forget(&lost);
        for ring in [ring, Ring::open(dir.path()).expect("opened")] {
            assert_eq!((ring.appends.len(), ring.records), (2, 3));
        }
    }

    /// Three appends, of which the first is on the disk.
    fn three(dir: &Path) -> (Ring, [Appended; 3]) {
        let mut ring = Ring::open(dir).expect("opened");
        let (first, middle) = append(Place::GENESIS, &["a", "b"]);
        let (second, end) = append(middle, &["c"]);
        let (third, _) = append(end, &["d"]);
        ring.push(first.clone());
        (ring, [first, second, third])
    }

    fn read_again(dir: &Path) -> Vec<Appended> {
        Ring::open(dir).expect("opened").appends().cloned().collect()
    }

    #[test]
    fn what_the_disk_does_not_take_it_is_given_again_and_nothing_behind_it_is_hidden() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut ring, [first, second, third]) = three(dir.path());
        let mut half = Vec::new();
        second.write(&mut half).expect("written");
        half.truncate(half.len() - 40);
        ring.file.write_all(&half).expect("half of it");
        // One that cannot be written.
        let read_only = File::open(dir.path().join(NAME)).expect("there");
        let disk = std::mem::replace(&mut ring.file, read_only);
        ring.push(second.clone());
        ring.file = disk;
        ring.push(third.clone());
        drop(ring);
        assert_eq!(read_again(dir.path()), [first, second, third]);
    }

    /// A gateway that was killed when it was full has to start all the same.
    #[test]
    fn a_disk_that_is_full_at_the_start_is_given_all_of_it_later() {
        let dir = tempfile::tempdir().expect("a folder");
        let (ring, [first, second, third]) = three(dir.path());
        drop(ring);
        let full = dir.path().join(NAME_NEW);
        fs::create_dir(&full).expect("made");
        let mut ring = Ring::open(dir.path()).expect("it begins");
        ring.push(second.clone());
        drop(ring);
        let mut ring = Ring::open(dir.path()).expect("it begins");
        assert_eq!(ring.appends().collect::<Vec<_>>(), [&first], "what was there still is");
        ring.push(second.clone());
        fs::remove_dir(&full).expect("removed");
        let mut place = second.end();
        let mut expected = vec![first, second];
        for number in 0..STALE_EACH {
            let (next, end) = append(place, &[&format!("e-{number}")]);
            ring.push(next.clone());
            expected.push(next);
            place = end;
        }
        drop((ring, third));
        assert_eq!(read_again(dir.path()), expected);
    }

    /// There may be fewer appends than after which it is asked, or none.
    #[test]
    fn what_a_full_disk_did_not_take_it_is_given_by_time_and_at_the_end_too() {
        for is_end in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let (ring, [first, second, _]) = three(dir.path());
            drop(ring);
            let full = dir.path().join(NAME_NEW);
            fs::create_dir(&full).expect("made");
            let mut ring = Ring::open(dir.path()).expect("it begins");
            ring.push(second.clone());
            ring.catch_up_at(CATCH_UP_US);
            fs::remove_dir(&full).expect("removed");
            ring.catch_up_at(2 * CATCH_UP_US - 1);
            assert!(ring.stale.is_some(), "not all the time");
            if is_end {
                ring.catch_up();
            } else {
                ring.catch_up_at(2 * CATCH_UP_US);
            }
            drop(ring);
            assert_eq!(read_again(dir.path()), [first, second], "at the end: {is_end}");
        }
    }

    #[test]
    fn a_next_file_that_cannot_be_begun_now_is_begun_later() {
        // Before anything was moved, and after one of two was.
        for is_moved in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let (mut ring, [first, second, third]) = three(dir.path());
            ring.in_file = RECORDS_MAX;
            let [name, before, next] =
                [NAME, NAME_BEFORE, NAME_NEXT].map(|name| dir.path().join(name));
            if is_moved {
                fs::rename(&name, &before).expect("moved");
                ring.push(second.clone());
            } else {
                fs::create_dir(&next).expect("made");
                ring.push(second.clone());
                assert!(name.exists());
                fs::remove_dir(&next).expect("removed");
            }
            ring.push(third.clone());
            drop(ring);
            assert_eq!(read_again(dir.path()), [first, second, third], "moved: {is_moved}");
        }
    }
}
