//! Owns the life of one request: facts in, at most one question to the gateway, a verdict out.
//! Knows neither the host's calls nor how a denial is rendered; joins the mechanisms, which do not
//! know each other.
//!
//! ```text
//! Request ─► pass │ deny │ ask ─► Answer ─► resume │ deny │ replay
//!     └─► collect ─► Body ─┘   ▲     ├─► share ─► Shares ─► resume │ deny
//!                              └─────┴─► wait ─► Waited
//! ```

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::config::Config;
use crate::cost::ResponseSource;
use crate::fields::Field;
use crate::idempotency::stored::StoredAnswer;
use crate::identity::Facts;
use crate::local_share::{ShareAnswer, ShareCall};
use crate::mode::Overrides;
use crate::reason::Reason;
use crate::router::Matched;
use crate::scope::CallerScope;
use crate::wire::{DecisionId, LimitCall};

mod ask;
mod circuit;
mod claim;
mod ends;
mod held;
mod judge;
mod ladder;
mod lease;
mod note;
mod owed;
mod respond;
mod settle;
mod signal;

use ask::ask;
pub use ask::is_grpc;
pub use circuit::Circuit;
use claim::{Claiming, Hashing, Waiting};
pub use held::{Answering, Envoys, Hold, Part};
use ladder::Sharing;
use lease::Held;
pub use lease::{LeaseName, Spend, Spent};
use note::{Aside, worded_by};
pub use note::{Note, Noted};
use owed::Terms;
pub use owed::{Moment, Settlement, settlement_failure};
use respond::Told;
pub use respond::{Response, Said};
use settle::settle;
pub use signal::{Idempotent, Outcome, Signal};

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
    /// The next piece of the request's body arrived.
    Body {
        /// The piece.
        bytes: &'a [u8],
        /// Whether it was the last.
        end: bool,
    },
    /// The time of an [`Act::Wait`] is over.
    Waited,
    /// What became of the question.
    Answer {
        /// The answer.
        answer: Answer<'a>,
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
    },
    /// What this Envoy's own units say; one answer per spend, in order.
    Spent {
        /// The answers.
        answers: Vec<Spent>,
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
    /// Hold the request and hand over its body as it comes.
    Collect,
    /// Hold the request for so many ms.
    Wait(u32),
    /// Hold the request and send this message to [`crate::wire::DECIDE_PATH`].
    Ask(Vec<u8>),
    /// Take these units of leased limits, and say what became of them. What was taken is spent if the
    /// request goes on, and goes back if it is denied.
    Spend(Vec<Spend>),
    /// Take these local shares, each for itself, and say what became of them. What was taken goes
    /// back if the request is then denied.
    Share(Vec<ShareCall>),
    /// Let the request go on, which may be held.
    Resume,
    /// Answer in the upstream's place.
    Deny(Denial),
    /// Give the first answer again.
    Replay(Replay),
}

/// The first answer to a request that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The policy's index in the configuration.
    pub policy: usize,
    /// The decision.
    pub id: DecisionId,
    /// The answer.
    pub answer: StoredAnswer,
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
    /// What the caller did wrong, where more can be said than the reason does.
    pub detail: Option<String>,
    /// The status of a first answer whose body is not there.
    pub stored_status: Option<u16>,
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
    /// What is to be given back, and nobody waits for.
    pub settlement: Option<Settlement>,
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
    /// Of a question with something to settle: a cost that only the response tells, or a claim.
    terms: Option<Terms>,
    /// The claim that was asked for.
    claim: Option<Box<Claiming>>,
    /// The leased limits whose units the request has; the gateway is not asked about them.
    held: Vec<Held>,
}

// === impl Effects ===

impl Effects {
    /// An act with nothing to write beside it.
    fn of(act: Act, signals: Vec<Signal>) -> Self {
        Self { act, signals, note: None, soft: None, settlement: None }
    }
}

#[derive(Debug)]
enum Phase {
    Fresh,
    /// The body is on its way.
    Hashing(Box<Hashing>),
    Spending(Box<Question>),
    Asking(Question),
    /// Another request has the key.
    Waiting(Box<Waiting>),
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

    /// Whether the request's body is wanted, as it comes.
    pub fn collects(&self) -> bool {
        matches!(self.phase, Phase::Hashing(_))
    }

    /// Whether the request waits for a verdict.
    pub fn holds_request(&self) -> bool {
        !matches!(self.phase, Phase::Fresh | Phase::Admitted(_) | Phase::Replied)
    }

    /// Whether the answer is held while it is collected: what the host shows of it is all of it.
    pub fn holds_answer(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(told) if told.claim.as_ref().is_some_and(|c| c.holds()))
    }

    /// Whether the answer is wanted for a claim; then [`Exchange::on_answer`] is told of it.
    pub fn wants_answer(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(Told { claim: Some(_), .. }))
    }

    /// Takes what the upstream answers to a request with a claim, or how it ended without.
    pub fn on_answer(&mut self, config: &Config, part: Part<'_>) -> Answering {
        match &mut self.phase {
            Phase::Admitted(told) => held::on_answer(config, &mut told.claim, part),
            _ => Answering::default(),
        }
    }

    /// The request is over, however far it came. What was claimed and nobody waits for any more is
    /// given back.
    pub fn left(&mut self, config: &Config) -> Option<Settlement> {
        match core::mem::replace(&mut self.phase, Phase::Replied) {
            Phase::Asking(question) => question.abandoned(config),
            phase => {
                self.phase = phase;
                None
            }
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
            (Phase::Spending(question), Event::Spent { answers, entropy }) => {
                lease::spent(config, *question, answers, entropy)
            }
            (Phase::Asking(mut question), Event::Answer { answer, entropy }) => {
                match settle(config, &mut question, &answer, entropy) {
                    Ok(settled) => settled,
                    Err(why) => ladder::fall(config, question, why, Vec::new()),
                }
            }
            (Phase::Hashing(hashing), Event::Body { bytes, end }) => {
                hashing.body(config, bytes, end)
            }
            (Phase::Waiting(waiting), Event::Waited) => waiting.again(config),
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
