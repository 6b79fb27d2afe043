//! Owns what one decision charges: the enforced limits, then the shadow ones, and their readings
//! in the message's order. Knows neither callers nor deadlines.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::gcra::{BadQuota, Quota, Reading, Retry};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::{DecideReply, DecideRequest, LimitState, VERSION, Verdict};

use crate::clock::Clock;
use crate::metrics::{OutcomeLabel, SharedMetrics};
use crate::store::{Call, Charge, Checked, Standing, Store, StoreFailure};

/// The two calls of one decision.
pub struct Weighed {
    enforced: Checked,
    shadow: Option<Checked>,
}

/// What one decision needs of its store; owns it all, so that it can outlive its caller.
pub struct Ledger {
    pub store: Arc<dyn Store>,
    pub scope: Scope,
    pub message: Arc<DecideRequest>,
    pub clock: Arc<dyn Clock>,
    pub metrics: SharedMetrics,
}

// === impl Weighed ===

impl Weighed {
    /// Whether every enforced limit admits.
    pub fn allowed(&self) -> bool {
        self.enforced.allowed
    }
}

// === impl Ledger ===

impl Ledger {
    /// Enforced limits first, all or nothing; then the shadow ones, each for itself: one that is used
    /// up stops no other from counting. Where the request is denied they are only looked at.
    pub async fn weigh(self) -> Result<Weighed, StoreFailure> {
        let message = Arc::clone(&self.message);
        let has = |shadow| message.limits.iter().any(|limit| limit.shadow == shadow);
        let enforced = if has(false) {
            self.check(false, true).await?
        } else {
            Checked { allowed: true, limits: Vec::new() }
        };
        if !has(true) {
            return Ok(Weighed { enforced, shadow: None });
        }
        match self.check(true, enforced.allowed).await {
            Ok(shadow) => Ok(Weighed { enforced, shadow: Some(shadow) }),
            // A shadow limit is never a reason to deny; and the others are charged by now.
            Err(failure) if has(false) => {
                self.metrics.shadow_failures.inc();
                tracing::debug!(%failure, "shadow limits could not be read");
                Ok(Weighed { enforced, shadow: None })
            }
            Err(failure) => Err(failure),
        }
    }

    async fn check(&self, shadow: bool, charged: bool) -> Result<Checked, StoreFailure> {
        let started_us = self.clock.elapsed_us();
        let call = self.prepare(shadow, charged)?;
        let checked = call.await;
        let took_us = self.clock.elapsed_us().saturating_sub(started_us);
        let seconds = Duration::from_micros(took_us).as_secs_f64();
        match &checked {
            Ok(_) => self.metrics.store_calls_ok.observe(seconds),
            Err(failure) => {
                let outcome = failure.reason().as_str();
                self.metrics.store_calls.get_or_create(&OutcomeLabel { outcome }).observe(seconds);
            }
        }
        checked
    }

    fn prepare(&self, shadow: bool, charged: bool) -> Result<Call<Checked>, StoreFailure> {
        let charges: Result<Vec<Charge<'_>>, BadQuota> = self
            .message
            .limits
            .iter()
            .filter(|limit| limit.shadow == shadow)
            .map(|limit| {
                let cost = if charged { limit.cost } else { 0 };
                let quota = limit.quota()?;
                let algorithm = limit.algorithm;
                let (subject, limit_id) = (&limit.subject, limit.id.as_str());
                Ok(Charge { subject, limit_id, quota, algorithm, cost, alone: shadow })
            })
            .collect();
        match charges {
            Ok(charges) => Ok(self.store.rate_check(&self.scope, &charges)),
            // Decoding has checked every quota.
            Err(error) => Err(StoreFailure::Refused(error.to_string())),
        }
    }
}

/// Puts the two calls' readings back into the message's order; `None` if the store gave others.
pub fn reply(message: &DecideRequest, weighed: Weighed) -> Option<DecideReply> {
    let mut enforced = weighed.enforced.limits.into_iter();
    let mut shadow = weighed.shadow.map(|checked| checked.limits.into_iter());
    let limits = message.limits.iter().map(|limit| {
        let standing = match (&mut shadow, limit.shadow) {
            (_, false) => enforced.next(),
            (Some(shadow), true) => shadow.next(),
            (None, true) => limit.quota().ok().map(untouched),
        };
        standing.map(|standing| state(&limit.id, standing))
    });
    let limits: Vec<LimitState> = limits.collect::<Option<_>>()?;
    let verdict = if weighed.enforced.allowed { Verdict::Allow } else { Verdict::Deny };
    let finished = enforced.next().is_none() && shadow.is_none_or(|mut rest| rest.next().is_none());
    let (v, id) = (VERSION, message.id);
    finished.then_some(DecideReply {
        v,
        id,
        verdict,
        limits,
        claim: None,
        leases: Vec::new(),
        octets: Vec::new(),
    })
}

/// What an untouched bucket says: stands in for a shadow limit that could not be read.
fn untouched(quota: Quota) -> Standing {
    let remaining = u64::from(quota.burst());
    let reading = Reading { remaining, next_us: 0, reset_us: 0, retry: Retry::Fits };
    Standing { reading, reduced: None }
}

/// What a message says of where a limit stands.
pub fn state(id: &str, Standing { reading, reduced }: Standing) -> LimitState {
    let retry_us = match reading.retry {
        Retry::Fits => Some(0),
        Retry::AfterUs(wait_us) => Some(wait_us),
        Retry::Never => None,
    };
    LimitState {
        id: id.to_owned(),
        allowed: reading.retry == Retry::Fits,
        remaining: reading.remaining,
        next_us: reading.next_us,
        reset_us: reading.reset_us,
        retry_us,
        limit: reduced,
    }
}
