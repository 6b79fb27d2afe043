//! Owns how files come into the folder of the checkpoints, which gateways share: whole and on the disk, never one over
//! another, and in the place of the newest by one gateway at a time. Knows no checkpoint.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

/// Whose turn it is to look at the newest file and to replace it; until it is dropped. The system takes it back from a
/// process that was killed.
#[derive(Debug)]
pub struct Turn {
    /// `None` where the file system knows no locks.
    _locked: Option<File>,
}

/// A file under a name that nobody else has. What still has it when this is dropped goes: a full disk is not filled with
/// pieces.
struct Written(PathBuf);

// === impl Folder ===

impl Folder {
    /// That one.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The turn, or `None` while another gateway has it. Never waited for: who has it may stand still.
    pub fn turn(&self) -> Option<Turn> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        // Another's file that is not open to us, or no room for one: without locks the newest is mostly right as well.
        let Ok(file) = options.open(self.0.join(LOCK)) else { return Some(Turn { _locked: None }) };
        match file.try_lock() {
            Ok(()) => Some(Turn { _locked: Some(file) }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Turn { _locked: None }),
        }
    }

    /// Puts a file there for good: another one of that name is evidence, and so is this, which is kept beside it then.
    pub fn keep(&self, name: &str, text: &str) -> io::Result<()> {
        let (new, path) = (self.written(name, text)?, self.0.join(name));
        match fs::hard_link(&new.0, &path) {
            Ok(()) => return Ok(()),
            // Not every file system links.
            Err(_) if !path.exists() => return fs::rename(&new.0, &path),
            Err(_) => {}
        }
        if fs::read(&path)? == text.as_bytes() {
            return Ok(());
        }
        let differs = self.0.join(format!("{name}.differs-{:016x}", random()?));
        fs::rename(&new.0, &differs)?;
        let (there, ours) = (path.display(), differs.display());
        Err(io::Error::other(format!(
            "{there} is another checkpoint of the same size than this gateway's, which is kept as {ours}: the chain was rewritten, or the file was"
        )))
    }

    /// Puts a file there in the place of any other, by whoever has the turn.
    pub fn replace(&self, name: &str, text: &str, _turn: &Turn) -> io::Result<()> {
        fs::rename(&self.written(name, text)?.0, self.0.join(name))
    }

    /// Forces the names to the disk.
    pub fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    /// A file of that text on the disk.
    fn written(&self, name: &str, text: &str) -> io::Result<Written> {
        let new = Written(self.0.join(format!(".{name}.{:016x}", random()?)));
        let mut file = File::create_new(&new.0)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }
}

// === impl Written ===

impl Drop for Written {
    fn drop(&mut self) {
        // Mostly it has another name by now.
        drop(fs::remove_file(&self.0));
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}
