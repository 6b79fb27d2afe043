//! Owns the life of one request: facts in, at most one question to the gateway, a verdict out.
//! Knows neither the host's calls nor how a denial is rendered; joins the mechanisms, which do not
//! know each other.
//!
//! ```text
//! Request ─► pass │ deny │ ask ─► Answer ─► resume │ deny
//!                                    └─► share ─► Shares ─► resume │ deny
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::config::{Config, Rung};
use crate::cost::ResponseSource;
use crate::fields::Field;
use crate::identity::Facts;
use crate::local_share::{ShareAnswer, ShareCall};
use crate::mode::Overrides;
use crate::reason::Reason;
use crate::router::Matched;
use crate::scope::CallerScope;
use crate::wire::{DecisionId, LimitCall};

mod ask;
mod ladder;
mod note;
mod owed;
mod respond;
mod settle;

use ask::ask;
use ladder::Sharing;
use note::Aside;
pub use note::{Note, Noted};
use owed::Terms;
pub use owed::{Moment, Settlement, settlement_failure};
use respond::Told;
pub use respond::{Response, Said};
use settle::settle;

/// `Retry-After` of an overload answer, exactly (product row A5).
pub const OVERLOAD_RETRY_AFTER_S: u64 = 5;
/// What happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The request's headers arrived, and some policy took it in.
    Request {
        /// The policies, by path and method.
        matched: Matched,
        /// What the request says of its sender.
        facts: &'a Facts<'a>,
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
    /// What the local shares say; one answer per call, in order.
    Shares {
        /// The answers.
        answers: &'a [ShareAnswer],
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
    },
}

/// What became of a question.
#[derive(Debug)]
pub enum Answer<'a> {
    /// It was not even tried: so many failed before.
    CircuitOpen {
        /// When it makes sense to try again, in ms.
        retry_ms: u64,
    },
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
    /// Hold the request and send this message to [`crate::wire::DECIDE_PATH`].
    Ask(Vec<u8>),
    /// Take these local shares, each for itself, and say what became of them. What was taken goes
    /// back if the request is then denied.
    Share(Vec<ShareCall>),
    /// Let the request go on, which may be held.
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
    /// The RateLimit fields of the limits that were looked at.
    pub fields: Vec<Field>,
    /// Whether the request is gRPC, whose clients read no HTTP status and no body.
    pub grpc: bool,
    /// The policy whose own words it is told in, by its index; `None` for the usual ones.
    pub worded_by: Option<usize>,
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
    /// A limit is used up.
    UsedUp {
        /// The policy's index in the configuration.
        policy: usize,
        /// The limit's index within its policy.
        limit: usize,
        /// What that meant: denied, in shadow, or soft.
        outcome: Outcome,
    },
    /// What says the cost cannot be read.
    CostMalformed {
        /// The policy's index in the configuration.
        policy: usize,
        /// The limit's index within its policy.
        limit: usize,
    },
    /// No verdict could be had.
    Unavailable(Reason),
    /// The rung of its `on_unavailable` that a policy ended on; one for each policy.
    Fell {
        /// The rung.
        rung: Rung,
        /// Why there was no verdict.
        reason: Reason,
    },
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
    /// A soft limit of the policy is used up.
    SoftExceeded,
    /// Another policy denied; this one was not charged.
    NotCharged,
    /// The limit's identity is missing.
    IdentityMissing,
    /// The route's metadata take it out of the policy.
    OptedOut,
    /// The gateway was at its bound.
    Overloaded,
    /// No verdict; this Envoy's share of every limit of the policy admits.
    LocalShareAllowed,
    /// No verdict; this Envoy's share of a limit is spent, and the policy says deny behind it.
    LocalShareDenied,
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
            Self::SoftExceeded => "soft_exceeded",
            Self::NotCharged => "not_charged",
            Self::IdentityMissing => "identity_missing",
            Self::OptedOut => "opted_out",
            Self::Overloaded => "overloaded",
            Self::LocalShareAllowed => "local_share_allowed",
            Self::LocalShareDenied => "local_share_denied",
            Self::DegradedAllowed => "degraded_allowed",
            Self::DegradedDenied => "degraded_denied",
        }
    }
}

/// What follows from an event: one act, what to count, what to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    /// What to do.
    pub act: Act,
    /// What to count.
    pub signals: Vec<Signal>,
    /// What the access log should show, if anything.
    pub note: Option<Note>,
    /// The value of [`SOFT_HEADER`] for the upstream, if a soft limit is used up.
    pub soft: Option<String>,
}

/// Tells an upstream which soft limits (`policy.limit`) are used up. No client's own gets through.
pub const SOFT_HEADER: &str = "x-tidegate-soft-limit";

/// A limit that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    policy: usize,
    /// The limit's index within its policy.
    limit: usize,
    /// Its policy is in shadow.
    shadow: bool,
    soft: bool,
}

impl Asked {
    /// Whether it may deny.
    fn is_enforced(&self) -> bool {
        !self.shadow && !self.soft
    }
}

/// What the gateway was asked.
#[derive(Debug)]
struct Question {
    id: DecisionId,
    asked: Vec<Asked>,
    grpc: bool,
    /// One per asked limit.
    limits: Vec<LimitCall>,
    /// What was found before anything was asked.
    aside: Aside,
    /// Of a question with limits whose cost only the response tells.
    terms: Option<Terms>,
}

// === impl Effects ===

impl Effects {
    /// An act with nothing to write beside it.
    fn of(act: Act, signals: Vec<Signal>) -> Self {
        Self { act, signals, note: None, soft: None }
    }
}

#[derive(Debug)]
enum Phase {
    Fresh,
    Asking(Question),
    Sharing(Sharing),
    /// On its way to the upstream; what its response has to tell of it.
    Admitted(Told),
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

    /// Whether the response has to be told of this request, or has to tell.
    pub fn has_to_tell(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(told) if !told.is_empty())
    }

    /// Whether it matters when the question was sent; then [`Exchange::sent`] says so.
    pub fn is_timed(&self) -> bool {
        matches!(&self.phase, Phase::Asking(Question { terms: Some(_), .. }))
    }

    /// The question was sent, at this time in µs by the filter's clock.
    pub fn sent(&mut self, now_us: u64) {
        if let Phase::Asking(Question { terms: Some(terms), .. }) = &mut self.phase {
            terms.sent_us = Some(now_us);
        }
    }

    /// What to read of the response at this moment.
    pub fn wanted<'c>(&self, config: &'c Config, moment: Moment) -> Vec<&'c ResponseSource> {
        match &self.phase {
            Phase::Admitted(told) => told.wanted(config, moment),
            _ => Vec::new(),
        }
    }

    /// What the upstream's response has to carry, and what it settles. A reply of ours that passes
    /// the same callbacks is not the upstream's and changes nothing.
    pub fn on_response(&mut self, config: &Config, said: &Said<'_>) -> Response {
        match &mut self.phase {
            Phase::Admitted(told) => told.response(config, said),
            _ => Response::default(),
        }
    }

    /// Takes one event. An answer that nobody waits for changes nothing.
    pub fn on(&mut self, config: &Config, overrides: &Overrides, event: Event<'_>) -> Effects {
        let phase = core::mem::replace(&mut self.phase, Phase::Admitted(Told::default()));
        let (next, effects) = match (phase, event) {
            (Phase::Fresh, Event::Request { matched, facts, caller, id }) => {
                ask(config, overrides, &matched, facts, caller, id)
            }
            (Phase::Asking(question), Event::Answer { answer, entropy }) => {
                match settle(config, &question, &answer, entropy) {
                    Ok(settled) => settled,
                    Err(why) => ladder::fall(config, question, why, Vec::new()),
                }
            }
            (Phase::Sharing(sharing), Event::Shares { answers, entropy }) => {
                ladder::land(config, sharing, answers, entropy, Vec::new())
            }
            (phase, _) => (phase, Effects::of(Act::Pass, Vec::new())),
        };
        self.phase = next;
        effects
    }
}

#[cfg(test)]
mod tests;
