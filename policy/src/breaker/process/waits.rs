//! Owns how long a process keeps to what it is shut or ordered for: the waits, their ends, and what a clock that steps
//! back makes of them.

use super::super::mesh::{BACKOFF_MAX, ENTROPY_RANGE, State, jittered_ms};
use super::{Own, Process};

/// When it makes sense to come again while an operator's state has no end, in ms.
const ENDLESS_MS: u64 = 60_000;

// === impl Process ===

impl Process {
    /// For how long an operator keeps it as it is, in ms, if one does.
    pub fn ordered_ms(&self, now_ms: u64) -> Option<u64> {
        if self.state.is_ordered() { self.wait_ms(now_ms) } else { None }
    }

    /// Whether it stands as an operator ordered for a time that is over, and nobody has come since to find that out.
    pub fn is_lapsed(&self, now_ms: u64) -> bool {
        self.state.is_ordered() && self.ordered_ms(now_ms).is_none()
    }

    /// Whether this host's clock has stepped back behind what it waits for.
    pub fn is_ahead(&self, now_ms: u64) -> bool {
        now_ms < self.waits_since_ms
    }

    /// What an operator ordered ends once its time is over, also where the mesh is not there to say so. Of one that he
    /// shut who asks for a test finds that out, but on all of many nobody does. Says whether it ended.
    pub fn lapse(&mut self, now_ms: u64) -> bool {
        self.bound_told(now_ms);
        let is_over = self.is_lapsed(now_ms);
        if is_over {
            self.state = State::Closed;
            self.change();
        }
        is_over
    }

    /// Whether it is shut and nobody finds out if it still has to be: its wait has been over for as long again as it
    /// lasts at most, and nobody came to test. Who only needs it learns nothing by waiting on. Nobody knows how long ago that
    /// is once the clock stepped back behind it; an operator's state stays even so.
    pub fn is_forgotten(&self, own: &Own, now_ms: u64) -> bool {
        let is_over = |since_ms: u64| now_ms >= since_ms.saturating_add(longest_ms(own));
        let is_tested = self.probe.is_some_and(|probe| probe.out);
        let is_sought = self.sought_ms > 0 && !is_over(self.sought_ms);
        let is_past = is_over(self.until_ms) || self.is_ahead(now_ms) && !self.state.is_ordered();
        is_past && !self.passes() && !is_tested && !self.wanted && !is_sought
    }

    /// A clock that stepped back makes no wait longer than it can have been meant.
    pub(super) fn bound(&mut self, own: &Own, now_ms: u64) {
        self.bound_told(now_ms);
        if self.waits_since_ms == 0 && !self.state.is_ordered() {
            self.until_ms = self.until_ms.min(now_ms.saturating_add(longest_ms(own)));
        }
        if let Some(probe) = &mut self.probe {
            let latest_ms = now_ms.saturating_add(u64::from(own.terms.probe_ms));
            probe.until_ms = probe.until_ms.min(latest_ms);
        }
        self.sought_ms = self.sought_ms.min(now_ms);
        self.unheard_ms = self.unheard_ms.min(now_ms);
    }

    /// The same of what is waited for since it was told: an operator may have it shut for longer than its numbers would.
    fn bound_told(&mut self, now_ms: u64) {
        if self.is_ahead(now_ms) {
            if self.until_ms < u64::MAX {
                let back_ms = self.waits_since_ms.saturating_sub(now_ms);
                self.until_ms = self.until_ms.saturating_sub(back_ms);
            }
            self.waits_since_ms = now_ms.max(1);
        }
    }

    /// Whether the mesh may be asked for a test.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        match self.state {
            State::HalfOpen => true,
            State::Open | State::ForcedOpen => now_ms >= self.until_ms,
            State::Closed | State::Disabled | State::MetricsOnly => false,
        }
    }

    /// For how long still, in ms.
    pub(super) fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        match self.until_ms {
            u64::MAX => Some(ENDLESS_MS),
            until_ms => until_ms.checked_sub(now_ms).filter(|wait_ms| *wait_ms > 0),
        }
    }

    /// Shuts it from now on, for as long as its numbers say.
    pub(super) fn shut(&mut self, own: &Own, now_ms: u64, entropy: u32) {
        let entropy = entropy % ENTROPY_RANGE;
        self.until_ms = now_ms.saturating_add(jittered_ms(u64::from(own.terms.open_ms), entropy));
        if self.state != State::Closed {
            self.waits_since_ms = now_ms;
        }
    }
}

/// The longest that it can be shut at once, in ms: a fifth later at most, as it is drawn.
fn longest_ms(own: &Own) -> u64 {
    let open_ms = u64::from(own.terms.open_ms) << own.terms.backoff.min(BACKOFF_MAX);
    open_ms.saturating_add(open_ms / 5)
}
