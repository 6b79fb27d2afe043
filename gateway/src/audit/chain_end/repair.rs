//! Owns what becomes of a chain whose store was set back: the gateways put the lost records back, the same
//! bytes in the same places, each those that it appended itself. Where one is missing the chain goes on
//! under a new origin, which begins with a signed rollback record. Record 0050.

use std::sync::{Arc, PoisonError};

use tidegate_policy::audit::append::{Outcome, Place};
use tidegate_policy::audit::record::{Record, Rollback, SignatureCheck, signed};

use super::certain::GRACE_US;
use super::parted::Parting;
use super::{BATCH_MAX, ChainEnd, Refused, SEGMENT_MAX};
use crate::audit::keys::Ed25519;

/// So long the chain may stand still before a missing piece is given up.
const PATIENCE_US: u64 = 10_000_000;
/// How far back a rollback record of another gateway is looked for.
const LOOK_BACK: u64 = 20_000;
const CHUNK: u64 = 1_000;
/// How often one repair appends or looks again.
const STEPS_MAX: usize = 10_000;

// === impl ChainEnd ===

impl ChainEnd {
    /// Brings the chain to where it was, as far as this gateway can. An error while others have to put
    /// their pieces back first.
    pub(super) async fn repair(&mut self) -> Result<Place, Refused> {
        let known = self.known.unwrap_or(Place::GENESIS);
        if self.clock.elapsed_us() < self.goes_on_from {
            return Err(Refused::NoRoom);
        }
        for _ in 0..STEPS_MAX {
            let there = self.chains()?.place(&self.chain).await?;
            if self.is_whole(known, there).await? {
                return self.wait_for_others(known, there);
            }
            self.whole_since = None;
            let parting = self.parting(known, there).await?;
            if let Some(rollback) = self.given_up_by_another(parting, there).await? {
                let place = self.go_on(parting.common, there).await?;
                tracing::error!(
                    critical = true, chain = %self.chain, ?rollback,
                    "the audit chain goes on under a new origin"
                );
                return Ok(place);
            }
            let Some(piece) = self.ring.behind(there).cloned() else {
                return self.wait_or_give_up(known, parting, there).await;
            };
            // The place says which segment the chain is in now.
            match self.chains()?.append(&self.chain, &piece.call(there)).await? {
                Outcome::Done(_) => {
                    let count = u64::try_from(piece.lines.len()).unwrap_or(u64::MAX);
                    self.counters.put_back.inc_by(count);
                }
                Outcome::Moved(_) => {}
                Outcome::Duplicates(..) => {
                    return self.wait_or_give_up(known, parting, there).await;
                }
            }
        }
        Err(Refused::Races(STEPS_MAX))
    }

    async fn is_whole(&self, known: Place, there: Place) -> Result<bool, Refused> {
        Ok(if there.head.seq <= known.head.seq {
            there.head == known.head
        } else {
            self.stands(known, there).await?
        })
    }

    /// The newest rollback record behind the last place that this gateway and the store still agree on.
    async fn given_up_by_another(
        &mut self,
        parting: Parting,
        there: Place,
    ) -> Result<Option<Rollback>, Refused> {
        if self.searched == Some(there) {
            return Ok(None);
        }
        let common = parting.common;
        let (mut segment, mut left) = (there.segment, LOOK_BACK);
        let mut count = there.segment_len();
        // Nothing is looked for before what is agreed on.
        if let Some(agreed) = common.checked_sub(there.segment_first) {
            left = left.min(count.saturating_sub(agreed));
        }
        loop {
            let mut from = count.saturating_sub(left);
            left = left.saturating_sub(count);
            let mut found = None;
            while from < count {
                let records = self.chains()?.records(&self.chain, segment, from, CHUNK).await?;
                if records.is_empty() {
                    break;
                }
                from = from.saturating_add(CHUNK);
                let newer = records.iter().rev().find_map(|bytes| self.own_rollback(bytes, common));
                found = newer.filter(|rollback| rollback.common < parting.lost).or(found);
            }
            let agreed = segment == there.segment && common >= there.segment_first;
            if found.is_some() || left == 0 || segment == 0 || agreed {
                self.searched = found.is_none().then_some(there);
                return Ok(found);
            }
            segment = segment.saturating_sub(1);
            count = SEGMENT_MAX.saturating_add(u64::try_from(BATCH_MAX).unwrap_or(0));
        }
    }

    /// A rollback behind the record `common`, if a key of ours signed it.
    fn own_rollback(&self, bytes: &[u8], common: u64) -> Option<Rollback> {
        let record = Record::read(bytes).ok().filter(|record| record.seq > common)?;
        let (rollback, seal) = (record.rollback?, record.seal?);
        let ring = Arc::clone(&*self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = ring.keys.get(&seal.version)?;
        let message = signed(&self.chain, record.seq, &record.hash, seal.version);
        Ed25519.check(&key.public, &message, &seal.signature).then_some(rollback)
    }

    /// This gateway's pieces are there. Whatever it appended now might take another's place, so it waits
    /// until nobody puts anything back any more.
    fn wait_for_others(&mut self, known: Place, there: Place) -> Result<Place, Refused> {
        let now = self.clock.elapsed_us();
        let whole_us = now.saturating_sub(*self.whole_since.get_or_insert(now));
        if self.still_us(there) < GRACE_US && whole_us < PATIENCE_US {
            return Err(Refused::SetBack { known, there });
        }
        self.counters.repaired.inc();
        tracing::warn!(chain = %self.chain, seq = there.head.seq, "the audit chain is whole again");
        Ok(self.resume(there))
    }

    /// For how long the chain has ended there.
    fn still_us(&mut self, there: Place) -> u64 {
        let now = self.clock.elapsed_us();
        match self.still {
            Some((place, since)) if place == there => now.saturating_sub(since),
            Some(_) | None => {
                self.still = Some((there, now));
                0
            }
        }
    }

    async fn wait_or_give_up(
        &mut self,
        known: Place,
        parting: Parting,
        there: Place,
    ) -> Result<Place, Refused> {
        if self.still_us(there) < PATIENCE_US {
            return Err(Refused::SetBack { known, there });
        }
        let Some(event) = self.rollback(there, known, parting.common) else {
            return Err(Refused::SetBack { known, there });
        };
        match self.attempt(there, &[event], 0).await? {
            Outcome::Done(end) => {
                self.counters.origins.inc();
                tracing::error!(
                    critical = true, chain = %self.chain, kept = there.head.seq, known = known.head.seq,
                    "records of the audit chain are lost; it goes on under a new origin"
                );
                self.go_on(parting.common, end).await
            }
            // Somebody else was faster: the next look finds it.
            Outcome::Moved(_) | Outcome::Duplicates(..) => Err(Refused::SetBack { known, there }),
        }
    }

    pub(super) fn resume(&mut self, there: Place) -> Place {
        self.set_back = false;
        (self.still, self.whole_since, self.searched) = (None, None, None);
        (self.lost_touch, self.in_touch_since) = (false, None);
        self.unsure = false;
        self.counters.rollback.set(0);
        self.reached(there);
        there
    }
}

#[cfg(test)]
mod tests;
