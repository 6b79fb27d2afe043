//! Owns how files come into the folder of the checkpoints, which gateways share: whole and on the disk, never one over
//! another, and in the place of the newest by one gateway at a time. Knows no checkpoint.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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
        let (mut options, path) = (OpenOptions::new(), self.0.join(LOCK));
        options.write(true).create(true).truncate(false);
        // Another user's file is mostly only to be read; a lock needs no more.
        let opened = options.open(&path).or_else(|_| File::open(&path));
        // Closed to us altogether, or no room for one: without locks the newest is mostly right as well.
        let Ok(file) = opened else { return Some(Turn { _locked: None }) };
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
        // The same text has the same name: it comes again and again.
        let hash = Sha256::digest(text);
        let hash = hash.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte));
        let differs = self.0.join(format!("{name}.differs-{hash:016x}"));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder in its place cannot be written by anybody: nor can another user's file, but for root.
    #[test]
    fn a_lock_that_can_only_be_read_is_taken_all_the_same() {
        for is_folder in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let lock = dir.path().join(LOCK);
            if is_folder {
                fs::create_dir(&lock).expect("made");
            } else {
                fs::write(&lock, "").expect("written");
                fs::set_permissions(&lock, fs::Permissions::from_mode(0o444)).expect("set");
            }
            let (own, other) = (Folder::at(dir.path()), Folder::at(dir.path()));
            let turn = own.turn().expect("free");
            assert!(other.turn().is_none(), "a folder: {is_folder}");
            drop(turn);
            assert!(other.turn().is_some(), "a folder: {is_folder}");
        }
    }
}
