//! Owns the checkpoints as files: signed notes in a folder outside of the store, one a size, and the newest
//! under a name of its own. Knows no record.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::note::{Checkpoint, NoteKey};
use tidegate_policy::audit::verify::origin_of;

use crate::audit::keys::Ed25519;
use crate::secret::Secret;

const NEWEST: &str = "checkpoint";

/// The folder and the key.
#[derive(Clone)]
pub struct Notes {
    dir: PathBuf,
    key: NoteKey,
    signing: SigningKey,
    last: Option<String>,
    size: u64,
    origin: String,
}

// === impl Notes ===

impl Notes {
    /// Checkpoints of the log `name` in `dir`, signed by a key in PKCS#8 PEM. The error shows nothing of it.
    pub fn new(dir: &Path, name: &str, pem: &Secret) -> Result<Self, String> {
        let pem = zeroize::Zeroizing::new(pem.reveal().replace("\\n", "\n"));
        let signing = SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| {
            format!("no Ed25519 key in PKCS#8 PEM ({error}): see tidegate-audit keys generate --checkpoint-name")
        })?;
        let key = NoteKey::new(name, signing.verifying_key().to_bytes()).map_err(|bad| {
            format!("{bad}: write a URL without its scheme, such as log.example/eu")
        })?;
        let (last, size, origin) = (None, 0, String::new());
        Ok(Self { dir: dir.to_owned(), key, signing, last, size, origin })
    }

    /// The public key, as verifiers have it.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// Makes the folder, and reads the newest checkpoint of an earlier run; if the file of that name was
    /// removed, or is older, the newest of those with a size. One that cannot be read is no beginning: it may be what a
    /// thief left.
    pub fn open(&mut self) -> Result<(), String> {
        let mut path = self.dir.join(NEWEST);
        fs::create_dir_all(&self.dir).map_err(|error| named(&path, &error))?;
        if !path.exists()
            && let Some(sized) = self.newest_sized().map_err(|error| named(&path, &error))?
        {
            tracing::error!(
                critical = true, missing = %path.display(), instead = %sized.display(),
                "the newest audit checkpoint was removed"
            );
            path = sized;
        }
        let named = |what: &dyn fmt::Display| named(&path, what);
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(named(&error)),
        };
        let keys = std::slice::from_ref(&self.key);
        let opened = Checkpoint::open(note.as_bytes(), keys, &Ed25519).map_err(|bad| {
            named(&format!(
                "{bad}; verify the chain with the older checkpoints, then move this one away"
            ))
        })?;
        (self.size, self.origin, self.last) = (opened.size, opened.origin, Some(note));
        self.advance().map_err(|error| named(&error))
    }

    /// Takes a larger one of those with a size, if ours has signed one: another gateway that is slower, or somebody else, set
    /// the newest back.
    fn advance(&mut self) -> io::Result<()> {
        let mut sized = self.sized()?;
        sized.sort();
        while let Some(((epoch, size), name)) = sized.pop()
            && (epoch, size) > self.order()
        {
            let path = self.dir.join(name);
            let Some((opened, note)) = self.opened(&path).filter(|(opened, _)| {
                (opened.size, &opened.origin) == (size, &origin_of(self.key.name(), epoch))
            }) else {
                tracing::warn!(file = %path.display(), "an audit checkpoint cannot be read, or is another's");
                continue;
            };
            tracing::warn!(
                instead = %path.display(), size, of = self.size,
                "the newest audit checkpoint is older than one with a size"
            );
            (self.size, self.origin, self.last) = (opened.size, opened.origin, Some(note));
        }
        Ok(())
    }

    fn order(&self) -> (u64, u64) {
        (u64::try_from(self.epoch()).unwrap_or(u64::MAX), self.size)
    }

    /// A checkpoint that our key has signed.
    fn opened(&self, path: &Path) -> Option<(Checkpoint, String)> {
        let note = fs::read_to_string(path).ok()?;
        let keys = std::slice::from_ref(&self.key);
        let opened = Checkpoint::open(note.as_bytes(), keys, &Ed25519).ok()?;
        Some((opened, note))
    }

    /// The checkpoint of the latest origin with the most records.
    fn newest_sized(&self) -> io::Result<Option<PathBuf>> {
        let newest = self.sized()?.into_iter().max();
        Ok(newest.map(|(_, name)| self.dir.join(name)))
    }

    /// Those with a size in their names.
    fn sized(&self) -> io::Result<Vec<((u64, u64), OsString)>> {
        let mut sized = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let size = name.to_str().and_then(|name| name.strip_prefix(NEWEST)?.strip_prefix('-'));
            let size = size.and_then(|size| size.split_once('-'));
            let Some((epoch, size)) = size else { continue };
            let order = epoch.parse::<u64>().ok().zip(size.parse::<u64>().ok());
            sized.extend(order.map(|order| (order, name)));
        }
        Ok(sized)
    }

    /// The newest checkpoint.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Its size.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many rollbacks its origin counts.
    pub fn epoch(&self) -> usize {
        epoch_of(&self.origin)
    }

    /// Whether a checkpoint of that size would say anything new. Under one origin they only grow.
    pub fn is_new(&self, size: u64, epoch: u64) -> bool {
        size > 0 && (size > self.size || origin_of(self.key.name(), epoch) != self.origin)
    }

    /// Writes a checkpoint, whole and on the disk, before it counts.
    pub fn write(&mut self, size: u64, root: Hash, epoch: u64) -> io::Result<()> {
        let origin = origin_of(self.key.name(), epoch);
        let checkpoint = Checkpoint { origin: origin.clone(), size, root };
        let note = checkpoint.note(&self.key, |text| self.signing.sign(text).to_bytes());
        let name = format!("{NEWEST}-{epoch}-{size:020}");
        self.keep(&name, &note)?;
        // Gateways share a folder: another one may be ahead.
        let there = self.opened(&self.dir.join(NEWEST)).map(|(there, _)| order_of(&there));
        if there.is_none_or(|there| there <= (epoch, size)) {
            self.replace(NEWEST, &note)?;
        }
        File::open(&self.dir)?.sync_all()?;
        (self.size, self.origin, self.last) = (size, origin, Some(note));
        Ok(())
    }

    /// The checkpoint of a size is there for good: another one beside it is evidence, and so is this.
    fn keep(&self, name: &str, note: &str) -> io::Result<()> {
        let (new, path) = (self.written(name, note)?, self.dir.join(name));
        match fs::hard_link(&new, &path) {
            Ok(()) => return fs::remove_file(&new),
            // Not every file system links.
            Err(_) if !path.exists() => return fs::rename(&new, &path),
            Err(_) => {}
        }
        if fs::read(&path)? == note.as_bytes() {
            return fs::remove_file(&new);
        }
        let differs = self.dir.join(format!("{name}.differs-{:016x}", random()?));
        fs::rename(&new, &differs)?;
        let (there, ours) = (path.display(), differs.display());
        Err(io::Error::other(format!(
            "{there} is another checkpoint of the same size than this gateway's, which is kept as {ours}: the chain was rewritten, or the file was"
        )))
    }

    fn replace(&self, name: &str, note: &str) -> io::Result<()> {
        fs::rename(self.written(name, note)?, self.dir.join(name))
    }

    /// A file of that text on the disk, under a name of its own: others may write here, too.
    fn written(&self, name: &str, note: &str) -> io::Result<PathBuf> {
        let new = self.dir.join(format!(".{name}.{:016x}", random()?));
        let mut file = File::create_new(&new)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        Ok(new)
    }
}

fn epoch_of(origin: &str) -> usize {
    origin.rsplit_once('#').and_then(|(_, epoch)| epoch.parse().ok()).unwrap_or_default()
}

/// By rollbacks, then by records.
fn order_of(checkpoint: &Checkpoint) -> (u64, u64) {
    (u64::try_from(epoch_of(&checkpoint.origin)).unwrap_or(u64::MAX), checkpoint.size)
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}

fn named(path: &Path, what: &dyn fmt::Display) -> String {
    format!("--audit-checkpoint-dir (TIDEGATE_AUDIT_CHECKPOINT_DIR): {}: {what}", path.display())
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notes({} in {})", self.key, self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(dir: &Path) -> Notes {
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let mut notes = Notes::new(dir, "log.example/eu", &Secret::new(pem)).expect("a key");
        notes.open().expect("opened");
        notes
    }

    #[test]
    fn a_newest_checkpoint_that_was_removed_is_found_by_its_size() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!((notes(dir.path()).size(), notes(dir.path()).last()), (0, None));
        let mut first = notes(dir.path());
        for (size, epoch) in [(9, 0), (1_000, 0), (20, 1), (100, 1)] {
            first.write(size, Hash([7; 32]), epoch).expect("written");
        }
        assert_eq!(notes(dir.path()).size(), 100);
        std::fs::remove_file(dir.path().join(NEWEST)).expect("removed");
        let again = notes(dir.path());
        assert_eq!((again.size(), again.last()), (100, first.last()));
        assert!(!again.is_new(100, 1) && again.is_new(101, 1) && again.is_new(50, 2));
        // Cut off or written over, it is no beginning.
        std::fs::write(dir.path().join(NEWEST), "log.example/eu\n").expect("written");
        let error = Notes::open(&mut first).expect_err("no note");
        assert!(error.contains("--audit-checkpoint-dir"), "{error}");
    }

    /// Two gateways write into one folder, and one of them is slower.
    #[test]
    fn the_newest_checkpoint_never_goes_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut first, mut second) = (notes(dir.path()), notes(dir.path()));
        first.write(100, Hash([7; 32]), 0).expect("written");
        let newest = dir.path().join(NEWEST);
        second.write(90, Hash([8; 32]), 0).expect("written");
        assert_eq!(std::fs::read_to_string(&newest).ok().as_deref(), first.last());
        // As a gateway of before, or somebody else, leaves it; larger ones that nobody of ours has signed say nothing.
        std::fs::write(&newest, second.last().expect("written")).expect("written");
        let forged = dir.path().join(format!("checkpoint-0-{:020}", 4_000));
        std::fs::write(&forged, second.last().expect("written")).expect("written");
        let again = notes(dir.path());
        assert_eq!((again.size(), again.last()), (100, first.last()));
        // Under a new origin fewer records are more.
        second.write(20, Hash([9; 32]), 1).expect("written");
        assert_eq!((notes(dir.path()).size(), notes(dir.path()).epoch()), (20, 1));
    }

    /// Two gateways write into one folder; what one of them signed is not written over.
    #[test]
    fn a_checkpoint_that_differs_is_kept_beside_the_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut first, mut second) = (notes(dir.path()), notes(dir.path()));
        first.write(9, Hash([7; 32]), 0).expect("written");
        second.write(9, Hash([7; 32]), 0).expect("the same again");
        let mut third = notes(dir.path());
        first.write(20, Hash([8; 32]), 0).expect("written");
        let error = third.write(20, Hash([9; 32]), 0).expect_err("it differs").to_string();
        assert!(error.contains("another checkpoint of the same size"), "{error}");
        let newest = std::fs::read_to_string(dir.path().join(NEWEST)).expect("read");
        assert_eq!(Some(newest.as_str()), first.last());
        let entries = std::fs::read_dir(dir.path()).expect("a folder");
        let names =
            entries.map(|entry| entry.expect("one").file_name().into_string().expect("text"));
        let names: std::collections::BTreeSet<String> = names.collect();
        let sized = |size: u64| format!("checkpoint-0-{size:020}");
        assert!([NEWEST.to_owned(), sized(9), sized(20)].iter().all(|name| names.contains(name)));
        assert!(
            names.len() == 4 && names.iter().any(|name| name.contains(".differs-")),
            "{names:?}"
        );
        let kept = std::fs::read_to_string(dir.path().join(sized(20))).expect("read");
        assert_eq!(Some(kept.as_str()), first.last());
        assert_eq!(third.size(), 9, "it does not count");
    }
}
