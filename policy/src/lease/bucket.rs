//! Owns what a store remembers of a bucket's leases: who may hold how much, for how long, and the
//! floor that this puts under the arrival time. Knows neither grants nor messages.
//!
//! Time runs in generations. A lease counts in the one in which it was last heard of and in the next;
//! then it is over, for its holder (whose time is shorter) as for the bucket.

use alloc::vec::Vec;

use crate::gcra::{Instant, Pace, Reach, Tat};

/// The most holders of one bucket. Who comes later is served from the bucket, unit by unit.
pub const HOLDERS_MAX: usize = 255;
/// The highest demand that is counted, in units a second: the sum over all holders fits 32 bits.
pub const DEMAND_MAX: u32 = 0x00ff_ffff;
/// The arrival time and what stands before the holders.
const HEAD_LEN: usize = 46;
/// The first byte: neither a grant's nor that of an arrival time alone, which is shorter.
const MARK: u8 = 254;
const HOLDER_LEN: usize = 21;

/// An arrival time with the leases that its bucket has given.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// How far ahead that may honestly be.
    pub reach: Reach,
    /// When the bucket would be full if nothing were leased.
    pub tat: Tat,
    /// The leases.
    pub leases: Leases,
}

/// The leases of one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Leases {
    /// When the generation ends, in µs since 2024.
    pub end: f64,
    /// The length of the next one, in µs: at least the longest life of a lease of this one.
    pub span_us: u32,
    /// The units that may be unspent: of leases of this generation, and of the one before.
    pub units: [f64; 2],
    /// The units a second that their holders are asked for.
    pub demand: [u32; 2],
    /// At most [`HOLDERS_MAX`].
    pub holders: Vec<Holder>,
}

/// One holder of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: u64,
    /// The last message that was heard.
    pub seq: u32,
    /// What it may have left.
    pub units: u32,
    /// What it is asked for, in units a second.
    pub demand: u32,
    /// 0: heard of in this generation, 1: in the one before.
    pub age: u8,
}

// === impl Bucket ===

impl Bucket {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Leases { end, span_us, units, demand, holders } = &self.leases;
        let [units_0, units_1] = units;
        let mut bytes = Vec::from([MARK, self.reach.byte().unwrap_or(0)]);
        let doubles = [&self.tat.0, end, units_0, units_1];
        bytes.extend(doubles.into_iter().flat_map(|number| number.to_le_bytes()));
        let [demand_0, demand_1] = demand;
        bytes.extend([span_us, demand_0, demand_1].into_iter().flat_map(|n| n.to_le_bytes()));
        for holder in holders {
            bytes.extend(holder.id.to_le_bytes());
            bytes.extend(holder.seq.to_le_bytes());
            bytes.extend(holder.units.to_le_bytes());
            bytes.extend(holder.demand.to_le_bytes());
            bytes.push(holder.age);
        }
        bytes
    }

    /// Reads what is stored; `None` if it is no such bucket.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD_LEN)?;
        let double = |at: usize| {
            let bytes = head.get(at..)?.first_chunk::<8>()?;
            Some(f64::from_le_bytes(*bytes)).filter(|number| number.is_finite())
        };
        let word = |bytes: &[u8], at: usize| {
            Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
        };
        let holder = |bytes: &[u8]| {
            Some(Holder {
                id: u64::from_le_bytes(*bytes.first_chunk::<8>()?),
                seq: word(bytes, 8)?,
                units: word(bytes, 12)?,
                demand: word(bytes, 16)?,
                age: *bytes.get(20)?,
            })
        };
        if head.first() != Some(&MARK) || rest.len() % HOLDER_LEN != 0 {
            return None;
        }
        let holders = rest.chunks_exact(HOLDER_LEN).map(holder).collect::<Option<_>>()?;
        Some(Self {
            reach: Reach::from_byte(*head.get(1)?),
            tat: Tat(double(2)?),
            leases: Leases {
                end: double(10)?,
                units: [double(18)?, double(26)?],
                span_us: word(head, 34)?,
                demand: [word(head, 38)?, word(head, 42)?],
                holders,
            },
        })
    }

    /// The arrival time now, by the numbers that count and those of a warm region.
    pub fn floored(&self, now: Instant, pace: Pace, warm: Pace) -> Tat {
        self.leases.floored(self.tat, now, pace.interval, self.reach.span_us(pace, warm))
    }
}

// === impl Leases ===

impl Leases {
    /// None, in a generation that begins now.
    pub(super) fn none(now: f64, span_us: u32) -> Self {
        Self {
            end: now + f64::from(span_us),
            span_us,
            units: [0.0; 2],
            demand: [0; 2],
            holders: Vec::new(),
        }
    }

    /// The earliest arrival time that leaves room for what is leased: now, and at each end of a
    /// generation that has passed, for what was leased until then. Since leases stand still between
    /// two steps, that is exactly how far the bucket may have filled. An empty bucket at most, which
    /// fills within `span_us`: what was leased while a unit took less time to come back is no debt.
    pub fn floored(&self, Tat(tat): Tat, now: Instant, interval: f64, span_us: f64) -> Tat {
        let now = now.since_epoch_us();
        let mut tat = if tat < now { now } else { tat };
        let mut raise = |at: f64, units: f64| {
            let taken_us = units * interval;
            let to = at + if taken_us < span_us { taken_us } else { span_us };
            if to > tat {
                tat = to;
            }
        };
        let [mut here, mut before] = self.units;
        if now >= self.end {
            raise(self.end, here + before);
            (here, before) = (0.0, here);
            let next_end = self.end + f64::from(self.span_us);
            if now >= next_end {
                raise(next_end, before);
                before = 0.0;
            }
        }
        raise(now, here + before);
        Tat(tat)
    }

    /// When the last of them is over, in µs since 2024.
    pub fn over_at(&self) -> f64 {
        self.end + f64::from(self.span_us)
    }

    /// Until when they have to be known, in µs since 2024: what was spent at the end of the last one raises
    /// the arrival time from there.
    pub(crate) fn kept_until(&self, interval: f64, span_us: f64) -> f64 {
        let taken_us = self.unspent() * interval;
        self.over_at() + if taken_us < span_us { taken_us } else { span_us }
    }

    /// Whether all are over.
    pub fn is_over(&self, now: Instant) -> bool {
        now.since_epoch_us() >= self.over_at()
    }

    /// Moves on to the generation of `now`; `next_span_us` is at least the length of the one after.
    /// The floor has to be applied before.
    pub(super) fn advance(&mut self, now: f64, next_span_us: u32) {
        /// Only a clock that stepped back shows a generation that ends later.
        const AHEAD_MAX_US: f64 = 60_000_000.0;
        if now >= self.end {
            self.shift();
            self.end += f64::from(self.span_us);
            self.span_us = next_span_us;
            if now >= self.end {
                self.shift();
                self.end = now + f64::from(next_span_us);
            }
        } else if self.end > now + AHEAD_MAX_US {
            self.end = now + AHEAD_MAX_US;
        }
        self.span_us = self.span_us.max(next_span_us);
    }

    fn shift(&mut self) {
        let ([here, _], [demand, _]) = (self.units, self.demand);
        (self.units, self.demand) = ([0.0, here], [0, demand]);
        self.holders.retain(|holder| holder.age == 0);
        for holder in &mut self.holders {
            holder.age = 1;
        }
    }

    /// Takes a holder out.
    pub(super) fn take(&mut self, id: u64) -> Option<Holder> {
        let place = self.holders.iter().position(|holder| holder.id == id)?;
        let holder = self.holders.remove(place);
        let of = usize::from(holder.age != 0);
        if let (Some(units), Some(demand)) = (self.units.get_mut(of), self.demand.get_mut(of)) {
            *units -= f64::from(holder.units);
            *demand = demand.wrapping_sub(holder.demand);
        }
        Some(holder)
    }

    /// Puts a holder in, as of this generation.
    pub(super) fn put(&mut self, holder: Holder) {
        let ([units, _], [demand, _]) = (&mut self.units, &mut self.demand);
        *units += f64::from(holder.units);
        *demand = demand.wrapping_add(holder.demand);
        self.holders.push(Holder { age: 0, ..holder });
    }

    /// The units that may be unspent.
    pub fn unspent(&self) -> f64 {
        let [here, before] = self.units;
        here + before
    }

    /// What all holders are asked for, in units a second.
    pub(super) fn demanded(&self) -> f64 {
        let [here, before] = self.demand;
        f64::from(here) + f64::from(before)
    }
}
