//! Owns the wall clock of a Redis whose time a test makes: limits, leases and lives of keys then pass in virtual time, in the
//! real server. Its timers stay the machine's. Must not be used where a test is about the time of Redis itself.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::parts;

/// A clock that stands until it is set.
#[derive(Debug)]
pub struct HeldClock {
    dir: TempDir,
    shown: File,
}

// === impl HeldClock ===

impl HeldClock {
    /// Shows `unix_us`, µs since 1970.
    pub fn at(unix_us: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = parts::root().join("tests/held-clock/clock.c");
        let mut compile = Command::new("cc");
        compile.args(["-std=c11", "-O1", "-shared", "-fPIC", "-o"]);
        compile.arg(dir.path().join("clock.so")).arg(&source);
        // Whoever has rustc has the `cc` that it links with.
        let done = compile.output().unwrap_or_else(|error| panic!("cc cannot be run: {error}"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fs::write(dir.path().join("now"), unix_us.to_ne_bytes()).expect("written");
        let shown = File::options().write(true).open(dir.path().join("now")).expect("a file");
        Self { dir, shown }
    }

    /// From now on it shows `unix_us`; earlier than before, too.
    pub fn set(&self, unix_us: u64) {
        self.shown.write_all_at(&unix_us.to_ne_bytes(), 0).expect("a file of our own");
    }

    /// What a process started by this command is shown.
    pub(super) fn show(&self, command: &mut Command) {
        let path = |name: &str| -> PathBuf { self.dir.path().join(name) };
        command.env("LD_PRELOAD", path("clock.so")).env("HELD_CLOCK", path("now"));
    }
}
