//! Owns one reading of the chain, chunk by chunk, from its first record on. Knows no metric.

use std::sync::Arc;

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::keys::KeyRing;
use tidegate_policy::audit::record::ChainName;
use tidegate_policy::audit::verify::Verifier;

use super::notes::Notes;
use super::uses::Uses;
use crate::audit::keys::Ed25519;
use crate::store::{Store, StoreFailure};

const CHUNK: u64 = 1_000;

/// How far one reading came.
pub(super) enum Read {
    /// There may be more.
    More,
    /// To the place that was asked for.
    Whole,
    /// The records end before it.
    Short,
}

/// One reading of the chain.
pub(super) struct Pass {
    pub(super) verifier: Verifier<'static>,
    pub(super) segment: u64,
    /// The next record within the segment, from 0.
    pub(super) index: u64,
    /// Signatures by revoked keys so far.
    revoked: u64,
}

// === impl Pass ===

impl Pass {
    /// Begins with the first record; the last checkpoint is what the chain has to be.
    pub(super) fn new(ring: &Arc<KeyRing>, notes: Option<&Notes>) -> Self {
        let mut verifier = Verifier::owning(KeyRing::clone(ring), &Ed25519);
        verifier.accept_rollbacks();
        if let Some(last) = notes.and_then(Notes::last) {
            verifier.expect(last.as_bytes());
        }
        Self { verifier, segment: 0, index: 0, revoked: 0 }
    }

    /// How far it is, and where the next record would be.
    pub(super) fn place(&self) -> (u64, u64, u64) {
        (self.verifier.end().seq, self.segment, self.index)
    }

    /// Reads one chunk, and says who signed with a revoked key.
    pub(super) async fn read(
        &mut self,
        store: &Arc<dyn Store>,
        chain: &ChainName,
        place: Place,
        mut uses: Option<&mut Uses>,
    ) -> Result<Read, StoreFailure> {
        let Some(chains) = store.chains() else { return Ok(Read::Whole) };
        // Not behind the place that was asked for: a batch may be under way.
        let left = place.head.seq.saturating_sub(self.verifier.end().seq).min(CHUNK);
        if left == 0 {
            return Ok(Read::Whole);
        }
        let records = chains.records(chain, self.segment, self.index, left).await?;
        if records.is_empty() {
            if self.segment >= place.segment {
                return Ok(Read::Short);
            }
            self.segment = self.segment.saturating_add(1);
            self.index = 0;
            return Ok(Read::More);
        }
        self.index = self.index.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
        // Tens of thousands of signatures a second; between two chunks others have their turn.
        for record in &records {
            self.verifier.push(record);
            let revoked = self.verifier.so_far().revoked_signatures.values().sum();
            if revoked > self.revoked {
                self.revoked = revoked;
                uses.iter_mut().for_each(|uses| uses.found(self.verifier.end()));
            }
        }
        tokio::task::yield_now().await;
        Ok(Read::More)
    }
}
