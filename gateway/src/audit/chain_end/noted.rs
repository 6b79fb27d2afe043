//! Owns what it is worth that an event's id is noted in the store: whoever writes there by hand can note events that
//! never were appended. Only the record of that number says that the event is in the chain. Record 0119.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::audit::append::{Noted, Place};
use tidegate_policy::audit::record::Record;

use super::{BATCH_MAX, ChainEnd, Refused};
use crate::store::chains::{SEGMENTS_MAX, ids_key};

/// Ids whose records are not in the chain at the numbers that the store has noted.
#[derive(Debug, Default)]
pub(super) struct Refuted(BTreeSet<(String, u64)>);

// === impl Refuted ===

impl Refuted {
    /// The same by the places of the ids.
    pub(super) fn of(&self, ids: &[&str]) -> Vec<Noted> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let each = ids.iter().enumerate().flat_map(|(index, event)| {
            let own = self.0.iter().filter(move |(id, _)| id == event);
            own.map(move |(_, seq)| Noted { index, seq: *seq })
        });
        each.collect()
    }
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Those of the events with these ids that are in the chain, which ends `there`; what is noted of others is refuted.
    pub(super) async fn proven(
        &self,
        there: Place,
        ids: &[&str],
        noted: &[Noted],
        refuted: &mut Refuted,
    ) -> Result<BTreeSet<usize>, Refused> {
        let (mut proven, mut read) = (BTreeSet::new(), BTreeMap::new());
        for &Noted { index, seq } in noted {
            let Some(&event) = ids.get(index) else { continue };
            if self.id_at(there, seq, &mut read).await?.is_some_and(|id| id == event) {
                proven.insert(index);
                continue;
            }
            if refuted.0.insert((event.to_owned(), seq)) {
                self.counters.false_ids.inc();
                let key = ids_key(&self.chain, there.segment);
                tracing::error!(
                    critical = true, chain = %self.chain, id = event, seq, newest = key,
                    "the audit store says that this event is in the chain, and that record is another's or not there: \
                     somebody wrote to its ids; the event is appended"
                );
            }
        }
        Ok(proven)
    }

    /// Whose record has that number. What is read on the way is kept, since events that come again come together.
    async fn id_at(
        &self,
        there: Place,
        seq: u64,
        read: &mut BTreeMap<u64, String>,
    ) -> Result<Option<String>, Refused> {
        if let Some(id) = read.get(&seq) {
            return Ok(Some(id.clone()));
        }
        let Some((segment, index)) = self.position(there, seq).await? else { return Ok(None) };
        let count = u64::try_from(BATCH_MAX).unwrap_or(1);
        let records = self.chains()?.records(&self.chain, segment, index, count).await?;
        let records = records.iter().filter_map(|bytes| Record::read(bytes).ok());
        read.extend(records.map(|record| (record.seq, record.id)));
        Ok(read.get(&seq).cloned())
    }

    /// The segment that holds the record of that number, and where in it.
    async fn position(&self, there: Place, seq: u64) -> Result<Option<(u64, u64)>, Refused> {
        if seq == 0 || seq > there.head.seq {
            return Ok(None);
        }
        let oldest = there.segment.saturating_sub(SEGMENTS_MAX);
        let (mut segment, mut first) = (there.segment, there.segment_first);
        while seq < first {
            let Some(before) = segment.checked_sub(1).filter(|before| *before >= oldest) else {
                return Ok(None);
            };
            let records = self.chains()?.records(&self.chain, before, 0, 1).await?;
            let record = records.first().and_then(|bytes| Record::read(bytes).ok());
            let Some(record) = record else { return Ok(None) };
            (segment, first) = (before, record.seq);
        }
        Ok(Some((segment, seq.saturating_sub(first))))
    }
}

#[cfg(test)]
mod tests;
