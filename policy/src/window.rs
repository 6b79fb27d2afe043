//! Owns the strict window: never more than the limit in any period. A part of the specification of
//! `lua/rl_check.lua` and `lua/rl_settle.lua`; knows no key, no clock and no store.
//!
//! Time is cut into slots of a tenth of the period. What was admitted within one slot is one group,
//! which counts until one period after the *latest* of it. So nothing is ever forgotten too early,
//! and a burst at one moment comes back exactly one period later; a unit that shares its group with
//! later ones comes back up to a tenth of a period late. A period is half open: what came exactly
//! one period ago does not count.
//!
//! Times are whole µs since 2024-01-01, below 2^53 with a factor of ten until 2052, so that Lua's
//! doubles and whole numbers agree.

use alloc::vec::Vec;

use crate::gcra::{Instant, Reading, Retry};

/// Slots of a period.
pub const SLOTS: u64 = 10;
/// The most that a window may admit: twice as much, with its debt, is stored in 4 bytes.
pub const LIMIT_MAX: u32 = 1_000_000_000;
/// A group as stored: 7 bytes of time, 4 of units, the lowest byte first.
const GROUP_LEN: usize = 11;

/// What was admitted within one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// When the latest of it was admitted, in µs since 2024-01-01.
    pub last_us: u64,
    /// How many units.
    pub units: u32,
}

/// What a window holds, in order of time: at most [`SLOTS`] + 1 groups that count, and what has not
/// been swept out yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups(pub Vec<Group>);

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

// === impl Groups ===

impl Groups {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(GROUP_LEN));
        for group in &self.0 {
            bytes.extend(group.last_us.to_le_bytes().iter().take(7));
            bytes.extend(group.units.to_le_bytes());
        }
        bytes
    }
}

// === impl Live ===

impl Live {
    /// What still counts. Neighbours of one slot become one group, for what was stored under
    /// another period.
    fn read(now_us: u64, period_us: u64, held: Option<&Groups>) -> Self {
        let mut live = Self { groups: Vec::new(), used: 0, torn: false };
        for group in held.map(|held| held.0.as_slice()).unwrap_or_default() {
            live.torn |= group.last_us > now_us;
            let last_us = group.last_us.min(now_us);
            if last_us.saturating_add(period_us) > now_us {
                live.add(last_us, group.units, period_us);
            }
        }
        live
    }

    fn add(&mut self, last_us: u64, units: u32, period_us: u64) {
        self.used = self.used.saturating_add(u64::from(units));
        match self.groups.last_mut() {
            Some(newest) if slot(newest.last_us, period_us) == slot(last_us, period_us) => {
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

    fn write(self, now_us: u64, period_us: u64) -> Write {
        let newest_us = self.groups.last().map_or(now_us, |group| group.last_us);
        let left_us = newest_us.saturating_add(period_us).saturating_sub(now_us);
        Write { groups: Groups(self.groups), ttl_ms: left_us.div_ceil(1_000).saturating_add(1) }
    }
}

fn slot(at_us: u64, period_us: u64) -> u64 {
    at_us.saturating_mul(SLOTS).checked_div(period_us).unwrap_or(0)
}

pub(crate) fn weigh(now: Instant, terms: Terms, held: Option<&Groups>, cost: u32) -> Row {
    let now_us = now.us();
    let live = Live::read(now_us, terms.period_us, held);
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
    let (now_us, Terms { limit, period_us, .. }) = (now.us(), row.terms);
    let mut live = row.live;
    let charged = allowed && row.cost > 0;
    if charged {
        live.add(now_us, row.cost, period_us);
    }
    let remaining = u64::from(limit).saturating_sub(live.used);
    let reset_us = live
        .groups
        .last()
        .map_or(0, |newest| newest.last_us.saturating_add(period_us).saturating_sub(now_us));
    let one_more = live.used.saturating_add(1).saturating_sub(u64::from(limit)).max(1);
    let next_us = live.wait_us(now_us, period_us, one_more);
    let reading = Reading { remaining, next_us, reset_us, retry: row.retry };
    let write = (charged || live.torn).then(|| live.write(now_us, period_us));
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
    let mut live = Live::read(now_us, terms.period_us, held);
    let room = u64::from(terms.limit).saturating_mul(2).saturating_sub(live.used);
    let units = u32::try_from(room).unwrap_or(u32::MAX).min(units);
    if units == 0 {
        return None;
    }
    live.add(now_us, units, terms.period_us);
    Some(live.write(now_us, terms.period_us))
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
    let mut live = Live::read(now_us, terms.period_us, held);
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
    Some(live.write(now_us, terms.period_us))
}

#[cfg(test)]
mod tests;
