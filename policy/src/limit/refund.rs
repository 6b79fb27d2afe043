//! Owns how much of a charge is given back, later and in whatever order: what it came to when it was
//! made, what was given back of its limit since, and whether it was forgotten. A part of the specification of
//! `lua/rl_settle.lua` and `lua/rl_reset.lua`; why it is exact: docs/decisions/0099-refunds.md.
#![expect(
    clippy::as_conversions,
    reason = "doubles mirror Lua's numbers; every cast is of a value below 2^53 or rounds down"
)]

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::gcra::{Instant, Quota};

/// As long a decision is remembered as settled, in µs: what is older is given back by its age alone.
pub const REMEMBERED_US: u64 = 60_000_000;
/// Beyond that many the older half is kept by twos, again and again: the newest, which many have been
/// under way beside, exactly, and older ones the more roughly the older they are.
const REFUNDS_MAX: usize = 32;
/// A time is a whole number of 1/16 µs, and one that was rounded up to a whole µs is at most that
/// much too late.
const ROUNDED_US: f64 = 15.0 / 16.0;

/// What a store says of a charge. Whoever gives it back says it again; it means nothing to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// When it was charged, by the store's clock, in µs since 1970.
    pub at_us: u64,
    /// In how many µs from then its limit would have counted nothing any more, rounded up.
    pub full_us: u64,
    /// Whether it was charged by a cold region's numbers.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub cold: bool,
}

/// One refund, in µs since 2024.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Refund {
    /// When it was charged, at the earliest.
    charged: f64,
    /// When it was given back, at the latest.
    given: f64,
    /// How much.
    back: f64,
}

/// What was lately given back of one limit, in order; behind its reset, if there was one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refunds {
    reset: Option<Reset>,
    given: Vec<Refund>,
}

/// An operator's word that what a limit counted is forgotten, in µs since 2024.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reset {
    /// When it came.
    at: f64,
    /// Until when it is kept.
    until: f64,
}

/// A charge that is to be given back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    /// What it was charged, in µs.
    pub(super) cost: f64,
    /// At most that long ago, in µs.
    pub(super) age_us: u64,
    /// What the store said of it.
    pub(super) receipt: Option<Receipt>,
    /// Whether units of the limit are leased.
    pub(super) has_leases: bool,
}

// === impl Receipt ===

impl Receipt {
    /// When it was charged, in µs since 2024.
    pub fn at(self) -> f64 {
        Instant::from_unix_us(self.at_us).since_epoch_us()
    }

    /// The arrival time that it wrote, or a little less, in µs since 2024.
    pub fn tat(self) -> f64 {
        self.at() + self.full_us as f64 - ROUNDED_US
    }

    /// How long ago it was charged, in µs; `None` if the clock has stepped back since.
    fn age(self, now: f64) -> Option<f64> {
        let at = self.at();
        (at > 0.0 && at <= now).then_some(now - at)
    }
}

/// For how long a charge of a limit may be given back, in µs: what is older has run out by itself.
pub fn kept_us(quota: Quota) -> u64 {
    let spans = [quota.pace(), quota.cold_pace()].map(|pace| pace.span as u64);
    spans.into_iter().fold(quota.period_us().max(REMEMBERED_US), u64::max).saturating_add(1)
}

/// The same in whole µs.
pub(super) fn whole_age(now: Instant, age_us: u64, receipt: Option<Receipt>) -> u64 {
    age(now, age_us, receipt) as u64
}

/// The age of a charge in µs: what the store knows of it rather than what its caller says, whose message
/// may have been on its way for longer or shorter than it told.
fn age(now: Instant, age_us: u64, receipt: Option<Receipt>) -> f64 {
    let known = receipt.and_then(|receipt| receipt.age(now.since_epoch_us()));
    known.unwrap_or(age_us as f64)
}

// === impl Refunds ===

impl Refunds {
    /// What is remembered of a limit that is reset now, for `keep_us`: [`kept_us`].
    pub fn reset(now: Instant, keep_us: u64) -> Self {
        let at = now.since_epoch_us();
        Self { reset: Some(Reset { at, until: at + keep_us as f64 }), given: Vec::new() }
    }

    /// As it is stored: 24 bytes each, doubles, the lowest byte first. A reset is one of infinitely much.
    pub fn to_bytes(&self) -> Vec<u8> {
        let reset = self.reset.map(|reset| [reset.until, reset.at, f64::INFINITY]);
        let given = self.given.iter().map(|one| [one.charged, one.given, one.back]);
        reset.into_iter().chain(given).flatten().flat_map(f64::to_le_bytes).collect()
    }

    /// For how long it has to be kept from now on, in µs.
    pub fn left_us(&self, now: Instant) -> u64 {
        let left = self.reset.map_or(0.0, |reset| reset.until - now.since_epoch_us());
        REMEMBERED_US.max(left as u64)
    }

    /// Whether a charge may be of before what its limit holds now began: of before its region began where it is kept, at
    /// `began` in µs since 2024, or of before its reset.
    pub(super) fn forgot(
        &self,
        now: Instant,
        began: f64,
        age_us: u64,
        receipt: Option<Receipt>,
    ) -> bool {
        let charged = now.since_epoch_us() - age(now, age_us, receipt);
        let now = now.since_epoch_us();
        let began = if began > now { now } else { began };
        let reset = self.reset.filter(|reset| reset.until > now);
        charged < began || reset.is_some_and(|reset| charged <= reset.at)
    }

    /// What is still remembered.
    fn lately(&self, now: f64) -> impl Iterator<Item = &Refund> {
        self.given.iter().filter(move |one| one.given + REMEMBERED_US as f64 > now)
    }

    /// What is to be given back of a charge whose limit now holds `tat`, in µs.
    ///
    /// Of `cost` that much may have come back by itself as the bucket, without the charge, has been
    /// full since: not within its age, and not before the arrival time that it wrote, if nothing was
    /// taken out of that since.
    pub(super) fn back(&self, now: Instant, tat: f64, claim: Claim) -> f64 {
        let Claim { cost, age_us, receipt, has_leases } = claim;
        let by_age = cost - age(now, age_us, receipt);
        let now = now.since_epoch_us();
        let Some(receipt) = receipt.filter(|_| !has_leases) else { return by_age };
        let at = receipt.at();
        let is_old = at + REMEMBERED_US as f64 <= now;
        // After a clock stepped back nobody knows what came before what.
        if receipt.age(now).is_none() || is_old || self.lately(now).any(|one| one.given > now) {
            return by_age;
        }
        let mut full = receipt.tat();
        for one in self.lately(now).filter(|one| one.charged <= at && one.given >= at) {
            full -= one.back;
        }
        // The charge was forgotten, and what is there now is others'.
        if tat < full {
            return 0.0;
        }
        let left = full - now;
        let by_time = if left < cost { left } else { cost };
        if by_time > by_age { by_time } else { by_age }
    }

    /// Remembers that so much of it was given back.
    pub(super) fn note(&mut self, now: Instant, back: f64, claim: Claim) {
        let given = now.since_epoch_us();
        let at = claim.receipt.filter(|receipt| receipt.age(given).is_some()).map(Receipt::at);
        let charged = at.unwrap_or(given - claim.age_us as f64);
        self.reset = self.reset.filter(|reset| reset.until > given);
        self.given = self.lately(given).copied().collect();
        self.given.push(Refund { charged, given, back });
        if self.given.len() > REFUNDS_MAX {
            let (older, newer) = self.given.split_at(REFUNDS_MAX / 2);
            let older = older.chunks(2).filter_map(Refund::both);
            self.given = older.chain(newer.iter().copied()).collect();
        }
    }
}

// === impl Refund ===

impl Refund {
    /// As if both had been there as long as either.
    fn both(refunds: &[Self]) -> Option<Self> {
        refunds.iter().copied().reduce(|one, two| Self {
            charged: if two.charged < one.charged { two.charged } else { one.charged },
            given: if two.given > one.given { two.given } else { one.given },
            back: one.back + two.back,
        })
    }
}
