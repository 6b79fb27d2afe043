//! Owns what becomes of a chain whose store was set back: the gateways put the lost records back, the same
//! bytes in the same places, each those that it appended itself. Where one is missing the chain goes on
//! under a new origin, which begins with a signed rollback record. Record 0050.

use tidegate_policy::audit::append::{Append, Outcome, Place};
use tidegate_policy::audit::record::{Event, Record, Rollback};

use super::noted::Refuted;
use super::own_time::{DOUBT_US, GRACE_US, GROWING_PATIENCE_US, PATIENCE_US, WHOLE_US};
use super::parted::Parting;
use super::torn::Left;
use super::vouched::Seal;
use super::waiting::TURN_US;
use super::{BATCH_MAX, ChainEnd, Refused, SEGMENT_MAX, segment_behind};
use crate::audit::ring::Appended;
use crate::store::StoreFailure;

/// How far back a rollback record of another gateway is looked for.
const LOOK_BACK: u64 = 20_000;
const CHUNK: u64 = 1_000;
/// How often one repair appends or looks again.
const STEPS_MAX: usize = 10_000;
/// How often a rollback record is tried at once behind records of gateways that know of no loss.
const TRIES_MAX: usize = 20;

/// How far a repair has come. Times are in µs of the gateway's own time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the chain ended when it was last looked at, and since when it has ended there.
    pub(super) still: Option<(Place, u64)>,
    /// Since when nothing of this gateway's fits behind the chain's end, and where it ended then.
    stuck: Option<(Place, u64)>,
    /// Since when all that this gateway knows is there.
    whole_since: Option<u64>,
    /// How the chain differed when it ended there.
    parted: Option<(Place, Parting)>,
    /// Up to there no other gateway's rollback was found.
    searched: Option<Place>,
    /// Not before that does it try again to spool what the store lost; in µs of the clock.
    pub(super) goes_on_from: u64,
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Brings the chain to where it was, as far as this gateway can. An error while others have to put
    /// their pieces back first.
    pub(super) async fn repair(&mut self) -> Result<Place, Refused> {
        let repaired = self.put_back().await;
        if let Err(Refused::Store(failure)) = &repaired {
            self.failed(failure);
            if matches!(failure, StoreFailure::Unreachable(_)) {
                // Whoever has a missing piece could not put it back, either.
                let Progress { still, stuck, whole_since, .. } = &mut self.progress;
                (*still, *stuck, *whole_since) = (None, None, None);
            }
        }
        repaired
    }

    async fn put_back(&mut self) -> Result<Place, Refused> {
        let known = self.known.unwrap_or(Place::GENESIS);
        if self.clock.elapsed_us() < self.progress.goes_on_from {
            return Err(Refused::NoRoom);
        }
        let (begun_us, mut is_busy) = (self.clock.elapsed_us(), false);
        let mut refuted = Refuted::default();
        for _ in 0..STEPS_MAX {
            let there = self.chains()?.place(&self.chain).await?;
            self.own_time.looked(self.clock.elapsed_us());
            self.begins(there).await?;
            // It was appended behind this very record, so no rollback before it is news.
            // Where others append, what lies behind a head that was read before is theirs, and the head is there already.
            let left = if is_busy { Left::Nothing } else { self.left_behind(there).await? };
            let is_left = matches!(left, Left::Ours(_));
            let (piece, torn) = match left {
                Left::Ours(piece) => (Some(piece), None),
                Left::Nothing => (self.piece(there), None),
                Left::Torn { segment, held } => (self.piece(there), Some((segment, held))),
            };
            if let (None, Some((segment, held))) = (&piece, torn) {
                // Others may have appended since the head was read.
                if self.chains()?.place(&self.chain).await? == there {
                    return Err(self.torn(there, segment, held));
                }
                is_busy = true;
                continue;
            }
            let Some(piece) = piece else {
                if self.is_whole(known, there).await? {
                    return self.wait_for_others(known, there).await;
                }
                self.progress.whole_since = None;
                return self.wait_or_give_up(known, there).await;
            };
            match self.put(&piece, there, &refuted).await? {
                Outcome::Done(_) => {
                    self.progress.stuck = None;
                    // Of what lies there a list may hold any number, and events wait for the end of the look.
                    let turn_us = self.clock.elapsed_us().saturating_sub(begun_us);
                    if is_left && turn_us >= TURN_US {
                        return Err(Refused::SetBack { known, there });
                    }
                }
                Outcome::Moved(..) => is_busy |= is_left,
                Outcome::Duplicates(at, noted) => {
                    let ids = piece.ids();
                    if !self.proven(at, &ids, &noted, &mut refuted).await?.is_empty() {
                        return self.wait_or_give_up(known, there).await;
                    }
                }
                Outcome::Torn(there, held) => return Err(self.torn(there, piece.segment, held)),
            }
        }
        Err(Refused::Races(STEPS_MAX))
    }

    /// Appends once more what was appended there.
    pub(super) async fn put(
        &mut self,
        piece: &Appended,
        there: Place,
        refuted: &Refuted,
    ) -> Result<Outcome, StoreFailure> {
        let Some(chains) = self.store.chains() else {
            return Ok(Outcome::Moved(there, Vec::new()));
        };
        // The place says which segment the chain is in now.
        let refuted = refuted.of(&piece.ids());
        let call = Append { refuted: &refuted, ..piece.call(there) };
        let outcome = chains.append(&self.chain, &call).await?;
        if matches!(outcome, Outcome::Done(_)) {
            let count = u64::try_from(piece.lines.len()).unwrap_or(u64::MAX);
            self.counters.put_back.inc_by(count);
            self.was_done(piece);
        }
        Ok(outcome)
    }

    /// What this gateway appended behind that place, or may have appended: others' records may come behind it.
    pub(super) fn piece(&mut self, there: Place) -> Option<Appended> {
        if let Some(piece) = self.ring.behind(there) {
            return Some(piece.clone());
        }
        let doubtful = self.doubtful.iter().find(|one| one.start.head == there.head).cloned()?;
        (self.still_us(there) >= DOUBT_US).then_some(doubtful)
    }

    async fn is_whole(&self, known: Place, there: Place) -> Result<bool, Refused> {
        Ok(if there.head.seq <= known.head.seq {
            there.head == known.head
        } else {
            self.stands(known, there).await?
        })
    }

    /// A rollback record behind the last place that this gateway and the store still agree on. Only what came
    /// since the last look is read.
    async fn given_up_by_another(
        &mut self,
        parting: Parting,
        there: Place,
    ) -> Result<Option<Rollback>, Refused> {
        let mut from = parting.common;
        if let Some(searched) = self.progress.searched
            && (from..=there.head.seq).contains(&searched.head.seq)
            && self.stands(searched, there).await?
        {
            from = searched.head.seq;
        }
        let mut left = there.head.seq.saturating_sub(from).min(LOOK_BACK);
        // How many records the segment has at least and at most.
        let (mut segment, mut least) = (there.segment, there.segment_len());
        let mut most = least;
        while left > 0 {
            let mut at = least.saturating_sub(left);
            while at < most {
                let records = self.chains()?.records(&self.chain, segment, at, CHUNK).await?;
                if records.is_empty() {
                    break;
                }
                at = at.saturating_add(CHUNK);
                let own = |bytes: &Vec<u8>| self.own_rollback(bytes, from);
                let ours = |told: &Rollback| told.common < parting.lost;
                if let Some(told) = records.iter().filter_map(own).find(ours) {
                    return Ok(Some(told));
                }
            }
            left = left.saturating_sub(least);
            let Some(before) = segment.checked_sub(1) else { break };
            (segment, least) = (before, SEGMENT_MAX);
            most = SEGMENT_MAX.saturating_add(u64::try_from(BATCH_MAX).unwrap_or(0));
        }
        self.progress.searched = Some(there);
        Ok(None)
    }

    /// A rollback behind the record `from`, if a key of ours signed it.
    fn own_rollback(&self, bytes: &[u8], from: u64) -> Option<Rollback> {
        let record = Record::read(bytes).ok().filter(|record| record.seq > from)?;
        record.rollback.filter(|_| self.seal(&record) == Seal::Good)
    }

    /// This gateway's pieces are there. Whatever it appended now might take another's place, so it waits
    /// until nobody puts anything back any more.
    async fn wait_for_others(&mut self, known: Place, there: Place) -> Result<Place, Refused> {
        self.vouch(there).await?;
        let now = self.own_time.us();
        self.progress.stuck = None;
        let whole_us = now.saturating_sub(*self.progress.whole_since.get_or_insert(now));
        if self.still_us(there) < GRACE_US && whole_us < WHOLE_US {
            return Err(Refused::SetBack { known, there });
        }
        self.counters.repaired.inc();
        tracing::warn!(chain = %self.chain, seq = there.head.seq, "the audit chain is whole again");
        Ok(self.resume(there))
    }

    /// For how long the chain has ended there.
    fn still_us(&mut self, there: Place) -> u64 {
        let now = self.own_time.us();
        match self.progress.still {
            Some((place, since)) if place == there => return now.saturating_sub(since),
            // Set back once more: whoever has pieces has to have time for them.
            Some((place, _)) if there.head.seq < place.head.seq => self.progress.stuck = None,
            Some(_) | None => {}
        }
        self.progress.still = Some((there, now));
        0
    }

    /// Nothing of this gateway's fits behind the chain's end.
    async fn wait_or_give_up(&mut self, known: Place, there: Place) -> Result<Place, Refused> {
        if there.head.seq < known.head.seq && self.holds(known).await? {
            // What lies in its list is not lost, wherever the head is.
            if self.chains()?.place(&self.chain).await? == there {
                return Err(self.torn(there, known.segment, known.segment_len()));
            }
            return Err(Refused::SetBack { known, there });
        }
        self.vouch(there).await?;
        let parting = self.parted(known, there).await?;
        if let Some(rollback) = self.given_up_by_another(parting, there).await? {
            let place = self.go_on(parting.common, there).await?;
            tracing::error!(
                critical = true, chain = %self.chain, ?rollback,
                "the audit chain goes on under a new origin"
            );
            return Ok(place);
        }
        let still_us = self.still_us(there);
        let now = self.own_time.us();
        let (begun, since) = *self.progress.stuck.get_or_insert((there, now));
        let stuck_us = now.saturating_sub(since);
        let is_taken = parting.is_taken(there);
        let patience_us = if is_taken { PATIENCE_US } else { GROWING_PATIENCE_US };
        if still_us < PATIENCE_US && stuck_us < patience_us {
            return Err(Refused::SetBack { known, there });
        }
        // Set back once more and grown again, between two looks.
        if !self.stands(begun, there).await? {
            (self.progress.still, self.progress.stuck) = (None, None);
            return Err(Refused::SetBack { known, there });
        }
        self.give_up(known, parting, there).await
    }

    /// How the chain differs. Once others have the place of what was lost it does not change any more.
    async fn parted(&mut self, known: Place, there: Place) -> Result<Parting, Refused> {
        if let Some((then, parting)) = self.progress.parted
            && (then == there || (parting.is_taken(then) && self.stands(then, there).await?))
        {
            return Ok(parting);
        }
        let parting = self.parting(known, there).await?;
        self.progress.parted = Some((there, parting));
        Ok(parting)
    }

    async fn give_up(
        &mut self,
        known: Place,
        parting: Parting,
        mut there: Place,
    ) -> Result<Place, Refused> {
        let mut refuted = Refuted::default();
        for _ in 0..TRIES_MAX {
            let Some(event) = self.rollback(there, known, parting.common) else { break };
            let events = [event];
            match self.attempt(there, &events, 0, &refuted).await? {
                Outcome::Done(end) => {
                    self.counters.origins.inc();
                    tracing::error!(
                        critical = true, chain = %self.chain, common = parting.common,
                        kept = there.head.seq, known = known.head.seq,
                        "records of the audit chain are lost; it goes on under a new origin"
                    );
                    return self.go_on(parting.common, end).await;
                }
                // Of somebody who knows of no loss, or of somebody who has told of it just now.
                Outcome::Moved(next, _)
                    if parting.is_taken(there) && next.head.seq > there.head.seq =>
                {
                    if self.given_up_by_another(parting, next).await?.is_some() {
                        break;
                    }
                    self.vouch(next).await?;
                    there = next;
                }
                // A missing piece may have come: the next look finds out.
                Outcome::Moved(..) => break,
                Outcome::Duplicates(there, noted) => {
                    if !self
                        .proven(there, &events.each_ref().map(Event::id), &noted, &mut refuted)
                        .await?
                        .is_empty()
                    {
                        break;
                    }
                }
                Outcome::Torn(there, held) => {
                    return Err(self.torn(there, segment_behind(there), held));
                }
            }
        }
        Err(Refused::SetBack { known, there })
    }

    pub(super) fn resume(&mut self, there: Place) -> Place {
        self.set_back = false;
        self.progress = Progress::default();
        (self.grace_us, self.in_touch_since) = (None, None);
        self.unsure = false;
        self.counters.rollback.whole(there.head.seq);
        self.reached(there);
        there
    }
}

#[cfg(test)]
mod tests;
