//! Owns the strict window: never more than the limit in any period. A part of the specification of
//! `lua/rl_check.lua` and `lua/rl_settle.lua`; knows no key, no clock and no store.
//!
//! Time is cut into slots of a tenth of the period. What was admitted within one slot is one group,
//! which counts until one period after the *latest* of it, taken for the end of its tick (see
//! [`Grain`]). So nothing is ever forgotten too early; a burst at one moment comes back one period
//! later, late by less than a tick; a unit that shares its group with later ones comes back up to a
//! tenth of a period late. A period is half open: what came exactly one period ago does not count.
//!
//! Times are whole µs since 2024-01-01, below 2^53, so that Lua's doubles and whole numbers agree.

use alloc::vec::Vec;

use crate::gcra::{Instant, Reading, Retry};

/// The most that a window may admit: twice as much, with its debt, is stored in 4 bytes.
pub const LIMIT_MAX: u32 = 1_000_000_000;
/// The most ticks of a period: a group's distance from the newest one is stored in one byte.
const TICKS_MAX: u64 = 254;
/// The shortest tick, 16 µs: their number is stored in 6 bytes.
const EXPONENT_MIN: u8 = 4;

/// How finely a window keeps time. A tick is a power of two of µs, at most 1/127 of a period; a slot
/// a whole number of ticks, and there are fewer of them where units take more bytes, so that the
/// whole is at most 43 bytes long and Redis keeps it within 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grain {
    /// A tick is two to the power of it, in µs.
    pub exponent: u8,
    /// A slot, in µs.
    pub slot_us: u64,
}

/// What was admitted within one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The end of the tick in which the latest of it was admitted, in µs since 2024-01-01.
    pub last_us: u64,
    /// How many units.
    pub units: u32,
}

/// What a window holds: at most one group more than it has slots, and what has not been swept out
/// yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// The tick's when they were written.
    pub exponent: u8,
    /// In order of time.
    pub groups: Vec<Group>,
}

/// What to store, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The groups.
    pub groups: Groups,
    /// After that many ms all of them are a period old.
    pub ttl_ms: u64,
}

/// The window of one limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Units that are in force.
    pub limit: u32,
    /// Units that are in force once the region is warm.
    pub warm_limit: u32,
    /// The period, in µs.
    pub period_us: u64,
    /// How finely it keeps time.
    pub grain: Grain,
    /// How long the region is still cold, in µs; 0 if it is warm.
    pub cold_left_us: u64,
}

/// One limit weighed, before it is known whether the others admit.
pub(crate) struct Row {
    terms: Terms,
    live: Live,
    pub(crate) retry: Retry,
    cost: u32,
}

struct Live {
    groups: Vec<Group>,
    used: u64,
    /// Something lay in the future: the clock stepped back.
    torn: bool,
}

// === impl Grain ===

impl Grain {
    /// For these numbers, whether the region is cold or not.
    pub fn of(limit: u32, period_us: u64) -> Self {
        let mut exponent = EXPONENT_MIN;
        let ticks = |exponent: u8| period_us.div_ceil(1 << exponent);
        while ticks(exponent) > TICKS_MAX {
            exponent = exponent.saturating_add(1);
        }
        // Twice the limit, with its debt, in two, three or four bytes.
        let slots = match limit {
            0..0x8000 => 10,
            0x8000..0x80_0000 => 8,
            0x80_0000.. => 6,
        };
        Self { exponent, slot_us: ticks(exponent).div_ceil(slots) << exponent }
    }

    /// The end of the tick in which `at_us` lies.
    fn end(self, at_us: u64) -> u64 {
        at_us | ((1 << self.exponent) - 1)
    }

    fn slot(self, at_us: u64) -> Option<u64> {
        at_us.checked_div(self.slot_us)
    }
}

// === impl Groups ===

impl Groups {
    /// As it is stored: a byte of the exponent and the width of units (exponent * 4 + width - 1), 6
    /// of the newest tick; then, of each group, how many ticks before that in one byte, and the
    /// units. The lowest byte first. Nothing if there is no group.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (Some(newest), Some(most)) =
            (self.groups.last(), self.groups.iter().map(|group| group.units).max())
        else {
            return Vec::new();
        };
        let width = 4u8.saturating_sub(u8::try_from(most.leading_zeros() / 8).unwrap_or(0)).max(1);
        let mut bytes = Vec::with_capacity(64);
        bytes.push(self.exponent.saturating_mul(4).saturating_add(width).saturating_sub(1));
        bytes.extend((newest.last_us >> self.exponent).to_le_bytes().iter().take(6));
        for group in &self.groups {
            let ticks = newest.last_us.saturating_sub(group.last_us) >> self.exponent;
            bytes.push(u8::try_from(ticks).unwrap_or(u8::MAX));
            bytes.extend(group.units.to_le_bytes().iter().take(width.into()));
        }
        bytes
    }
}

// === impl Live ===

impl Live {
    /// What still counts. Neighbours of one slot become one group, and moments the ends of ticks,
    /// for what was stored under another period.
    fn read(now_us: u64, terms: &Terms, held: Option<&Groups>) -> Self {
        let mut live = Self { groups: Vec::new(), used: 0, torn: false };
        let grain = terms.grain;
        let newest_us = grain.end(now_us);
        for group in held.map(|held| held.groups.as_slice()).unwrap_or_default() {
            live.torn |= group.last_us > newest_us;
            let last_us = grain.end(group.last_us).min(newest_us);
            if last_us.saturating_add(terms.period_us) > now_us {
                live.add(last_us, group.units, grain);
            }
        }
        live
    }

    fn add(&mut self, last_us: u64, units: u32, grain: Grain) {
        self.used = self.used.saturating_add(u64::from(units));
        match self.groups.last_mut() {
            Some(newest) if grain.slot(newest.last_us) == grain.slot(last_us) => {
                newest.units = newest.units.saturating_add(units);
                newest.last_us = last_us;
            }
            _ => self.groups.push(Group { last_us, units }),
        }
    }

    /// How long until `units` of what counts have run out; 0 if none have to.
    fn wait_us(&self, now_us: u64, period_us: u64, units: u64) -> u64 {
        let mut freed = 0;
        for group in &self.groups {
            if freed >= units {
                break;
            }
            freed += u64::from(group.units);
            if freed >= units {
                return group.last_us.saturating_add(period_us).saturating_sub(now_us);
            }
        }
        0
    }

    fn write(self, now_us: u64, terms: &Terms) -> Write {
        let newest_us = self.groups.last().map_or(now_us, |group| group.last_us);
        let left_us = newest_us.saturating_add(terms.period_us).saturating_sub(now_us);
        let groups = Groups { exponent: terms.grain.exponent, groups: self.groups };
        Write { groups, ttl_ms: left_us.div_ceil(1_000).saturating_add(1) }
    }
}

pub(crate) fn weigh(now: Instant, terms: Terms, held: Option<&Groups>, cost: u32) -> Row {
    let now_us = now.us();
    let live = Live::read(now_us, &terms, held);
    let over = (live.used.saturating_add(u64::from(cost))).saturating_sub(u64::from(terms.limit));
    let retry = if over == 0 {
        Retry::Fits
    } else if cost > terms.warm_limit {
        Retry::Never
    } else if cost > terms.limit {
        Retry::AfterUs(terms.cold_left_us)
    } else {
        Retry::AfterUs(live.wait_us(now_us, terms.period_us, over))
    };
    Row { terms, live, retry, cost }
}

pub(crate) fn settle(now: Instant, row: Row, allowed: bool) -> (Reading, Option<Write>) {
    let (now_us, Terms { limit, period_us, grain, .. }) = (now.us(), row.terms);
    let mut live = row.live;
    let charged = allowed && row.cost > 0;
    if charged {
        live.add(grain.end(now_us), row.cost, grain);
    }
    let remaining = u64::from(limit).saturating_sub(live.used);
    let reset_us = live
        .groups
        .last()
        .map_or(0, |newest| newest.last_us.saturating_add(period_us).saturating_sub(now_us));
    let one_more = live.used.saturating_add(1).saturating_sub(u64::from(limit)).max(1);
    let next_us = live.wait_us(now_us, period_us, one_more);
    let reading = Reading { remaining, next_us, reset_us, retry: row.retry };
    let write = (charged || live.torn).then(|| live.write(now_us, &row.terms));
    (reading, write)
}

/// Charges more, at most into a debt of one limit.
pub(crate) fn charge_more(
    now: Instant,
    terms: Terms,
    held: Option<&Groups>,
    units: u32,
) -> Option<Write> {
    let now_us = now.us();
    let mut live = Live::read(now_us, &terms, held);
    let room = u64::from(terms.limit).saturating_mul(2).saturating_sub(live.used);
    let units = u32::try_from(room).unwrap_or(u32::MAX).min(units);
    if units == 0 {
        return None;
    }
    live.add(terms.grain.end(now_us), units, terms.grain);
    Some(live.write(now_us, &terms))
}

/// Gives back what was charged at most `age_us` ago, unless it may have run out by itself. It lies
/// in one of the groups that are no older; of these the oldest gives first, since it runs out first.
pub(crate) fn give_back(
    now: Instant,
    terms: Terms,
    held: Option<&Groups>,
    units: u32,
    age_us: u64,
) -> Option<Write> {
    if age_us >= terms.period_us {
        return None;
    }
    let now_us = now.us();
    let mut live = Live::read(now_us, &terms, held);
    let mut left = units;
    for group in &mut live.groups {
        if group.last_us.saturating_add(age_us) >= now_us {
            let back = group.units.min(left);
            group.units = group.units.saturating_sub(back);
            left = left.saturating_sub(back);
        }
    }
    if left == units {
        return None;
    }
    live.groups.retain(|group| group.units > 0);
    Some(live.write(now_us, &terms))
}

#[cfg(test)]
mod tests;
