//! Owns what the service makes of a process's report on its breakers, and what operators order. Knows
//! neither HTTP nor what the breakers guard.

mod changes;
mod seen;
mod so_far;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_policy::breaker::mesh::{ENTROPY_RANGE, Event, Said};
use tidegate_policy::scope::{CallerScope, KeyFormat, Scope, Tenant};
use tidegate_policy::wire::breaker::{
    BreakerName, BreakerReport, BreakerState, BreakersPart, BreakersReply, BreakersRequest,
    BreakersSaid, Permit,
};
use tidegate_policy::wire::{DecisionId, VERSION};

use self::changes::{Looks, news};
pub use self::seen::Seen;
use self::so_far::SoFar;
use super::admission::Leaves;
use super::together::as_they_come;
use super::{Refused, Service};
use crate::clock::{Clock, whole_us};
use crate::store::breakers::Breakers;
use crate::store::{StoreFailure, StoreRole};

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
        let (seen, clock) = (Arc::clone(&self.seen), Arc::clone(&self.clock));
        // What is left of the deadline is for the looks that are under way.
        let half_us = whole_us(self.settings.admission.deadline) / 2;
        let until_us = clock.elapsed_us().saturating_add(half_us);
        let so_far = Arc::new(Mutex::new(SoFar::new(part.since)));
        let told = Arc::clone(&so_far);
        let work = async move {
            let breakers = store.breakers().ok_or_else(none)?;
            let clock = clock.as_ref();
            Asked { breakers, scope: &scope, seen: &seen, clock, until_us }.sync(part, &told).await;
            lock(&told).said()
        };
        let late = || SoFar::late(&so_far);
        let (said, failed) = self.admitted_or(id, Leaves::Nothing, || work, late).await?;
        if let Some(failure) = failed {
            self.log_failure(&failure);
        }
        Ok(said)
    }
}

/// What a message asks of a store.
struct Asked<'a> {
    breakers: &'a dyn Breakers,
    scope: &'a Scope,
    seen: &'a Seen,
    clock: &'a dyn Clock,
    /// From then on, by the clock's stopwatch, no more looks at changes are begun.
    until_us: u64,
}

// === impl Asked ===

impl Asked<'_> {
    /// A breaker that could not be asked is left out, and its process says it again.
    async fn sync(&self, part: BreakersPart, so_far: &Mutex<SoFar>) {
        let Self { breakers, scope, seen, clock, until_us } = *self;
        let BreakersPart { process, seq, since, reports } = part;
        let steps = reports.iter().map(|BreakerReport { name, terms, batch }| {
            let (holder, batch, entropy) = (process.0, *batch, entropy());
            breakers.step(scope, name, &Event::Sync { terms, holder, seq, batch, entropy })
        });
        as_they_come(steps.collect(), |place, said| {
            let mut so_far = lock(so_far);
            if let Some(report) = reports.get(place)
                && let Some(said) = so_far.take(said)
            {
                seen.note(&report.name, Some(&report.batch), &said);
                so_far.states.push(told(&report.name, &said));
            }
            true
        })
        .await;
        // In the order in which they were reported, whichever server was faster.
        let place = |state: &BreakerState| reports.iter().position(|one| one.name == state.name);
        lock(so_far).states.sort_by_key(place);
        let news = news(breakers, scope, since).await;
        let Some((since, changed)) = lock(so_far).take(news) else { return };
        let unsaid = |name: &BreakerName| reports.iter().all(|report| report.name != *name);
        let changed = changed.into_iter().filter(|(name, _)| unsaid(name)).collect();
        let looks = Looks { breakers, scope, seen, since, seq, clock, until_us };
        looks.tell(changed, so_far).await;
    }
}

fn lock(so_far: &Mutex<SoFar>) -> MutexGuard<'_, SoFar> {
    so_far.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests;
