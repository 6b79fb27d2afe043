//! Owns the file in which events wait while the chain's store takes none: lines with a checksum each, on
//! the disk before they count as accepted. Knows neither stores nor signatures.
//!
//! ```text
//! <CRC-32 of what follows, 8 hex digits> <segment from which ids are looked up> <event>
//! ```
//!
//! Events leave in the order in which they came. The file shrinks when it is empty, or when half of it has left and
//! what comes finds no room behind the rest: until then a gateway that dies begins again with its first line, and the
//! ids keep what was appended already from being appended again. Lines that are damaged are put into a file of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tidegate_policy::audit::record::Event;

use self::mend::Mended;
use super::hold::Hold;

mod mend;

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
    /// As much waits as may.
    #[error("the spool holds {0} bytes, which leaves no room within its maximum")]
    Full(u64),
    /// The disk refuses.
    #[error("the spool cannot be written")]
    Disk(#[from] io::Error),
}

/// The file.
pub struct Spool {
    dir: PathBuf,
    file: File,
    bytes_max: u64,
    /// Where it ends.
    end: u64,
    /// Up to here everything is in the chain.
    done: u64,
    /// So much stood before the file's beginning, and left with what had left.
    gone: u64,
    /// Events that were accepted and cannot be read any more, and were not told yet.
    lost: u64,
    /// What keeps other gateways out of the folder; it lasts as long as anybody can write here.
    _hold: Option<Hold>,
}

// === impl Spool ===

impl Spool {
    /// Opens the file in `dir`, or begins it, and takes out what is damaged. A last line that was cut off by a
    /// crash goes, too: nobody was told that it was accepted.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = mend::opened(&dir.join(NAME))?;
        File::open(dir)?.sync_all()?;
        let dir = dir.to_owned();
        let mut spool =
            Self { dir, file, bytes_max, end: 0, done: 0, gone: 0, lost: 0, _hold: None };
        spool.end = spool.file.metadata()?.len();
        spool.mend()?;
        spool.file.sync_all()?;
        Ok(spool)
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

    /// How many events were lost since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Takes out what cannot be read of what waits; whether there was any.
    fn mend(&mut self) -> io::Result<bool> {
        if mend::is_whole(self.waiting()?)? {
            return Ok(false);
        }
        let dir = self.dir.clone();
        let Mended { file, end, lost } = mend::mend(&dir, self.waiting()?)?;
        (self.file, self.end, self.done) = (file, end, 0);
        self.lost = self.lost.saturating_add(lost);
        Ok(true)
    }

    fn waiting(&mut self) -> io::Result<impl BufRead> {
        let length = self.bytes();
        self.file.seek(SeekFrom::Start(self.done))?;
        Ok(BufReader::new((&mut self.file).take(length)))
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
        if self.bytes().saturating_add(length) > self.bytes_max {
            return Err(SpoolError::Full(self.bytes()));
        }
        // So the file is never larger than one and a half times what may wait.
        if self.end.saturating_add(length) > self.bytes_max && self.done >= self.bytes_max / 2 {
            self.shrink();
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

    /// Takes what has left out of the file. Where the disk has no room for a second one it stays as it is.
    fn shrink(&mut self) {
        let dir = self.dir.clone();
        let shrunk = self.waiting().and_then(|waiting| mend::shrunk(&dir, waiting));
        match shrunk {
            Ok((file, end)) => {
                self.gone = self.gone.saturating_add(self.done);
                (self.file, self.end, self.done) = (file, end, 0);
            }
            Err(error) => tracing::warn!(%error, "the audit spool could not be made smaller"),
        }
    }

    /// The next events, at most `count`, and where they end: for [`Spool::pass`].
    pub fn peek(&mut self, count: usize) -> io::Result<(Vec<Waiting>, u64)> {
        loop {
            if let Some(read) = self.read(count)? {
                return Ok(read);
            }
            // It was whole when it was opened.
            if !self.mend()? {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the disk changes its mind",
                ));
            }
        }
    }

    /// `None` where a line is damaged.
    fn read(&mut self, count: usize) -> io::Result<Option<(Vec<Waiting>, u64)>> {
        let (mut waiting, mut at) = (Vec::new(), self.done.saturating_add(self.gone));
        let mut reader = self.waiting()?;
        while waiting.len() < count {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            let Some(one) = line.strip_suffix(b"\n").and_then(parse) else { return Ok(None) };
            waiting.push(one);
        }
        Ok(Some((waiting, at)))
    }

    /// Everything before `at` is in the chain.
    pub fn pass(&mut self, at: u64) -> io::Result<()> {
        // The file may be a smaller one since.
        self.done = at.saturating_sub(self.gone).min(self.end);
        if !self.is_empty() {
            return Ok(());
        }
        self.file.set_len(0)?;
        self.file.sync_all()?;
        (self.end, self.done) = (0, 0);
        Ok(())
    }
}

/// A line without its end.
fn parse(line: &[u8]) -> Option<Waiting> {
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

#[cfg(test)]
mod tests;
