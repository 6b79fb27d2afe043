//! Owns what follows from an event: one act, what to count, what to write.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Circuit, Note, Settlement, Signal, Spend, Whom};
use crate::fields::Field;
use crate::idempotency::stored::StoredAnswer;
use crate::local_share::ShareCall;
use crate::reason::Reason;
use crate::wire::DecisionId;

/// What to do, with nothing left to choose.
#[derive(Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing to decide: let the request through at once.
    Pass,
    /// Hold the request and hand over its body as it comes.
    Collect,
    /// Hold the request for so many ms.
    Wait(u32),
    /// Say how many other requests of this worker wait for the first answers of this policy's keys, by its index in
    /// the configuration.
    CountWaiting(usize),
    /// Hold the request and send this message to [`crate::wire::DECIDE_PATH`].
    Ask(Vec<u8>),
    /// Take these units of leased limits, and say what became of them. What was taken is spent if the
    /// request goes on, is replayed or pays for its denial; else it goes back.
    Spend(Vec<Spend>),
    /// Hold the request until the message that [`super::Spent::Join`] spoke of is answered, or nobody waits for its
    /// answer any more; then it is asked of this Envoy's units again.
    Join,
    /// Take these local shares, each for itself, and say what became of them. What was taken goes
    /// back if the request is then denied and does not pay for it.
    Share(Vec<ShareCall>),
    /// Ask this circuit breaker for leave, and say what it said: nothing else is in the way.
    Permit {
        /// The one that applies.
        circuit: Circuit,
        /// Whether the request is gRPC, whose outcome its trailers tell.
        grpc: bool,
    },
    /// Hold the request for so many ms, for its circuit breaker may let it go then.
    Hold {
        /// The breaker's index in the configuration.
        breaker: usize,
        /// How long, in ms.
        delay_ms: u32,
    },
    /// Let the request go on, which may be held.
    Resume,
    /// Answer in the upstream's place.
    Deny(Box<Denial>),
    /// Give the first answer again.
    Replay(Box<Replay>),
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

// === impl Replay ===

impl Replay {
    /// Whether the first answer had a body and said no type of it: a host then says one by itself.
    pub fn is_untyped(&self) -> bool {
        let has_body = self.answer.body.as_ref().is_some_and(|body| !body.is_empty());
        let mut names = self.answer.headers.iter().map(|(name, _)| name);
        has_body && !names.any(|name| name == b"content-type")
    }
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
    /// The circuit breaker whose fallback is the answer, by its index.
    pub fallback: Option<usize>,
    /// Whether it costs the usual budget: what was taken of it here stays taken (see [`crate::stages`]).
    pub is_paid: bool,
}

/// What follows from an event: one act, what to count, what to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Effects {
    /// What to do.
    pub act: Act,
    /// What to count.
    pub signals: Vec<Signal>,
    /// What the access log should show, if anything.
    pub note: Option<Box<Note>>,
    /// The value of [`SOFT_HEADER`] for the upstream, if a soft limit is used up.
    pub soft: Option<String>,
    /// The circuit breaker whose fallback leads the request to another cluster, by its index.
    pub reroute: Option<usize>,
    /// What is to be given back, and nobody waits for.
    pub settlement: Option<Box<Settlement>>,
    /// Whom it is about, for the audit chain, where the filter decided or the request was drawn.
    pub whom: Option<Box<Whom>>,
}

/// Tells an upstream which soft limits (`policy.limit`) are used up. No client's own gets through.
pub const SOFT_HEADER: &str = "x-tidegate-soft-limit";

// === impl Effects ===

impl Effects {
    /// An act with nothing to write beside it.
    pub(super) fn of(act: Act, signals: Vec<Signal>) -> Self {
        Self { act, signals, note: None, soft: None, reroute: None, settlement: None, whom: None }
    }
}
