//! Owns what it means that the records end before the place that the store's head names. Knows no rule of
//! the chain.

use std::sync::Arc;

use super::Watch;
use crate::store::StoreFailure;

// === impl Watch ===

impl Watch {
    /// A pass that came to record `end` found nothing at `index` of its segment, which is the last one. The head
    /// was asked for first, and it moves together with the records: only a store that was set back in between
    /// could say so and be whole, and that a second look tells.
    pub(super) async fn look_for_cut(
        &mut self,
        (end, segment, index): (u64, u64, u64),
    ) -> Result<(), StoreFailure> {
        let there = self.place().await?;
        let (store, last) = (Arc::clone(&self.store), there.head.seq);
        let Some(chains) = store.chains().filter(|_| last > end && there.segment <= segment) else {
            return Ok(());
        };
        if !chains.records(&self.chain, segment, index, 1).await?.is_empty() {
            return Ok(());
        }
        let first = end.saturating_add(1);
        if self.missing.is_some_and(|before| before.first <= first && before.last >= last) {
            return Ok(());
        }
        tracing::error!(
            critical = true, chain = %self.chain, seq = first, head = last,
            "audit records that the head counts are not in the store"
        );
        self.miss(first, last);
        Ok(())
    }
}
