//! Owns what follows where a segment's list and the head tell different numbers of records: the head was set back, or is
//! gone, and the list kept what stands behind it. What a gateway has signed there is the chain's, and the head goes on
//! over it. Record 0118.

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::record::{Head, Line, Record};

use super::vouched::Seal;
use super::{ChainEnd, Refused, segment_behind};
use crate::audit::ring::Appended;
use crate::store::chains::segment_key;

/// Records that one append takes up at most, since the script is handed them all.
const CHUNK: u64 = 500;

/// What lies in the store right behind the place that the head names.
#[derive(Debug)]
pub(super) enum Left {
    /// Nothing that is in an append's way.
    Nothing,
    /// The chain's own, as far as it is linked and a signature by one of our keys covers it: no other records could take
    /// its place.
    Ours(Appended),
    /// Something else in the list into which is appended next, or that list lacks records that the head counts; with how
    /// many records it holds as far as was read.
    Torn { segment: u64, held: u64 },
}

// === impl ChainEnd ===

impl ChainEnd {
    /// What lies in the store right behind the place that the head names.
    pub(super) async fn left_behind(&self, there: Place) -> Result<Left, Refused> {
        let chains = self.chains()?;
        let (count, next) = (there.segment_len(), there.segment.saturating_add(1));
        let into = segment_behind(there);
        // From the last one that the head counts on, so that it shows when that one is missing.
        let (from, before) = count.checked_sub(1).map_or((0, 0), |last| (last, 1));
        let mut behind =
            chains.records(&self.chain, there.segment, from, CHUNK.saturating_add(before)).await?;
        if before > 0 && behind.is_empty() && into == there.segment {
            let held = self.torn.filter(|(head, _)| *head == there.head).map_or(from, |(_, n)| n);
            return Ok(Left::Torn { segment: into, held });
        }
        behind.drain(..behind.len().min(usize::from(before > 0)));
        let mut at = (there.segment, count);
        if behind.is_empty() {
            (at, behind) = ((next, 0), chains.records(&self.chain, next, 0, CHUNK).await?);
        }
        let (segment, counted) = at;
        let held = u64::try_from(behind.len()).unwrap_or(u64::MAX).saturating_add(counted);
        let is_empty = behind.is_empty();
        Ok(match self.own_part(there, segment, behind) {
            Some(piece) => Left::Ours(piece),
            None if is_empty || segment != into => Left::Nothing,
            None => Left::Torn { segment, held },
        })
    }

    /// An error unless the segment begins with the record that the head says: by that number each record's place in it is
    /// found, and the append script compares nothing else with the list's length.
    pub(super) async fn begins(&mut self, there: Place) -> Result<(), Refused> {
        let said = (there.segment, there.segment_first);
        if self.begins == Some(said) || there == Place::GENESIS {
            return Ok(());
        }
        let first = self.chains()?.records(&self.chain, there.segment, 0, 1).await;
        let first = first.inspect_err(|failure| self.failed(failure))?;
        let first = first.first().map(|bytes| Record::read(bytes).map_or(0, |record| record.seq));
        let is_empty = Some(there.segment_first) == there.head.seq.checked_add(1);
        if first == Some(there.segment_first) || (first.is_none() && is_empty) {
            self.begins = first.is_some().then_some(said);
            return Ok(());
        }
        // It may have lost records in between.
        if self.chains()?.place(&self.chain).await? != there {
            return Err(Refused::Races(1));
        }
        let Some(first) = first else { return Err(self.torn(there, there.segment, 0)) };
        let key = segment_key(&self.chain, there.segment);
        if self.misnumbered.replace(there) != Some(there) {
            tracing::error!(
                critical = true, chain = %self.chain, key, first, seg_first = there.segment_first,
                "the audit chain is torn: its head says that this list begins with another record; nothing is appended \
                 until the head's seg_first is that record's number"
            );
        }
        self.alarm(self.known.unwrap_or(there), there);
        Err(Refused::Misnumbered { key, first, said: there.segment_first })
    }

    fn own_part(&self, start: Place, segment: u64, behind: Vec<Vec<u8>>) -> Option<Appended> {
        let (mut end, mut records, mut lines) = (start.head, Vec::new(), Vec::new());
        for bytes in behind {
            let Ok(record) = Record::read(&bytes) else { break };
            if (record.prev, Some(record.seq)) != (end.hash, end.seq.checked_add(1)) {
                break;
            }
            end = Head { seq: record.seq, hash: record.hash };
            lines.push(Line { id: record.id.clone(), bytes });
            records.push(record);
        }
        // Its signature covers all before it.
        let last = records.iter().rposition(|record| self.seal(record) == Seal::Good)?;
        lines.truncate(last.saturating_add(1));
        let hash = records.get(last)?.hash;
        Some(Appended { start, segment, ids_from: segment, hash, lines })
    }

    /// The list of that segment, into which is appended behind `there`, holds another number of records than the head
    /// counts: an append would stand where nobody looks for it.
    pub(super) fn torn(&mut self, there: Place, segment: u64, held: u64) -> Refused {
        let counted = if segment == there.segment { there.segment_len() } else { 0 };
        let key = segment_key(&self.chain, segment);
        if self.torn.replace((there.head, held)) != Some((there.head, held)) {
            tracing::error!(
                critical = true, chain = %self.chain, key, held, counted, seq = there.head.seq,
                "the audit chain is torn: the list holds another number of records than its head counts; what a \
                 gateway has signed behind the head is taken up again, behind anything else nothing is appended until \
                 that is taken away"
            );
        }
        self.alarm(self.known.unwrap_or(there), there);
        Refused::Torn { key, held, counted }
    }
}

#[cfg(test)]
mod tests;
