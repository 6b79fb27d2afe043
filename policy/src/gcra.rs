//! Owns the GCRA step (ITU-T I.371's virtual scheduling): what one request costs, what is left and
//! when more comes. A part of the specification of `lua/rl_check.lua` and `lua/rl_settle.lua`, and
//! of the engine of the in-memory store; knows no key, no clock and no store.
//!
//! Time is in microseconds since 2024-01-01 as a double, because Lua has nothing but doubles: both
//! sides do the same operations in the same order, so they agree bit for bit. Contract: in every
//! interval of length t a limit admits at most `burst + t * limit / period`.
#![expect(
    clippy::as_conversions,
    reason = "doubles mirror Lua's numbers; every cast is of a value below 2^53 or saturates"
)]

mod reach;

use alloc::vec::Vec;
use core::fmt;

pub use self::reach::Reach;

/// 2024-01-01T00:00:00Z in µs since 1970: the zero of [`Instant`].
pub const EPOCH_US: u64 = 1_704_067_200_000_000;

/// Every time is a whole number of 1/16 µs, and the emission interval is rounded up to one: sums of
/// such doubles are exact until 2041 (of a bucket that takes years to fill, so many years sooner), so that
/// no rounding ever admits a unit too many, however long a limit is used up.
const GRAIN: f64 = 16.0;
/// A bucket that takes longer than this to fill is taken for a mistake: 10 years.
const SPAN_US_MAX: u64 = 10 * 366 * 86_400_000_000;

/// A point in time, in µs since [`EPOCH_US`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Instant(f64);

// === impl Instant ===

impl Instant {
    /// From µs since 1970-01-01. Before 2024 counts as 2024: no real clock says so.
    pub fn from_unix_us(unix_us: u64) -> Self {
        Self(unix_us.saturating_sub(EPOCH_US) as f64)
    }

    /// In µs since [`EPOCH_US`].
    pub fn since_epoch_us(self) -> f64 {
        self.0
    }

    /// In whole µs since [`EPOCH_US`].
    pub(crate) fn us(self) -> u64 {
        self.0 as u64
    }

    /// In µs since 1970-01-01.
    pub fn unix_us(self) -> u64 {
        (self.0 as u64).saturating_add(EPOCH_US)
    }
}

/// A limit: `limit` units per `period_us`, of which `burst` may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: u32,
    period_us: u64,
    burst: u32,
}

/// Why three numbers make no [`Quota`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadQuota {
    /// `limit`, `period` or `burst` is 0.
    Zero,
    /// More than 1,000,000 units a second: less than 1 µs a unit is below the clock's step.
    TooFast,
    /// The bucket would take more than 10 years to fill.
    TooSlow,
    /// A `window` whose burst is not its limit.
    WindowBurst,
    /// A `window` of more than a thousand million.
    WindowLimit,
}

// === impl BadQuota ===

impl fmt::Display for BadQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "limit, period and burst must be at least 1",
            Self::TooFast => "at most 1,000,000 per second",
            Self::TooSlow => "the burst must refill within 10 years",
            Self::WindowLimit => "a window admits at most 1,000,000,000",
            Self::WindowBurst => "a window has no burst of its own: leave it out",
        })
    }
}

impl core::error::Error for BadQuota {}

// === impl Quota ===

impl Quota {
    /// Checks the three numbers against each other.
    pub fn new(limit: u32, period_us: u64, burst: u32) -> Result<Self, BadQuota> {
        if limit == 0 || period_us == 0 || burst == 0 {
            return Err(BadQuota::Zero);
        }
        if period_us < u64::from(limit) {
            return Err(BadQuota::TooFast);
        }
        let span_us = u128::from(period_us) * u128::from(burst) / u128::from(limit);
        if span_us > u128::from(SPAN_US_MAX) || period_us > SPAN_US_MAX {
            return Err(BadQuota::TooSlow);
        }
        Ok(Self { limit, period_us, burst })
    }

    /// Units per period.
    pub fn limit(self) -> u32 {
        self.limit
    }

    /// The period, in µs.
    pub fn period_us(self) -> u64 {
        self.period_us
    }

    /// Units that may come at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// The units per period while the region is cold: half, rounded down, at least 1 (product row
    /// A2).
    pub fn cold_limit(self) -> u32 {
        (self.limit / 2).max(1)
    }

    /// What may come at once while the region is cold, of a limit that is a bucket.
    pub fn cold_burst(self) -> u32 {
        (self.burst / 2).min(self.cold_limit().div_ceil(2)).max(1)
    }

    /// How a bucket of this limit fills.
    pub fn pace(self) -> Pace {
        let interval = ceil(self.period_us as f64 * GRAIN / f64::from(self.limit)) as f64 / GRAIN;
        Pace { interval, span: f64::from(self.burst) * interval }
    }

    /// The same while the region is cold: never more than [`Quota::cold_limit`] in any period, its
    /// ends included. A bucket of b that gets r more per period admits b + r; one grain more per
    /// unit keeps the last of them out of the period, so b + r is one more than the cold limit.
    pub fn cold_pace(self) -> Pace {
        let (limit, burst) = (self.cold_limit(), self.cold_burst());
        let rate = f64::from(limit.saturating_sub(burst).saturating_add(1));
        let interval = (ceil(self.period_us as f64 * GRAIN / rate) as f64 + 1.0) / GRAIN;
        Pace { interval, span: f64::from(burst) * interval }
    }
}

/// How a bucket fills, in µs, whole sixteenths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// One unit comes back in that long.
    pub interval: f64,
    /// A whole burst comes back in that long.
    pub span: f64,
}

/// One limit's part of a request: what it is charged, and what the store held.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Charge {
    /// The limit.
    pub quota: Quota,
    /// Units; 0 only looks.
    pub cost: u32,
    /// The theoretical arrival time that the store holds, if any.
    pub tat: Option<Tat>,
    /// How far ahead whoever charged it may have led it.
    pub reach: Reach,
}

/// A theoretical arrival time as stored: when the bucket will be full, in µs since [`EPOCH_US`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Tat(pub f64);

/// What to store: the new arrival time and when it may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write {
    /// The new arrival time.
    pub tat: Tat,
    /// How far ahead whoever charged it may have led it.
    pub reach: Reach,
    /// After that many ms the bucket is full and the entry says nothing.
    pub ttl_ms: u64,
}

/// What one limit says after the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whole units left.
    pub remaining: u64,
    /// µs until one more unit is there; 0 if full.
    pub next_us: u64,
    /// µs until full.
    pub reset_us: u64,
    /// When this request would fit.
    pub retry: Retry,
}

/// When a request would fit one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It fits now.
    Fits,
    /// In that many µs, if nobody else comes.
    AfterUs(u64),
    /// Never: the cost is above the burst.
    Never,
}

/// The answer of one step over all limits of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether every limit admits. If not, nothing is charged.
    pub allowed: bool,
    /// One per charge, in order: the reading, and what to write.
    pub limits: Vec<(Reading, Option<Write>)>,
}

/// One limit weighed, before it is known whether the others admit.
pub(crate) struct Row {
    pace: Pace,
    horizon: f64,
    tat: f64,
    reach: Reach,
    torn: bool,
    after: f64,
    pub(crate) retry: Retry,
    cost: u32,
}

/// One atomic step: either every limit is charged, or none. In a region that is warm.
pub fn check(now: Instant, charges: &[Charge]) -> Answer {
    let rows: Vec<Row> = charges.iter().map(|charge| weigh(now, charge, 0)).collect();
    let allowed = rows.iter().all(|row| row.retry == Retry::Fits);
    let limits = rows.iter().map(|row| settle(now, row, allowed)).collect();
    Answer { allowed, limits }
}

/// `cold_left_us`: how long the region is still cold; 0 if it is warm.
pub(crate) fn weigh(Instant(now): Instant, charge: &Charge, cold_left_us: u64) -> Row {
    let warm = charge.quota.pace();
    let pace = if cold_left_us > 0 { charge.quota.cold_pace() } else { warm };
    let horizon = now + pace.span;
    let Arrival { tat, reach, torn } =
        arrival(Instant(now), [pace, warm], charge.tat, charge.reach);
    let cost = f64::from(charge.cost);
    let after = tat + cost * pace.interval;
    let retry = if after <= horizon {
        Retry::Fits
    } else if cost * warm.interval > warm.span {
        Retry::Never
    } else if cost * pace.interval > pace.span {
        Retry::AfterUs(cold_left_us)
    } else {
        Retry::AfterUs(ceil(after - horizon))
    };
    Row { pace, horizon, tat, reach, torn, after, retry, cost: charge.cost }
}

/// A stored arrival time as it counts now.
pub(crate) struct Arrival {
    /// In µs since 2024, not before now.
    pub(crate) tat: f64,
    /// To be stored with it.
    pub(crate) reach: Reach,
    /// It was too far ahead, and has to be written down.
    pub(crate) torn: bool,
}

/// Above the horizon is debt, of one burst at most, or what larger numbers charged. Above that only
/// after the clock stepped back; then it is written down again, or the wait would be as long as the
/// step.
pub(crate) fn arrival(
    Instant(now): Instant,
    [pace, warm]: [Pace; 2],
    stored: Option<Tat>,
    reach: Reach,
) -> Arrival {
    let (tat, reach, own) = held(now, [pace, warm], stored, reach);
    let ceiling = reach.ceiling(own, now, ceiling(now, pace, warm));
    let torn = tat > ceiling;
    Arrival { tat: if torn { ceiling } else { tat }, reach: reach.max(own), torn }
}

/// What is held, how far ahead it may honestly be, and how far these numbers may lead it. A bucket that
/// is full says nothing of who charged it.
fn held(now: f64, [pace, warm]: [Pace; 2], tat: Option<Tat>, reach: Reach) -> (f64, Reach, Reach) {
    let own = Reach::of(pace, warm);
    match tat {
        Some(Tat(tat)) if tat > now => (tat, reach, own),
        Some(_) | None => (now, own, own),
    }
}

pub(crate) fn settle(Instant(now): Instant, row: &Row, allowed: bool) -> (Reading, Option<Write>) {
    let tat = if allowed { row.after } else { row.tat };
    let write = ((allowed && row.cost > 0) || row.torn).then(|| write(now, tat, row.reach));
    let free = row.horizon - tat;
    let remaining = if free > 0.0 { (free / row.pace.interval) as u64 } else { 0 };
    let next_us =
        if tat <= now { 0 } else { ceil((remaining + 1) as f64 * row.pace.interval - free) };
    let reading = Reading { remaining, next_us, reset_us: ceil(tat - now), retry: row.retry };
    (reading, write)
}

/// How far ahead an arrival time may lie: a burst, and as much in debt. By the numbers of a warm region
/// where they reach further: what they admitted is not forgotten because a gateway finds the region
/// cold, or two would let a client have the difference again and again.
fn ceiling(now: f64, pace: Pace, warm: Pace) -> f64 {
    let own = now + pace.span + pace.span;
    let whole = now + warm.span + warm.span;
    if whole > own { whole } else { own }
}

/// Charges more, at most into a debt of one burst; what others charged beyond that stays.
pub(crate) fn charge_more(
    Instant(now): Instant,
    paces: [Pace; 2],
    before: (Option<Tat>, Reach),
    units: u32,
) -> Write {
    let [pace, warm] = paces;
    let (tat, reach, own) = held(now, paces, before.0, before.1);
    let ceiling = ceiling(now, pace, warm);
    let honest = reach.ceiling(own, now, ceiling);
    let kept = if tat > honest { honest } else { tat };
    let most = if kept > ceiling { kept } else { ceiling };
    let tat = tat + f64::from(units) * pace.interval;
    write(now, if tat > most { most } else { tat }, reach.max(own))
}

/// Gives back `back` µs of what was charged, and says how much that was: never more than is there.
pub(crate) fn give_back(
    Instant(now): Instant,
    (Tat(tat), reach): (Tat, Reach),
    back: f64,
) -> Option<(Write, f64)> {
    if back <= 0.0 || tat <= now {
        return None;
    }
    let there = tat - now;
    let back = if back < there { back } else { there };
    Some((write(now, tat - back, reach), back))
}

fn write(now: f64, tat: f64, reach: Reach) -> Write {
    Write { tat: Tat(tat), reach, ttl_ms: ceil((tat - now) / 1000.0) + 1 }
}

/// `math.ceil` for what is never negative; core has no `ceil` of its own.
pub(crate) fn ceil(value: f64) -> u64 {
    let whole = value as u64;
    if (whole as f64) < value { whole + 1 } else { whole }
}

#[cfg(test)]
mod tests;
