//! Owns what the service asks of the store that keeps claims: one beside a decision, and its end when
//! the decision is settled. Knows no HTTP.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    Abandoned, Begun, Claim, Completed, Extended, Found, Held, Owner,
};
use tidegate_policy::scope::{Scope, Tenant, TenantId};
use tidegate_policy::wire::{ClaimCall, ClaimState, DecisionId, Finish, FinishBy, Finished, Keyed};

use crate::clock::Clock;
use crate::store::claims::{Claims, Completion, Spread, Writer};
use crate::store::{Store, StoreFailure};

/// What one claim needs of its store; owns it all, so that it can outlive its caller.
#[derive(Clone)]
pub struct Claiming {
    /// The store of claims.
    pub store: Arc<dyn Store>,
    /// Whose keys.
    pub scope: Scope,
    /// The decision: the claim's owner.
    pub id: DecisionId,
}

// === impl Claiming ===

impl Claiming {
    /// Claims, or says what is there; with it the octets of an answer.
    pub async fn begin(self, call: &ClaimCall) -> Result<(ClaimState, Vec<u8>), StoreFailure> {
        let claims = self.claims()?;
        if claims.forgets() && !call.ephemeral {
            return Ok((ClaimState::Forgets, Vec::new()));
        }
        let begun = match self.older(claims, call).await? {
            Found::Absent => self.asked(claims, call).await?,
            found => Begun::Found(found),
        };
        // The frame holds what may be stored.
        ClaimState::of(&begun)
            .ok_or_else(|| StoreFailure::Garbled("a stored answer is too large".to_owned()))
    }

    async fn asked(&self, claims: &dyn Claims, call: &ClaimCall) -> Result<Begun, StoreFailure> {
        let name = self.name(&call.keyed)?;
        if call.look {
            let found = claims.lookup(&name, Some(&call.keyed.hash), Writer::Gateway).await?;
            return Ok(Begun::Found(found));
        }
        claims.begin(&name, &self.claim(call)).await
    }

    /// What a claim's state is once its replicas were waited for, beyond the decision's deadline. That
    /// nobody could be asked, or not in time, is the same as that there are none.
    pub async fn replicated(
        self,
        call: &ClaimCall,
        state: ClaimState,
        clock: &dyn Clock,
    ) -> ClaimState {
        let (Some(asked), ClaimState::Claimed { fence, taken_over, .. }) = (call.replicas, state)
        else {
            return state;
        };
        let within = Duration::from_millis(asked.within_ms.into());
        let spread = Spread { replicas: asked.count, within };
        let counted = async {
            let name = self.name(&call.keyed)?;
            self.claims()?.replicated(&name, &self.claim(call), fence, spread).await
        };
        let counted = tokio::select! {
            counted = counted => counted,
            () = clock.sleep(within) => Err(StoreFailure::Timeout),
        };
        let replicas = counted.unwrap_or_else(|error| {
            tracing::debug!(id = %self.id, %error, "the replicas of a claim are not known");
            0
        });
        ClaimState::Claimed { fence, taken_over, replicas: Some(replicas) }
    }

    fn claim(&self, call: &ClaimCall) -> Claim {
        Claim {
            owner: Owner::from(self.id),
            hash: call.keyed.hash,
            lock_us: u64::from(call.lock_ms) * 1_000,
            ttl_ms: ms(call.life_s),
            takeover: call.takeover,
        }
    }

    /// What an older system recorded, where the message asks for it, and what gateways recorded under the words for what
    /// varies in a path. Nobody writes there any more, so the looks need not be one step with the claim.
    async fn older(&self, claims: &dyn Claims, call: &ClaimCall) -> Result<Found, StoreFailure> {
        if let Some(name) = RecordName::of_older_format(&call.keyed.key).filter(|_| call.older_keys)
        {
            let found = claims.lookup(&name, Some(&call.keyed.hash), Writer::Anybody).await?;
            if found != Found::Absent {
                return Ok(found);
            }
        }
        self.with_words(claims, call).await
    }

    async fn with_words(
        &self,
        claims: &dyn Claims,
        call: &ClaimCall,
    ) -> Result<Found, StoreFailure> {
        let hash = &call.keyed.hash;
        let Some(name) = self.name_with_words(&call.keyed)? else { return Ok(Found::Absent) };
        match claims.lookup(&name, Some(hash), Writer::Gateway).await? {
            Found::Unknown if call.takeover => Ok(Found::Absent),
            // Claimed through a gateway of before; its end may have come through one of today.
            held @ (Found::InFlight { .. } | Found::Unknown) => {
                let name = self.name(&call.keyed)?;
                match claims.lookup(&name, Some(hash), Writer::Gateway).await? {
                    done @ (Found::Done(_) | Found::Unreadable { .. }) => Ok(done),
                    _ => Ok(held),
                }
            }
            found => Ok(found),
        }
    }

    /// Gives back what was claimed for a request that nobody told of it: its own word for that may be lost, too.
    pub async fn give_back(self, call: &ClaimCall, fence: u64) {
        let given_back = async {
            let held = Held { owner: Owner::from(self.id), fence };
            self.claims()?.abandon(&self.name(&call.keyed)?, held, ms(call.life_s)).await
        };
        if let Err(error) = given_back.await {
            tracing::debug!(id = %self.id, %error, "a claim that nobody heard of is not given back");
        }
    }

    /// Finishes the claim as the message says, with these octets of an answer. Where a gateway of before has made it, there: whoever asks again looks there first.
    pub async fn finish(self, finish: &Finish, octets: &[u8]) -> Result<Finished, StoreFailure> {
        let claims = self.claims()?;
        let name = self.name(&finish.keyed)?;
        let before = self.name_with_words(&finish.keyed)?;
        let held = Held { owner: Owner::from(self.id), fence: finish.fence };
        match finish.by {
            FinishBy::Complete { answer, life_s } => {
                let answer = answer.with(octets).map_err(unreadable)?;
                let (hash, ttl_ms) = (finish.keyed.hash, ms(life_s));
                let completion = Completion { held, hash, answer: &answer, ttl_ms };
                // Not where another has taken it over since, which did so under the name of today.
                if let Some(before) = recorded(claims, before).await?
                    && claims.lookup(&name, None, Writer::Gateway).await? == Found::Absent
                {
                    let completed = claims.complete(&before, &completion).await?;
                    if completed != Completed::Fenced {
                        return Ok(completed.into());
                    }
                }
                claims.complete(&name, &completion).await.map(Finished::from)
            }
            FinishBy::Abandon { life_s } => {
                if let Some(before) = recorded(claims, before).await?
                    && claims.abandon(&before, held, ms(life_s)).await? == Abandoned::Freed
                {
                    return Ok(Finished::Freed);
                }
                claims.abandon(&name, held, ms(life_s)).await.map(Finished::from)
            }
            FinishBy::Extend { lock_ms, life_s } => {
                let (lock_us, ttl_ms) = (u64::from(lock_ms) * 1_000, ms(life_s));
                // First here: who took it over did so here, and the claim that it was taken from stands there as it did.
                let extended = claims.extend(&name, held, lock_us, ttl_ms).await?;
                let Some(before) = before.filter(|_| extended != Extended::Extended) else {
                    return Ok(extended.into());
                };
                if claims.lookup(&name, None, Writer::Gateway).await? != Found::Absent {
                    return Ok(extended.into());
                }
                claims.extend(&before, held, lock_us, ttl_ms).await.map(Finished::from)
            }
        }
    }

    fn claims(&self) -> Result<&dyn Claims, StoreFailure> {
        let none = || StoreFailure::Refused("this store keeps no claims".to_owned());
        self.store.claims().ok_or_else(none)
    }

    fn name(&self, keyed: &Keyed) -> Result<RecordName, StoreFailure> {
        let tenant = self.tenant()?;
        Ok(RecordName::of(&self.scope.environment, tenant, &keyed.endpoint, &keyed.key))
    }

    /// Where a gateway of before has recorded it; `None` if that is the same.
    fn name_with_words(&self, keyed: &Keyed) -> Result<Option<RecordName>, StoreFailure> {
        let (environment, tenant) = (&self.scope.environment, self.tenant()?);
        Ok(RecordName::with_words(environment, tenant, &keyed.endpoint, &keyed.key))
    }

    fn tenant(&self) -> Result<&TenantId, StoreFailure> {
        match &self.scope.tenant {
            Tenant::Named(tenant) => Ok(tenant),
            // Decoding has seen to it.
            _ => Err(StoreFailure::Refused("a claim without a tenant".to_owned())),
        }
    }
}

/// The name, if anything is recorded there.
async fn recorded(
    claims: &dyn Claims,
    name: Option<RecordName>,
) -> Result<Option<RecordName>, StoreFailure> {
    let Some(name) = name else { return Ok(None) };
    let found = claims.lookup(&name, None, Writer::Gateway).await?;
    Ok((found != Found::Absent).then_some(name))
}

fn unreadable(error: impl std::fmt::Display) -> StoreFailure {
    StoreFailure::Refused(error.to_string())
}

fn ms(life_s: u32) -> u64 {
    u64::from(life_s) * 1_000
}

#[cfg(test)]
mod tests;
