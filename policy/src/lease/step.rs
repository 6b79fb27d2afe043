//! Owns one step of a lease: a holder's report and what it is given. The specification of
//! `lua/rl_lease.lua` and the engine of the in-memory store: the same doubles, the same order.
#![expect(
    clippy::as_conversions,
    reason = "doubles mirror Lua's numbers; every cast is of a value below 2^53 or saturates"
)]

use super::bucket::{Bucket, DEMAND_MAX, HOLDERS_MAX, Holder, Leases};
use crate::gcra::{self, Arrival, Instant, Quota, Reach, Tat, ceil};
use crate::limit::grant;
use crate::limit::{Held, Write};
use crate::wire::Want;

/// A holder is given what its demand needs for that long.
pub(super) const HORIZON_US: u64 = 500_000;
/// Below that many units in a horizon a key is slow: it is counted unit by unit.
pub(super) const AHEAD_MIN: u64 = 3;
/// Whoever found too little comes again once it may expect that many units.
const WORTH_A_CALL: f64 = 8.0;
/// As long as there is plenty, that many horizons.
const PLENTY: u64 = 3;
/// What a slow key gets ahead once there is no plenty, if it comes back within a second.
const FEW: u64 = 2;
const SECOND_US: f64 = 1_000_000.0;
/// Nobody's share is less than that.
const SHARE_MIN: f64 = 0.02;
/// While less than that part of a burst is leased, a slow key gets some ahead.
const IDLE_PART: f64 = 0.2;
/// That part of a burst.
const AHEAD_PART: f64 = 0.05;

/// How long things last for one limit, in µs. All follow from how long its bucket takes to fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A generation, and the longest life of a lease.
    pub generation_us: u32,
    /// The life of a busy key's lease: what moves fast should not lie.
    pub short_us: u32,
    /// The shortest pause after which a busy key asks again in vain.
    pub hold_us: u32,
}

/// What a holder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Who.
    pub holder: u64,
    /// Its message's number.
    pub seq: u32,
    /// Units a second that are asked of it.
    pub demand: u32,
    /// What it keeps.
    pub left: u32,
    /// What it gives back.
    pub back: u32,
    /// What it wants.
    pub want: Want,
}

/// What it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// It was not heard: a newer message was before.
    pub stale: bool,
    /// Units.
    pub granted: u32,
    /// How long all its units live, in µs from the sending of its message.
    pub ttl_us: u64,
    /// How long nothing more is to be had, in µs.
    pub deny_us: u64,
    /// Whole units left for anybody.
    pub remaining: u64,
    /// It got less than it wanted.
    pub scarce: bool,
}

/// The limit as it counts now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Its numbers.
    pub quota: Quota,
    /// How long the region is still cold, in µs.
    pub cold_left_us: u64,
}

// === impl Times ===

impl Times {
    /// Those of a limit.
    pub fn of(quota: Quota) -> Self {
        let span_us = quota.pace().span as u64;
        let part = |divisor: u64, from_us: u64, to_us: u64| {
            u32::try_from((span_us / divisor).clamp(from_us, to_us)).unwrap_or(u32::MAX)
        };
        Self {
            generation_us: part(4, 1_000_000, 30_000_000),
            short_us: part(16, 1_000_000, 2_000_000),
            hold_us: part(20, 20_000, 250_000),
        }
    }
}

/// One atomic step.
pub fn step(
    now: Instant,
    terms: Terms,
    call: &Call,
    held: Option<&Held>,
) -> (Given, Option<Write>) {
    let (mut given, write) = bare_step(now, terms, call, held.map(Held::bare));
    // What an operator granted is drawn request by request: it is not leased, and nobody may be denied without
    // asking for it.
    if held.and_then(Held::grant).is_some_and(|grant| grant.until_us > now.us()) {
        (given.deny_us, given.scarce) = (0, false);
    }
    (given, write.map(|write| grant::kept(now, held, write)))
}

fn bare_step(
    now: Instant,
    terms: Terms,
    call: &Call,
    held: Option<&Held>,
) -> (Given, Option<Write>) {
    let times = Times::of(terms.quota);
    let at = now.since_epoch_us();
    let warm = terms.quota.pace();
    let pace = if terms.cold_left_us > 0 { terms.quota.cold_pace() } else { warm };
    let horizon = at + pace.span;
    let (stored, reach, leases) = match held {
        Some(Held::Leased(bucket)) => {
            (Some(bucket.floored(now, pace, warm)), bucket.reach, Some(&bucket.leases))
        }
        Some(Held::Arrival(tat, reach)) => (Some(*tat), *reach, None),
        Some(_) | None => (None, Reach::UNKNOWN, None),
    };
    let span_us = reach.span_us(pace, warm);
    let Arrival { mut tat, reach, torn } = gcra::arrival(now, [pace, warm], stored, reach);
    let is_new = leases.is_none();
    let mut leases = leases.map_or_else(
        || Leases::none(at, times.generation_us),
        |leases| {
            let mut leases = leases.clone();
            leases.advance(at, times.generation_us);
            leases
        },
    );
    if leases.holders.iter().any(|holder| holder.id == call.holder && call.seq <= holder.seq) {
        return (Given { stale: true, ..Given::default() }, None);
    }
    let old = leases.take(call.holder).map_or(0, |holder| holder.units);
    // What the bucket does not count it never charged either: such units are over, or were lost with
    // the bucket's memory.
    let left = call.left.min(old);
    let back = call.back.min(old - left);
    // Never more than was charged for it, even if that was in a cold region.
    tat -= f64::from(back) * warm.interval;
    if tat < at {
        tat = at;
    }
    let demand = call.demand.min(DEMAND_MAX);
    let free = horizon - tat;
    let available = if free > 0.0 { (free / pace.interval) as u64 } else { 0 };
    let ahead = (f64::from(demand) * (HORIZON_US as f64) / 1_000_000.0) as u64;
    let busy = ahead >= AHEAD_MIN;
    let others = leases.unspent();
    let unspent = others + f64::from(left);
    let burst = pace.span / pace.interval;
    let has_room = leases.holders.len() < HOLDERS_MAX;
    let plenty = available as f64 > burst / 2.0 && unspent < burst * IDLE_PART;
    let second = (SECOND_US / pace.interval) as u64;
    let wanted = match call.want {
        Want::Nothing => 0,
        Want::Ahead | Want::Now if busy => {
            let ahead = if plenty { ahead * PLENTY } else { ahead };
            // What lies in slices of other workers is left, and helps this one little.
            ahead.saturating_sub(u64::from(left)).max(ahead / 2)
        }
        Want::Now if plenty => (burst * AHEAD_PART) as u64,
        // Who is alone gets a few that have come back within a second.
        Want::Now if others <= 0.0 => available.min(second).min(FEW),
        Want::Ahead | Want::Now => 0,
    };
    let share = share(f64::from(demand), leases.demanded());
    let fair = (available as f64 * share) as u64;
    let granted = if has_room { wanted.min(fair) } else { 0 };
    tat += granted as f64 * pace.interval;
    let granted = u32::try_from(granted).unwrap_or(u32::MAX);
    let units = left.saturating_add(granted);
    let keeps = has_room && (units > 0 || busy);
    if keeps {
        leases.put(Holder { id: call.holder, seq: call.seq, units, demand, age: 0 });
    }
    let free = horizon - tat;
    let remaining = if free > 0.0 { (free / pace.interval) as u64 } else { 0 };
    let scarce = u64::from(granted) < wanted;
    let deny_us = if call.want == Want::Nothing || (busy && !scarce) {
        0
    } else {
        let one = tat + pace.interval - horizon;
        let pause = if busy {
            // Half of the time until the bucket would overflow, so that waiting loses nothing.
            let room = tat - (at + leases.unspent() * pace.interval);
            // What is there already need not be waited for.
            let worth = (WORTH_A_CALL / share - remaining as f64) * pace.interval;
            let hold = f64::from(times.hold_us);
            let pause = if worth > hold { worth } else { hold };
            if pause > room / 2.0 { room / 2.0 } else { pause }
        } else if second > 0 && others <= 0.0 && remaining == 0 {
            // A few at once, but no later than a client is told.
            let few = FEW as f64 * pace.interval;
            if few < SECOND_US { few } else { SECOND_US }
        } else {
            0.0
        };
        let pause = if pause > one { pause } else { one };
        // What others hold may come back.
        let short = f64::from(times.short_us);
        ceil(if others >= WORTH_A_CALL && pause > short { short } else { pause })
    };
    let given = Given {
        stale: false,
        granted,
        ttl_us: u64::from(if busy { times.short_us } else { times.generation_us }),
        deny_us,
        remaining,
        scarce,
    };
    if is_new && leases.holders.is_empty() && !torn {
        return (given, None);
    }
    let until = leases.kept_until(pace.interval, span_us);
    (given, Some(write(now, (Tat(tat), reach), leases, until)))
}

fn share(demand: f64, others: f64) -> f64 {
    let share = if others > 0.0 { demand / (demand + others) } else { 1.0 };
    if share < SHARE_MIN { SHARE_MIN } else { share }
}

/// What to store, and for how long: until the bucket is full, and `until` if leases are left.
fn write(now: Instant, (tat, reach): (Tat, Reach), leases: Leases, until: f64) -> Write {
    if leases.holders.is_empty() {
        let ttl_ms = ceil((tat.0 - now.since_epoch_us()) / 1000.0) + 1;
        return Write { held: Held::Arrival(tat, reach), ttl_ms };
    }
    beside(now, (tat, reach), leases, until)
}

/// The same, where leases are left.
pub(crate) fn beside(
    now: Instant,
    (tat, reach): (Tat, Reach),
    leases: Leases,
    until: f64,
) -> Write {
    let at = now.since_epoch_us();
    let until = if tat.0 > until { tat.0 } else { until };
    let ttl_ms = ceil((until - at) / 1000.0) + 1;
    Write { held: Held::Leased(Bucket { reach, tat, leases }), ttl_ms }
}
