//! Owns the life of one request: facts in, at most one question to the gateway, a verdict out.
//! Knows neither the host's calls nor how a denial is rendered; joins the mechanisms, which do not
//! know each other.
//!
//! ```text
//! Request ─► pass │ deny │ ask ─► Answer ─► resume │ deny
//! ```

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::{Config, Policy, RateLimit, Rung};
use crate::identity::Facts;
use crate::mode::{Mechanism, Mode, Overrides, effective};
use crate::reason::Reason;
use crate::router::Matched;
use crate::scope::CallerScope;
use crate::wire::{
    self, DecideReply, DecideRequest, DecisionId, LimitCall, LimitState, Refusal, Verdict,
};

/// `Retry-After` of an overload answer, exactly (01-product A5).
pub const OVERLOAD_RETRY_AFTER_S: u64 = 5;
/// `Retry-After` when no verdict can be had: callouts are tried again with every request.
const UNAVAILABLE_RETRY_AFTER_S: u64 = 1;
/// One unit of every limit; costs other than that come with the policy language.
const COST: u32 = 1;

/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The request's headers arrived, and some policy took it in.
    Request {
        /// The policies, by path and method.
        matched: Matched,
        /// What the request says of its sender.
        facts: &'a Facts,
        /// Where the filter runs.
        caller: &'a CallerScope,
        /// A fresh id.
        id: DecisionId,
    },
    /// What became of the question.
    Answer {
        /// The answer.
        answer: Answer<'a>,
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
    },
}

/// What became of a question.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The host would not send it.
    NotSent,
    /// It was reset before a whole answer came.
    Reset,
    /// An answer, from the gateway or from a proxy in between.
    Response {
        /// Whether it carries the gateway's mark.
        marked: bool,
        /// The HTTP status, as bytes of `:status`.
        status: &'a [u8],
        /// The body.
        body: &'a [u8],
    },
}

/// What to do, with nothing left to choose.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing to decide: let the request through at once.
    Pass,
    /// Hold the request and send this message to [`wire::DECIDE_PATH`].
    Ask(Vec<u8>),
    /// Let the held request go on.
    Resume,
    /// Answer in the upstream's place.
    Deny(Denial),
}

/// A denial: a value, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The decision.
    pub id: DecisionId,
    /// The limits that deny (`policy.limit`), or the policy that refuses.
    pub violated: Vec<String>,
    /// When it makes sense to come again, in s; `None` if never.
    pub retry_after_s: Option<u64>,
}

/// What to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A policy came to an outcome.
    Decided {
        /// The policy's index in the configuration.
        policy: usize,
        /// The outcome.
        outcome: Outcome,
    },
    /// No verdict could be had.
    Unavailable(Reason),
}

/// How a policy's decision ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every limit of the policy admits.
    Allowed,
    /// A limit of the policy denies.
    Denied,
    /// It would have been denied, but the policy is in shadow.
    ShadowDenied,
    /// Another policy denied; this one was not charged.
    NotCharged,
    /// The limit's identity is missing.
    IdentityMissing,
    /// The gateway was at its bound.
    Overloaded,
    /// No verdict; the policy says allow.
    DegradedAllowed,
    /// No verdict; the policy says deny.
    DegradedDenied,
}

// === impl Outcome ===

impl Outcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowDenied => "shadow_denied",
            Self::NotCharged => "not_charged",
            Self::IdentityMissing => "identity_missing",
            Self::Overloaded => "overloaded",
            Self::DegradedAllowed => "degraded_allowed",
            Self::DegradedDenied => "degraded_denied",
        }
    }
}

/// What follows from an event: one act, and what to count.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    /// What to do.
    pub act: Act,
    /// What to count.
    pub signals: Vec<Signal>,
}

/// A limit that was asked about.
#[derive(Debug, Clone, Copy)]
struct Asked {
    policy: usize,
    shadow: bool,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    Asking {
        id: DecisionId,
        asked: Vec<Asked>,
    },
    Admitted,
    /// Answered by us: what the response callbacks now show is our own reply, not the upstream's.
    Replied,
}

/// One request's exchange.
#[derive(Debug)]
pub struct Exchange {
    phase: Phase,
}

// === impl Exchange ===

impl Default for Exchange {
    fn default() -> Self {
        Self { phase: Phase::Fresh }
    }
}

impl Exchange {
    /// Whether the response that follows is our own reply.
    pub fn replied(&self) -> bool {
        matches!(self.phase, Phase::Replied)
    }

    /// Whether a question is out.
    pub fn is_asking(&self) -> bool {
        matches!(self.phase, Phase::Asking { .. })
    }

    /// Takes one event. An answer that nobody waits for changes nothing.
    pub fn on(&mut self, config: &Config, overrides: &Overrides, event: Event<'_>) -> Effects {
        let phase = core::mem::replace(&mut self.phase, Phase::Admitted);
        let (next, effects) = match (phase, event) {
            (Phase::Fresh, Event::Request { matched, facts, caller, id }) => {
                ask(config, overrides, &matched, facts, caller, id)
            }
            (Phase::Asking { id, asked }, Event::Answer { answer, entropy }) => {
                let mut signals = Vec::new();
                let act = settle(config, id, &asked, &answer, entropy, &mut signals);
                (after(&act), Effects { act, signals })
            }
            (phase, _) => (phase, Effects { act: Act::Pass, signals: Vec::new() }),
        };
        self.phase = next;
        effects
    }
}

fn after(act: &Act) -> Phase {
    match act {
        Act::Deny(_) => Phase::Replied,
        Act::Pass | Act::Ask(_) | Act::Resume => Phase::Admitted,
    }
}

/// Collects every limit that applies, or finds a reason to answer at once.
fn ask(
    config: &Config,
    overrides: &Overrides,
    matched: &Matched,
    facts: &Facts,
    caller: &CallerScope,
    id: DecisionId,
) -> (Phase, Effects) {
    let mut signals = Vec::new();
    let (mut asked, mut limits) = (Vec::new(), Vec::new());
    for (index, policy) in matched.policies(config) {
        let subjects: Vec<_> =
            policy.rate_limits.iter().map(|limit| limit.by.subject(facts)).collect();
        let identity = subjects.iter().flatten().next().map_or("", |subject| subject.name.as_str());
        let mode = effective(
            policy.mode,
            &policy.name,
            Mechanism::RateLimit,
            identity.as_bytes(),
            overrides,
        );
        let shadow = match mode {
            Mode::Off => continue,
            Mode::Shadow => true,
            Mode::Enforce => false,
        };
        for (limit, subject) in policy.rate_limits.iter().zip(subjects) {
            match subject {
                Some(subject) => {
                    asked.push(Asked { policy: index, shadow });
                    limits.push(call(limit, subject, shadow));
                }
                None if shadow => {
                    signals.push(Signal::Decided { policy: index, outcome: Outcome::ShadowDenied })
                }
                None => {
                    signals
                        .push(Signal::Decided { policy: index, outcome: Outcome::IdentityMissing });
                    let denial = Denial {
                        reason: Reason::ClientIdentityRequired,
                        id,
                        violated: [limit.id.clone()].into(),
                        retry_after_s: None,
                    };
                    return (Phase::Replied, Effects { act: Act::Deny(denial), signals });
                }
            }
        }
    }
    if limits.is_empty() {
        return (Phase::Admitted, Effects { act: Act::Pass, signals });
    }
    if limits.len() > wire::LIMITS_MAX {
        let act = match degrade(config, id, &asked, Reason::TooManyLimits, &mut signals) {
            // Nothing was held yet.
            Act::Resume => Act::Pass,
            act => act,
        };
        return (after(&act), Effects { act, signals });
    }
    let message = DecideRequest {
        v: wire::VERSION,
        id,
        scope: caller.clone(),
        timeout_ms: config.gateway.timeout_ms,
        traceparent: facts.token("traceparent"),
        request_id: facts.token("x-request-id"),
        limits,
    };
    let act = Act::Ask(wire::encode(&message));
    (Phase::Asking { id, asked }, Effects { act, signals })
}

fn call(limit: &RateLimit, subject: crate::identity::Subject, shadow: bool) -> LimitCall {
    LimitCall {
        id: limit.id.clone(),
        subject,
        limit: limit.quota.limit(),
        period_us: limit.quota.period_us(),
        burst: limit.quota.burst(),
        cost: COST,
        shadow,
    }
}

/// Reads the answer; everything that is not surely the gateway's verdict goes to the ladder.
fn settle(
    config: &Config,
    id: DecisionId,
    asked: &[Asked],
    answer: &Answer<'_>,
    entropy: u64,
    signals: &mut Vec<Signal>,
) -> Act {
    let failed = match answer {
        Answer::NotSent => Reason::CalloutNotSent,
        Answer::Reset => Reason::CalloutReset,
        Answer::Response { marked: false, .. } => Reason::CalloutUnmarked,
        Answer::Response { status: b"200", body, .. } => match verdict(body, id, asked) {
            Some(reply) => return carry_out(id, asked, &reply, entropy, signals),
            None => Reason::CalloutMalformed,
        },
        Answer::Response { body, .. } => match Refusal::decode(body)
            .map(|r| Reason::from_text(&r.reason))
        {
            Ok(Some(Reason::ServiceOverloaded)) => return overloaded(config, id, asked, signals),
            Ok(Some(reason)) => reason,
            Ok(None) | Err(_) => Reason::CalloutMalformed,
        },
    };
    degrade(config, id, asked, failed, signals)
}

/// A reply that answers this question, limit by limit, and does not contradict itself.
fn verdict(body: &[u8], id: DecisionId, asked: &[Asked]) -> Option<DecideReply> {
    let reply = DecideReply::decode(body, id).ok()?;
    if reply.limits.len() != asked.len() {
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
    id: DecisionId,
    asked: &[Asked],
    reply: &DecideReply,
    entropy: u64,
    signals: &mut Vec<Signal>,
) -> Act {
    let denied = reply.verdict == Verdict::Deny;
    for (policy, shadow, admits) in by_policy(asked, reply) {
        let outcome = match (shadow, admits, denied) {
            (true, false, _) => Outcome::ShadowDenied,
            (false, false, _) => Outcome::Denied,
            (false, true, true) => Outcome::NotCharged,
            (_, true, _) => Outcome::Allowed,
        };
        signals.push(Signal::Decided { policy, outcome });
    }
    if !denied {
        return Act::Resume;
    }
    let violated =
        || enforced(asked, reply).filter(|(_, state)| !state.allowed).map(|(_, state)| state);
    // The longest wait counts, and one limit that never admits makes it never.
    let wait_us =
        violated().map(|state| state.retry_us).try_fold(0, |longest, us| Some(us?.max(longest)));
    Act::Deny(Denial {
        reason: Reason::QuotaExceeded,
        id,
        violated: violated().map(|state| state.id.clone()).collect(),
        retry_after_s: wait_us.map(|us| retry_after_s(us, entropy)),
    })
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
fn retry_after_s(wait_us: u64, entropy: u64) -> u64 {
    let spread_us = wait_us / 10;
    let later_us = u64::try_from((u128::from(spread_us) * u128::from(entropy)) >> 64).unwrap_or(0);
    wait_us.saturating_add(later_us).div_ceil(1_000_000).max(1)
}

/// The gateway is at its bound. That is a verdict and goes to the client: the ladder does not run
/// (01-product A5). A request that only shadow policies asked about is not theirs to refuse.
fn overloaded(config: &Config, id: DecisionId, asked: &[Asked], signals: &mut Vec<Signal>) -> Act {
    signals.push(Signal::Unavailable(Reason::ServiceOverloaded));
    let mut violated = Vec::new();
    for (index, policy) in enforcing(config, asked) {
        signals.push(Signal::Decided { policy: index, outcome: Outcome::Overloaded });
        violated.push(policy.name.to_owned());
    }
    if violated.is_empty() {
        return Act::Resume;
    }
    Act::Deny(Denial {
        reason: Reason::ServiceOverloaded,
        id,
        violated,
        retry_after_s: Some(OVERLOAD_RETRY_AFTER_S),
    })
}

/// No verdict: every policy says what becomes of the request, and one that denies is enough.
fn degrade(
    config: &Config,
    id: DecisionId,
    asked: &[Asked],
    reason: Reason,
    signals: &mut Vec<Signal>,
) -> Act {
    signals.push(Signal::Unavailable(reason));
    let mut violated = Vec::new();
    for (index, policy) in enforcing(config, asked) {
        let outcome = match policy.on_unavailable {
            Rung::Allow => Outcome::DegradedAllowed,
            Rung::Deny => {
                violated.push(policy.name.to_owned());
                Outcome::DegradedDenied
            }
        };
        signals.push(Signal::Decided { policy: index, outcome });
    }
    if violated.is_empty() {
        return Act::Resume;
    }
    Act::Deny(Denial {
        reason: Reason::PolicyStoreUnavailable,
        id,
        violated,
        retry_after_s: Some(UNAVAILABLE_RETRY_AFTER_S),
    })
}

fn enforcing<'r>(
    config: &'r Config,
    asked: &'r [Asked],
) -> impl Iterator<Item = (usize, &'r Policy)> {
    asked
        .chunk_by(|a, b| a.policy == b.policy)
        .filter_map(|limits| limits.first())
        .filter(|first| !first.shadow)
        .filter_map(|first| Some((first.policy, config.policies.get(first.policy)?)))
}

#[cfg(test)]
mod tests;
