//! Owns what can happen to a request, as the exchange is told of it.

use alloc::vec::Vec;

use super::{Known, Spend, Spent};
use crate::identity::Facts;
use crate::local_share::ShareAnswer;
use crate::router::Matched;
use crate::scope::CallerScope;
use crate::wire::DecisionId;

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
        /// What is known of circuit breakers. Which refuse is a hint: what is asked meanwhile claims nothing that
        /// would have to be given back.
        known: &'a dyn Known,
    },
    /// The next piece of the request's body arrived.
    Body {
        /// The piece.
        bytes: &'a [u8],
        /// Whether it was the last.
        end: bool,
    },
    /// The time of an [`Act::Wait`] is over, or an [`Act::Join`] is. With a fresh id: a question that may have claimed
    /// a key is not asked again under its own.
    Waited(DecisionId),
    /// How many others wait, where [`super::Act::CountWaiting`] asks.
    Others(usize),
    /// What became of the question.
    Answer {
        /// The answer.
        answer: Answer<'a>,
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
    },
    /// What this Envoy's own units say; one answer per spend, in order.
    Spent {
        /// What they were asked for: what came with [`super::Act::Spend`].
        spends: Vec<Spend>,
        /// The answers.
        answers: Vec<Spent>,
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
        /// What the request says of its sender, if it has just come.
        facts: Option<&'a Facts<'a>>,
        /// Where the filter runs.
        caller: &'a CallerScope,
        /// What is known of circuit breakers.
        known: &'a dyn Known,
    },
    /// What the circuit breaker says.
    Permit(Result<(), NoLeave>),
    /// What the local shares say; one answer per call, in order.
    Shares {
        /// The answers.
        answers: &'a [ShareAnswer],
        /// Any 64 bits: spreads the `Retry-After` of many clients.
        entropy: u64,
    },
}

// === impl Event ===

impl<'a> Event<'a> {
    /// What is known of circuit breakers, where the request may go on at once.
    pub(super) fn known(&self) -> Option<&'a dyn Known> {
        match self {
            Self::Request { known, .. } | Self::Spent { known, .. } => Some(*known),
            _ => None,
        }
    }
}

/// What a circuit breaker says that gives no leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoLeave {
    /// How long the request should wait, in ms; `None` if nobody knows, and leave may come any moment.
    pub wait_ms: Option<u64>,
    /// Now, in µs by the filter's clock, if it has one.
    pub now_us: Option<u64>,
    /// How many requests this worker holds for the breaker.
    pub held: usize,
}

/// What became of a question.
#[derive(Debug, Clone, Copy)]
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
