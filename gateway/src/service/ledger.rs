//! Owns what one decision charges: the enforced limits, then the shadow ones, and their readings
//! in the message's order. Knows neither callers nor deadlines.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::gcra::{BadQuota, Retry};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::{DecideReply, DecideRequest, LimitState, VERSION, Verdict};

use crate::clock::Clock;
use crate::metrics::{OutcomeLabel, SharedMetrics};
use crate::store::{Adjustment, Call, Charge, Checked, Standing, Store, StoreFailure};

/// What one decision needs of its store; owns it all, so that it can outlive its caller.
pub struct Ledger {
    pub store: Arc<dyn Store>,
    pub scope: Scope,
    pub message: Arc<DecideRequest>,
    pub clock: Arc<dyn Clock>,
    pub metrics: SharedMetrics,
}

// === impl Ledger ===

impl Ledger {
    /// The enforced limits, all or nothing.
    pub async fn enforced(&self) -> Result<Checked, StoreFailure> {
        if self.has(false) {
            self.check(false, true).await
        } else {
            Ok(Checked { allowed: true, limits: Vec::new() })
        }
    }

    /// The shadow limits, each for itself: one that is used up stops no other from counting. Where the
    /// request is denied they are only looked at.
    pub async fn shadow(&self, allowed: bool) -> Result<Option<Checked>, StoreFailure> {
        if !self.has(true) {
            return Ok(None);
        }
        match self.check(true, allowed).await {
            Ok(shadow) => Ok(Some(shadow)),
            // A shadow limit is never a reason to deny; and the others are charged, the claim is made by now.
            Err(failure) if binds(&self.message) => {
                self.metrics.shadow_failures.inc();
                tracing::debug!(%failure, "shadow limits could not be read");
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Gives back what a check charged that was begun at `begun_us`, for a decision that came to nothing.
    /// What cannot be given back runs out by itself.
    pub async fn give_back(&self, enforced: &Checked, begun_us: u64) {
        if !enforced.allowed {
            return;
        }
        let age_us = self.clock.elapsed_us().saturating_sub(begun_us);
        let Ok(charges) = self.charges(false, true) else { return };
        let adjustments: Vec<Adjustment<'_>> = charges
            .iter()
            .zip(&enforced.limits)
            .filter_map(|(charge, standing)| Adjustment::giving_back(charge, standing, age_us))
            .collect();
        if adjustments.is_empty() {
            return;
        }
        let settled = self.store.settle(&self.scope, self.message.id, &adjustments);
        match settled.await {
            Ok(_) => drop(self.metrics.given_back.inc()),
            Err(failure) => {
                tracing::debug!(id = %self.message.id, %failure, "a charge could not be given back");
            }
        }
    }

    fn has(&self, shadow: bool) -> bool {
        has(&self.message, shadow)
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
        match self.charges(shadow, charged) {
            Ok(charges) => Ok(self.store.rate_check(&self.scope, &charges)),
            // Decoding has checked every quota.
            Err(error) => Err(StoreFailure::Refused(error.to_string())),
        }
    }

    fn charges(&self, shadow: bool, charged: bool) -> Result<Vec<Charge<'_>>, BadQuota> {
        self.message
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
            .collect()
    }
}

/// Whether a message is decided without its shadow limits: what becomes of them is then no reason to give no verdict.
pub fn binds(message: &DecideRequest) -> bool {
    message.claim.is_some() || has(message, false)
}

fn has(message: &DecideRequest, shadow: bool) -> bool {
    message.limits.iter().any(|limit| limit.shadow == shadow)
}

/// Puts the two calls' readings back into the message's order; `None` if the store gave others.
pub fn reply(
    message: &DecideRequest,
    Checked { allowed, limits }: Checked,
    shadow: Option<Checked>,
) -> Option<DecideReply> {
    let mut enforced = limits.into_iter();
    let mut shadow = shadow.map(|checked| checked.limits.into_iter());
    let limits = message.limits.iter().map(|limit| {
        let standing = match (&mut shadow, limit.shadow) {
            (_, false) => enforced.next(),
            (Some(shadow), true) => shadow.next(),
            (None, true) => limit.quota().ok().map(Standing::unread),
        };
        standing.map(|standing| state(&limit.id, standing))
    });
    let limits: Vec<LimitState> = limits.collect::<Option<_>>()?;
    let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
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

/// What a message says of where a limit stands.
pub fn state(id: &str, standing: Standing) -> LimitState {
    let Standing { reading, reduced, unread, charged_us } = standing;
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
        unread,
        charged_us,
    }
}
