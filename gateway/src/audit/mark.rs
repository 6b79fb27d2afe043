//! Owns the gateway's own memory of how far the chain had come: a file beside the spool. It is what tells
//! a store that was set back from a new one. Knows neither stores nor signatures.
//!
//! The file is replaced after each append and not forced to the disk: a mark that is a little old still
//! stands for records that have to be in the chain. A second one beside it is forced, and older.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::Head;

use super::private;

const NAME: &str = "high-water";
/// Each time after so many writes a second file is forced to the disk, the first time at once.
const FORCED_EACH: u64 = 1_000;

/// The file.
#[derive(Debug, Clone)]
pub struct Mark {
    path: PathBuf,
    written: Arc<AtomicU64>,
}

// === impl Mark ===

impl Mark {
    /// In that folder.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join(NAME), written: Arc::default() }
    }

    fn forced(&self) -> PathBuf {
        self.path.with_extension("forced")
    }

    /// What it says; `None` if there is none yet. A file that cannot be read is an error and no new
    /// beginning.
    pub fn read(&self) -> io::Result<Option<Place>> {
        let mut text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if is_blank(&text) {
            // The name reached the disk before the power failed, and what it names did not.
            match std::fs::read_to_string(self.forced()) {
                Ok(forced) => {
                    tracing::warn!(file = %self.path.display(), "the audit mark is empty; an older one is taken");
                    text = forced;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let wrong = || {
            let what = format!(
                "{} holds no place in a chain: compare the chain with an export, then delete the file",
                self.path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        parse(&text).map(Some).ok_or_else(wrong)
    }

    /// Remembers a place.
    pub fn write(&self, place: &Place) -> io::Result<()> {
        let Place { head, segment, segment_first } = place;
        let new = self.path.with_extension("new");
        let text = format!("{} {} {segment} {segment_first}\n", head.seq, head.hash);
        private::create(&new)?.write_all(text.as_bytes())?;
        std::fs::rename(&new, &self.path)?;
        if self.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(FORCED_EACH) {
            let new = self.path.with_extension("forced-new");
            let mut file = private::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&new, self.forced())?;
        }
        Ok(())
    }
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| byte == 0)
}

fn parse(text: &str) -> Option<Place> {
    let words: Vec<&str> = text.strip_suffix('\n')?.split(' ').collect();
    let [seq, hash, segment, first] = words.as_slice() else { return None };
    Some(Place {
        head: Head { seq: seq.parse().ok()?, hash: Hash::from_hex(hash)? },
        segment: segment.parse().ok()?,
        segment_first: first.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_never_guessed() {
        let dir = tempfile::tempdir().expect("a folder");
        let mark = Mark::in_dir(dir.path());
        assert_eq!(mark.read().expect("no file"), None);
        let head = Head { seq: 7, hash: Hash::of(&[b"x"]) };
        let place = Place { head, segment: 2, segment_first: 5 };
        mark.write(&place).expect("written");
        assert_eq!(mark.read().expect("read"), Some(place));
        // A loss of power: the name is there, and its octets are not.
        for blank in ["", "\0\0\0"] {
            std::fs::write(dir.path().join(NAME), blank).expect("written");
            assert_eq!(mark.read().expect("read"), Some(place), "{blank:?}");
        }
        std::fs::write(dir.path().join(NAME), "7 abc\n").expect("written");
        assert!(mark.read().expect_err("garbled").to_string().contains("delete the file"));
    }
}
