//! Owns the lock on the folder of spool, mark and recent appends: one gateway a folder. Knows none of
//! these files.
//!
//! Two gateways in one folder would cut off each other's spool: each knows only the end that it wrote itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::private;

/// The folder may be open to others; who runs there is nobody's business.
const NAME: &str = "lock";

/// The folder is this gateway's until it is dropped. The system takes the lock back from a process that was
/// killed, so none is left behind; the file stays, since its removal would let two processes lock two files.
#[derive(Debug)]
pub struct Hold {
    _locked: File,
}

// === impl Hold ===

impl Hold {
    /// Makes the folder, and takes it. The error says what to do.
    pub fn take(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = private::open(&dir.join(NAME), &mut options)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _locked: file }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another gateway that runs holds this folder: give each gateway a folder of its own, or stop the other one",
            )),
            Err(TryLockError::Error(error)) => Err(io::Error::new(
                error.kind(),
                format!(
                    "its file {NAME} cannot be locked, so that two gateways might share the folder ({error}): choose a file system that knows locks"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_gateways_until_that_is_gone() {
        let dir = tempfile::tempdir().expect("a folder");
        let hold = Hold::take(dir.path()).expect("free");
        let error = Hold::take(dir.path()).expect_err("held").to_string();
        assert!(error.contains("a folder of its own"), "{error}");
        drop(hold);
        drop(Hold::take(dir.path()).expect("free again"));
    }
}
