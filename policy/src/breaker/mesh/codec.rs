//! Owns the octets of a breaker's record, as `lua/cb_step.lua` writes them: numbers little-endian.
//!
//! Format (1, or 2 if what is usual follows), state (1), epoch (6), since (6), until (6), trips, successes, lost, healed (1 each), the
//! test: number (6, 0 = none), until (6), holder (8); the last test's number (6), how many buckets and
//! reporters (1 each). Then each bucket: number (6), calls, failures, slow (4 each); each reporter:
//! holder (8), sequence (6), seen (6), tripped (1). In format 2, what is usual: calls, failures (6 each).

use alloc::vec::Vec;

use super::{BUCKETS_MAX, Bucket, Probe, REPORTERS_MAX, Record, Reporter, State, Usual};

const PLAIN: u8 = 1;
const LEARNT: u8 = 2;

struct Octets<'a>(&'a [u8]);

// === impl Octets ===

impl Octets<'_> {
    fn number(&mut self, len: usize) -> Option<u64> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head.iter().rev().fold(0, |number, octet| (number << 8) | u64::from(*octet)))
    }

    fn octet(&mut self) -> Option<u8> {
        u8::try_from(self.number(1)?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.octet()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn holder(&mut self) -> Option<[u8; 8]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}

fn put(octets: &mut Vec<u8>, number: u64, len: usize) {
    octets.extend(number.to_le_bytes().iter().take(len));
}

fn state_number(state: State) -> u8 {
    match state {
        State::Closed => 0,
        State::Open => 1,
        State::HalfOpen => 2,
        State::ForcedOpen => 3,
        State::Disabled => 4,
        State::MetricsOnly => 5,
    }
}

// === impl Record ===

impl Record {
    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let learnt = self.usual != Usual::default();
        octets.extend([if learnt { LEARNT } else { PLAIN }, state_number(self.state)]);
        for number in [self.epoch, self.since_ms, self.until_ms] {
            put(&mut octets, number, 6);
        }
        octets.extend([self.trips, self.successes, self.lost, u8::from(self.healed)]);
        let probe = self.probe.unwrap_or(Probe { id: 0, until_ms: 0, holder: [0; 8] });
        put(&mut octets, probe.id, 6);
        put(&mut octets, probe.until_ms, 6);
        octets.extend(probe.holder);
        put(&mut octets, self.last_probe, 6);
        let len = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
        octets.extend([len(self.buckets.len()), len(self.reporters.len())]);
        for bucket in &self.buckets {
            put(&mut octets, bucket.number, 6);
            for number in [bucket.calls, bucket.failures, bucket.slow] {
                put(&mut octets, number, 4);
            }
        }
        for reporter in &self.reporters {
            octets.extend(reporter.holder);
            put(&mut octets, reporter.seq, 6);
            put(&mut octets, reporter.seen_ms, 6);
            octets.push(u8::from(reporter.tripped));
        }
        if learnt {
            put(&mut octets, self.usual.calls, 6);
            put(&mut octets, self.usual.failures, 6);
        }
        octets
    }

    /// Reads a record, or `None` if it is none.
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let mut octets = Octets(octets);
        let learnt = match octets.octet()? {
            PLAIN => false,
            LEARNT => true,
            _ => return None,
        };
        let state = *State::ALL.get(usize::from(octets.octet()?))?;
        let [epoch, since_ms, until_ms] = [octets.number(6)?, octets.number(6)?, octets.number(6)?];
        let [trips, successes, lost] = [octets.octet()?, octets.octet()?, octets.octet()?];
        let healed = octets.flag()?;
        let probe =
            Probe { id: octets.number(6)?, until_ms: octets.number(6)?, holder: octets.holder()? };
        let last_probe = octets.number(6)?;
        let buckets_len = usize::from(octets.octet()?);
        let reporters_len = usize::from(octets.octet()?);
        if buckets_len > BUCKETS_MAX || reporters_len > REPORTERS_MAX {
            return None;
        }
        let mut buckets = Vec::with_capacity(buckets_len);
        for _ in 0..buckets_len {
            buckets.push(Bucket {
                number: octets.number(6)?,
                calls: octets.number(4)?,
                failures: octets.number(4)?,
                slow: octets.number(4)?,
            });
        }
        let mut reporters = Vec::with_capacity(reporters_len);
        for _ in 0..reporters_len {
            reporters.push(Reporter {
                holder: octets.holder()?,
                seq: octets.number(6)?,
                seen_ms: octets.number(6)?,
                tripped: octets.flag()?,
            });
        }
        let usual = match learnt {
            true => Usual { calls: octets.number(6)?, failures: octets.number(6)? },
            false => Usual::default(),
        };
        octets.0.is_empty().then_some(Self {
            state,
            epoch,
            since_ms,
            until_ms,
            trips,
            successes,
            lost,
            healed,
            probe: (probe.id > 0).then_some(probe),
            last_probe,
            usual,
            buckets,
            reporters,
        })
    }
}
