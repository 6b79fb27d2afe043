//! Owns whether records may be linked behind what this gateway did not append itself: only where a gateway has signed.
//! Its own signature covers all that is before it. Record 0113.

use std::sync::{Arc, PoisonError};

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::record::{Record, SignatureCheck, signed};

use super::torn::Left;
use super::{ChainEnd, Refused};
use crate::audit::keys::Ed25519;

/// What a record's own signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seal {
    /// A key of ours made it.
    Good,
    /// It names a key that this gateway does not know: it may be on its way, and if it is nobody's every verifier
    /// finds that.
    Unknown,
    /// There is none, or it does not fit.
    Bad,
}

// === impl ChainEnd ===

impl ChainEnd {
    /// An error unless a gateway has signed the record with which the chain ends there. Each append is signed on its
    /// last record, so whatever else stands there no gateway has appended. A revoked key is as good: what comes first
    /// after a revocation stands behind its records.
    pub(super) async fn vouch(&mut self, there: Place) -> Result<(), Refused> {
        if there.head.seq == 0 || self.vouched == Some(there.head) {
            return Ok(());
        }
        let index = there.segment_len().saturating_sub(1);
        let records = self.chains()?.records(&self.chain, there.segment, index, 1).await;
        let records = records.inspect_err(|failure| self.failed(failure))?;
        if records.first().is_some_and(|last| self.vouches(there, last)) {
            return Ok(());
        }
        self.unsure = true;
        // It may have lost records in between.
        if self.chains()?.place(&self.chain).await? != there {
            return Err(Refused::Races(1));
        }
        if let Left::Ours(left) = self.left_behind(there).await? {
            // The head was set back to a record within an append.
            let held = u64::try_from(left.lines.len()).unwrap_or(u64::MAX);
            let before = if left.segment == there.segment { there.segment_len() } else { 0 };
            return Err(self.torn(there, left.segment, before.saturating_add(held)));
        }
        if self.foreign.replace(there.head) != Some(there.head) {
            tracing::error!(
                critical = true, chain = %self.chain, seq = there.head.seq,
                "the audit chain ends with a record that no gateway has signed; nothing is appended behind it"
            );
        }
        Err(Refused::Foreign(there.head.seq))
    }

    /// Whether that is the record with which the chain ends there, and it is signed.
    pub(super) fn vouches(&mut self, there: Place, last: &[u8]) -> bool {
        let Ok(record) = Record::read(last) else { return false };
        let is_it = (record.seq, record.hash) == (there.head.seq, there.head.hash);
        let is_signed = is_it && self.seal(&record) != Seal::Bad;
        if is_signed {
            self.vouched = Some(there.head);
        }
        is_signed
    }

    /// What the record's signature says.
    pub(super) fn seal(&self, record: &Record) -> Seal {
        let Some(seal) = &record.seal else { return Seal::Bad };
        let ring = Arc::clone(&*self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let Some(key) = ring.keys.get(&seal.version) else { return Seal::Unknown };
        let message = signed(&self.chain, record.seq, &record.hash, seal.version);
        if Ed25519.check(&key.public, &message, &seal.signature) { Seal::Good } else { Seal::Bad }
    }
}

#[cfg(test)]
mod tests;
