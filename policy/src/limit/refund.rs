//! Owns how much of a charge is given back, later and in whatever order: what it came to when it was
//! made, and what was given back of its limit since. A part of the specification of
//! `lua/rl_settle.lua`; why it is exact: docs/decisions/0099-refunds.md.
#![expect(
    clippy::as_conversions,
    reason = "doubles mirror Lua's numbers; every cast is of a value below 2^53 or rounds down"
)]

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::gcra::Instant;

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

/// What was lately given back of one limit, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Refunds(Vec<Refund>);

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
    /// As it is stored: 24 bytes each, doubles, the lowest byte first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.0.iter().flat_map(|one| [one.charged, one.given, one.back]);
        numbers.flat_map(f64::to_le_bytes).collect()
    }

    /// What is still remembered.
    fn lately(&self, now: f64) -> impl Iterator<Item = &Refund> {
        self.0.iter().filter(move |one| one.given + REMEMBERED_US as f64 > now)
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
        self.0 = self.lately(given).copied().collect();
        self.0.push(Refund { charged, given, back });
        if self.0.len() > REFUNDS_MAX {
            let (older, newer) = self.0.split_at(REFUNDS_MAX / 2);
            let older = older.chunks(2).filter_map(Refund::both);
            self.0 = older.chain(newer.iter().copied()).collect();
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
