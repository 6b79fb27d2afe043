//! Owns a limit's local share: what one Envoy process admits by itself while nobody can be asked.
//! Knows neither where its slots lie nor when they are consulted.
//!
//! All Envoys together admit a fraction of each limit, each its part, by GCRA at the part's rate.
//! A part is at least one unit, so that `n` Envoys may admit `n` at once of a limit smaller than
//! that. The state is a fixed number of small slots, so that nobody can make it grow by inventing
//! clients: a slot whose entries are all in use has no room, and the ladder goes on to its next
//! rung. Source: product row A4.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::gcra::{self, Instant, Quota, Reach, Retry, Tat};
use crate::identity::Subject;

/// Slots per process, each its own entry of the host's shared data.
pub const SLOTS: u16 = 1_024;
/// Subjects per slot.
const ENTRIES_MAX: usize = 8;
const ENTRY_LEN: usize = 16;

/// Which part of every limit one Envoy process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalShare {
    /// What all Envoys together may admit, in hundredths of a percent of the limit; 1 to 10,000.
    pub fraction_bp: u16,
    /// How many Envoys share it; at least 1.
    pub envoys: u32,
}

/// One limit's share that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareCall {
    /// Which of the [`SLOTS`] holds it.
    pub slot: u16,
    tag: u64,
    /// `None`: the part is so small that it never admits.
    part: Option<Quota>,
    cost: u32,
}

/// What a share says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareAnswer {
    /// There was some, and it is taken.
    Taken,
    /// There is none; µs until there is, if that is known.
    Spent {
        /// µs until the request would fit.
        retry_us: Option<u64>,
    },
}

/// A share that was taken: what to write into the slot, and what giving it back needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Taking {
    /// The slot's new bytes.
    pub slot: Vec<u8>,
    /// What was charged, in µs of the bucket's filling.
    pub charged_us: f64,
}

/// A share that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What it says.
    pub answer: ShareAnswer,
    /// The slot's new bytes, if a clock stepped back: what is not written down would lie as far ahead at each look.
    pub slot: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u64,
    tat: f64,
}

// === impl LocalShare ===

impl Default for LocalShare {
    /// Half of the limit among ten: too little rather than too much for who says nothing.
    fn default() -> Self {
        Self { fraction_bp: 5_000, envoys: 10 }
    }
}

impl LocalShare {
    /// One Envoy's part of a limit; `None` if it would take more than ten years to refill.
    pub fn part(self, quota: Quota) -> Option<Quota> {
        let share = |units: u64| {
            units * u64::from(self.fraction_bp) / (10_000 * u64::from(self.envoys.max(1)))
        };
        let burst = u32::try_from(share(u64::from(quota.burst())).max(1)).ok()?;
        let period_us = u128::from(quota.period_us()) * 10_000 * u128::from(self.envoys.max(1))
            / u128::from(self.fraction_bp.max(1));
        Quota::new(quota.limit(), u64::try_from(period_us).ok()?, burst).ok()
    }
}

// === impl ShareCall ===

impl ShareCall {
    /// The share of one limit for one subject.
    pub fn new(
        share: LocalShare,
        limit_id: &str,
        subject: &Subject,
        quota: Quota,
        cost: u32,
    ) -> Self {
        let mut hash = Sha256::new();
        for part in [limit_id, subject.kind.as_str(), subject.name.as_str()] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let part = share.part(quota);
        // What one filter's numbers charged says nothing to another one's, which would take it for a clock's fault.
        if let Some(part) = part {
            let numbers = [u64::from(part.limit()), part.period_us(), u64::from(part.burst())];
            numbers.iter().for_each(|number| hash.update(number.to_be_bytes()));
        }
        let digest = hash.finalize();
        let number = |from: usize, len: usize| {
            digest.iter().skip(from).take(len).fold(0u64, |sum, &byte| (sum << 8) | u64::from(byte))
        };
        let slot = u16::try_from(number(8, 2) % u64::from(SLOTS)).unwrap_or(0);
        Self { slot, tag: number(0, 8), part, cost }
    }

    /// Takes from a slot's bytes, if there is enough.
    pub fn take(&self, slot: &[u8], now: Instant) -> Result<Taking, Refused> {
        let spent = |retry_us| Err(Refused { answer: ShareAnswer::Spent { retry_us }, slot: None });
        let Some(quota) = self.part else {
            return spent(None);
        };
        let mut entries = live(slot, now);
        let held = entries.iter().find(|entry| entry.tag == self.tag);
        let before = held.map(|entry| Tat(entry.tat));
        // Nobody else's numbers charge it: another part is another entry.
        let reach = Reach::of(quota.pace(), quota.pace());
        let charge = gcra::Charge { quota, cost: self.cost, tat: before, reach };
        let answer = gcra::check(now, &[charge]);
        let Some((reading, write)) = answer.limits.first() else {
            return spent(None);
        };
        let retry_us = match reading.retry {
            Retry::Fits => None,
            Retry::AfterUs(us) => Some(us),
            Retry::Never => return spent(None),
        };
        if retry_us.is_some() {
            let mended = write.and_then(|write| {
                entries.iter_mut().find(|entry| entry.tag == self.tag)?.tat = write.tat.0;
                Some(bytes(&entries))
            });
            return Err(Refused { answer: ShareAnswer::Spent { retry_us }, slot: mended });
        }
        let Some(write) = write else {
            return Ok(Taking { slot: slot.to_vec(), charged_us: 0.0 });
        };
        let tat = write.tat.0;
        let since = before.map_or(now.since_epoch_us(), |Tat(tat)| tat);
        let has_room = entries.len() < ENTRIES_MAX;
        match entries.iter_mut().find(|entry| entry.tag == self.tag) {
            Some(entry) => entry.tat = tat,
            None if has_room => entries.push(Entry { tag: self.tag, tat }),
            None => return spent(None),
        }
        Ok(Taking { slot: bytes(&entries), charged_us: tat - since.max(now.since_epoch_us()) })
    }

    /// The slot's bytes with what was charged given back; `None` if there is nothing left of it.
    pub fn give_back(&self, slot: &[u8], charged_us: f64, now: Instant) -> Option<Vec<u8>> {
        let mut entries = live(slot, now);
        let entry = entries.iter_mut().find(|entry| entry.tag == self.tag)?;
        entry.tat -= charged_us;
        Some(bytes(&entries))
    }
}

/// The entries that still say something: a bucket that is full again is none.
fn live(slot: &[u8], now: Instant) -> Vec<Entry> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    let entry = |chunk: &[u8]| {
        let (tag, tat) = chunk.split_at(ENTRY_LEN / 2);
        Entry { tag: number(tag), tat: f64::from_bits(number(tat)) }
    };
    slot.chunks_exact(ENTRY_LEN)
        .take(ENTRIES_MAX)
        .map(entry)
        .filter(|entry| entry.tat.is_finite() && entry.tat > now.since_epoch_us())
        .collect()
}

fn bytes(entries: &[Entry]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|e| e.tag.to_le_bytes().into_iter().chain(e.tat.to_bits().to_le_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{SubjectKind, SubjectName};
    use proptest::prelude::*;
    use std::format;

    const START_US: u64 = 1_800_000_000_000_000;

    fn at(us: u64) -> Instant {
        Instant::from_unix_us(START_US + us)
    }

    fn quota(limit: u32, burst: u32) -> Quota {
        Quota::new(limit, 60_000_000, burst).expect("sound")
    }

    fn call(name: &str, share: LocalShare, quota: Quota) -> ShareCall {
        let subject =
            Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(name.as_bytes()) };
        ShareCall::new(share, "p.l", &subject, quota, 1)
    }

    fn refused(retry_us: Option<u64>) -> Refused {
        Refused { answer: ShareAnswer::Spent { retry_us }, slot: None }
    }

    #[test]
    fn a_part_is_the_fraction_over_the_envoys_and_at_least_one_unit() {
        let rows = [
            (LocalShare { fraction_bp: 5_000, envoys: 2 }, quota(100, 100), (240_000_000, 25)),
            (LocalShare { fraction_bp: 10_000, envoys: 1 }, quota(100, 30), (60_000_000, 30)),
            (LocalShare::default(), quota(5, 5), (1_200_000_000, 1)),
        ];
        for (share, whole, (period_us, burst)) in rows {
            let part = share.part(whole).expect("a part");
            assert_eq!((part.period_us(), part.burst()), (period_us, burst), "{share:?}");
        }
        let century = Quota::new(1, 9 * 366 * 86_400_000_000, 1).expect("sound");
        assert_eq!(LocalShare::default().part(century), None);
    }

    #[test]
    fn a_share_is_spent_comes_back_with_time_and_can_be_given_back() {
        let share = LocalShare { fraction_bp: 5_000, envoys: 5 };
        let call = call("a", share, quota(60, 60));
        let mut slot = Vec::new();
        let mut last = None;
        for _ in 0..6 {
            let taking = call.take(&slot, at(0)).expect("the part is 6");
            slot = taking.slot.clone();
            last = Some(taking);
        }
        let spent = refused(Some(10_000_000));
        assert_eq!(call.take(&slot, at(0)), Err(spent), "6 a minute: one in 10 s");
        let charged_us = last.expect("taken").charged_us;
        let returned = call.give_back(&slot, charged_us, at(0)).expect("it is there");
        assert!(call.take(&returned, at(0)).is_ok());
        assert!(call.take(&slot, at(10_000_000)).is_ok());
        assert_eq!(call.give_back(&[], charged_us, at(0)), None);
    }

    #[test]
    fn a_full_slot_has_no_room_until_an_entry_is_over() {
        let share = LocalShare { fraction_bp: 10_000, envoys: 1 };
        let mut slot = Vec::new();
        for n in 0..8 {
            let call = call(&format!("{n}"), share, quota(60, 60));
            slot = call.take(&slot, at(0)).expect("room").slot;
        }
        let ninth = call("ninth", share, quota(60, 60));
        assert_eq!(ninth.take(&slot, at(0)), Err(refused(None)));
        let first = call("0", share, quota(60, 60));
        assert!(first.take(&slot, at(0)).is_ok(), "who is in stays in");
        assert_eq!(ninth.take(&slot, at(1_000_000)).expect("room again").slot.len(), ENTRY_LEN);
    }

    /// Nobody waits for as long as an Envoy's clock stepped back.
    #[test]
    fn a_clock_that_steps_back_keeps_the_word_that_it_gives() {
        const HOUR_US: u64 = 3_600_000_000;
        let share = LocalShare { fraction_bp: 5_000, envoys: 5 };
        let call = call("a", share, quota(60, 60));
        let mut slot = Vec::new();
        for _ in 0..6 {
            slot = call.take(&slot, at(HOUR_US)).expect("the part is 6").slot;
        }
        let Refused { answer, slot } = call.take(&slot, at(0)).expect_err("it is spent");
        let ShareAnswer::Spent { retry_us: Some(wait_us) } = answer else { panic!("{answer:?}") };
        assert!(wait_us <= 70_000_000, "a part and a debt: {wait_us}");
        let slot = slot.expect("written down");
        assert!(call.take(&slot, at(wait_us - 1)).is_err());
        assert!(call.take(&slot, at(wait_us)).is_ok(), "as it was told");
    }

    /// Two configurations side by side, or one after the other: each spends its own part, however often they take turns, and
    /// nobody waits for what other numbers charged.
    #[test]
    fn other_numbers_of_a_limit_are_a_part_of_their_own() {
        let share = LocalShare { fraction_bp: 10_000, envoys: 1 };
        let day = Quota::new(10, 86_400_000_000, 10).expect("sound");
        let parts = [(call("a", share, day), 10), (call("a", share, quota(5, 5)), 5)];
        let (mut slot, mut admitted) = (Vec::new(), [0, 0]);
        for turn in 0..200 {
            let (call, _) = &parts[turn % 2];
            if let Ok(taking) = call.take(&slot, at(0)) {
                (slot, admitted[turn % 2]) = (taking.slot, admitted[turn % 2] + 1);
            }
        }
        assert_eq!(admitted, parts.map(|(_, units)| units));
    }

    #[test]
    fn limits_and_subjects_have_shares_of_their_own() {
        let share = LocalShare::default();
        let subject =
            |kind, name: &str| Subject { kind, name: SubjectName::from_bytes(name.as_bytes()) };
        let rows = [
            ("p.l", subject(SubjectKind::Ip, "a")),
            ("p.l", subject(SubjectKind::Header, "a")),
            ("p.l", subject(SubjectKind::Ip, "b")),
            ("p.m", subject(SubjectKind::Ip, "a")),
        ];
        let tags: std::collections::BTreeSet<_> = rows
            .iter()
            .map(|(id, subject)| ShareCall::new(share, id, subject, quota(5, 5), 1).tag)
            .collect();
        assert_eq!(tags.len(), 4);
    }

    proptest! {
        /// In any interval a part admits at most its burst and what its rate adds; whatever bytes
        /// the slot held before, nothing goes wrong.
        #[test]
        fn a_part_keeps_its_envelope(
            junk in proptest::collection::vec(any::<u8>(), 0..200),
            gaps in proptest::collection::vec(0u64..2_000_000, 1..300),
        ) {
            let share = LocalShare { fraction_bp: 5_000, envoys: 3 };
            let call = call("a", share, quota(600, 60));
            let part = share.part(quota(600, 60)).expect("a part");
            let mut slot = junk;
            let mut now_us = 0;
            let mut admitted: std::vec::Vec<u64> = std::vec![];
            for gap_us in gaps {
                now_us += gap_us;
                if let Ok(taking) = call.take(&slot, at(now_us)) {
                    slot = taking.slot;
                    prop_assert!(slot.len() <= ENTRIES_MAX * ENTRY_LEN);
                    admitted.push(now_us);
                }
            }
            for (n, from) in admitted.iter().enumerate() {
                for (m, to) in admitted.iter().enumerate().skip(n) {
                    let rate = (to - from) * u64::from(part.limit()) / part.period_us();
                    prop_assert!((m - n) as u64 <= u64::from(part.burst()) + rate);
                }
            }
        }
    }
}
