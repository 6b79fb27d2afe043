//! Owns one atomic step over the limits of a request, whichever way each counts: the specification
//! of `lua/rl_check.lua` and `lua/rl_settle.lua`, and the engine of the in-memory store. Knows no
//! key, no clock and no store.

pub mod grant;
pub mod refund;

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use self::grant::{Draw, Grant};
use self::refund::{Claim, Receipt, Refunds};
use crate::gcra::{self, BadQuota, Instant, Pace, Quota, Reach, Reading, Retry, Tat};
use crate::lease::bucket::{Bucket, Leases};
use crate::lease::step as lease;
use crate::window::{self, Grain, Groups};

/// How a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// At most `burst + t * limit / period` in every interval of length t (see [`crate::gcra`]).
    #[default]
    Gcra,
    /// Never more than `limit` in any period; has no burst of its own (see [`crate::window`]).
    Window,
}

/// A limit's numbers and where it counts now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// How it counts.
    pub algorithm: Algorithm,
    /// Its numbers.
    pub quota: Quota,
    /// How long the region is still cold, in µs; 0 if it is warm. While it is cold at most
    /// [`Quota::cold_limit`] is admitted in any period.
    pub cold_left_us: u64,
}

/// One limit's part of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Charge<'h> {
    /// The limit.
    pub terms: Terms,
    /// Units; 0 only looks.
    pub cost: u32,
    /// Whether it counts for itself: it is charged if it admits, and denies nobody. The others are
    /// charged together or not at all.
    pub alone: bool,
    /// What the store holds, if anything.
    pub held: Option<&'h Held>,
}

/// One limit's part of what is changed after a decision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change<'h> {
    /// The limit.
    pub terms: Terms,
    /// Above 0 it charges more, below 0 it gives back.
    pub by: i64,
    /// At most that long ago the decision charged, in µs.
    pub age_us: u64,
    /// Whether it is known that it charged by a cold region's pace.
    pub charged_cold: bool,
    /// What the store said of the charge, if that is known.
    pub receipt: Option<Receipt>,
    /// When the region began where the limit is kept, in µs since 1970; 0 if nobody knows. What was charged before is
    /// not given back: it was forgotten.
    pub began_us: u64,
    /// What the store holds, if anything.
    pub held: Option<&'h Held>,
}

/// What a store holds of one limit.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// Of a GCRA limit, and how far ahead whoever charged it may have led it.
    Arrival(Tat, Reach),
    /// Of a GCRA limit some of whose units are leased.
    Leased(Bucket),
    /// Of a window.
    Groups(Groups),
    /// Either of them, with a grant; never one within another.
    Granted(Grant, Box<Self>),
}

/// What to store.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The new value.
    pub held: Held,
    /// After that many ms it says nothing.
    pub ttl_ms: u64,
}

/// The answer of one step over all limits of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Whether every limit admits that does not count for itself. If not, nothing is charged.
    pub allowed: bool,
    /// One per charge, in order: the reading, and what to write.
    pub limits: Vec<(Reading, Option<Write>)>,
}

enum Row<'h> {
    /// With the leases beside it, and until when they have to be known, in µs since 2024.
    Gcra(gcra::Row, Option<(&'h Leases, f64)>),
    Window(window::Row),
}

// === impl Algorithm ===

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 2] = [Self::Gcra, Self::Window];

    /// The algorithm as it stands in configurations and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcra => "gcra",
            Self::Window => "window",
        }
    }

    /// Checks the numbers of a limit that counts this way.
    pub fn quota(self, limit: u32, period_us: u64, burst: u32) -> Result<Quota, BadQuota> {
        match self {
            Self::Window if burst != limit => Err(BadQuota::WindowBurst),
            Self::Window if limit > window::LIMIT_MAX => Err(BadQuota::WindowLimit),
            Self::Window | Self::Gcra => Quota::new(limit, period_us, burst),
        }
    }

    /// Whether it is the one that is meant where none is named.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl Terms ===

impl Terms {
    fn pace(&self) -> Pace {
        if self.cold_left_us > 0 { self.quota.cold_pace() } else { self.quota.pace() }
    }

    fn window(&self) -> window::Terms {
        let cold = self.cold_left_us > 0;
        let warm_limit = self.quota.limit();
        window::Terms {
            limit: if cold { self.quota.cold_limit() } else { warm_limit },
            warm_limit,
            period_us: self.quota.period_us(),
            grain: Grain::of(warm_limit, self.quota.period_us()),
            cold_left_us: self.cold_left_us,
        }
    }
}

// === impl Held ===

impl Held {
    /// What a limit holds that counted nothing.
    pub fn empty(algorithm: Algorithm, now: Instant) -> Self {
        match algorithm {
            Algorithm::Gcra => Self::Arrival(Tat(now.since_epoch_us()), Reach::UNKNOWN),
            Algorithm::Window => Self::Groups(Groups::default()),
        }
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Arrival(tat, reach) => {
                let mut bytes = tat.0.to_le_bytes().to_vec();
                bytes.extend(reach.byte());
                bytes
            }
            Self::Leased(bucket) => bucket.to_bytes(),
            Self::Groups(groups) => groups.to_bytes(),
            Self::Granted(grant, held) => {
                let mut bytes = grant.to_bytes();
                bytes.extend(held.to_bytes());
                bytes
            }
        }
    }

    fn tat(&self) -> Option<Tat> {
        match self {
            Self::Arrival(tat, _) => Some(*tat),
            Self::Leased(bucket) => Some(bucket.tat),
            Self::Groups(_) => None,
            Self::Granted(_, held) => held.tat(),
        }
    }

    fn reach(&self) -> Reach {
        match self.bare() {
            Self::Arrival(_, reach) => *reach,
            Self::Leased(bucket) => bucket.reach,
            Self::Groups(_) | Self::Granted(..) => Reach::UNKNOWN,
        }
    }

    fn groups(&self) -> Option<&Groups> {
        match self {
            Self::Groups(groups) => Some(groups),
            Self::Arrival(..) | Self::Leased(_) => None,
            Self::Granted(_, held) => held.groups(),
        }
    }

    pub(crate) fn grant(&self) -> Option<Grant> {
        match self {
            Self::Granted(grant, _) => Some(*grant),
            Self::Arrival(..) | Self::Leased(_) | Self::Groups(_) => None,
        }
    }

    /// Whether a reading tells what a charge came to: there is neither a grant that may have paid for it
    /// nor a lease.
    pub fn is_plain(&self, now: Instant) -> bool {
        let is_leased = match self.bare() {
            Self::Leased(bucket) => !bucket.leases.is_over(now),
            Self::Arrival(..) | Self::Groups(_) | Self::Granted(..) => false,
        };
        !is_leased && self.grant().is_none_or(|grant| grant.until_us <= now.us())
    }

    /// Without a grant.
    pub(crate) fn bare(&self) -> &Self {
        match self {
            Self::Granted(_, held) => held,
            Self::Arrival(..) | Self::Leased(_) | Self::Groups(_) => self,
        }
    }

    /// The leases that are not over, and until when they have to be known, in µs since 2024.
    fn leases(&self, now: Instant, pace: Pace, warm: Pace) -> Option<(&Leases, f64)> {
        match self.bare() {
            Self::Leased(bucket) => {
                let span_us = bucket.reach.span_us(pace, warm);
                let until = bucket.leases.kept_until(pace.interval, span_us);
                Some((&bucket.leases, until)).filter(|(leases, _)| !leases.is_over(now))
            }
            Self::Arrival(..) | Self::Groups(_) | Self::Granted(..) => None,
        }
    }

    /// The arrival time, with room for what is leased.
    fn floored(&self, now: Instant, pace: Pace, warm: Pace) -> Option<Tat> {
        match self.bare() {
            Self::Leased(bucket) => Some(bucket.floored(now, pace, warm)),
            bare => bare.tat(),
        }
    }
}

/// A new arrival time beside the leases as they were: they change only when a holder reports.
fn beside(now: Instant, write: gcra::Write, leases: Option<(&Leases, f64)>) -> Write {
    match leases {
        Some((leases, until)) => {
            lease::beside(now, (write.tat, write.reach), leases.clone(), until)
        }
        None => Write { held: Held::Arrival(write.tat, write.reach), ttl_ms: write.ttl_ms },
    }
}

impl From<window::Write> for Write {
    fn from(write: window::Write) -> Self {
        Self { held: Held::Groups(write.groups), ttl_ms: write.ttl_ms }
    }
}

// === impl Row ===

impl<'h> Row<'h> {
    fn weigh(now: Instant, charge: &Charge<'h>) -> Self {
        let Charge { terms, cost, held, .. } = *charge;
        match terms.algorithm {
            Algorithm::Gcra => {
                let tat = held.and_then(|held| held.floored(now, terms.pace(), terms.quota.pace()));
                let reach = held.map_or(Reach::UNKNOWN, Held::reach);
                let charge = gcra::Charge { quota: terms.quota, cost, tat, reach };
                let leases =
                    held.and_then(|held| held.leases(now, terms.pace(), terms.quota.pace()));
                Self::Gcra(gcra::weigh(now, &charge, terms.cold_left_us), leases)
            }
            Algorithm::Window => {
                let groups = held.and_then(Held::groups);
                Self::Window(window::weigh(now, terms.window(), groups, cost))
            }
        }
    }

    fn fits(&self) -> bool {
        match self {
            Self::Gcra(row, _) => row.retry == Retry::Fits,
            Self::Window(row) => row.retry == Retry::Fits,
        }
    }

    /// Until when the leases beside it have to be known.
    fn kept_until(&self) -> Option<f64> {
        match self {
            Self::Gcra(_, leases) => leases.map(|(_, until)| until),
            Self::Window(_) => None,
        }
    }

    fn settle(self, now: Instant, allowed: bool) -> (Reading, Option<Write>) {
        match self {
            Self::Gcra(row, leases) => {
                let (reading, write) = gcra::settle(now, &row, allowed);
                (reading, write.map(|write| beside(now, write, leases)))
            }
            Self::Window(row) => {
                let (reading, write) = window::settle(now, row, allowed);
                (reading, write.map(Write::from))
            }
        }
    }
}

/// One atomic step: either every limit is charged, or none; of those that count for themselves each
/// that admits, if the others do.
pub fn check<'h>(now: Instant, charges: &[Charge<'h>]) -> Answer {
    let weigh = |charge: &Charge<'h>| {
        let row = Row::weigh(now, charge);
        let draw = Draw::new(now, charge.held, charge.cost, row.fits());
        (row, draw)
    };
    let rows: Vec<(Row<'h>, Draw)> = charges.iter().map(weigh).collect();
    let fits = |(row, draw): &(Row<'_>, Draw)| row.fits() || draw.fits;
    let allowed = rows.iter().zip(charges).all(|(row, charge)| charge.alone || fits(row));
    let settled = |((row, draw), charge): ((Row<'_>, Draw), &Charge<'_>)| {
        let charged = allowed && row.fits();
        let kept = row.kept_until();
        draw.settle(allowed, charge.held, kept, row.settle(now, charged))
    };
    let limits = rows.into_iter().zip(charges).map(settled).collect();
    Answer { allowed, limits }
}

/// What a change after the decision writes, if anything; `refunds` is what was lately given back of
/// the limit. Never denies: what is charged too much becomes debt, which is bounded by one burst (of a
/// window, one limit).
pub fn settle(now: Instant, change: &Change<'_>, refunds: &mut Refunds) -> Option<Write> {
    let Change { terms, by, age_us, charged_cold, receipt, began_us, held } = *change;
    let units = u32::try_from(by.unsigned_abs()).unwrap_or(u32::MAX);
    let cold = if by > 0 { terms.cold_left_us > 0 } else { charged_cold };
    let pace = if cold { terms.quota.cold_pace() } else { terms.quota.pace() };
    let warm = terms.quota.pace();
    let reach = held.map_or(Reach::UNKNOWN, Held::reach);
    let floored = held.and_then(|held| held.floored(now, pace, warm));
    let leases = held.and_then(|held| held.leases(now, pace, warm));
    let began = Instant::from_unix_us(began_us).since_epoch_us();
    let write: Option<Write> = match (terms.algorithm, by > 0) {
        _ if by == 0 => None,
        (_, false) if refunds.forgot(now, began, age_us, receipt) => None,
        (Algorithm::Gcra, true) => {
            let write = gcra::charge_more(now, [pace, warm], (floored, reach), units);
            Some(beside(now, write, leases))
        }
        (Algorithm::Gcra, false) => {
            // Of leases that are over nothing raises it later any more.
            let tat = if leases.is_some() { held.and_then(Held::tat) } else { floored };
            let cost = f64::from(units) * pace.interval;
            let claim = Claim { cost, age_us, receipt, has_leases: leases.is_some() };
            tat.and_then(|tat| {
                let back = refunds.back(now, tat.0, claim);
                let (write, back) = gcra::give_back(now, (tat, reach), back)?;
                refunds.note(now, back, claim);
                Some(beside(now, write, leases))
            })
        }
        (Algorithm::Window, true) => {
            let groups = held.and_then(Held::groups);
            window::charge_more(now, terms.window(), groups, units).map(Write::from)
        }
        (Algorithm::Window, false) => {
            let groups = held.and_then(Held::groups);
            let age_us = refund::whole_age(now, age_us, receipt);
            window::give_back(now, terms.window(), groups, units, age_us).map(Write::from)
        }
    };
    write.map(|write| grant::kept(now, held, write))
}

#[cfg(test)]
mod tests;
