//! Owns the file in which events wait while the chain's store takes none: lines with a checksum each, on
//! the disk before they count as accepted. Knows neither stores nor signatures.
//!
//! ```text
//! <CRC-32 of what follows, 8 hex digits> <segment from which ids are looked up> <event>
//! ```
//!
//! Events leave in the order in which they came. The file shrinks only when it is empty: until then a
//! gateway that dies begins again with its first line, and the ids keep what was appended already from
//! being appended again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tidegate_policy::audit::record::Event;

use super::hold::Hold;

const NAME: &str = "spool.jsonl";
const CRC_LEN: usize = 8;

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The segment in which the chain was when the event was first tried.
    pub ids_from: u64,
    /// The event.
    pub event: Event,
}

/// Why an event cannot wait.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file is as large as it may be.
    #[error("the spool holds {0} bytes, its maximum")]
    Full(u64),
    /// The disk refuses.
    #[error("the spool cannot be written")]
    Disk(#[from] io::Error),
}

/// The file.
pub struct Spool {
    path: PathBuf,
    file: File,
    bytes_max: u64,
    /// Where it ends.
    end: u64,
    /// Up to here everything is in the chain.
    done: u64,
    /// Lines whose checksum is wrong.
    bad: u64,
    /// What keeps other gateways out of the folder; it lasts as long as anybody can write here.
    _hold: Option<Hold>,
}

// === impl Spool ===

impl Spool {
    /// Opens the file in `dir`, or begins it. A last line that was cut off by a crash goes: nobody was
    /// told that it was accepted.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(NAME);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        File::open(dir)?.sync_all()?;
        let end = whole_lines(&mut file)?;
        file.set_len(end)?;
        file.sync_all()?;
        Ok(Self { path, file, bytes_max, end, done: 0, bad: 0, _hold: None })
    }

    /// Keeps the folder for as long as it lives itself.
    pub fn held(self, hold: Hold) -> Self {
        Self { _hold: Some(hold), ..self }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.done == self.end
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.done)
    }

    /// How many lines could not be read.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    /// Adds all events or none, and returns when they are on the disk.
    pub fn push(&mut self, waiting: &[Waiting]) -> Result<(), SpoolError> {
        let mut lines = Vec::new();
        for Waiting { ids_from, event } in waiting {
            let rest = [format!("{ids_from} ").as_bytes(), &event.bytes()].concat();
            lines.extend(format!("{:08x} ", crc32fast::hash(&rest)).into_bytes());
            lines.extend(rest);
            lines.push(b'\n');
        }
        let length = u64::try_from(lines.len()).unwrap_or(u64::MAX);
        if self.end.saturating_add(length) > self.bytes_max {
            return Err(SpoolError::Full(self.end));
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a batch must not stand before the next one.
            self.file.set_len(self.end)?;
            return Err(error.into());
        }
        self.end = self.end.saturating_add(length);
        Ok(())
    }

    /// The next events, at most `count`, and where they end: for [`Spool::pass`]. Lines that cannot be read
    /// are counted and stepped over.
    pub fn peek(&mut self, count: usize) -> io::Result<(Vec<Waiting>, u64)> {
        self.file.seek(SeekFrom::Start(self.done))?;
        let mut reader = BufReader::new((&mut self.file).take(self.end.saturating_sub(self.done)));
        let (mut waiting, mut at) = (Vec::new(), self.done);
        while waiting.len() < count {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            match parse(&line) {
                Some(one) => waiting.push(one),
                None => {
                    self.bad = self.bad.saturating_add(1);
                    tracing::error!(
                        file = %self.path.display(), ends_at = at,
                        "a line of the audit spool is damaged; the file will be kept"
                    );
                }
            }
        }
        Ok((waiting, at))
    }

    /// Everything before `at` is in the chain. The file that held damaged lines is kept under another
    /// name.
    pub fn pass(&mut self, at: u64) -> io::Result<()> {
        self.done = at.min(self.end);
        if !self.is_empty() {
            return Ok(());
        }
        if self.bad > 0 {
            let mut kept = self.path.clone();
            kept.set_extension(format!("damaged-{}", std::process::id()));
            std::fs::copy(&self.path, &kept)?;
            self.bad = 0;
        }
        self.file.set_len(0)?;
        self.file.sync_all()?;
        (self.end, self.done) = (0, 0);
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<Waiting> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, rest) = line.split_at_checked(CRC_LEN)?;
    let rest = rest.strip_prefix(b" ")?;
    if crc != format!("{:08x}", crc32fast::hash(rest)).as_bytes() {
        return None;
    }
    let space = rest.iter().position(|byte| *byte == b' ')?;
    let (from, event) = rest.split_at_checked(space)?;
    let ids_from = std::str::from_utf8(from).ok()?.parse().ok()?;
    Some(Waiting { ids_from, event: Event::read(event.strip_prefix(b" ")?).ok()? })
}

/// Where the last whole line ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let (mut end, mut at) = (0_u64, 0_u64);
    let mut reader = BufReader::new(file);
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(end);
        }
        let length = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        if let Some(last) = chunk.iter().rposition(|byte| *byte == b'\n') {
            end = at.saturating_add(length(last)).saturating_add(1);
        }
        let size = chunk.len();
        at = at.saturating_add(length(size));
        reader.consume(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(number: u64) -> Waiting {
        let text = format!(
            r#"{{"action":"admin","actor":"a","detail":"x\ny","id":"e-{number}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
        );
        Waiting { ids_from: number, event: Event::read(text.as_bytes()).expect("an event") }
    }

    fn all(numbers: std::ops::Range<u64>) -> Vec<Waiting> {
        numbers.map(waiting).collect()
    }

    #[test]
    fn events_leave_in_order_and_survive_a_restart() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
        assert!(spool.is_empty());
        spool.push(&all(0..3)).expect("pushed");
        spool.push(&all(3..5)).expect("pushed");
        let (first, at) = spool.peek(2).expect("read");
        assert_eq!(first, all(0..2));
        spool.pass(at).expect("passed");
        assert_eq!(spool.peek(9).expect("read").0, all(2..5));
        // It dies: what had passed comes again, and nothing is missing.
        let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
        let (again, at) = spool.peek(9).expect("read");
        assert_eq!(again, all(0..5));
        spool.pass(at).expect("passed");
        assert!(spool.is_empty());
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).expect("there").len(), 0);
        spool.push(&all(5..6)).expect("pushed");
        assert_eq!(spool.peek(9).expect("read").0, all(5..6));
    }

    #[test]
    fn a_last_line_that_was_cut_off_goes_and_a_damaged_one_is_kept_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(NAME);
        Spool::open(dir.path(), 10_000).expect("opened").push(&all(0..3)).expect("pushed");
        let mut bytes = std::fs::read(&path).expect("read");
        let line = bytes.len() / 3;
        bytes[line + 60] ^= 1;
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, &bytes).expect("written");
        let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
        let (left, at) = spool.peek(9).expect("read");
        assert_eq!((left, spool.bad()), (all(0..1), 1));
        spool.pass(at).expect("passed");
        let names = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!((spool.is_empty(), names), (true, 2));
    }

    #[test]
    fn a_full_spool_takes_all_or_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(dir.path(), 400).expect("opened");
        spool.push(&all(0..1)).expect("fits");
        assert!(matches!(spool.push(&all(1..9)), Err(SpoolError::Full(_))));
        spool.push(&all(9..10)).expect("fits");
        assert_eq!(spool.peek(9).expect("read").0, [all(0..1), all(9..10)].concat());
    }
}
