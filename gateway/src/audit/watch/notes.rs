//! Owns the checkpoints as files: signed notes in a folder outside of the store, one a size, and the newest
//! under a name of its own. Knows no record.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use ed25519_dalek::pkcs8::DecodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::note::{Checkpoint, NoteKey};
use tidegate_policy::audit::verify::origin_of;

use super::folder::Folder;
use crate::audit::keys::Ed25519;
use crate::secret::Secret;

const NEWEST: &str = "checkpoint";

/// The folder and the key.
#[derive(Clone)]
pub struct Notes {
    dir: Folder,
    key: NoteKey,
    signing: SigningKey,
    last: Option<String>,
    size: u64,
    origin: String,
    /// Whether the last may be newer than the file of that name.
    owes_newest: bool,
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
        let (dir, last, origin) = (Folder::at(dir), None, String::new());
        Ok(Self { dir, key, signing, last, size: 0, origin, owes_newest: false })
    }

    /// The public key, as verifiers have it.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// Makes the folder, and reads the newest checkpoint of an earlier run; if the file of that name was
    /// removed, or is older, the newest of those with a size. One that cannot be read is no beginning: it may be what a
    /// thief left.
    pub fn open(&mut self) -> Result<(), String> {
        let mut path = self.dir.path().join(NEWEST);
        fs::create_dir_all(self.dir.path()).map_err(|error| named(&path, &error))?;
        if !path.exists()
            && let Some(sized) = self.newest_sized().map_err(|error| named(&path, &error))?
        {
            tracing::error!(
                critical = true, missing = %path.display(), instead = %sized.display(),
                "the newest audit checkpoint was removed"
            );
            path = sized;
            self.owes_newest = true;
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
            let path = self.dir.path().join(name);
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
            self.owes_newest = true;
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
        Ok(newest.map(|(_, name)| self.dir.path().join(name)))
    }

    /// Those with a size in their names.
    fn sized(&self) -> io::Result<Vec<((u64, u64), OsString)>> {
        let mut sized = Vec::new();
        for entry in fs::read_dir(self.dir.path())? {
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

    /// Writes a checkpoint, whole and on the disk, before it counts. An error may come after that: the newest is owed then.
    pub fn write(&mut self, size: u64, root: Hash, epoch: u64) -> io::Result<()> {
        let origin = origin_of(self.key.name(), epoch);
        let checkpoint = Checkpoint { origin: origin.clone(), size, root };
        let note = checkpoint.note(&self.key, |text| self.signing.sign(text).to_bytes());
        self.dir.keep(&format!("{NEWEST}-{epoch}-{size:020}"), &note)?;
        self.dir.sync()?;
        (self.size, self.origin, self.last) = (size, origin, Some(note));
        self.owes_newest = true;
        self.renew()
    }

    /// Whether the newest may be older than the last.
    pub fn owes_newest(&self) -> bool {
        self.owes_newest
    }

    /// Puts the last in the newest's place, unless that is newer or another gateway is at it: then later. Between the look and
    /// the renaming nobody else's may come.
    pub fn renew(&mut self) -> io::Result<()> {
        let Some(turn) = self.dir.turn() else { return Ok(()) };
        let there = self.opened(&self.dir.path().join(NEWEST)).map(|(there, _)| order_of(&there));
        if let Some(last) = self.last().filter(|_| there.is_none_or(|there| there < self.order())) {
            self.dir.replace(NEWEST, last, &turn)?;
            self.dir.sync()?;
        }
        self.owes_newest = false;
        Ok(())
    }
}

fn epoch_of(origin: &str) -> usize {
    origin.rsplit_once('#').and_then(|(_, epoch)| epoch.parse().ok()).unwrap_or_default()
}

/// By rollbacks, then by records.
fn order_of(checkpoint: &Checkpoint) -> (u64, u64) {
    (u64::try_from(epoch_of(&checkpoint.origin)).unwrap_or(u64::MAX), checkpoint.size)
}

fn named(path: &Path, what: &dyn fmt::Display) -> String {
    format!("--audit-checkpoint-dir (TIDEGATE_AUDIT_CHECKPOINT_DIR): {}: {what}", path.display())
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notes({} in {})", self.key, self.dir.path().display())
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

    fn newest(dir: &Path) -> (u64, u64) {
        let text = std::fs::read_to_string(dir.join(NEWEST)).expect("there is one, whole");
        let mut lines = text.lines();
        let epoch = epoch_of(lines.next().expect("an origin"));
        let size = lines.next().and_then(|size| size.parse().ok()).expect("a size");
        (u64::try_from(epoch).expect("small"), size)
    }

    /// Each looks before it replaces, and between the two the other one may have replaced it.
    #[test]
    fn the_newest_checkpoint_never_goes_back_while_several_write_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let sizes = std::sync::atomic::AtomicU64::new(1);
        notes(dir.path()).write(1, Hash([7; 32]), 0).expect("written");
        let next = || sizes.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        std::thread::scope(|scope| {
            let writer = || {
                let mut own = notes(dir.path());
                for size in std::iter::repeat_with(next).take_while(|size| *size <= 200) {
                    own.write(size, Hash([7; 32]), 0).expect("that others are at it is no fault");
                }
                while own.owes_newest() {
                    own.renew().expect("renewed");
                    std::thread::yield_now();
                }
            };
            let writers = [scope.spawn(writer), scope.spawn(writer), scope.spawn(writer)];
            let mut before = (0, 0);
            while writers.iter().any(|writer| !writer.is_finished()) {
                let seen = newest(dir.path());
                assert!(seen >= before, "{seen:?} after {before:?}");
                before = seen;
            }
        });
        assert_eq!(newest(dir.path()), (0, 200));
    }

    /// It was killed between the two, or its machine stands still.
    #[test]
    fn who_has_the_turn_keeps_nobody_waiting_and_what_is_owed_comes_later() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut own = notes(dir.path());
        own.write(10, Hash([7; 32]), 0).expect("written");
        let turn = own.dir.turn().expect("free");
        own.write(20, Hash([7; 32]), 0).expect("it has its size");
        assert_eq!((newest(dir.path()), own.size(), own.owes_newest()), ((0, 10), 20, true));
        own.write(30, Hash([7; 32]), 0).expect("the next one may come at once");
        // Who begins meanwhile knows of it.
        let mut other = notes(dir.path());
        assert_eq!((other.size(), other.owes_newest()), (30, true));
        drop(turn);
        other.renew().expect("renewed");
        own.renew().expect("renewed");
        assert_eq!(
            (newest(dir.path()), own.owes_newest(), other.owes_newest()),
            ((0, 30), false, false)
        );
    }

    /// A disk that is full would be filled with what is left of each attempt.
    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut own = notes(dir.path());
        for (size, blocked) in [(8, NEWEST.to_owned()), (9, format!("{NEWEST}-0-{:020}", 9))] {
            let blocked = dir.path().join(blocked);
            std::fs::create_dir(&blocked).expect("made");
            own.write(size, Hash([7; 32]), 0).expect_err("a folder has its place");
            std::fs::remove_dir(&blocked).expect("removed");
        }
        let left = std::fs::read_dir(dir.path()).expect("a folder");
        let left: Vec<_> = left.map(|entry| entry.expect("one").file_name()).collect();
        let is_piece = |name: &OsString| name.to_string_lossy().starts_with(".checkpoint");
        assert!(!left.iter().any(is_piece), "{left:?}");
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
        // It is tried again as long as they differ, and is the same each time.
        third.write(20, Hash([9; 32]), 0).expect_err("it still differs");
        let newest = std::fs::read_to_string(dir.path().join(NEWEST)).expect("read");
        assert_eq!(Some(newest.as_str()), first.last());
        let entries = std::fs::read_dir(dir.path()).expect("a folder");
        let names =
            entries.map(|entry| entry.expect("one").file_name().into_string().expect("text"));
        let names: std::collections::BTreeSet<String> =
            names.filter(|name| !name.starts_with('.')).collect();
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
