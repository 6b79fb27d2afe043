//! Owns what one decision comes to: its limits and its claim are charged as one, and count only if
//! somebody hears of it. Knows neither HTTP nor what kind of store it asks.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::reason::Reason;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::{ClaimState, DecideReply, DecideRequest};

use super::admission::Leaves;
use super::claim::Claiming;
use super::ledger::{self, Ledger};
use super::{Refused, Service};
use crate::store::{Checked, StoreFailure, StoreRole};

/// What a caller is told, whatever comes of the rest of its message.
struct Verdict {
    enforced: Checked,
    claim: Option<(ClaimState, Vec<u8>)>,
}

enum State {
    Asked,
    Given(Verdict),
    Left,
}

/// Between a decision's work and its caller: which of them comes first.
#[derive(Clone)]
struct Ruling(Arc<Mutex<State>>);

/// A caller that waits; one that is dropped has left.
struct Waiting(Ruling);

// === impl Ruling ===

impl Ruling {
    fn asked() -> Self {
        Self(Arc::new(Mutex::new(State::Asked)))
    }

    /// Puts the verdict there; gives it back if nobody waits for it any more.
    fn give(&self, verdict: Verdict) -> Result<(), Verdict> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Left) {
            return Err(verdict);
        }
        *state = State::Given(verdict);
        Ok(())
    }

    /// Takes the verdict, if there is one, and waits no more.
    fn leave(&self) -> Option<Verdict> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Left) {
            State::Given(verdict) => Some(verdict),
            State::Asked | State::Left => None,
        }
    }
}

// === impl Waiting ===

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

// === impl Service ===

impl Service {
    /// Charges what a message names, and answers. What was charged for a decision that its caller was not
    /// told is given back: whoever decides in the gateway's place charges nothing here.
    pub(super) async fn charge(
        &self,
        message: &Arc<DecideRequest>,
        scope: Scope,
    ) -> Result<DecideReply, Refused> {
        let store = Arc::clone(self.stores.of(StoreRole::Regional));
        let claims = Arc::clone(self.stores.of(StoreRole::Idempotency));
        let claiming = message.claim.is_some().then(|| Claiming {
            store: claims,
            scope: scope.clone(),
            id: message.id,
        });
        let (spreading, ending) = (claiming.clone(), claiming.clone());
        let ledger = Ledger {
            store,
            scope,
            message: Arc::clone(message),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        };
        let leasing = (!message.leases.is_empty()).then(|| self.leasing(ledger.scope.clone()));
        let asked = Arc::clone(message);
        let ruling = Ruling::asked();
        let waiting = Waiting(ruling.clone());
        // One deadline for all of it. What not every request asks is in boxes of its own, and all of it
        // in one: a future is moved several times before it runs.
        let work = Box::pin(async move {
            let begun_us = ledger.clock.elapsed_us();
            let enforced = ledger.enforced().await?;
            let allowed = enforced.allowed;
            let claim = match (claiming, &asked.claim) {
                (Some(claiming), Some(call)) if allowed => {
                    match Box::pin(claiming.begin(call)).await {
                        Ok(claim) => Some(claim),
                        Err(failure) => {
                            Box::pin(ledger.give_back(&enforced, begun_us)).await;
                            return Err(failure);
                        }
                    }
                }
                (Some(_) | None, _) => None,
            };
            if let Err(Verdict { enforced, claim }) = ruling.give(Verdict { enforced, claim }) {
                // The key first: others wait for it.
                if let (Some((ClaimState::Claimed { fence, .. }, _)), Some(ending)) =
                    (claim, ending)
                    && let Some(call) = &asked.claim
                {
                    Box::pin(ending.give_back(call, fence)).await;
                }
                Box::pin(ledger.give_back(&enforced, begun_us)).await;
                return Err(StoreFailure::Timeout);
            }
            // After the request itself, which is served first: nothing that it depends on.
            let shadow = ledger.shadow(allowed).await?;
            let leases = match leasing {
                Some(leasing) => Box::pin(leasing.ask(&asked.leases)).await.0,
                None => Vec::new(),
            };
            Ok((shadow, leases))
        });
        let claims = message.claim.as_ref().is_some_and(|claim| !claim.look);
        let leaves = if claims { Leaves::Claim } else { Leaves::Nothing };
        let mut verdict = None;
        // Where nothing but shadow limits is asked there is no verdict without them.
        let late = || {
            verdict = waiting.0.leave().filter(|_| ledger::binds(message));
            verdict.is_some().then(|| {
                if message.limits.iter().any(|limit| limit.shadow) {
                    self.metrics.shadow_failures.inc();
                }
                (None, Vec::new())
            })
        };
        let (shadow, leases) = self.admitted_or(message.id, leaves, || work, late).await?;
        let unfit = || Refused {
            reason: Reason::StoreError,
            detail: "the store answered for other limits".to_owned(),
            id: Some(message.id),
        };
        let Verdict { enforced, claim } =
            verdict.or_else(|| waiting.0.leave()).ok_or_else(unfit)?;
        let mut reply = ledger::reply(message, enforced, shadow).ok_or_else(unfit)?;
        reply.leases = leases;
        if let (Some((state, octets)), Some(spreading), Some(call)) =
            (claim, spreading, &message.claim)
        {
            // With neither a place nor the deadline of those that wait for no replica.
            let state = spreading.replicated(call, state, self.clock.as_ref()).await;
            (reply.claim, reply.octets) = (Some(state), octets);
        }
        Ok(reply)
    }
}
