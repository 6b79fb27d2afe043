//! Owns the gateway's own memory of how far the chain had come: a file beside the spool. It is what tells
//! a store that was set back from a new one. Knows neither stores nor signatures.
//!
//! The file is replaced after each append and not forced to the disk: a mark that is a little old still
//! stands for records that have to be in the chain.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::Head;

const NAME: &str = "high-water";

/// The file.
#[derive(Debug, Clone)]
pub struct Mark {
    path: PathBuf,
}

// === impl Mark ===

impl Mark {
    /// In that folder.
    pub fn in_dir(dir: &Path) -> Self {
        Self { path: dir.join(NAME) }
    }

    /// What it says; `None` if there is none yet. A file that cannot be read is an error and no new
    /// beginning.
    pub fn read(&self) -> io::Result<Option<Place>> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
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
        std::fs::write(&new, format!("{} {} {segment} {segment_first}\n", head.seq, head.hash))?;
        std::fs::rename(&new, &self.path)
    }
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
        std::fs::write(dir.path().join(NAME), "7 abc\n").expect("written");
        assert!(mark.read().expect_err("garbled").to_string().contains("delete the file"));
    }
}
