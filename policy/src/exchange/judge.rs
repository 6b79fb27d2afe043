//! Owns what follows from the claim's answer: the request runs, it gets the first answer, it waits, or
//! it is refused. Knows neither how a claim is asked for nor what the upstream says.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::claim::{Claiming, Waiting, denial, terms};
use super::ends::abandon;
use super::held::HeldClaim;
use super::note::{Aside, Note, denied};
use super::respond::Told;
use super::settle::retry_after_s;
use super::{Act, Denial, Effects, Idempotent, Phase, Question, Replay, Settlement, Signal};
use crate::config::Config;
use crate::idempotency::record::Fence;
use crate::idempotency::stored::StoredAnswer;
use crate::reason::Reason;
use crate::stages::{Idempotency, Limits, Outcomes, Verdict};
use crate::wire::{ClaimState, SettleRequest};

/// `Retry-After` where nobody could be asked.
const RETRY_AFTER_S: u64 = 1;

/// What the limits left behind for a request that goes on.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) told: Told,
    pub(super) note: Option<Note>,
    pub(super) soft: Option<String>,
    pub(super) aside: Aside,
}

/// What follows for a request that the limits admit.
pub(super) fn judge(
    config: &Config,
    question: &mut Question,
    (state, answer): (ClaimState, Option<StoredAnswer>),
    over: Over,
    mut signals: Vec<Signal>,
    entropy: u64,
) -> (Phase, Effects) {
    let age_us = question.age_us(config);
    let claim = question.claim.take();
    let (Some(mut claim), Some(settling)) = (claim, question.terms.clone()) else {
        return over.admitted(signals);
    };
    let over = match claim.over.take() {
        Some(first) => *first,
        None => over,
    };
    let (policy, shadow, id) = (claim.policy, claim.shadow, question.id);
    let Some(terms) = terms(config, policy) else {
        return over.admitted(signals);
    };
    let refused = |reason| Idempotent::Refused { reason, shadow };
    let is_kept = |answer: &StoredAnswer| {
        answer.body.is_some() || (terms.stored.status_only && !question.grpc)
    };
    let (stage, outcome, wait_us) = match (state, &answer) {
        (ClaimState::Absent, _) if claim.looks => {
            claim.over = Some(Box::new(over));
            question.charged = question.charged(config, age_us);
            return (Phase::Looked(question.waits(claim)), Effects::of(Act::Resume, signals));
        }
        (ClaimState::Claimed { taken_over: false, .. }, _) => {
            (Idempotency::Claimed, Idempotent::Fresh, None)
        }
        (ClaimState::Claimed { .. }, _) => (Idempotency::Claimed, Idempotent::TakenOver, None),
        (ClaimState::Done(_), Some(answer)) if is_kept(answer) => match shadow {
            true => (Idempotency::Refused, Idempotent::ShadowReplayed, None),
            false => (Idempotency::Replay, Idempotent::Replayed, None),
        },
        (ClaimState::Done(_) | ClaimState::Unreadable { .. }, _) => {
            (Idempotency::Refused, refused(Reason::IdempotencyResultNotStored), None)
        }
        (ClaimState::InFlight { wait_us }, _) => {
            (Idempotency::Refused, refused(Reason::IdempotencyInFlight), Some(wait_us))
        }
        (ClaimState::Conflict, _) => {
            (Idempotency::Refused, refused(Reason::IdempotencyConflict), None)
        }
        (ClaimState::Unknown, _) => {
            (Idempotency::Refused, refused(Reason::IdempotencyUnknownOutcome), None)
        }
        (ClaimState::Forgets | ClaimState::Absent | ClaimState::Spent, _) => {
            let cause = match state {
                ClaimState::Forgets => Reason::StoreForgets,
                _ => Reason::CalloutMalformed,
            };
            signals.push(Signal::Unavailable(cause));
            let refund = question.refund(config, age_us).map(Settlement::of);
            (question.claim, question.charged) = (Some(claim), None);
            let (phase, effects) = unasked(config, question, over, cause, signals);
            let is_back = matches!(&effects.act, Act::Deny(denial) if !denial.is_paid);
            return (
                phase,
                Effects { settlement: refund.filter(|_| is_back).map(Box::new), ..effects },
            );
        }
    };
    if let (ClaimState::Claimed { fence, replicas, .. }, Some(wanted)) = (state, terms.replicas)
        && replicas.unwrap_or(0) < wanted.asked.count
    {
        if !shadow && !wanted.allows_fewer {
            let aside = over.aside;
            return too_few_replicas(config, question, *claim, (fence, age_us), aside, signals);
        }
        signals.push(Signal::Idempotency { policy, outcome: Idempotent::TooFewReplicas });
    }
    let outcomes = Outcomes { limits: Limits::Charged, idempotency: stage, ..Outcomes::NONE };
    let grpc = question.grpc;
    let refusal = |reason, answer: Option<StoredAnswer>| Denial {
        grpc,
        retry_after_s: wait_us.map(|wait_us| retry_after_s(wait_us, entropy)),
        stored_status: match state {
            ClaimState::Unreadable { status } => Some(status),
            _ => answer.map(|answer| answer.status),
        },
        is_paid: !outcomes.give_back().refund,
        ..denial(config, policy, reason, id)
    };
    if let Some(delay_ms) = wait_us.and_then(|wait_us| claim.delay_ms(terms, wait_us)) {
        claim.over = Some(Box::new(over));
        if claim.waited_ms > 0 {
            return question.waits_on(claim, delay_ms, signals);
        }
        question.charged = question.charged(config, age_us);
        question.was_held();
        let denial = refusal(Reason::IdempotencyInFlight, None);
        let queued = Some((delay_ms, Box::new(denial)));
        let waiting = Waiting { queued, ..*question.waits(claim) };
        let act = Act::CountWaiting(policy);
        return (Phase::Waiting(Box::new(waiting)), Effects::of(act, signals));
    }
    signals.push(Signal::Idempotency { policy, outcome });
    match (outcomes.verdict(), outcome) {
        (Verdict::Replay, _) => {
            let answer = answer.unwrap_or_default();
            let bytes = answer.body.as_ref().map_or(0, Vec::len);
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            signals.push(Signal::AnswerBytes { policy, replayed: true, bytes });
            let act = Act::Replay(Box::new(Replay { policy, id, answer }));
            (Phase::Replied, Effects::of(act, signals))
        }
        (Verdict::Deny(_), Idempotent::Refused { reason, shadow: false }) => {
            denied(refusal(reason, answer), None, over.aside, signals)
        }
        // In shadow it goes on, claimed or not.
        _ => {
            let (phase, effects) = over.admitted(signals);
            let ClaimState::Claimed { fence, .. } = state else {
                return (phase, effects);
            };
            let held = HeldClaim::new(id, settling, *claim, fence, (question.grpc, terms.durable));
            (phase.with_claim(held), effects)
        }
    }
}

/// Gives back what was claimed and charged: a Redis that fails now may lose the claim.
fn too_few_replicas(
    config: &Config,
    question: &Question,
    claim: Claiming,
    (fence, age_us): (Fence, u64),
    aside: Aside,
    mut signals: Vec<Signal>,
) -> (Phase, Effects) {
    let (policy, reason) = (claim.policy, Reason::PolicyStoreUnavailable);
    let cause = Reason::StoreTooFewReplicas;
    signals.push(Signal::Unavailable(cause));
    let outcome = Idempotent::Refused { reason, shadow: false };
    signals.push(Signal::Idempotency { policy, outcome });
    let charged = question.refund(config, age_us);
    let none = || Some(question.terms.as_ref()?.settling(config, question.id, 0));
    // Who waited may have asked for the limits under another id.
    let settling = charged.or_else(none);
    let settling = settling.map(|settling| SettleRequest { id: question.id, ..settling });
    let settlement =
        settling.and_then(|settling| abandon(config, settling, policy, claim.keyed, fence));
    let denial = Denial {
        grpc: question.grpc,
        retry_after_s: Some(RETRY_AFTER_S),
        ..denial(config, policy, reason, question.id)
    };
    let (phase, effects) = denied(denial, Some(cause), aside, signals);
    (phase, Effects { settlement: settlement.map(Box::new), ..effects })
}

/// What becomes of a request with a key that nobody could be asked about.
pub(super) fn unasked(
    config: &Config,
    question: &mut Question,
    over: Over,
    cause: Reason,
    mut signals: Vec<Signal>,
) -> (Phase, Effects) {
    let age_us = question.age_us(config);
    let Some(mut claim) = question.claim.take() else {
        return over.admitted(signals);
    };
    let lost = may_have_claimed(cause) && !claim.looks;
    let perhaps = question.terms.as_ref().filter(|_| lost);
    let perhaps = perhaps.map(|terms| terms.settling(config, question.id, 0));
    if let Some(delay_ms) = claim.waits_on(config) {
        let back =
            perhaps.and_then(|back| abandon(config, back, claim.policy, claim.keyed.clone(), 0));
        claim.lost = lost;
        let (phase, effects) = question.waits_on(claim, delay_ms, signals);
        return (phase, Effects { settlement: back.map(Box::new), ..effects });
    }
    let over = match claim.over.take() {
        Some(first) => Over { note: over.note, ..*first },
        None => over,
    };
    let (policy, shadow) = (claim.policy, claim.shadow);
    let allowed = shadow || terms(config, policy).is_some_and(|terms| terms.allows_unasked);
    // Who waited was told that the first one is under way. Nobody has said since that it is not.
    let is_beside = allowed && claim.waited_ms > 0;
    let (stage, reason) = match (allowed, is_beside) {
        (_, true) => (Idempotency::Refused, Reason::IdempotencyInFlight),
        (true, _) => (Idempotency::NotAsked, Reason::PolicyStoreUnavailable),
        (false, _) => (Idempotency::Unavailable, Reason::PolicyStoreUnavailable),
    };
    let outcomes = Outcomes { limits: Limits::Charged, idempotency: stage, ..Outcomes::NONE };
    let outcome = match stage == Idempotency::NotAsked && !shadow {
        true => Idempotent::Unprotected,
        false => Idempotent::Refused { reason, shadow },
    };
    signals.push(Signal::Idempotency { policy, outcome });
    let is_refunded = outcomes.give_back().refund;
    let charged = question.charged.take().filter(|_| is_refunded);
    let charged = charged.map(|charged| charged.back(age_us));
    let settlement = match (perhaps, charged) {
        (Some(claimed), charged) => {
            let settling = charged.map(|charged| SettleRequest { id: claimed.id, ..charged });
            abandon(config, settling.unwrap_or(claimed), policy, claim.keyed, 0)
        }
        (None, charged) => charged.map(Settlement::of),
    };
    let (phase, effects) = match outcomes.verdict() {
        Verdict::Deny(_) => {
            let denial = Denial {
                grpc: question.grpc,
                retry_after_s: Some(RETRY_AFTER_S),
                is_paid: !is_refunded,
                ..denial(config, policy, reason, question.id)
            };
            denied(denial, Some(cause), over.aside, signals)
        }
        Verdict::Admit | Verdict::Replay => over.admitted(signals),
    };
    (phase, Effects { settlement: settlement.map(Box::new), ..effects })
}

/// Whether a question that ended like that may have reached the store.
pub(super) fn may_have_claimed(cause: Reason) -> bool {
    matches!(
        cause,
        Reason::CalloutUnmarked
            | Reason::CalloutReset
            | Reason::CalloutMalformed
            | Reason::StoreTimeout
            | Reason::StoreUnavailable
            | Reason::StoreError
    )
}

// === impl Over ===

impl Over {
    pub(super) fn admitted(self, signals: Vec<Signal>) -> (Phase, Effects) {
        let Self { told, note, soft, .. } = self;
        let note = note.map(Box::new);
        let effects = Effects { note, soft, ..Effects::of(Act::Resume, signals) };
        (Phase::Admitted(told), effects)
    }
}

// === impl Question ===

impl Question {
    /// The same question without its limits, to be asked later.
    pub(super) fn waits(&mut self, claim: Box<Claiming>) -> Box<Waiting> {
        let question = Question {
            id: self.id,
            tenant: self.tenant.clone(),
            asked: Vec::new(),
            grpc: self.grpc,
            unread: false,
            limits: Vec::new(),
            receipts: Vec::new(),
            aside: Aside::default(),
            terms: self.terms.clone(),
            gated: self.gated,
            claim: Some(claim),
            later: None,
            charged: self.charged.take(),
            joined: self.joined,
            held: Vec::new(),
        };
        Box::new(Waiting { question, queued: None })
    }

    /// It has waited, and waits for so long again. How long it is on its way by then [`Question::sent`] tells, if anything.
    pub(super) fn waits_on(
        &mut self,
        mut claim: Box<Claiming>,
        delay_ms: u32,
        signals: Vec<Signal>,
    ) -> (Phase, Effects) {
        claim.waited_ms = claim.waited_ms.saturating_add(delay_ms);
        self.was_held();
        (Phase::Waiting(self.waits(claim)), Effects::of(Act::Wait(delay_ms), signals))
    }
}

// === impl Phase ===

impl Phase {
    fn with_claim(self, held: HeldClaim) -> Self {
        match self {
            Self::Admitted(mut told) => {
                told.claim = Some(Box::new(held));
                Self::Admitted(told)
            }
            other => other,
        }
    }
}
