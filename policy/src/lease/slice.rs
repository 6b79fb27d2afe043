//! Owns a worker's slice of a pool: units that it spends without asking anybody, and what it owes the
//! pool a report of. Time comes in as µs of the filter's wall clock, which may step.

/// A worker's part of a pool. Spent without a look at the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    pub(super) holder: u64,
    /// The pool's when it began: what was reserved before is void.
    pub(super) epoch: u32,
    /// The pool's in which it counts what is here.
    pub(super) counted: u32,
    pub(super) units: u32,
    /// Taken for requests that are not decided yet.
    pub(super) reserved: u32,
    /// Gone, and not yet reported to the pool.
    pub(super) spent: u32,
    /// Of `spent`: ran out.
    pub(super) expired: u32,
    /// Asked for, and not yet reported to the pool.
    pub(super) asked: u32,
    pub(super) expires_us: u64,
    pub(super) deny_until_us: u64,
    pub(super) remaining: u32,
    /// The pool's.
    pub(super) reduced: u32,
    /// Whether it was asked since the last tick.
    pub(super) used: bool,
}

/// Units that a request took from a slice, until it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    pub(super) holder: u64,
    pub(super) epoch: u32,
    pub(super) units: u32,
}

/// What a slice or a pool says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// The units are taken.
    Taken(Reserved),
    /// There are none, and none can be had for that long, in µs.
    Denied {
        /// At least 1.
        wait_us: u64,
    },
    /// There are none here.
    Empty,
}

// === impl Slice ===

impl Slice {
    /// Takes units for one request, if there are enough.
    pub fn take(&mut self, now_us: u64, cost: u32) -> Offer {
        self.asked = self.asked.saturating_add(cost);
        self.used = true;
        self.freshen(now_us);
        if self.units >= cost {
            return Offer::Taken(self.reserve(cost));
        }
        match self.deny_until_us.checked_sub(now_us) {
            Some(wait_us) if wait_us > 0 => Offer::Denied { wait_us },
            Some(_) | None => Offer::Empty,
        }
    }

    /// Whether a request that needs so many units would be denied.
    pub fn denies(&self, now_us: u64, cost: u32) -> bool {
        matches!(self.clone().take(now_us, cost), Offer::Denied { .. })
    }

    /// The request went on: its units are spent.
    pub fn spend(&mut self, reserved: Reserved) {
        if self.of(reserved) {
            self.reserved = self.reserved.saturating_sub(reserved.units);
            self.spent = self.spent.saturating_add(reserved.units);
            self.remaining = self.remaining.saturating_sub(reserved.units);
        }
    }

    /// The request did not go on: its units are there again, unless they are over.
    pub fn give_back(&mut self, reserved: Reserved, now_us: u64) {
        if self.of(reserved) {
            self.reserved = self.reserved.saturating_sub(reserved.units);
            self.units = self.units.saturating_add(reserved.units);
            self.freshen(now_us);
        }
    }

    /// The clock stepped back: nothing is known of how long units live.
    pub fn drop_all(&mut self) {
        self.run_out();
        self.deny_until_us = 0;
    }

    /// Units that a request could take.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// What a client may be told: how many units are left, for anybody and here, and how many per period are in force,
    /// if they are fewer than configured.
    pub fn stands(&self) -> (u64, Option<u32>) {
        let remaining = u64::from(self.remaining).saturating_add(u64::from(self.units));
        (remaining, (self.reduced > 0).then_some(self.reduced))
    }

    /// Whether the pool has to be told something; at a tick. `idle`: it was not asked since the last.
    pub fn rest(&mut self) -> (bool, bool) {
        let idle = !core::mem::take(&mut self.used);
        (self.spent > 0 || self.asked > 0 || (idle && self.units > 0), idle)
    }

    /// Its pool is gone: what is here is spent or runs out, and nobody has to hear of it.
    pub fn orphan(&mut self, now_us: u64) {
        self.freshen(now_us);
        // Nor would it hear of a denial's end.
        (self.spent, self.expired, self.asked, self.deny_until_us) = (0, 0, 0, 0);
    }

    /// Whether it holds nothing and owes no report.
    pub fn is_empty(&self) -> bool {
        self.units == 0 && self.reserved == 0 && self.spent == 0
    }

    /// What it has of the pool, beside what is gone.
    pub(super) fn held(&self) -> u32 {
        self.units.saturating_add(self.reserved)
    }

    /// Of what is here, which is enough.
    pub(super) fn reserve(&mut self, cost: u32) -> Reserved {
        self.units = self.units.saturating_sub(cost);
        self.reserved = self.reserved.saturating_add(cost);
        let Self { holder, epoch, .. } = *self;
        Reserved { holder, epoch, units: cost }
    }

    pub(super) fn freshen(&mut self, now_us: u64) {
        if self.units > 0 && now_us >= self.expires_us {
            self.run_out();
        }
    }

    fn run_out(&mut self) {
        let units = core::mem::take(&mut self.units);
        self.spent = self.spent.saturating_add(units);
        self.expired = self.expired.saturating_add(units);
    }

    fn of(&self, reserved: Reserved) -> bool {
        (self.holder, self.epoch) == (reserved.holder, reserved.epoch)
    }
}
