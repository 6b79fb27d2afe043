//! Owns that nobody else on the machine reads the files of the audit folder: they say who did what. Knows
//! none of them.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

const MODE: u32 = 0o600;

/// A file that is opened so, and gets its mode even if it was there with another one.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 == MODE {
        return Ok(file);
    }
    match file.set_permissions(Permissions::from_mode(MODE)) {
        // Of another owner: whoever made it so may have meant it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(file = %path.display(), %error, "others may read this file of the audit folder");
        }
        done => done?,
    }
    Ok(file)
}

/// An empty file.
pub fn create(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true).create(true).truncate(true))
}
