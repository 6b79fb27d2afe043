//! Owns the answer: what counts as the gateway's verdict, what follows from it, and what becomes
//! of a request when there is none.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;

use super::ladder::{Fall, enforcing};
use super::respond::{Told, fields, kept};
use super::{
    Act, Answer, Asked, Denial, Effects, OVERLOAD_RETRY_AFTER_S, Outcome, Phase, Question, Signal,
    after,
};
use crate::config::Config;
use crate::reason::Reason;
use crate::wire::{DecideReply, LimitState, Refusal, Verdict};

/// Reads the answer; everything that is not surely the gateway's verdict is a fall onto the ladder.
pub(super) fn settle(
    config: &Config,
    question: &Question,
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
                Ok(Some(Reason::ServiceOverloaded)) => {
                    let mut signals = Vec::new();
                    let act = overloaded(config, question, &mut signals);
                    return Ok((after(&act), Effects { act, signals }));
                }
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
    let admits = enforced(asked, &reply).all(|(_, state)| state.allowed);
    (admits == (reply.verdict == Verdict::Allow)).then_some(reply)
}

fn enforced<'r>(
    asked: &'r [Asked],
    reply: &'r DecideReply,
) -> impl Iterator<Item = (&'r Asked, &'r LimitState)> {
    asked.iter().zip(&reply.limits).filter(|(asked, _)| !asked.shadow)
}

fn carry_out(
    config: &Config,
    question: &Question,
    reply: &DecideReply,
    entropy: u64,
) -> (Phase, Effects) {
    let asked = question.asked.as_slice();
    let denied = reply.verdict == Verdict::Deny;
    let signals = by_policy(asked, reply)
        .map(|(policy, shadow, admits)| {
            let outcome = match (shadow, admits, denied) {
                (true, false, _) => Outcome::ShadowDenied,
                (false, false, _) => Outcome::Denied,
                (false, true, true) => Outcome::NotCharged,
                (_, true, _) => Outcome::Allowed,
            };
            Signal::Decided { policy, outcome }
        })
        .collect();
    let kept = kept(asked, &reply.limits);
    if !denied {
        let told = Told::of(config, kept);
        return (Phase::Admitted(told), Effects { act: Act::Resume, signals });
    }
    let violated =
        || enforced(asked, reply).filter(|(_, state)| !state.allowed).map(|(_, state)| state);
    // The longest wait counts, and one limit that never admits makes it never.
    let wait_us =
        violated().map(|state| state.retry_us).try_fold(0, |longest, us| Some(us?.max(longest)));
    let retry_after_s = wait_us.map(|us| retry_after_s(us, entropy));
    // Only where every limit in the way is a lowered one is that what stands in the way.
    let reason = match violated().all(|state| state.limit.is_some()) {
        true => Reason::TemporaryReducedCapacity,
        false => Reason::QuotaExceeded,
    };
    let denial = Denial {
        reason,
        id: question.id,
        violated: violated().map(|state| state.id.clone()).collect(),
        retry_after_s,
        fields: fields(config, &kept, retry_after_s),
        grpc: question.grpc,
    };
    (Phase::Replied, Effects { act: Act::Deny(denial), signals })
}

/// Each policy once: its index, whether it is in shadow, and whether all its limits admit.
fn by_policy<'r>(
    asked: &'r [Asked],
    reply: &'r DecideReply,
) -> impl Iterator<Item = (usize, bool, bool)> + 'r {
    let states = move || asked.iter().zip(&reply.limits);
    asked.chunk_by(|a, b| a.policy == b.policy).filter_map(move |limits| {
        let first = limits.first()?;
        let admits =
            states().filter(|(a, _)| a.policy == first.policy).all(|(_, state)| state.allowed);
        Some((first.policy, first.shadow, admits))
    })
}

/// Whole seconds, at least 1, never too early, up to 10 % later so that many clients spread.
pub(super) fn retry_after_s(wait_us: u64, entropy: u64) -> u64 {
    let spread_us = wait_us / 10;
    let later_us = u64::try_from((u128::from(spread_us) * u128::from(entropy)) >> 64).unwrap_or(0);
    wait_us.saturating_add(later_us).div_ceil(1_000_000).max(1)
}

/// The gateway is at its bound. That is a verdict and goes to the client: the ladder does not run
/// (product row A5). A request that only shadow policies asked about is not theirs to refuse.
fn overloaded(config: &Config, question: &Question, signals: &mut Vec<Signal>) -> Act {
    signals.push(Signal::Unavailable(Reason::ServiceOverloaded));
    let mut violated = Vec::new();
    for (index, policy) in enforcing(config, &question.asked) {
        signals.push(Signal::Decided { policy: index, outcome: Outcome::Overloaded });
        violated.push(policy.name.to_owned());
    }
    if violated.is_empty() {
        return Act::Resume;
    }
    Act::Deny(Denial {
        reason: Reason::ServiceOverloaded,
        id: question.id,
        violated,
        retry_after_s: Some(OVERLOAD_RETRY_AFTER_S),
        fields: Vec::new(),
        grpc: question.grpc,
    })
}
