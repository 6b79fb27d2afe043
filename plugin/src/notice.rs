//! Owns the log line about requests without a verdict: at most one a second for each configuration and
//! worker, since an outage is no reason to write a line for every request. All are counted.

use std::cell::Cell;

use tidegate_policy::exchange::Note;

use crate::host::{self, Level};

/// From one line to the next.
const INTERVAL_US: u64 = 1_000_000;

/// When the last line was written, and what was left out since.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    last_us: Cell<Option<u64>>,
    left_out: Cell<u64>,
}

// === impl Notice ===

impl Notice {
    /// Tells the log of a request that had no verdict; of every other one it says nothing.
    pub(crate) fn tell(&self, note: &Note) {
        if note.has_verdict() {
            return;
        }
        // A host without a clock gets the first line and no more.
        let now_us = host::now_us().unwrap_or(0);
        // A clock that was set back must not silence the log for long.
        let since_us = self.last_us.get().and_then(|last_us| now_us.checked_sub(last_us));
        let is_due = self.last_us.get().is_none() || since_us.is_none_or(|us| us >= INTERVAL_US);
        if !is_due {
            self.left_out.set(self.left_out.get().saturating_add(1));
            return;
        }
        self.last_us.set(Some(now_us));
        let more = match self.left_out.replace(0) {
            0 => String::new(),
            count => format!("; {count} more since the last such line"),
        };
        host::log(Level::Warn, &format!("tidegate: no verdict: {note}{more}"));
    }
}
