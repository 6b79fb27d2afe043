//! Owns the GCRA step (ITU-T I.371's virtual scheduling): what one request costs, what is left and
//! when more comes. The specification of `lua/rl_check.lua` and the engine of the in-memory store;
//! knows no key, no clock and no store.
//!
//! Time is in microseconds since 2024-01-01 as a double, because Lua has nothing but doubles: both
//! sides do the same operations in the same order, so they agree bit for bit. Contract: in every
//! interval of length t a limit admits at most `burst + t * limit / period`.
#![expect(
    clippy::as_conversions,
    reason = "doubles mirror Lua's numbers; every cast is of a value below 2^53 or saturates"
)]

use alloc::vec::Vec;
use core::fmt;

/// 2024-01-01T00:00:00Z in µs since 1970: the zero of [`Instant`].
pub const EPOCH_US: u64 = 1_704_067_200_000_000;

/// Every time is a whole number of 1/16 µs, and the emission interval is rounded up to one: sums of
/// such doubles are exact until 2041, so that no rounding ever admits a unit too many, however long
/// a limit is used up.
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
}

// === impl BadQuota ===

impl fmt::Display for BadQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zero => "limit, period and burst must be at least 1",
            Self::TooFast => "at most 1,000,000 per second",
            Self::TooSlow => "the burst must refill within 10 years",
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
}

/// A theoretical arrival time as stored: when the bucket will be full, in µs since [`EPOCH_US`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Tat(pub f64);

/// What to store: the new arrival time and when it may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write {
    /// The new arrival time.
    pub tat: Tat,
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

struct Row {
    interval: f64,
    horizon: f64,
    tat: f64,
    after: f64,
    retry: Retry,
    cost: u32,
}

/// One atomic step: either every limit is charged, or none.
pub fn check(now: Instant, charges: &[Charge]) -> Answer {
    let rows: Vec<Row> = charges.iter().map(|charge| weigh(now.0, charge)).collect();
    let allowed = rows.iter().all(|row| row.retry == Retry::Fits);
    let limits = rows.iter().map(|row| settle(now.0, row, allowed)).collect();
    Answer { allowed, limits }
}

fn weigh(now: f64, charge: &Charge) -> Row {
    let Quota { limit, period_us, burst } = charge.quota;
    let interval = ceil(period_us as f64 * GRAIN / f64::from(limit)) as f64 / GRAIN;
    let span = f64::from(burst) * interval;
    let horizon = now + span;
    let mut tat = charge.tat.map_or(now, |Tat(tat)| tat);
    if tat < now {
        tat = now;
    }
    // Above the horizon only after the clock stepped back or the limit shrank.
    if tat > horizon {
        tat = horizon;
    }
    let after = tat + f64::from(charge.cost) * interval;
    let retry = if after <= horizon {
        Retry::Fits
    } else if charge.cost > burst {
        Retry::Never
    } else {
        Retry::AfterUs(ceil(after - horizon))
    };
    Row { interval, horizon, tat, after, retry, cost: charge.cost }
}

fn settle(now: f64, row: &Row, allowed: bool) -> (Reading, Option<Write>) {
    let tat = if allowed { row.after } else { row.tat };
    let write = (allowed && row.cost > 0)
        .then(|| Write { tat: Tat(tat), ttl_ms: ceil((tat - now) / 1000.0) + 1 });
    let free = row.horizon - tat;
    let remaining = if free > 0.0 { (free / row.interval) as u64 } else { 0 };
    let next_us = if tat <= now { 0 } else { ceil((remaining + 1) as f64 * row.interval - free) };
    let reading = Reading { remaining, next_us, reset_us: ceil(tat - now), retry: row.retry };
    (reading, write)
}

/// `math.ceil` for what is never negative; core has no `ceil` of its own.
fn ceil(value: f64) -> u64 {
    let whole = value as u64;
    if (whole as f64) < value { whole + 1 } else { whole }
}

#[cfg(test)]
mod tests;
