//! Owns the answer: what counts as the gateway's verdict, what follows from it, and what becomes
//! of a request when there is none.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use super::judge::{Over, judge};
use super::ladder::{Fall, enforcing};
use super::note::{Aside, degraded, denied, worded_by};
use super::owed::Owed;
use super::respond::{Told, fields, kept};
use super::{
    Answer, Asked, Denial, Effects, OVERLOAD_RETRY_AFTER_S, Outcome, Phase, Question, Settlement,
    Signal,
};
use crate::config::Config;
use crate::reason::Reason;
use crate::stages::{self, Limits, Outcomes};
use crate::wire::{DecideReply, LimitState, Refusal, Verdict};

/// The most soft limits that an upstream is told of in one field.
const SOFT_NAMES_MAX: usize = 16;

/// A limit that was asked about, with what the gateway says of it.
type Pair<'r> = (&'r Asked, &'r LimitState);

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

pub(super) fn carry_out(
    config: &Config,
    question: &mut Question,
    reply: &DecideReply,
    entropy: u64,
) -> (Phase, Effects) {
    let Question { id, grpc, .. } = *question;
    let mut aside = question.aside.clone();
    // Once: where a claim is asked for again, they were told.
    let held = core::mem::take(&mut question.held);
    let mut pairs: Vec<Pair<'_>> = question.asked.iter().zip(&reply.limits).collect();
    if !held.is_empty() {
        pairs.extend(held.iter().map(|(asked, state)| (asked, state)));
        pairs.sort_by_key(|(asked, _)| (asked.policy, asked.limit));
    }
    let limits = match reply.verdict {
        Verdict::Allow => Limits::Charged,
        Verdict::Deny => Limits::Denied,
    };
    let outcomes = Outcomes { limits, ..Outcomes::NONE };
    let is_denied = outcomes.verdict() != stages::Verdict::Admit;
    let signals = signals(&pairs, is_denied);
    let used_up = |of: fn(&Asked) -> bool| {
        let ids = pairs.iter().filter(move |(asked, state)| !state.allowed && of(asked));
        ids.map(|(_, state)| state.id.clone())
    };
    aside.missing &= used_up(|asked| asked.shadow && !asked.soft).next().is_none();
    aside.would_deny.extend(used_up(|asked| asked.shadow && !asked.soft));
    aside.soft = used_up(|asked| asked.soft && !asked.shadow).collect();
    let kept = kept(&pairs);
    if !is_denied {
        let shown = aside.soft.get(..SOFT_NAMES_MAX).unwrap_or(&aside.soft);
        let soft = (!shown.is_empty()).then(|| shown.join(", "));
        let told = Told::of(config, kept, Owed::of(config, question, &pairs));
        let claimed = reply.claim.zip(reply.answer().ok());
        let later = question.later.take();
        let goes_on = claimed.is_none() && later.is_none();
        let beside = if goes_on { Aside::default() } else { aside.clone() };
        let over = Over { told, note: aside.admitted(id), soft, aside: beside };
        return match (claimed, later) {
            (_, Some(later)) => {
                let over = (over, question.refund(config, 0));
                question.asks_home(config, later, over, signals)
            }
            (Some(claimed), None) => judge(config, question, claimed, over, signals, entropy),
            (None, None) => over.admitted(signals),
        };
    }
    let violated = || pairs.iter().filter(|(asked, state)| asked.is_enforced() && !state.allowed);
    // The longest wait counts, and one limit that never admits makes it never.
    let mut waits = violated().map(|(_, state)| state.retry_us);
    let wait_us = waits.try_fold(0, |longest, us| Some(us?.max(longest)));
    let retry_after_s = wait_us.map(|us| retry_after_s(us, entropy));
    // Only where every limit in the way is a lowered one is that what stands in the way.
    let reason = match violated().all(|(_, state)| state.limit.is_some()) {
        true => Reason::TemporaryReducedCapacity,
        false => Reason::QuotaExceeded,
    };
    let denial = Denial {
        reason,
        id,
        violated: violated().map(|(_, state)| state.id.clone()).collect(),
        retry_after_s,
        fields: fields(config, &kept, retry_after_s),
        grpc,
        worded_by: worded_by(config, violated().map(|(asked, _)| asked.policy)),
        detail: None,
        stored_status: None,
        fallback: None,
    };
    denied(denial, None, aside, signals)
}

/// What to count: every policy's outcome, and the limits that are used up.
fn signals(pairs: &[Pair<'_>], is_denied: bool) -> Vec<Signal> {
    let mut signals = Vec::new();
    for limits in pairs.chunk_by(|(a, _), (b, _)| a.policy == b.policy) {
        let Some((first, _)) = limits.first() else { continue };
        let (policy, shadow) = (first.policy, first.shadow);
        let mut hard = limits.iter().filter(|(asked, _)| !asked.soft).peekable();
        let has_hard = hard.peek().is_some();
        let outcome = match (shadow, hard.all(|(_, state)| state.allowed), is_denied) {
            (true, false, _) => Outcome::ShadowDenied,
            (false, false, _) => Outcome::Denied,
            (false, true, true) => Outcome::NotCharged,
            (_, true, _) => Outcome::Allowed,
        };
        let is_soft_exceeded = limits.iter().any(|(asked, state)| asked.soft && !state.allowed);
        if has_hard || !is_soft_exceeded {
            signals.push(Signal::Decided { policy, outcome });
        }
        if is_soft_exceeded {
            signals.push(Signal::Decided { policy, outcome: Outcome::SoftExceeded });
        }
        for (asked, _) in limits.iter().filter(|(_, state)| !state.allowed) {
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
fn overloaded(config: &Config, question: &Question) -> (Phase, Effects) {
    let mut signals = Vec::from([Signal::Unavailable(Reason::ServiceOverloaded)]);
    let mut violated = Vec::new();
    for (index, policy) in enforcing(config, &question.asked) {
        signals.push(Signal::Decided { policy: index, outcome: Outcome::Overloaded });
        violated.push(policy.name.to_owned());
    }
    let claim = question.claim.as_ref().or(question.later.as_ref());
    let claim = claim.filter(|claim| claim.is_enforced());
    if let Some(policy) = claim.and_then(|claim| config.policies.get(claim.policy))
        && !violated.contains(&policy.name)
    {
        violated.push(policy.name.to_owned());
    }
    let Question { id, grpc, .. } = *question;
    let aside = question.aside.clone();
    let reason = Reason::ServiceOverloaded;
    // Only where the home region was asked behind the limits.
    let charged =
        question.charged.as_ref().and_then(|_| question.refund(config, question.age_us(config)));
    if violated.is_empty() {
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
    };
    let (phase, effects) = denied(denial, None, aside, signals);
    (phase, Effects { settlement: charged.map(Settlement::of), ..effects })
}
