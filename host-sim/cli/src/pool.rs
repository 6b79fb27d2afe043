//! Runs many scenarios on threads that share compiled modules; results come in the order of the files. It must not print
//! a result.

use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tidegate_host_sim::{Report, Runner};

use crate::args::Overrides;
use crate::find;
use crate::in_process::services;

/// A file and what came of it; one that cannot even be read has an error instead of a report.
pub(crate) struct Case {
    pub(crate) file: PathBuf,
    pub(crate) outcome: Result<Report, String>,
}

impl Case {
    pub(crate) fn passed(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Report::passed)
    }
}

/// Runs every file; `each` gets the results in the files' order, as soon as that order allows.
pub(crate) fn run(
    runner: &Runner,
    files: &[PathBuf],
    overrides: &Overrides,
    jobs: Option<NonZeroUsize>,
    mut each: impl FnMut(&Case) -> std::io::Result<()>,
) -> std::io::Result<Vec<Case>> {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = jobs.map_or(cores, NonZeroUsize::get).min(files.len());
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                while let Some((index, file)) = take(next, files) {
                    let outcome = one(runner, file, overrides);
                    // Nobody listens any more: printing failed, and nothing needs to go on.
                    if send.send((index, Case { file: file.clone(), outcome })).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut progress = Progress::new(files.len());
        let mut waiting: Vec<Option<Case>> = files.iter().map(|_| None).collect();
        let mut done = Vec::with_capacity(files.len());
        for (index, case) in receive {
            if let Some(slot) = waiting.get_mut(index) {
                *slot = Some(case);
            }
            progress.clear();
            while let Some(case) = waiting.get_mut(done.len()).and_then(Option::take) {
                each(&case)?;
                done.push(case);
            }
            progress.step();
        }
        progress.clear();
        Ok(done)
    })
}

fn take<'a>(next: &AtomicUsize, files: &'a [PathBuf]) -> Option<(usize, &'a PathBuf)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    files.get(index).map(|file| (index, file))
}

/// One file, from reading to judgement.
pub(crate) fn one(runner: &Runner, file: &Path, overrides: &Overrides) -> Result<Report, String> {
    let scenario = find::read(file, overrides).map_err(|error| find::with_causes(&error))?;
    let flags = &overrides.gateway_flags;
    services(&scenario, flags).map_err(|error| find::with_causes(&error))?;
    let fresh = || services(&scenario, flags).unwrap_or_default();
    runner.run_explained(&scenario, fresh).map_err(|error| find::with_causes(&error))
}

/// A line that is written over, for people only.
struct Progress {
    total: usize,
    done: usize,
    is_shown: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, done: 0, is_shown: std::io::stderr().is_terminal() }
    }

    fn clear(&self) {
        self.show("");
    }

    fn step(&mut self) {
        self.done += 1;
        self.show(&format!("{} of {}", self.done, self.total));
    }

    fn show(&self, text: &str) {
        const CLEAR: &str = "\r\x1b[K";
        if self.is_shown {
            let mut terminal = std::io::stderr();
            // Progress that cannot be shown is no failure of the run.
            let _shown = write!(terminal, "{CLEAR}{text}").and_then(|()| terminal.flush());
        }
    }
}
