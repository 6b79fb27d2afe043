//! Owns what becomes of a message that settles a decision. Knows no HTTP.

use std::sync::Arc;

use tidegate_policy::gcra::BadQuota;
use tidegate_policy::wire::{
    Adjustment as Message, Finished, LimitState, SettleReply, SettleRequest, VERSION,
};

use super::admission::Leaves;
use super::claim::Claiming;
use super::{Refused, Service, ledger};
use crate::store::{Adjustment, StoreFailure, StoreRole};

// === impl Service ===

impl Service {
    /// Adjusts what a decision charged. Ends within the deadline, whatever the store does.
    pub async fn settle(&self, message: &[u8]) -> Result<SettleReply, Refused> {
        let message = SettleRequest::decode(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        let settled = self.adjust(message).await;
        if let Err(refused) = &settled {
            self.log_mismatch(refused);
        }
        settled
    }

    async fn adjust(&self, message: SettleRequest) -> Result<SettleReply, Refused> {
        let id = message.id;
        let scope = self.scope(id, &message.scope, message.timeout_ms)?;
        let places = message.adjustments.iter().map(|one| (one.id.as_str(), &one.subject));
        self.refuse_repeated(id, places)?;
        // The message's own way counts, too: on the long side, since what is too old is not given
        // back and what is taken for younger than it is would be there twice.
        let age_us = message.age_us.saturating_add(u64::from(message.timeout_ms) * 1_000);
        let store = Arc::clone(self.stores.of(StoreRole::Regional));
        let claims = Arc::clone(self.stores.of(StoreRole::Idempotency));
        let claiming = Claiming { store: claims, scope: scope.clone(), id };
        let (clock, come_us) = (Arc::clone(&self.clock), self.clock.elapsed_us());
        let message = Arc::new(message);
        let work = {
            let message = Arc::clone(&message);
            async move {
                // The claim first: it keeps others waiting.
                let finished = match &message.finish {
                    Some(finish) => Some(claiming.finish(finish, &message.octets).await?),
                    None => None,
                };
                if message.adjustments.is_empty() {
                    return Ok((finished, Vec::new()));
                }
                let waited_us = clock.elapsed_us().saturating_sub(come_us);
                let age_us = age_us.saturating_add(waited_us);
                let prepared: Result<Vec<Adjustment<'_>>, BadQuota> =
                    message.adjustments.iter().map(|one| adjustment(one, age_us)).collect();
                // Decoding has checked every quota.
                let prepared =
                    prepared.map_err(|error| StoreFailure::Refused(error.to_string()))?;
                let call = store.settle(&scope, id, &prepared);
                call.await.map(|standings| (finished, standings))
            }
        };
        let leaves = if message.finish.is_some() { Leaves::End } else { Leaves::Nothing };
        let (finish, standings) = self.admitted(id, leaves, || work).await?;
        let states = message.adjustments.iter().zip(standings);
        let limits: Vec<LimitState> =
            states.map(|(one, standing)| ledger::state(&one.id, standing)).collect();
        tracing::debug!(%id, ?finish, "settled");
        if finish == Some(Finished::Recovered) {
            tracing::warn!(%id, "the record of a claim had been lost; its answer was stored anew");
            let spent_us = self.clock.elapsed_us().saturating_sub(come_us);
            self.chronicle.recovered(&message, spent_us).await;
        }
        Ok(SettleReply { v: VERSION, id, limits, finish })
    }
}

fn adjustment(message: &Message, age_us: u64) -> Result<Adjustment<'_>, BadQuota> {
    Ok(Adjustment {
        subject: &message.subject,
        limit_id: &message.id,
        quota: message.quota()?,
        algorithm: message.algorithm,
        by: message.by,
        age_us,
        charged_cold: message.receipt.is_some_and(|receipt| receipt.cold),
        receipt: message.receipt,
    })
}
