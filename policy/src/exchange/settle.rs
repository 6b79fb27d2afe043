//! Owns the answer: what counts as the gateway's verdict, what follows from it, and what becomes
//! of a request when there is none.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claim::Claiming;
use super::judge::{Over, judge};
use super::ladder::{Fall, enforcing};
use super::note::{Aside, Noted, degraded, denied, worded_by};
use super::owed::Owed;
use super::respond::{Standing, Told, fields};
use super::{
    Act, Answer, Asked, Denial, Effects, Idempotent, OVERLOAD_RETRY_AFTER_S, Outcome, Phase,
    Question, Settlement, Signal,
};
use crate::config::Config;
use crate::idempotency::stored::StoredAnswer;
use crate::reason::Reason;
use crate::stages::{self, Limits, Outcomes};
use crate::wire::{ClaimState, DecideReply, DecisionId, LimitState, Refusal, Verdict};

/// The most soft limits that an upstream is told of in one field.
const SOFT_NAMES_MAX: usize = 16;

/// Reads the answer; everything that is not surely the gateway's verdict is a fall onto the ladder.
pub(super) fn settle(
    config: &Config,
    question: &mut Question,
    answer: &Answer<'_>,
    entropy: u64,
) -> Result<(Phase, Effects), Fall> {
    let failed = match answer {
        Answer::CircuitOpen { retry_ms } => {
            return Err(Fall { reason: Reason::CalloutCircuitOpen, retry_ms: Some(*retry_ms) });
        }
        Answer::NotSent => Reason::CalloutNotSent,
        Answer::Reset => Reason::CalloutReset,
        Answer::Response { marked: false, .. } => Reason::CalloutUnmarked,
        Answer::Response { status: b"200", body, .. } => match verdict(config, body, question) {
            Some(reply) => return Ok(carry_out(config, question, &reply, entropy)),
            None => Reason::CalloutMalformed,
        },
        Answer::Response { body, .. } => {
            match Refusal::decode(body).map(|r| Reason::from_text(&r.reason)) {
                Ok(Some(Reason::ServiceOverloaded)) => return Ok(overloaded(config, question)),
                Ok(Some(reason)) => reason,
                Ok(None) | Err(_) => Reason::CalloutMalformed,
            }
        }
    };
    Err(Fall { reason: failed, retry_ms: None })
}

/// A reply that answers this question, limit by limit, and does not contradict itself.
fn verdict(config: &Config, body: &[u8], question: &Question) -> Option<DecideReply> {
    let asked = question.asked.as_slice();
    let reply = DecideReply::decode(body, question.id).ok()?;
    let same = |(asked, state): (&Asked, &LimitState)| {
        let limit = config.policies.get(asked.policy)?.rate_limits.get(asked.limit)?;
        (limit.id == state.id).then_some(())
    };
    if reply.limits.len() != asked.len()
        || !asked.iter().zip(&reply.limits).all(|p| same(p).is_some())
    {
        return None;
    }
    let mut enforced = asked.iter().zip(&reply.limits).filter(|(asked, _)| asked.is_enforced());
    let admits = enforced.all(|(_, state)| state.allowed);
    let is_claimed = admits && question.claim.is_some();
    let sound = admits == (reply.verdict == Verdict::Allow) && is_claimed == reply.claim.is_some();
    sound.then_some(reply)
}

/// What follows from a verdict over all limits that were asked about.
fn carry_out(
    config: &Config,
    question: &mut Question,
    reply: &DecideReply,
    entropy: u64,
) -> (Phase, Effects) {
    if question.terms.is_some() && reply.limits.iter().any(|limit| limit.charged_us.is_some()) {
        question.receipts = reply.limits.iter().map(LimitState::receipt).collect();
    }
    let asked = question.asked.iter().zip(&reply.limits);
    let limits = asked.map(|(asked, state)| Standing::of(asked, state)).collect();
    let claimed = reply.claim.zip(reply.answer().ok());
    conclude(config, question, limits, (reply.verdict, claimed), entropy)
}

/// The same, as these limits stand and those that are held.
pub(super) fn conclude(
    config: &Config,
    question: &mut Question,
    mut limits: Vec<Standing>,
    (verdict, claimed): (Verdict, Option<(ClaimState, Option<StoredAnswer>)>),
    entropy: u64,
) -> (Phase, Effects) {
    let Question { id, grpc, .. } = *question;
    let mut aside = question.aside.clone();
    // Once: where a claim is asked for again, they were told.
    let held = core::mem::take(&mut question.held);
    if !held.is_empty() {
        limits.extend(held);
        limits.sort_by_key(|limit| (limit.asked.policy, limit.asked.limit));
    }
    let used_up = |of: fn(&Asked) -> bool| {
        let used_up = limits.iter().filter(move |limit| !limit.allowed && of(&limit.asked));
        used_up.filter_map(|limit| limit.name(config)).map(ToOwned::to_owned)
    };
    aside.missing &= used_up(|asked| asked.shadow && !asked.soft).next().is_none();
    aside.would_deny.extend(used_up(|asked| asked.shadow && !asked.soft));
    aside.soft = used_up(|asked| asked.soft && !asked.shadow).collect();
    if is_denied(verdict) {
        return deny(config, (id, grpc), &limits, aside, entropy);
    }
    let signals = signals(&limits, false);
    let shown = aside.soft.get(..SOFT_NAMES_MAX).unwrap_or(&aside.soft);
    let soft = (!shown.is_empty()).then(|| shown.join(", "));
    let owed = Owed::of(config, question, &limits);
    let told = Told::of(config, limits, owed);
    let later = question.later.take();
    let goes_on = claimed.is_none() && later.is_none();
    let beside = if goes_on { Aside::default() } else { aside.clone() };
    let over = Over { told, note: aside.admitted(id), soft, aside: beside };
    match (claimed, later) {
        (_, Some(later)) => {
            let over = (over, question.charged(config, question.age_us(config)));
            question.asks_home(config, later, over, signals)
        }
        (Some(claimed), None) => judge(config, question, claimed, over, signals, entropy),
        (None, None) => over.admitted(signals),
    }
}

fn is_denied(verdict: Verdict) -> bool {
    let limits = match verdict {
        Verdict::Allow => Limits::Charged,
        Verdict::Deny => Limits::Denied,
    };
    (Outcomes { limits, ..Outcomes::NONE }).verdict() != stages::Verdict::Admit
}

/// A request that its limits let go on, where nothing else was found.
pub(super) fn admit(config: &Config, limits: Vec<Standing>) -> (Phase, Effects) {
    let signals = signals(&limits, false);
    let told = Told::of(config, limits, None);
    (Phase::Admitted(told), Effects::of(Act::Resume, signals))
}

/// A request that a limit stands in the way of.
pub(super) fn deny(
    config: &Config,
    (id, grpc): (DecisionId, bool),
    limits: &[Standing],
    aside: Aside,
    entropy: u64,
) -> (Phase, Effects) {
    let violated = || limits.iter().filter(|limit| limit.denies());
    // The longest wait counts, and one limit that never admits makes it never.
    let mut waits = violated().map(|limit| limit.retry_us);
    let wait_us = waits.try_fold(0, |longest, us| Some(us?.max(longest)));
    let retry_after_s = wait_us.map(|us| retry_after_s(us, entropy));
    // Only where every limit in the way is a lowered one is that what stands in the way.
    let reason = match violated().all(|limit| limit.reduced.is_some()) {
        true => Reason::TemporaryReducedCapacity,
        false => Reason::QuotaExceeded,
    };
    let names = violated().filter_map(|limit| limit.name(config));
    let denial = Denial {
        reason,
        id,
        violated: names.map(ToOwned::to_owned).collect(),
        retry_after_s,
        fields: fields(config, limits, retry_after_s),
        grpc,
        worded_by: worded_by(config, violated().map(|limit| limit.asked.policy)),
        detail: None,
        stored_status: None,
        fallback: None,
        is_paid: false,
    };
    denied(denial, None, aside, signals(limits, true))
}

/// What to count: every policy's outcome, and the limits that are used up.
fn signals(limits: &[Standing], is_denied: bool) -> Vec<Signal> {
    let mut signals = Vec::with_capacity(limits.len().saturating_add(usize::from(is_denied)));
    for limits in limits.chunk_by(|a, b| a.asked.policy == b.asked.policy) {
        let Some(first) = limits.first() else { continue };
        let Asked { policy, shadow, .. } = first.asked;
        let mut hard = limits.iter().filter(|limit| !limit.asked.soft).peekable();
        let has_hard = hard.peek().is_some();
        let outcome = match (shadow, hard.all(|limit| limit.allowed), is_denied) {
            (true, false, _) => Outcome::ShadowDenied,
            (false, false, _) => Outcome::Denied,
            (false, true, true) => Outcome::NotCharged,
            (_, true, _) => Outcome::Allowed,
        };
        let is_soft_exceeded = limits.iter().any(|limit| limit.asked.soft && !limit.allowed);
        if has_hard || !is_soft_exceeded {
            signals.push(Signal::Decided { policy, outcome });
        }
        if is_soft_exceeded {
            signals.push(Signal::Decided { policy, outcome: Outcome::SoftExceeded });
        }
        for Standing { asked, .. } in limits.iter().filter(|limit| !limit.allowed) {
            let outcome = match (asked.soft, asked.shadow) {
                (true, _) => Outcome::SoftExceeded,
                (false, true) => Outcome::ShadowDenied,
                (false, false) => Outcome::Denied,
            };
            signals.push(Signal::UsedUp { policy, limit: asked.limit, outcome });
        }
    }
    signals
}

/// Whole seconds, at least 1, never too early, up to 10 % later so that many clients spread.
pub(super) fn retry_after_s(wait_us: u64, entropy: u64) -> u64 {
    let spread_us = wait_us / 10;
    let later_us = u64::try_from((u128::from(spread_us) * u128::from(entropy)) >> 64).unwrap_or(0);
    wait_us.saturating_add(later_us).div_ceil(1_000_000).max(1)
}

/// The gateway is at its bound. That is a verdict and goes to the client: the ladder does not run
/// (product row A5). A request that only shadow policies asked about is not theirs to refuse.
fn overloaded(config: &Config, question: &mut Question) -> (Phase, Effects) {
    let mut signals = Vec::from([Signal::Unavailable(Reason::ServiceOverloaded)]);
    if let Some(delay_ms) = question.claim.as_ref().and_then(|claim| claim.waits_on(config))
        && let Some(claim) = question.claim.take()
    {
        return question.waits_on(claim, delay_ms, signals);
    }
    let mut violated = Vec::new();
    for (index, policy) in enforcing(config, &question.asked) {
        signals.push(Signal::Decided { policy: index, outcome: Outcome::Overloaded });
        violated.push(policy.name.to_owned());
    }
    let claim = question.claim.as_ref().or(question.later.as_ref());
    if let Some(Claiming { policy, shadow, .. }) = claim.map(|claim| &**claim) {
        let (policy, shadow) = (*policy, *shadow);
        let outcome = Idempotent::Refused { reason: Reason::ServiceOverloaded, shadow };
        signals.push(Signal::Idempotency { policy, outcome });
    }
    let claim = claim.filter(|claim| claim.is_enforced());
    if let Some(policy) = claim.and_then(|claim| config.policies.get(claim.policy))
        && !violated.contains(&policy.name)
    {
        violated.push(policy.name.to_owned());
    }
    let Question { id, grpc, .. } = *question;
    let aside = question.aside.clone();
    let reason = Reason::ServiceOverloaded;
    // Only where the claim was asked for behind the limits.
    let charged =
        question.charged.as_ref().and_then(|_| question.refund(config, question.age_us(config)));
    if violated.is_empty() {
        // What the limits said before the claim was asked for by itself.
        if let Some(over) = question.claim.as_mut().and_then(|claim| claim.over.take()) {
            let note = over.aside.clone().beside(Noted::Degraded, reason, None, violated, id);
            return Over { note: Some(note), ..*over }.admitted(signals);
        }
        return degraded(reason, violated, aside, id, signals);
    }
    let denial = Denial {
        reason,
        id,
        violated,
        retry_after_s: Some(OVERLOAD_RETRY_AFTER_S),
        fields: Vec::new(),
        grpc,
        worded_by: worded_by(config, enforcing(config, &question.asked).map(|(index, _)| index)),
        detail: None,
        stored_status: None,
        fallback: None,
        is_paid: false,
    };
    let (phase, effects) = denied(denial, None, aside, signals);
    let settlement = charged.map(Settlement::of).map(Box::new);
    (phase, Effects { settlement, ..effects })
}
