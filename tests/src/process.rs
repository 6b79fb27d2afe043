//! Owns child processes: their output goes to a file, and they end with whoever started them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running child. Killed when dropped, and by the kernel if its parent dies.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `command`; both its outputs go to `log`.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let out = File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // A group of its own, so that what it starts in turn ends with it.
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        Ok(Self { child: command.spawn()?, log: log.to_owned() })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it wrote so far.
    pub fn output(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal, such as `libc::SIGSTOP`.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).expect("a pid fits");
        // SAFETY: kill takes two numbers; the child is ours and not reaped yet.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "signal {signal}: {}", io::Error::last_os_error());
    }

    /// Stops it: it says nothing any more, and its connections stay open.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Kills it with all it started, and waits for its end.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let group = -i32::try_from(self.pid()).expect("a pid fits");
            // SAFETY: kill takes two numbers; the group is our child's, not reaped yet.
            let sent = unsafe { libc::kill(group, libc::SIGKILL) };
            assert_eq!(sent, 0, "kill: {}", io::Error::last_os_error());
            self.child.wait().expect("our own child");
        }
    }

    /// CPU time used so far, user and system, in µs (from `/proc`).
    pub fn cpu_us(&self) -> u64 {
        cpu_us(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a program ended, and what it used.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub output: String,
    /// Its CPU time, user and system, in µs.
    pub cpu_us: u64,
    /// The most memory that it held at once, in KiB.
    pub peak_kib: u64,
}

/// Runs a program to its end.
pub fn run(mut command: Command) -> io::Result<Ended> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut output)?;
    }
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: the child is ours and not reaped yet, and both places outlive the call.
    if unsafe { libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) } != pid {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only, and all of them are set.
    let usage = unsafe { usage.assume_init() };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Ok(Ended {
        code: ExitStatus::from_raw(status).code(),
        output,
        cpu_us: u64::try_from(us(usage.ru_utime) + us(usage.ru_stime)).unwrap_or_default(),
        peak_kib: u64::try_from(usage.ru_maxrss).unwrap_or_default(),
    })
}

/// CPU time of a process, user and system, of all its threads, also those that have ended, in µs: by its clock, which
/// counts ns, where `/proc` counts ticks of 10 ms.
pub fn cpu_us(pid: u32) -> u64 {
    let pid = i32::try_from(pid).expect("a pid fits");
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both places outlive the calls; a process that is gone is an error and no time.
    let known = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    assert!(known, "the CPU time of {pid}: {}", io::Error::last_os_error());
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_nsec / 1_000).expect("time used")
}
