//! Owns how a denial looks to a client: status, header fields, problem document, details. Total:
//! every denial has one rendering, and nothing of the request is echoed in it.
//!
//! Source: RFC 9457 (problem details), RFC 9110 §10.2.3 (Retry-After), the gRPC status codes,
//! product row A5.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::config::{Config, Fallback};
use crate::digits::push_number;
use crate::exchange::{Denial, Replay};
use crate::reason::Reason;
use crate::template::Values;

mod problem;

/// Marks the filter's own replies, so that no other hop takes one for its upstream's answer.
pub const REPLY_HEADER: &str = "x-tidegate-reply";
/// Says that an answer is not a new one.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";
/// The decision's id: it is in every reply, also where a body has no place for it.
pub const DECISION_HEADER: &str = "x-tidegate-decision";

/// What a client is told that comes when there is more to do than can be done, exactly (product row A5). The gateway
/// says the same.
pub const OVERLOADED: &str = "Service temporarily overloaded, please retry";

/// A header field of a reply: its name in lower case, its value.
pub type Header<'r> = (&'static str, Cow<'r, str>);

/// A reply, with nothing left to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'r> {
    /// The HTTP status. A gRPC request gets 200, which the host makes of it.
    pub status: u16,
    /// The gRPC status, for gRPC requests only.
    pub grpc_status: u8,
    /// What access logs show: `tidegate:reason:limits`.
    pub details: String,
    /// The header fields.
    pub headers: Vec<Header<'r>>,
    /// The body; of a gRPC request its `grpc-message`.
    pub body: Vec<u8>,
}

/// A first answer, given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayReply {
    /// The HTTP status.
    pub status: u16,
    /// What access logs show: `tidegate:replayed:policy`.
    pub details: String,
    /// The header fields.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// As many header fields as a reply has at most.
const HEADERS: usize = 10;
/// About what details take, in bytes.
const DETAILS_LEN: usize = 64;

/// What a reason looks like.
struct Look {
    status: u16,
    grpc_status: u8,
    title: &'static str,
}

/// Renders a denial in the words of the configuration; there is none where the filter is not ready.
pub fn reply<'r>(config: Option<&'r Config>, denial: &'r Denial) -> Reply<'r> {
    let worded_by = config.zip(denial.worded_by);
    let policy = worded_by.and_then(|(config, index)| config.policies.get(index));
    let own = policy.and_then(|policy| policy.denied.as_ref());
    if let Some(reply) = config.and_then(|config| fallback(config, denial)) {
        return reply;
    }
    let usual = look(denial.reason);
    let status = own.and_then(|own| own.status(denial.reason)).unwrap_or(usual.status);
    let look = Look { status, grpc_status: grpc_status(status, usual.grpc_status), ..usual };
    let mut headers: Vec<Header<'r>> = Vec::with_capacity(HEADERS);
    let body = match (denial.grpc, own.and_then(|own| own.wording.as_ref())) {
        // The host sets the content type and makes `grpc-message` of the body.
        (true, _) => format!("{}: {}", look.title, denial.violated.join(", ")).into_bytes(),
        (false, Some(wording)) => {
            headers.push(("content-type", Cow::Borrowed(&wording.content_type)));
            let values = Values {
                reason: denial.reason,
                retry_after_s: denial.retry_after_s,
                policy: policy.map_or("", |policy| &policy.name),
                violated: &denial.violated,
                id: denial.id,
                status,
            };
            wording.body.fill(&values).into_bytes()
        }
        (false, None) => {
            headers.push(("content-type", Cow::Borrowed("application/problem+json")));
            let problems = config.map(|config| &config.answers.problems);
            problem::problem(problems, denial, &look).into_bytes()
        }
    };
    headers.push(("cache-control", Cow::Borrowed("no-store")));
    headers.push((REPLY_HEADER, Cow::Borrowed(denial.reason.as_str())));
    headers.push((DECISION_HEADER, Cow::Owned(denial.id.to_text())));
    if let Some(seconds) = denial.retry_after_s {
        let mut text = String::new();
        push_number(&mut text, seconds);
        headers.push(("retry-after", Cow::Owned(text)));
    }
    if status == 429 {
        // Other Envoys then know that a retry is no use.
        headers.push(("x-envoy-ratelimited", Cow::Borrowed("true")));
    }
    if denial.reason == Reason::CircuitOpen {
        // As Envoy says of its own circuit breakers: other Envoys then do not retry.
        headers.push(("x-envoy-overloaded", Cow::Borrowed("true")));
    }
    let fields = denial.fields.iter();
    headers.extend(fields.map(|(name, value)| (*name, Cow::Borrowed(value.as_str()))));
    Reply { status, grpc_status: look.grpc_status, details: details(denial), headers, body }
}

/// What a circuit breaker has its refused requests answered with.
fn fallback<'r>(config: &'r Config, denial: &Denial) -> Option<Reply<'r>> {
    let breaker = config.circuit_breakers.get(denial.fallback?)?;
    let Some(Fallback::Answer { status, content_type, body }) = &breaker.fallback else {
        return None;
    };
    let headers = Vec::from([
        ("content-type", Cow::Borrowed(content_type.as_str())),
        ("cache-control", Cow::Borrowed("no-store")),
        (REPLY_HEADER, Cow::Borrowed(denial.reason.as_str())),
        (DECISION_HEADER, Cow::Owned(denial.id.to_text())),
    ]);
    Some(Reply {
        status: *status,
        grpc_status: grpc_status(*status, look(denial.reason).grpc_status),
        details: details(denial),
        headers,
        body: body.clone().into_bytes(),
    })
}

fn details(denial: &Denial) -> String {
    let mut text = String::with_capacity(DETAILS_LEN);
    text.push_str("tidegate:");
    text.push_str(denial.reason.as_str());
    for (place, name) in denial.violated.iter().enumerate() {
        text.push(if place == 0 { ':' } else { ',' });
        text.push_str(name);
    }
    if denial.violated.is_empty() {
        text.push(':');
    }
    text
}

/// The first answer again. Of a body that is empty no host says the content type.
pub fn replay(config: &Config, replay: &Replay) -> ReplayReply {
    let own = [
        (REPLAYED_HEADER.to_string(), "true".to_string()),
        (DECISION_HEADER.to_string(), replay.id.to_string()),
    ];
    let own = own.map(|(name, value)| (name.into_bytes(), value.into_bytes()));
    let stored = replay.answer.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec()));
    let policy = config.policies.get(replay.policy).map_or("", |policy| &policy.name);
    ReplayReply {
        status: replay.answer.status,
        details: format!("tidegate:replayed:{policy}"),
        headers: stored.chain(own).collect(),
        body: replay.answer.body.clone().unwrap_or_default(),
    }
}

/// 400 is a mistake of the caller's in gRPC's words, too.
fn grpc_status(status: u16, usual: u8) -> u8 {
    const INVALID_ARGUMENT: u8 = 3;
    if status == 400 { INVALID_ARGUMENT } else { usual }
}

fn look(reason: Reason) -> Look {
    const INVALID_ARGUMENT: u8 = 3;
    const ALREADY_EXISTS: u8 = 6;
    const PERMISSION_DENIED: u8 = 7;
    const ABORTED: u8 = 10;
    const RESOURCE_EXHAUSTED: u8 = 8;
    const UNAVAILABLE: u8 = 14;
    let (status, grpc_status, title) = match reason {
        Reason::QuotaExceeded => (429, RESOURCE_EXHAUSTED, "Request quota exceeded"),
        Reason::TemporaryReducedCapacity => {
            (429, RESOURCE_EXHAUSTED, "Capacity is temporarily reduced")
        }
        Reason::ServiceOverloaded => (429, UNAVAILABLE, "Service temporarily overloaded"),
        Reason::CircuitOpen => (503, UNAVAILABLE, "The upstream is not asked for a while"),
        Reason::ClientIdentityRequired => (403, PERMISSION_DENIED, "Client identity required"),
        Reason::IdempotencyKeyRequired => (400, INVALID_ARGUMENT, "Idempotency-Key required"),
        Reason::IdempotencyKeyInvalid => (400, INVALID_ARGUMENT, "Idempotency-Key invalid"),
        Reason::IdempotencyPathInvalid => (400, INVALID_ARGUMENT, "Path not fit for a key"),
        Reason::IdempotencyBodyTooLong => {
            (413, RESOURCE_EXHAUSTED, "Body too long for an idempotency key")
        }
        Reason::IdempotencyConflict => {
            (422, INVALID_ARGUMENT, "Idempotency-Key was used for another request")
        }
        Reason::IdempotencyInFlight => {
            (409, ABORTED, "The first request with this Idempotency-Key is under way")
        }
        Reason::IdempotencyUnknownOutcome => (
            409,
            ABORTED,
            "The outcome of the first request with this Idempotency-Key is not known",
        ),
        Reason::IdempotencyResultNotStored => (
            409,
            ALREADY_EXISTS,
            "The first request with this Idempotency-Key is done, its answer is not stored",
        ),
        _ => (503, UNAVAILABLE, "Policy store unavailable"),
    };
    Look { status, grpc_status, title }
}

#[cfg(test)]
mod tests;
