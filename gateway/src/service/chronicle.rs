//! Owns what of a decision becomes an audit event. Knows no store and no chain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_policy::audit::{About, Action, AuditEvent, Basis, Terms, Thinning};
use tidegate_policy::config::ConfigHash;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::audit::Kept;
use tidegate_policy::wire::{
    BadMessage, ClaimState, DecideReply, DecideRequest, DecisionId, Keyed, LimitCall, SettleRequest,
};

use super::Refused;
use crate::audit::trail::PassOnError;
use crate::audit::writer::{Acknowledged, Haste};
use crate::audit::{Auditor, Happening, endpoint};
use crate::clock::Clock;

/// Of the time that a filter waits, so much is for the way.
const WAY: u32 = 4;

/// A region of which no reduced limit was seen for that long is cold anew.
const WARM_US: u64 = 60_000_000;

/// What became of a question.
pub type Decided = Result<DecideReply, Refused>;

/// The decisions' events.
pub struct Chronicle {
    auditor: Arc<Auditor>,
    clock: Arc<dyn Clock>,
    /// When a limit was seen reduced last, in µs of the clock, and one more; 0 is never.
    reduced_us: AtomicU64,
}

// === impl Chronicle ===

impl Chronicle {
    /// Nothing was decided yet.
    pub fn new(auditor: Arc<Auditor>, clock: Arc<dyn Clock>) -> Self {
        Self { auditor, clock, reduced_us: AtomicU64::new(0) }
    }

    /// Takes a decision; `action` is what a denial or refusal is, if it is one for the audit trail. Its answer
    /// waits for an event of the `sync` class, as long as the filter waits for the answer.
    pub async fn decided(
        &self,
        asked: (&DecideRequest, Option<ConfigHash>),
        decided: &Decided,
        action: Option<Action>,
        outcome: &'static str,
        spent_us: u64,
    ) {
        self.event(asked, decided, action, outcome, spent_us).await;
        if let Ok(reply) = decided {
            self.cold_start(reply);
        }
    }

    async fn event(
        &self,
        (message, config): (&DecideRequest, Option<ConfigHash>),
        decided: &Decided,
        action: Option<Action>,
        outcome: &'static str,
        spent_us: u64,
    ) {
        let claim = decided.as_ref().ok().and_then(|reply| claimed(reply.claim));
        let Some((action, outcome)) = action.map(|action| (action, outcome)).or(claim) else {
            return;
        };
        let (detail, about, terms) = said(message, decided);
        let happening = Happening {
            id: Some(message.id.to_string()),
            actor: "filter".to_owned(),
            tenant: message.scope.tenant.clone(),
            action,
            outcome,
            detail,
            thinning: Thinning::First,
            about,
            basis: Basis { config, terms },
        };
        self.on_record(happening, message.id, (message.timeout_ms, spent_us)).await;
    }

    /// The record of a claim had been lost, and its answer was stored anew: until then nobody was kept from running.
    pub async fn recovered(&self, message: &SettleRequest, spent_us: u64) {
        let Some(finish) = &message.finish else { return };
        let (detail, about) = of_claim(&finish.keyed);
        let happening = Happening {
            // The decision may have an event of its own.
            id: None,
            actor: "filter".to_owned(),
            tenant: message.scope.tenant.clone(),
            action: Action::Claim,
            outcome: "recovered",
            detail,
            thinning: Thinning::First,
            about,
            basis: Basis::default(),
        };
        self.on_record(happening, message.id, (message.timeout_ms, spent_us)).await;
    }

    async fn on_record(
        &self,
        happening: Happening,
        id: DecisionId,
        (timeout_ms, spent_us): (u32, u64),
    ) {
        let there = Duration::from_millis(u64::from(timeout_ms));
        let wait_max = (there - there / WAY).saturating_sub(Duration::from_micros(spent_us));
        if let Err(lost) = Box::pin(self.auditor.record_durably(happening, wait_max)).await {
            // The answer stands: it is a refusal, what somebody was answered before, or what is done already. Without
            // an answer the filter would decide by itself.
            tracing::error!(critical = true, %id, %lost, "an answer went before its audit event");
        }
    }

    /// Takes a filter's event: who answers when it is on record, or what is said of it at once.
    pub fn pass_on(&self, event: AuditEvent, haste: Haste) -> Result<Acknowledged, Kept> {
        self.auditor.pass_on(event, haste).map_err(|refused| match refused {
            PassOnError::Full(_) => Kept::Later,
            PassOnError::Unfit(_) | PassOnError::NoChain => Kept::Refused,
        })
    }

    /// A filter's event that cannot be read never will be: it is lost, and counted.
    pub fn pass_over(&self, unreadable: &BadMessage) -> Kept {
        tracing::error!(critical = true, %unreadable, "an audit event of a filter cannot be read");
        self.auditor.lose(1);
        Kept::Refused
    }

    /// Decisions are shed unread. One event for each of them would be the last straw.
    pub fn shed(&self) {
        let detail = "work waits too long for the processor".to_owned();
        let outcome = Reason::ServiceOverloaded.as_str();
        let own = Happening::own(Action::Overload, detail);
        self.auditor.record(Happening { outcome, thinning: Thinning::First, ..own });
    }

    /// The region's limits are reduced now, and were not for a while. A reply without a reduced limit says nothing: it may
    /// have none at all, or one that is too small for it.
    fn cold_start(&self, reply: &DecideReply) {
        if !reply.limits.iter().any(|limit| limit.limit.is_some()) {
            return;
        }
        let now = self.clock.elapsed_us().saturating_add(1);
        let before = self.reduced_us.swap(now, Ordering::Relaxed);
        if before > 0 && now.saturating_sub(before) < WARM_US {
            return;
        }
        let detail = "the region is cold: its limits are reduced".to_owned();
        let own = Happening::own(Action::ColdStart, detail);
        self.auditor.record(Happening { thinning: Thinning::First, ..own });
    }
}

/// Replays, conflicts and takeovers are told by the state of the claim.
fn claimed(claim: Option<ClaimState>) -> Option<(Action, &'static str)> {
    match claim? {
        ClaimState::Done(_) => Some((Action::Replay, "ok")),
        ClaimState::Conflict => Some((Action::Conflict, Action::Conflict.as_str())),
        ClaimState::Claimed { taken_over: true, .. } => Some((Action::Claim, "taken_over")),
        _ => None,
    }
}

/// The detail of a decision's event, whom it is about, and what the limits among that grant. The key itself is the
/// client's.
fn said(message: &DecideRequest, decided: &Decided) -> (String, Vec<About>, Vec<Terms>) {
    match decided {
        Err(refused) => (refused.detail.clone(), Vec::new(), Vec::new()),
        Ok(reply) if reply.claim.is_some() => {
            let told = message.claim.as_ref().map(|claim| of_claim(&claim.keyed));
            let (text, about) = told.unwrap_or_default();
            (text, about, Vec::new())
        }
        Ok(reply) => {
            let denying = reply.limits.iter().filter(|limit| !limit.allowed);
            let ids = denying.map(|limit| limit.id.as_str()).collect::<Vec<_>>().join(" ");
            let both = message.limits.iter().zip(&reply.limits);
            let denying = both.filter(|(call, said)| !said.allowed && !call.shadow);
            let (about, terms) = denying.map(|(call, _)| of_limit(call)).unzip();
            (ids, about, terms)
        }
    }
}

fn of_limit(call: &LimitCall) -> (About, Terms) {
    let LimitCall { limit: units, period_us, burst, .. } = *call;
    let about = About { limit: call.id.clone(), subject: call.subject.clone() };
    (about, Terms { units, period_us, burst })
}

fn of_claim(keyed: &Keyed) -> (String, Vec<About>) {
    let (text, about) = endpoint::told(&keyed.endpoint, keyed.configured);
    (text, about.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidegate_policy::audit::AuditSink;
    use tidegate_policy::scope::Region;
    use tidegate_policy::wire::{LimitState, VERSION, Verdict};

    use super::*;
    use crate::clock::SystemClock;

    #[derive(Default)]
    struct Kept(Mutex<usize>);

    impl AuditSink for Kept {
        fn record(&self, event: AuditEvent) {
            assert_eq!(event.action, Action::ColdStart);
            *self.0.lock().expect("no panic") += 1;
        }
    }

    /// A reply with limits, of which these are in force instead of the configured ones.
    fn reply(limits: &[Option<u32>]) -> DecideReply {
        let limit = |limit: &Option<u32>| LimitState {
            id: "p.one".to_owned(),
            allowed: true,
            remaining: 1,
            next_us: 1,
            reset_us: 1,
            retry_us: Some(0),
            limit: *limit,
            unread: false,
            charged_us: None,
        };
        DecideReply {
            v: VERSION,
            id: DecisionId::new(1),
            verdict: Verdict::Allow,
            limits: limits.iter().map(limit).collect(),
            claim: None,
            leases: Vec::new(),
            octets: Vec::new(),
        }
    }

    /// Between its limits a cold region answers claims alone, and limits that are too small to be reduced.
    #[tokio::test(start_paused = true)]
    async fn a_region_becomes_cold_once_whatever_is_asked_in_between() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let kept = Arc::new(Kept::default());
        let auditor = Auditor::new(kept.clone(), Arc::clone(&clock), Region::fallback(), 1);
        let chronicle = Chronicle::new(Arc::new(auditor), clock);
        let count = || *kept.0.lock().expect("no panic");
        for limits in [&[][..], &[None], &[Some(2), None], &[], &[Some(2)], &[None], &[Some(2)]] {
            chronicle.cold_start(&reply(limits));
        }
        assert_eq!(count(), 1);
        for (after_s, expected) in [(59, 1), (59, 1), (61, 2)] {
            tokio::time::advance(Duration::from_secs(after_s)).await;
            chronicle.cold_start(&reply(&[None]));
            chronicle.cold_start(&reply(&[Some(2)]));
            assert_eq!(count(), expected, "{after_s}");
        }
    }
}
