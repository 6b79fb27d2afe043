//! Owns when a checkpoint of what was verified is written, and what is said of one that cannot be. Knows no file.

use std::io;
use std::time::Duration;

use tidegate_policy::audit::hash::Hash;
use tokio::task::{JoinError, JoinHandle};

use super::{Notes, STEP, Watch};

/// A checkpoint is written after that long, or
const CHECKPOINT_US: u64 = 10_000_000;
/// after that many records.
const CHECKPOINT_RECORDS: u64 = 1_000;

/// What a checkpoint says.
#[derive(Debug, Clone, Copy)]
struct Due {
    size: u64,
    root: Hash,
    epoch: u64,
}

/// What was done on the folder, with the checkpoint that is kept there since.
pub(super) struct Stepped {
    notes: Notes,
    kept: Option<Due>,
    done: io::Result<()>,
}

/// Since when others have had the turn each time, so that the newest is older than the last.
#[derive(Debug, Default)]
pub(super) struct Owed {
    since_us: Option<u64>,
    is_told: bool,
}

// === impl Owed ===

impl Owed {
    /// Whether it has lasted for so long now that it is to be told: once, until it was paid.
    fn is_to_be_told(&mut self, now: u64) -> bool {
        let since = *self.since_us.get_or_insert(now);
        let is_long = now.saturating_sub(since) > CHECKPOINT_US;
        let is_due = is_long && !self.is_told;
        self.is_told |= is_long;
        is_due
    }
}

/// A step on the folder, away from the thread on which events are appended: the folder may be another machine's, and stand
/// still.
pub(super) type Stepping = JoinHandle<Stepped>;

// === impl Watch ===

impl Watch {
    /// Writes a checkpoint if it is time and there is something new, or does what is left of the last one. Is waited for as
    /// long as a step takes; then the verification goes on.
    pub(super) async fn checkpoint(&mut self) {
        let is_new = self.stepping.is_none();
        if is_new {
            self.stepping = self.begin_checkpoint();
        }
        let Some(mut stepping) = self.stepping.take_if(|step| is_new || step.is_finished()) else {
            return;
        };
        tokio::select! {
            biased;
            stepped = &mut stepping => self.checkpointed(stepped),
            () = self.clock.sleep(STEP) => self.stepping = Some(stepping),
        }
    }

    fn begin_checkpoint(&mut self) -> Option<Stepping> {
        let now = self.clock.elapsed_us();
        // A disk may be full for long.
        if self.unwritten_us.is_some_and(|then| now.saturating_sub(then) < CHECKPOINT_US) {
            return None;
        }
        let due = self.due(now);
        let mut notes = self.notes.clone().filter(|notes| due.is_some() || notes.owes_newest())?;
        if due.is_some() {
            self.checkpoint_us = Some(now);
        }
        Some(tokio::task::spawn_blocking(move || {
            let done = match due {
                Some(Due { size, root, epoch }) => notes.write(size, root, epoch),
                None => notes.renew(),
            };
            // It may be there though the newest could not be replaced.
            let kept = due.filter(|due| !notes.is_new(due.size, due.epoch));
            Stepped { notes, kept, done }
        }))
    }

    fn due(&self, now: u64) -> Option<Due> {
        let notes = self.notes.as_ref()?;
        let sound = self.tail.verifier.sound();
        let (head, root) = sound.filter(|_| self.sweep.verifier.so_far().findings_total == 0)?;
        let size = head.seq;
        let epoch = self.tail.verifier.so_far().rollbacks.len();
        let epoch = u64::try_from(epoch).unwrap_or(u64::MAX);
        let is_due = size >= notes.size().saturating_add(CHECKPOINT_RECORDS)
            || self.checkpoint_us.is_none_or(|then| now.saturating_sub(then) >= CHECKPOINT_US);
        (is_due && notes.is_new(size, epoch)).then_some(Due { size, root, epoch })
    }

    fn checkpointed(&mut self, stepped: Result<Stepped, JoinError>) {
        let (kept, done) = match stepped {
            Ok(Stepped { notes, kept, done }) => {
                self.notes = Some(notes);
                (kept, done)
            }
            Err(panicked) => (None, Err(io::Error::other(panicked))),
        };
        if let Some(Due { size, root, epoch }) = kept {
            let seconds = Duration::from_micros(self.clock.unix_us()).as_secs();
            self.counters.checkpoint_size.set(i64::try_from(size).unwrap_or(i64::MAX));
            self.counters.checkpoint_time.set(i64::try_from(seconds).unwrap_or(i64::MAX));
            // A cheap witness: whoever keeps logs keeps this.
            tracing::info!(target: "audit", chain = %self.chain, size, %root, epoch, "checkpoint");
        }
        let now = self.clock.elapsed_us();
        self.unwritten_us = done.is_err().then_some(now);
        match done {
            Ok(()) => self.owes(now),
            Err(error) => {
                // That is not others' doing.
                self.owed.since_us = None;
                self.counters.checkpoint_failures.inc();
                tracing::error!(critical = true, %error, "an audit checkpoint could not be written");
            }
        }
    }

    /// A gateway has the turn for milliseconds, and they come at any moment: only one that has it for long stands still.
    fn owes(&mut self, now: u64) {
        if !self.notes.as_ref().is_some_and(Notes::owes_newest) {
            self.owed = Owed::default();
        } else if self.owed.is_to_be_told(now) {
            self.counters.checkpoint_failures.inc();
            tracing::error!(
                critical = true, notes = ?self.notes,
                "another gateway has been replacing the newest audit checkpoint for long, and stands still: it is an older one, beside those with a size"
            );
        }
    }
}
