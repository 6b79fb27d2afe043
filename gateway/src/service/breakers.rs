//! Owns what the service makes of a process's report on its breakers, and what operators order. Knows
//! neither HTTP nor what the breakers guard.

mod changes;
mod seen;

use std::sync::Arc;

use tidegate_policy::breaker::mesh::{ENTROPY_RANGE, Event, Said};
use tidegate_policy::scope::{CallerScope, KeyFormat, Scope, Tenant};
use tidegate_policy::wire::breaker::{
    BreakerName, BreakerReport, BreakerState, BreakersPart, BreakersReply, BreakersRequest,
    BreakersSaid, Permit,
};
use tidegate_policy::wire::{DecisionId, VERSION};

use self::changes::{Looks, news};
pub use self::seen::Seen;
use super::admission::Leaves;
use super::together::together;
use super::{Refused, Service};
use crate::store::breakers::Breakers;
use crate::store::{StoreFailure, StoreRole};

/// How the calls of one message ended.
#[derive(Default)]
struct Answers {
    any: bool,
    /// The last that did not.
    failed: Option<StoreFailure>,
}

// === impl Service ===

impl Service {
    /// Takes a process's report. Ends within the deadline, whatever the store does.
    pub async fn breakers(&self, message: &[u8]) -> Result<BreakersReply, Refused> {
        let message = BreakersRequest::decode(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        let BreakersRequest { id, scope, timeout_ms, breakers, .. } = message;
        let said = self.report(id, &scope, timeout_ms, breakers).await?;
        Ok(BreakersReply { v: VERSION, id, breakers: said })
    }

    /// The part of a message of the tick that is about breakers.
    pub async fn report(
        &self,
        id: DecisionId,
        caller: &CallerScope,
        timeout_ms: u32,
        part: BreakersPart,
    ) -> Result<BreakersSaid, Refused> {
        let reported = self.scope(id, caller, timeout_ms);
        let scope = reported.inspect_err(|refused| self.log_mismatch(refused))?;
        let store = self.stores.for_one_message(StoreRole::Regional);
        let seen = Arc::clone(&self.seen);
        let work =
            async move { sync(store.breakers().ok_or_else(none)?, &scope, part, &seen).await };
        let (said, failed) = self.admitted(id, Leaves::Nothing, || work).await?;
        if let Some(failure) = failed {
            self.log_failure(&failure);
        }
        Ok(said)
    }
}

/// What there is to say, and the last failure: a breaker that could not be asked is left out, and its process says it
/// again. Where nothing answered at all that is the store's absence.
async fn sync(
    breakers: &dyn Breakers,
    scope: &Scope,
    part: BreakersPart,
    seen: &Seen,
) -> Result<(BreakersSaid, Option<StoreFailure>), StoreFailure> {
    let BreakersPart { process, seq, since, reports } = part;
    let steps = reports.iter().map(|BreakerReport { name, terms, batch }| {
        let (holder, batch, entropy) = (process.0, *batch, entropy());
        breakers.step(scope, name, &Event::Sync { terms, holder, seq, batch, entropy })
    });
    let mut answers = Answers::default();
    let mut states: Vec<BreakerState> = Vec::with_capacity(reports.len());
    for (report, said) in reports.iter().zip(together(steps.collect()).await) {
        let Some(said) = answers.take(said) else { continue };
        seen.note(&report.name, Some(&report.batch), &said);
        states.push(told(&report.name, &said));
    }
    let news = answers.take(news(breakers, scope, since).await);
    let (since, changed) = news.unwrap_or_else(|| (since, Vec::new()));
    let unsaid = |name: &BreakerName| reports.iter().all(|report| report.name != *name);
    let changed = changed.into_iter().filter(|(name, _)| unsaid(name));
    let looks = Looks { breakers, scope, seen, since, seq };
    let cursor = looks.tell(changed.collect(), &mut states, &mut answers).await;
    match answers {
        Answers { any: false, failed: Some(failure) } => Err(failure),
        Answers { failed, .. } => Ok((BreakersSaid { cursor, states }, failed)),
    }
}

fn told(name: &BreakerName, said: &Said) -> BreakerState {
    BreakerState {
        name: name.clone(),
        state: said.state,
        epoch: said.epoch,
        wait_ms: said.wait_ms,
        healed_ms: said.healed_ms,
        permit: said.permit.map(|(id, ms)| Permit { id, ms }),
    }
}

fn none() -> StoreFailure {
    StoreFailure::Refused("this store keeps no breakers".to_owned())
}

/// Without randomness all breakers would open for the middle of their time: they spread less, and
/// work.
pub fn entropy() -> u32 {
    getrandom::u32().map_or(ENTROPY_RANGE / 2, |bits| bits % ENTROPY_RANGE)
}

/// The scope of a region's breakers, for operators.
pub fn region_scope(settings: &super::ServiceSettings) -> Scope {
    settings.scope(Tenant::None, KeyFormat::default())
}

// === impl Answers ===

impl Answers {
    fn take<T>(&mut self, outcome: Result<T, StoreFailure>) -> Option<T> {
        match outcome {
            Ok(answer) => {
                self.any = true;
                Some(answer)
            }
            Err(failure) => {
                self.failed = Some(failure);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
