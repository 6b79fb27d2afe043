//! Owns what an operator lets one subject have beyond a limit, until a moment. A part of the
//! specification of `lua/rl_check.lua`, `lua/rl_settle.lua` and `lua/rl_grant.lua`.
//!
//! A request that does not fit its limit is charged to the grant instead, as a whole, if the grant
//! holds as much. A grant stands before what the limit counted, in the same key; a key without one
//! costs nothing more than before.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Held, Write};
use crate::gcra::{self, Instant, Reading, Retry};

/// The longest that a grant lasts: a week, in s.
pub const SECONDS_MAX: u32 = 7 * 86_400;
/// At most that many times a limit is granted beyond it.
pub const TIMES_MAX: u32 = 10;
/// The first byte of a stored grant: no limit's own state that is longer than 9 bytes has it; that of
/// leases begins with 254.
const MARK: u8 = 255;

/// Units beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many are left, at least 1.
    pub units: u32,
    /// Until when they may be used, in µs since 2024-01-01.
    pub until_us: u64,
}

/// What a grant does in one step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw {
    now: Instant,
    grant: Option<Grant>,
    cost: u32,
    /// The limit does not admit, and the grant holds enough.
    pub(super) fits: bool,
}

// === impl Grant ===

impl Grant {
    /// As it stands before the limit's own state: 4 bytes of units, 7 of time.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12);
        bytes.push(MARK);
        bytes.extend(self.units.to_le_bytes());
        bytes.extend(self.until_us.to_le_bytes().iter().take(7));
        bytes
    }

    fn ttl_ms(self, now_us: u64) -> u64 {
        self.until_us.saturating_sub(now_us).div_ceil(1_000).saturating_add(1)
    }
}

// === impl Draw ===

impl Draw {
    pub(super) fn new(now: Instant, held: Option<&Held>, cost: u32, limit_admits: bool) -> Self {
        let grant = held.and_then(Held::grant).filter(|grant| grant.until_us > now.us());
        let fits = !limit_admits && grant.is_some_and(|grant| grant.units >= cost);
        Self { now, grant, cost, fits }
    }

    /// The step's outcome, given that of the limit alone; `charged` says whether the request is
    /// charged at all, `kept_until` until when leases beside it have to be known.
    pub(super) fn settle(
        self,
        charged: bool,
        held: Option<&Held>,
        kept_until: Option<f64>,
        (mut reading, write): (Reading, Option<Write>),
    ) -> (Reading, Option<Write>) {
        let Some(mut grant) = self.grant else { return (reading, write) };
        let drawn = if self.fits && charged { self.cost } else { 0 };
        grant.units = grant.units.saturating_sub(drawn);
        reading.remaining = reading.remaining.saturating_add(grant.units.into());
        if self.fits {
            reading.retry = Retry::Fits;
        }
        let write = match (write, held.map(Held::bare)) {
            (None, Some(held)) if drawn > 0 => {
                let ttl_ms = reading.reset_us.div_ceil(1_000).saturating_add(1);
                let left_us = kept_until.unwrap_or(0.0) - self.now.since_epoch_us();
                let kept_ms = if left_us > 0.0 { gcra::ceil(left_us / 1_000.0) + 1 } else { 0 };
                Some(Write { held: held.clone(), ttl_ms: ttl_ms.max(kept_ms) })
            }
            (write, _) => write,
        };
        (reading, write.map(|write| keep(Some(grant), self.now.us(), write)))
    }
}

/// Puts a grant before what is written, if anything of it is left.
fn keep(grant: Option<Grant>, now_us: u64, Write { held, ttl_ms }: Write) -> Write {
    match grant.filter(|grant| grant.until_us > now_us && grant.units > 0) {
        Some(grant) => Write {
            held: Held::Granted(grant, Box::new(held)),
            ttl_ms: ttl_ms.max(grant.ttl_ms(now_us)),
        },
        None => Write { held, ttl_ms },
    }
}

/// What a change of the limit alone becomes where there is a grant.
pub(crate) fn kept(now: Instant, held: Option<&Held>, write: Write) -> Write {
    keep(held.and_then(Held::grant), now.us(), write)
}

/// Grants `units` for `for_us` from now on, in place of what was granted before; 0 takes it back.
/// `empty` is what a limit of this kind holds that counted nothing. `left_ms` is how long the store
/// keeps what it holds.
pub fn grant(
    now: Instant,
    held: Option<&Held>,
    empty: Held,
    units: u32,
    for_us: u64,
    left_ms: u64,
) -> Write {
    let grant = Grant { units, until_us: now.us().saturating_add(for_us) };
    let held = held.map_or(empty, |held| held.bare().clone());
    keep(Some(grant), now.us(), Write { held, ttl_ms: left_ms.max(1) })
}
