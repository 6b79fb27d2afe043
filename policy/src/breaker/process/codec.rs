//! Owns the octets of what a process shares: numbers little-endian, always of one length. Read only by
//! the same process, so that they have no format number: what is new stands behind what was, since filters of two builds share
//! them while one replaces the other. What cannot be read begins anew.

use alloc::vec::Vec;

use super::super::mesh::{Ended, Settled, State};
use super::{Counts, Probe, Process};

const ENDED: [Ended; 3] = [Ended::Ok, Ended::Failed, Ended::GivenBack];

struct Octets<'a>(&'a [u8]);

// === impl Octets ===

impl Octets<'_> {
    fn octet(&mut self) -> Option<u8> {
        let (&octet, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(octet)
    }

    fn short(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    fn long(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }
}

// === impl Process ===

impl Process {
    /// As it lies in shared data.
    pub fn to_bytes(&self) -> Vec<u8> {
        let place = |at: Option<usize>| at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
        let mut octets = Vec::with_capacity(96);
        octets.extend(self.generation.to_le_bytes());
        octets.push(place(State::ALL.iter().position(|state| *state == self.state)));
        octets.extend([u8::from(self.tripped), u8::from(self.wanted), self.successes]);
        octets.extend(self.epoch.to_le_bytes());
        octets.extend(self.until_ms.to_le_bytes());
        let (healed_at_ms, untested) = match self.state {
            State::Closed => (self.healed_at_ms, 0),
            // Of what lets calls pass a filter of before would take it for when it closed. There is no test then.
            State::Disabled | State::MetricsOnly => (0, self.waits_since_ms),
            _ => (self.waits_since_ms, 0),
        };
        octets.extend(healed_at_ms.to_le_bytes());
        octets.extend(self.own_tests.to_le_bytes());
        let (id, until_ms, flags) = self.probe.map_or((untested, 0, 0), |probe| {
            (probe.id, probe.until_ms, 1 | u8::from(probe.of_mesh) << 1 | u8::from(probe.out) << 2)
        });
        octets.extend(id.to_le_bytes());
        octets.extend(until_ms.to_le_bytes());
        octets.push(flags);
        let (id, how) = self.ended.map_or((0, 0), |settled| {
            let at = ENDED.iter().position(|ended| *ended == settled.ended);
            (settled.id, place(at).saturating_add(1))
        });
        octets.extend(id.to_le_bytes());
        octets.push(how);
        for number in [self.counts.calls, self.counts.failures, self.counts.slow] {
            octets.extend(number.to_le_bytes());
        }
        octets.extend(self.sought_ms.to_le_bytes());
        octets.extend(self.unheard_ms.to_le_bytes());
        octets.push(u8::from(self.unheard));
        octets
    }

    /// Reads what [`Process::to_bytes`] wrote.
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let mut octets = Octets(octets);
        let generation = octets.short()?;
        let state = *State::ALL.get(usize::from(octets.octet()?))?;
        let [tripped, wanted] = [octets.octet()? == 1, octets.octet()? == 1];
        let successes = octets.octet()?;
        let (epoch, until_ms, since_ms) = (octets.long()?, octets.long()?, octets.long()?);
        let own_tests = octets.short()?;
        let (id, probe_until_ms, flags) = (octets.long()?, octets.long()?, octets.octet()?);
        // One place for both: a filter of before reads no more octets than it writes, and leaves none where it is not closed.
        let (healed_at_ms, waits_since_ms) = match state {
            State::Closed => (since_ms, 0),
            State::Disabled | State::MetricsOnly => (0, if flags & 1 == 0 { id } else { 0 }),
            _ => (0, since_ms),
        };
        let probe = (flags & 1 == 1).then_some(Probe {
            id,
            of_mesh: flags & 2 == 2,
            until_ms: probe_until_ms,
            out: flags & 4 == 4,
        });
        let (id, how) = (octets.long()?, octets.octet()?);
        let ended = match usize::from(how).checked_sub(1) {
            None => None,
            Some(at) => Some(Settled { id, ended: *ENDED.get(at)? }),
        };
        let counts =
            Counts { calls: octets.short()?, failures: octets.short()?, slow: octets.short()? };
        // A filter of before that shares them writes none of these, and passes over them.
        let [sought_ms, unheard_ms] = [octets.long(), octets.long()].map(Option::unwrap_or_default);
        let unheard = octets.octet() == Some(1);
        // What a later filter adds behind is passed over.
        Some(Self {
            generation,
            state,
            epoch,
            tripped,
            until_ms,
            healed_at_ms,
            waits_since_ms,
            wanted,
            sought_ms,
            unheard_ms,
            unheard,
            probe,
            successes,
            own_tests,
            ended,
            counts,
        })
    }
}
