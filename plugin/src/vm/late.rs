//! Owns what ends claims and could not be told yet: it is told again later, by whichever root ticks. Bounded; decides
//! neither how often nor when, which is policy's.

use std::rc::Rc;

use tidegate_policy::exchange::{Answer, Ended, Settlement};

use super::Vm;
use crate::host;
use crate::root::Root;

/// The most messages that are kept, and their octets: of answers that could not be stored.
const MESSAGES_MAX: usize = 256;
const OCTETS_MAX: usize = 4 * 1024 * 1024;
/// So many are told at one tick: a gateway that is back has others to answer.
const TOLD_MAX: usize = 32;

/// A message that waits to be told again.
struct Late {
    root: Rc<Root>,
    settlement: Settlement,
    due_us: u64,
    pause_us: u64,
}

/// All of them.
pub(super) struct Lates {
    list: Vec<Late>,
    octets: usize,
}

// === impl Late ===

impl Late {
    /// Also where the clock has stepped back, which must not make it wait longer.
    fn is_due(&self, now_us: u64) -> bool {
        self.due_us <= now_us || self.due_us.saturating_sub(now_us) > self.pause_us
    }
}

// === impl Lates ===

impl Lates {
    pub(super) const fn new() -> Self {
        Self { list: Vec::new(), octets: 0 }
    }

    /// Takes one, if there is room.
    fn put(&mut self, late: Late) -> Result<(), Settlement> {
        let octets = self.octets.saturating_add(late.settlement.size());
        if self.list.len() >= MESSAGES_MAX || octets > OCTETS_MAX {
            return Err(late.settlement);
        }
        self.octets = octets;
        self.list.push(late);
        Ok(())
    }

    /// Those that came first of what is due.
    fn take_due(&mut self, now_us: u64) -> Vec<Late> {
        let due = self.list.extract_if(.., |late| late.is_due(now_us));
        let due: Vec<Late> = due.take(TOLD_MAX).collect();
        let octets: usize = due.iter().map(|late| late.settlement.size()).sum();
        self.octets = self.octets.saturating_sub(octets);
        due
    }
}

// === impl Vm ===

impl Vm {
    /// Tells it again after a pause, or counts that nobody will.
    pub(super) fn postpone(&mut self, root: &Rc<Root>, settlement: Settlement, pause_ms: u32) {
        let pause_us = u64::from(pause_ms).saturating_mul(1_000);
        let due_us = host::now_us().unwrap_or_default().saturating_add(pause_us);
        let late = Late { root: Rc::clone(root), settlement, due_us, pause_us };
        if let Err(settlement) = self.lates.put(late) {
            root.count(settlement.given_up());
        }
    }

    /// It was sent by a configuration that ends, and its answer will not be told.
    pub(super) fn unanswered(&mut self, root: &Rc<Root>, mut settlement: Settlement) {
        while settlement.ends_claim() {
            match settlement.ended(&Answer::Reset) {
                Ended::Again => {}
                Ended::Later { pause_ms, .. } => return self.postpone(root, settlement, pause_ms),
                Ended::Over(signals) => return root.count(signals),
            }
        }
    }

    /// A root has gone. Where none is left that ticks nobody tells what was put off.
    pub(super) fn give_up_untold(&mut self) {
        if self.roots.values().flatten().any(|root| root.idle_tick_ms() > 0) {
            return;
        }
        let Lates { list, .. } = core::mem::replace(&mut self.lates, Lates::new());
        for Late { root, settlement, .. } in list {
            root.count(settlement.given_up());
        }
    }

    /// Time has gone by for one root.
    pub(super) fn tell_late(&mut self, context: u32) {
        if self.lates.list.is_empty() {
            return;
        }
        let Ok(now_us) = host::now_us() else { return };
        self.telling = Some(context);
        for Late { root, settlement, .. } in self.lates.take_due(now_us) {
            self.settle(&root, settlement);
        }
        self.telling = None;
    }
}
