//! Owns what of a pool lies in its workers' slices. A worker that is gone reports nothing any more, and its process may be
//! busy for ever: so units are counted by two epochs, and those of the older one are forgotten together, once the
//! last slice among them must have ended. Decides nothing about units that are not in slices.

/// Units in slices, as far as their workers have not reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Out {
    /// Counted up at each turn.
    pub(super) epoch: u32,
    /// Handed out, or renewed, in this epoch and in the one before.
    pub(super) units: [u32; 2],
    /// When those of the epoch before may be forgotten: later than their end.
    pub(super) turns_us: u64,
}

// === impl Out ===

impl Out {
    /// All of them.
    pub(super) fn all(&self) -> u32 {
        let [here, before] = self.units;
        here.saturating_add(before)
    }

    /// Whether what was handed out in an epoch is still counted.
    pub(super) fn knows(&self, epoch: u32) -> bool {
        self.epoch.wrapping_sub(epoch) <= 1
    }

    /// So many are handed out now.
    pub(super) fn put(&mut self, units: u32) {
        let [here, _] = &mut self.units;
        *here = here.saturating_add(units);
    }

    /// So many of an epoch are in slices no longer. Gives how many of them were counted.
    pub(super) fn take(&mut self, epoch: u32, units: u32) -> u32 {
        let age = usize::try_from(self.epoch.wrapping_sub(epoch)).unwrap_or(usize::MAX);
        let Some(counted) = self.units.get_mut(age) else { return 0 };
        let taken = units.min(*counted);
        *counted -= taken;
        taken
    }

    /// Forgets what must be over, and gives how many units that was. `ends_us`: when all that was handed out until now will have
    /// ended.
    pub(super) fn turn(&mut self, now_us: u64, ends_us: u64) -> u32 {
        let mut forgotten = 0u32;
        while now_us >= self.turns_us && self.all() > 0 {
            let [here, before] = self.units;
            (self.units, self.turns_us) = ([0, here], ends_us);
            self.epoch = self.epoch.wrapping_add(1);
            forgotten = forgotten.saturating_add(before);
        }
        forgotten
    }

    /// The clock stepped back: what is handed out from now on may end before what was handed out until now.
    pub(super) fn step_back(&mut self, ends_us: u64) {
        self.turns_us = self.turns_us.max(ends_us);
    }

    /// Whether none will be left at that time, if nothing is handed out until then.
    pub(super) fn is_over(&self, now_us: u64, ends_us: u64) -> bool {
        self.all() == 0 || now_us >= self.turns_us.max(ends_us)
    }
}
