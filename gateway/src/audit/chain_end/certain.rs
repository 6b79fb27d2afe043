//! Owns what this gateway knows for certain of its chain, and how the store is compared with it.

use tidegate_policy::audit::append::{Outcome, Place};
use tidegate_policy::audit::record::Record;

use super::noted::Refuted;
use super::own_time::{BEGINS_US, GRACE_US};
use super::{ChainEnd, Refused, SEEN_MAX};
use crate::audit::ring::Appended;
use crate::store::StoreFailure;

/// Appends without a reply that are remembered.
const DOUBTFUL_MAX: usize = 100;

// === impl ChainEnd ===

impl ChainEnd {
    /// Where the chain ends, compared with what this gateway knows if there is a doubt.
    pub(super) async fn place(&mut self) -> Result<Place, Refused> {
        self.has_lost_touch();
        if self.set_back {
            return self.repair().await;
        }
        if let (Some(known), false) = (self.known, self.unsure) {
            return Ok(known);
        }
        let looked = self.chains()?.place(&self.chain).await;
        let there = looked.inspect_err(|failure| self.failed(failure))?;
        self.own_time.looked(self.clock.elapsed_us());
        self.begins(there).await?;
        self.ahead(there)?;
        if let Some(known) = self.known
            && there.head.seq > known.head.seq
            && known.head.seq > 0
        {
            self.still_holds(known).await?;
        }
        self.vouch(there).await?;
        // Others may append behind it, and then the store may lose it.
        self.confirm(there).await;
        // Before the first record there is none to be put back.
        let begins = self.known.is_none() && there == Place::GENESIS;
        self.reached(there);
        if let Some(grace_us) = self.grace_us
            && !begins
        {
            let now = self.own_time.us();
            let since = *self.in_touch_since.get_or_insert(now);
            if now.saturating_sub(since) < grace_us {
                // What it may have appended itself others may be waiting for.
                if let Some(piece) = self.piece(there) {
                    let put = self.put(&piece, there, &Refuted::default()).await;
                    let put = put.inspect_err(|failure| self.failed(failure))?;
                    if let Outcome::Torn(there, held) = put {
                        return Err(self.torn(there, piece.segment, held));
                    }
                }
                return Err(Refused::Quiet);
            }
        }
        (self.grace_us, self.in_touch_since) = (None, None);
        self.unsure = false;
        Ok(there)
    }

    /// Whether it leaves others time to put records back, and the store answers.
    pub fn is_quiet(&self) -> bool {
        self.in_touch_since.is_some() && !self.set_back
    }

    /// The gateway ends, and its disk may not come back.
    pub fn hasten(&mut self) {
        self.grace_us = self.grace_us.map(|grace_us| grace_us.min(BEGINS_US));
    }

    /// What is known may not be so any more.
    pub(super) fn failed(&mut self, failure: &StoreFailure) {
        self.unsure = true;
        self.own_time.stops();
        match failure {
            StoreFailure::Unreachable(_) => self.lose_touch(),
            StoreFailure::Timeout => self.ask(),
            StoreFailure::Refused(_)
            | StoreFailure::Crowded
            | StoreFailure::Partly(_)
            | StoreFailure::Garbled(_)
            | StoreFailure::Full(_) => {}
        }
    }

    fn lose_touch(&mut self) {
        self.unsure = true;
        (self.grace_us, self.in_touch_since) = (Some(GRACE_US), None);
        self.progress.still = None;
    }

    /// Whether the store may have lost records since it was asked last, although no call has failed.
    pub(super) fn has_lost_touch(&mut self) -> bool {
        let memory = self.store.chains().and_then(|chains| chains.memory(&self.chain));
        let Some(memory) = memory else { return false };
        let is_new = self.memory.replace(memory).is_some_and(|before| before != memory);
        if is_new {
            self.lose_touch();
        }
        is_new
    }

    /// Whether the record that this gateway knows is in a chain that has gone on.
    pub(super) async fn still_holds(&mut self, known: Place) -> Result<(), Refused> {
        if self.holds(known).await? {
            return Ok(());
        }
        let there = self.chains()?.place(&self.chain).await?;
        if self.is_archived(known, there).await? {
            return Ok(());
        }
        Err(self.alarm(known, there))
    }

    /// Whether the record at that place is in the chain that ends `there`, or was archived.
    pub(super) async fn stands(&self, place: Place, there: Place) -> Result<bool, Refused> {
        Ok(self.holds(place).await? || self.is_archived(place, there).await?)
    }

    /// Whether the segment was archived and removed.
    async fn is_archived(&self, place: Place, there: Place) -> Result<bool, Refused> {
        if place.segment >= there.segment {
            return Ok(false);
        }
        Ok(self.chains()?.records(&self.chain, place.segment, 0, 1).await?.is_empty())
    }

    /// Whether the chain holds the record at that place.
    pub(super) async fn holds(&self, place: Place) -> Result<bool, Refused> {
        if place.head.seq == 0 {
            return Ok(true);
        }
        let Some(index) = place.head.seq.checked_sub(place.segment_first) else { return Ok(false) };
        let records = self.chains()?.records(&self.chain, place.segment, index, 1).await?;
        let record = records.first().and_then(|bytes| Record::read(bytes).ok());
        Ok(record.is_some_and(|record| record.hash == place.head.hash))
    }

    /// Whether the store can be at that place, for all that is known.
    pub(super) fn ahead(&mut self, there: Place) -> Result<(), Refused> {
        let Some(known) = self.known else { return Ok(()) };
        let same = there.head.seq == known.head.seq && there.head.hash == known.head.hash;
        if self.set_back || (there.head.seq <= known.head.seq && !same) {
            return Err(self.alarm(known, there));
        }
        Ok(())
    }

    pub(super) fn alarm(&mut self, known: Place, there: Place) -> Refused {
        if !self.set_back {
            self.set_back = true;
            self.counters.rollback.raise();
            tracing::error!(
                critical = true, chain = %self.chain, seq = there.head.seq.saturating_add(1), ?known, ?there,
                "the audit chain's store was set back; no new appends until it is whole or given up"
            );
        }
        self.unsure = true;
        Refused::SetBack { known, there }
    }

    pub(super) fn reached(&mut self, place: Place) {
        self.known = Some(place);
        self.vouched = Some(place.head);
        if self.seen.back() != Some(&place) {
            self.seen.push_back(place);
        }
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_front();
        }
        let noted = self.mark.write(&place);
        let was_noted = !std::mem::replace(&mut self.is_unnoted, noted.is_err());
        // A disk may be full for long.
        if let (Err(error), true) = (noted, was_noted) {
            tracing::warn!(%error, "how far the audit chain has come could not be noted");
        }
    }

    pub(super) fn doubt(&mut self, appended: Appended) {
        if self.doubtful.len() >= DOUBTFUL_MAX {
            self.doubtful.remove(0);
        }
        self.doubtful.push(appended);
    }

    /// An append whose reply was lost was done if its records are in the chain, which ends `there`. Where the chain is
    /// shorter than it would be, nobody can tell.
    pub(super) async fn confirm(&mut self, there: Place) {
        for doubtful in std::mem::take(&mut self.doubtful) {
            let end = doubtful.end();
            if end.head.seq > there.head.seq {
                self.doubt(doubtful);
                continue;
            }
            match self.holds(end).await {
                Ok(true) => self.ring.push(doubtful),
                Ok(false) => {}
                Err(_unknown) => self.doubt(doubtful),
            }
        }
    }

    /// A reply says so.
    pub(super) fn was_done(&mut self, piece: &Appended) {
        if let Some(at) = self.doubtful.iter().position(|one| one == piece) {
            let done = self.doubtful.remove(at);
            self.ring.push(done);
        }
    }
}
