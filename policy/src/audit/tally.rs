//! Owns which of a filter's like events are told each for itself: the first of a kind, subject and window. The
//! rest of a kind is counted, and told when its window is over. An attack must not fill the chain.
//!
//! The same rule as the gateway's own (`gateway/src/audit/thin.rs`), with fewer places: this is one worker.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::testimony::Testimony;
use crate::scope::Tenant;

/// How long a window is, in ms.
pub const WINDOW_MS: u64 = 60_000;
/// The most firsts of one window.
pub const FIRSTS_MAX: usize = 256;
/// The most kinds that are counted apart in one window; those beyond it are counted by what happened alone.
pub const KINDS_MAX: usize = 64;

/// What one worker saw in the window under way.
#[derive(Debug, Default)]
pub struct Tally {
    /// When the window began, in ms; `None` before the first event.
    began_ms: Option<u64>,
    firsts: BTreeSet<String>,
    rest: BTreeMap<String, Rest>,
}

/// What came after the first of its kind.
#[derive(Debug)]
struct Rest {
    like: Testimony,
    count: u32,
}

// === impl Tally ===

impl Tally {
    /// Whether it is the first of its kind and subject, to be told for itself; if not it is counted.
    pub fn is_first(&mut self, testimony: &Testimony, now_ms: u64) -> bool {
        self.began_ms.get_or_insert(now_ms);
        let likeness = testimony.likeness();
        if self.firsts.contains(&likeness) || self.firsts.len() >= FIRSTS_MAX {
            self.count(testimony);
            return false;
        }
        self.firsts.insert(likeness)
    }

    /// Counts one more without a look at its subject.
    pub fn count(&mut self, testimony: &Testimony) {
        let mut kind = testimony.kind();
        if !self.rest.contains_key(&kind) {
            let mut like = Testimony { decision: None, about: Vec::new(), ..testimony.clone() };
            if self.rest.len() >= KINDS_MAX {
                // Of names and tenants there are too many.
                kind = format!("{} {} others", like.action.as_str(), like.outcome);
                (like.names, like.tenant, like.cause) = (Vec::new(), Tenant::None, None);
            }
            self.rest.entry(kind.clone()).or_insert(Rest { like, count: 0 });
        }
        if let Some(rest) = self.rest.get_mut(&kind) {
            rest.count = rest.count.saturating_add(1);
        }
    }

    /// What was counted, once the window is over: each with how many there were. What `take` gives back, since it has
    /// no room, is counted on.
    pub fn turn(&mut self, now_ms: u64, mut take: impl FnMut(Testimony, u32) -> Option<Testimony>) {
        let Some(began_ms) = self.began_ms else { return };
        // A clock that was set back begins a new window as well.
        let is_over = now_ms < began_ms || now_ms.saturating_sub(began_ms) >= WINDOW_MS;
        if !is_over {
            return;
        }
        self.began_ms = None;
        self.firsts.clear();
        for (kind, Rest { like, count }) in core::mem::take(&mut self.rest) {
            if let Some(like) = take(like, count) {
                self.began_ms = Some(now_ms);
                self.rest.insert(kind, Rest { like, count });
            }
        }
    }

    /// How many events stand here as counts.
    pub fn counted(&self) -> u64 {
        self.rest.values().map(|rest| u64::from(rest.count)).sum()
    }
}
