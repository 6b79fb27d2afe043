//! Owns what a holder of leased units does: the pool that all workers of one Envoy process share. Knows neither where a pool lies nor
//! how messages travel; time comes in as µs of the filter's wall clock, which may step.
//!
//! What the pool reports as left is never less than what is really left: its own units and every
//! slice that was handed out, not yet reported spent, and not surely over. An answer counts only while its
//! message is the last one and is waited for. Units live from the moment their message was sent.

use super::demand::horizon;
use super::out::Out;
use super::slice::{Offer, Slice};
use crate::wire::{LeaseGrant, Want};

/// The most units of a slice, unless a single request costs more.
pub(super) const SLICE_MAX: u32 = 8;
/// From one tick of the filter to the next, in µs.
pub const TICK_US: u64 = 250_000;
/// Two workers may read the clock in another order than they write what they saw.
const CLOCK_SLACK_US: u64 = 10_000;
/// Holders' units end that much earlier than the bucket thinks: a clock that steps back is seen at
/// the next tick. A thousandth of their life comes on top, for clocks that run at another pace.
const MARGIN_US: u64 = TICK_US + 50_000;
/// How long an answer is waited for beyond its call's timeout, in µs.
const PATIENCE_US: u64 = 100_000;
/// How long it is known that all want more than there is, beyond the wait that was told with it.
const SCARCE_US: u64 = 1_000_000;
/// A wait that is over sooner is not asked about: a busy key of 100 a minute is told up to 6 s each time, and
/// messages in between would make its attacker's Envoy send more.
const SOON_US: u64 = 6_000_000;

/// The units of one key in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub(super) holder: u64,
    pub(super) seq: u32,
    /// When message `seq` was sent; 0 if none is waited for.
    pub(super) flying_us: u64,
    /// Until then it is waited for.
    pub(super) patience_us: u64,
    pub(super) units: u32,
    /// In slices.
    pub(super) out: Out,
    /// Of `units`.
    pub(super) expires_us: u64,
    pub(super) deny_until_us: u64,
    /// By whom or what ever it was looked at last.
    pub(super) seen_us: u64,
    /// When a request was last known to need it.
    pub(super) used_us: u64,
    /// When it last had an answer.
    pub(super) answered_us: u64,
    pub(super) since_us: u64,
    pub(super) asked: u32,
    /// Units a second.
    pub(super) rate: u32,
    /// The same, of the last window alone.
    pub(super) recent: u32,
    pub(super) remaining: u32,
    /// Units per period while they are fewer than configured; else 0.
    pub(super) reduced: u32,
    pub(super) rtt_us: u32,
    pub(super) scarce: bool,
    /// Whether somebody was denied here since its last message.
    pub(super) denied: bool,
    /// Units that ran out unspent, here and in slices, since it was read; not stored.
    pub expired: u32,
}

/// What a pool tells the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The message's number.
    pub seq: u32,
    /// Units a second.
    pub demand: u32,
    /// Units that it keeps, slices included.
    pub left: u32,
    /// Units that go back.
    pub back: u32,
    /// What it wants.
    pub want: Want,
}

// === impl Pool ===

impl Pool {
    /// A pool without units, of a holder that nobody has heard of: 64 random bits.
    pub fn new(holder: u64, now_us: u64) -> Self {
        Self {
            holder,
            seq: 0,
            flying_us: 0,
            patience_us: 0,
            units: 0,
            out: Out::default(),
            expires_us: 0,
            deny_until_us: 0,
            seen_us: now_us,
            used_us: now_us,
            answered_us: 0,
            since_us: now_us,
            asked: 0,
            rate: 0,
            recent: 0,
            remaining: 0,
            reduced: 0,
            rtt_us: 0,
            scarce: false,
            denied: false,
            expired: 0,
        }
    }

    /// Who it is.
    pub fn holder(&self) -> u64 {
        self.holder
    }

    /// How long no request needed it, in µs. That a tick looks at it is no use.
    pub fn rests_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.used_us)
    }

    /// Whether a tick finds nothing to say, or to drop.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.units == 0 && self.out.all() == 0 && !self.is_waiting(now_us) && !self.denied
    }

    /// Whether nothing of it is out, and nothing is waited for.
    pub fn is_empty(&self, now_us: u64) -> bool {
        let units = self.units > 0 && now_us < self.expires_us;
        !units && self.out.is_over(now_us, self.ends_us()) && !self.is_waiting(now_us)
    }

    /// Hears a slice, and fills it for a request that found too little in it.
    pub fn meet(&mut self, now_us: u64, slice: &mut Slice, cost: u32) -> Offer {
        self.hear(now_us, slice);
        self.used_us = now_us;
        (slice.remaining, slice.reduced) = (self.remaining, self.reduced);
        let lacking = cost.saturating_sub(slice.units);
        if self.units >= lacking && lacking > 0 {
            let handed = (self.units / 4).min(SLICE_MAX).max(lacking);
            self.units -= handed;
            // What it has left lives on with what it gets.
            let kept = slice.held();
            self.out.take(slice.counted, kept);
            self.out.put(kept.saturating_add(handed));
            slice.counted = self.out.epoch;
            slice.units = slice.units.saturating_add(handed);
            slice.expires_us = self.expires_us;
        }
        slice.deny_until_us = self.denies_until();
        if slice.units >= cost {
            return Offer::Taken(slice.reserve(cost));
        }
        // Who asks while all want more than there is gets nothing sooner by a call of his own.
        let answer_us = if self.is_scarce(now_us) && self.is_waiting(now_us) { 1 } else { 0 };
        match self.deny_until_us.saturating_sub(now_us).max(answer_us) {
            0 => Offer::Empty,
            wait_us => Offer::Denied { wait_us },
        }
    }

    /// Takes a slice's report; all of the slice with `whole`.
    pub fn settle(&mut self, now_us: u64, slice: &mut Slice, whole: bool) {
        self.hear(now_us, slice);
        if whole {
            let back = self.out.take(slice.counted, core::mem::take(&mut slice.units));
            self.units = self.units.saturating_add(back);
        }
        // It may have ended since the slice was told.
        (slice.deny_until_us, slice.reduced) = (self.denies_until(), self.reduced);
    }

    fn hear(&mut self, now_us: u64, slice: &mut Slice) {
        self.freshen(now_us);
        slice.freshen(now_us);
        self.denied |= slice.asked > 0 && now_us < self.deny_until_us;
        if slice.asked > 0 {
            self.used_us = now_us;
        }
        self.asked = self.asked.saturating_add(core::mem::take(&mut slice.asked));
        if slice.holder == self.holder && self.out.knows(slice.counted) {
            self.expired = self.expired.saturating_add(core::mem::take(&mut slice.expired));
            self.out.take(slice.counted, core::mem::take(&mut slice.spent));
        } else {
            // All of it is over and forgotten, or was another pool's.
            let (holder, epoch) = (self.holder, self.out.epoch);
            *slice = Slice { holder, epoch, counted: epoch, used: slice.used, ..Slice::default() };
        }
        self.count(now_us);
    }

    /// Begins a message, if none is under way that may still be answered. `timeout_us`: the call's.
    pub fn begin(&mut self, now_us: u64, want: Want, timeout_us: u64) -> Option<Report> {
        self.begin_with(now_us, want, 0, timeout_us)
    }

    /// What is to be said at a tick: units that nobody needs go back, and all that would run out
    /// before the next tick is renewed or goes back.
    pub fn tick(&mut self, now_us: u64, timeout_us: u64) -> Option<Report> {
        self.freshen(now_us);
        self.count(now_us);
        if self.units == 0 && self.out.all() == 0 {
            return None;
        }
        let ends = self.expires_us <= now_us.saturating_add(2 * TICK_US);
        // What falls off is let go at once.
        let needed = self.ahead().min(horizon(self.recent));
        match self.is_busy() {
            true if self.scarce && u64::from(self.units) > needed => {
                let needed = u32::try_from(needed).unwrap_or(u32::MAX);
                self.begin_with(
                    now_us,
                    Want::Nothing,
                    self.units.saturating_sub(needed),
                    timeout_us,
                )
            }
            true if ends => self.begin_with(now_us, Want::Ahead, 0, timeout_us),
            false if ends && self.units > 0 => self.return_all(now_us, timeout_us),
            true | false => None,
        }
    }

    /// Asks again for a pool at which somebody was denied and would be for long: an operator may have granted
    /// some, or reset the limit, and others may have given theirs back. The answer ends the denial, or leaves it.
    pub fn ask_again(&mut self, now_us: u64, timeout_us: u64) -> Option<Report> {
        self.freshen(now_us);
        if !self.denied || self.deny_until_us <= now_us.saturating_add(SOON_US) {
            return None;
        }
        // Not `Want::Now`: nobody waits, and a slow key is given nothing ahead of its requests.
        self.begin_with(now_us, Want::Ahead, 0, timeout_us)
    }

    /// Gives back whatever is not in slices.
    pub fn return_all(&mut self, now_us: u64, timeout_us: u64) -> Option<Report> {
        self.freshen(now_us);
        self.begin_with(now_us, Want::Nothing, self.units, timeout_us)
    }

    fn begin_with(
        &mut self,
        now_us: u64,
        want: Want,
        back: u32,
        timeout_us: u64,
    ) -> Option<Report> {
        if self.is_waiting(now_us) {
            return None;
        }
        self.freshen(now_us);
        let back = back.min(self.units);
        self.units -= back;
        self.seq = self.seq.checked_add(1)?;
        self.denied = false;
        self.flying_us = now_us;
        self.patience_us = now_us.saturating_add(timeout_us).saturating_add(PATIENCE_US);
        let left = self.units.saturating_add(self.out.all());
        let demand = self.demand(now_us);
        let demand = if back > 0 { demand.min(self.recent) } else { demand };
        Some(Report { seq: self.seq, demand, left, back, want })
    }

    /// Takes an answer. `false`: nobody waits for it any more, and what it grants is void. `entropy`
    /// spreads those who wait.
    pub fn finish(&mut self, now_us: u64, grant: &LeaseGrant, entropy: u64) -> bool {
        // First, so that units whose time was up meanwhile are not counted with the new ones.
        self.freshen(now_us);
        if !self.is_waiting_for(grant.seq) || grant.holder.0 != self.holder {
            return false;
        }
        let lives_us = (grant.ttl_us - grant.ttl_us / 1_000).saturating_sub(MARGIN_US);
        // Never earlier than it was: what is in slices by then has to be over with the rest.
        self.expires_us = self.expires_us.max(self.flying_us.saturating_add(lives_us));
        self.rtt_us = u32::try_from(now_us.saturating_sub(self.flying_us)).unwrap_or(u32::MAX);
        self.flying_us = 0;
        self.units = self.units.saturating_add(grant.granted);
        self.remaining = u32::try_from(grant.remaining).unwrap_or(u32::MAX);
        self.reduced = grant.limit.unwrap_or(0);
        (self.scarce, self.answered_us) = (grant.scarce, now_us);
        let jitter = (u128::from(grant.deny_us / 4) * u128::from(entropy)) >> 64;
        let jitter = u64::try_from(jitter).unwrap_or(0);
        let until_us = |us: u64| now_us.saturating_add(grant.deny_us).saturating_add(us);
        self.deny_until_us = match grant.deny_us {
            0 => 0,
            // Clients were told a time: it is not put off, and comes nearer only by more than was put on to spread them.
            deny_us if grant.granted == 0 && now_us < self.deny_until_us => {
                self.deny_until_us.min(until_us(deny_us / 4))
            }
            _ => until_us(jitter),
        };
        self.freshen(now_us);
        true
    }

    /// No answer comes to message `seq`, or it is not waited for.
    pub fn give_up(&mut self, seq: u32) {
        if self.seq == seq {
            self.flying_us = 0;
        }
    }

    /// Units that are not in slices.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// Whether an answer to message `seq` would be taken.
    pub fn is_waiting_for(&self, seq: u32) -> bool {
        self.flying_us > 0 && self.seq == seq
    }

    /// Whether the answer to message `seq` is on its way and brings more than its own request needs, as for a busy key:
    /// of a slow one it brings nothing for others.
    pub fn brings(&self, now_us: u64, seq: u32) -> bool {
        self.seq == seq && self.is_waiting(now_us) && self.is_busy()
    }

    /// Whether message `seq` is out, and its answer still waited for.
    pub fn is_out(&self, now_us: u64, seq: u32) -> bool {
        self.seq == seq && self.is_waiting(now_us)
    }

    fn is_waiting(&self, now_us: u64) -> bool {
        self.flying_us > 0 && now_us < self.patience_us
    }

    /// Whether all wanted more than there was, not long ago: a bucket that nobody asks fills.
    fn is_scarce(&self, now_us: u64) -> bool {
        let known_us = self.answered_us.max(self.deny_until_us).saturating_add(SCARCE_US);
        self.scarce && now_us < known_us
    }

    /// Drops what is over, and all units if the clock stepped back: nobody knows how long they live.
    /// What is out stays counted, since its workers may not have seen the step.
    fn freshen(&mut self, now_us: u64) {
        if now_us.saturating_add(CLOCK_SLACK_US) < self.seen_us {
            self.out.step_back(self.ends_us());
            (self.flying_us, self.deny_until_us, self.expires_us) = (0, 0, 0);
            (self.seen_us, self.since_us) = (now_us, now_us);
            (self.used_us, self.answered_us) = (now_us, 0);
        }
        self.seen_us = self.seen_us.max(now_us);
        if now_us >= self.expires_us {
            self.expired = self.expired.saturating_add(core::mem::take(&mut self.units));
        }
        // Of workers that are gone, or were not heard of until their slices had ended.
        let forgotten = self.out.turn(now_us, self.ends_us());
        self.expired = self.expired.saturating_add(forgotten);
    }

    /// When whatever was handed out until now has ended, even if the clock steps back then by so little that no worker
    /// sees it.
    fn ends_us(&self) -> u64 {
        self.expires_us.saturating_add(MARGIN_US)
    }

    /// While the pool has some, a slice that is used up comes here.
    fn denies_until(&self) -> u64 {
        if self.units > 0 { 0 } else { self.deny_until_us }
    }
}
