//! Owns how a denial looks to a client: status, header fields, problem document, details. Total:
//! every denial has one rendering, and nothing of the request is echoed in it.
//!
//! Source: RFC 9457 (problem details), RFC 9110 §10.2.3 (Retry-After), the gRPC status codes,
//! product row A5.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use crate::answers::Problems;
use crate::config::{Config, Fallback};
use crate::exchange::{Denial, Replay};
use crate::fields::Field;
use crate::reason::Reason;
use crate::template::Values;

/// Marks the filter's own replies, so that no other hop takes one for its upstream's answer.
pub const REPLY_HEADER: &str = "x-tidegate-reply";
/// Says that an answer is not a new one.
pub const REPLAYED_HEADER: &str = "idempotent-replayed";
/// The decision's id: it is in every reply, also where a body has no place for it.
pub const DECISION_HEADER: &str = "x-tidegate-decision";

/// What a client is told that comes when there is more to do than can be done, exactly (product row A5). The gateway
/// says the same.
pub const OVERLOADED: &str = "Service temporarily overloaded, please retry";

/// A reply, with nothing left to choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status. A gRPC request gets 200, which the host makes of it.
    pub status: u16,
    /// The gRPC status, for gRPC requests only.
    pub grpc_status: u8,
    /// What access logs show: `tidegate:reason:limits`.
    pub details: String,
    /// The header fields.
    pub headers: Vec<Field>,
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

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    instance: String,
    #[serde(rename = "violated-policies")]
    violated_policies: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// Of a first answer whose body is not there.
    #[serde(rename = "stored-status", skip_serializing_if = "Option::is_none")]
    stored_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// What a reason looks like.
struct Look {
    status: u16,
    grpc_status: u8,
    title: &'static str,
}

/// Renders a denial in the words of the configuration; there is none where the filter is not ready.
pub fn reply(config: Option<&Config>, denial: &Denial) -> Reply {
    let worded_by = config.zip(denial.worded_by);
    let policy = worded_by.and_then(|(config, index)| config.policies.get(index));
    let own = policy.and_then(|policy| policy.denied.as_ref());
    if let Some(reply) = config.and_then(|config| fallback(config, denial)) {
        return reply;
    }
    let usual = look(denial.reason);
    let status = own.and_then(|own| own.status(denial.reason)).unwrap_or(usual.status);
    let look = Look { status, grpc_status: grpc_status(status, usual.grpc_status), ..usual };
    let mut headers: Vec<Field> = Vec::with_capacity(10);
    let body = match (denial.grpc, own.and_then(|own| own.wording.as_ref())) {
        // The host sets the content type and makes `grpc-message` of the body.
        (true, _) => format!("{}: {}", look.title, denial.violated.join(", ")).into_bytes(),
        (false, Some(wording)) => {
            headers.push(("content-type", wording.content_type.clone()));
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
            headers.push(("content-type", "application/problem+json".to_string()));
            problem(config, denial, &look)
        }
    };
    headers.push(("cache-control", "no-store".to_string()));
    headers.push((REPLY_HEADER, denial.reason.to_string()));
    headers.push((DECISION_HEADER, denial.id.to_string()));
    if let Some(seconds) = denial.retry_after_s {
        headers.push(("retry-after", seconds.to_string()));
    }
    if status == 429 {
        // Other Envoys then know that a retry is no use.
        headers.push(("x-envoy-ratelimited", "true".to_string()));
    }
    if denial.reason == Reason::CircuitOpen {
        // As Envoy says of its own circuit breakers: other Envoys then do not retry.
        headers.push(("x-envoy-overloaded", "true".to_string()));
    }
    headers.extend(denial.fields.iter().cloned());
    Reply { status, grpc_status: look.grpc_status, details: details(denial), headers, body }
}

/// What a circuit breaker has its refused requests answered with.
fn fallback(config: &Config, denial: &Denial) -> Option<Reply> {
    let breaker = config.circuit_breakers.get(denial.fallback?)?;
    let Some(Fallback::Answer { status, content_type, body }) = &breaker.fallback else {
        return None;
    };
    let headers = Vec::from([
        ("content-type", content_type.clone()),
        ("cache-control", "no-store".to_string()),
        (REPLY_HEADER, denial.reason.to_string()),
        (DECISION_HEADER, denial.id.to_string()),
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
    format!("tidegate:{}:{}", denial.reason, denial.violated.join(","))
}

fn problem(config: Option<&Config>, denial: &Denial, look: &Look) -> Vec<u8> {
    let problems = config.map_or_else(Problems::default, |config| config.answers.problems.clone());
    let overload = denial.reason == Reason::ServiceOverloaded;
    let problem = Problem {
        r#type: problems.type_of(denial.reason),
        title: look.title,
        status: look.status,
        instance: format!("urn:uuid:{}", denial.id),
        violated_policies: &denial.violated,
        detail: denial.detail.as_deref(),
        stored_status: denial.stored_status,
        error: overload.then_some("service_overloaded"),
        message: overload.then_some(OVERLOADED),
    };
    // A document of strings and numbers always serialises.
    serde_json::to_vec(&problem).unwrap_or_default()
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
    const FAILED_PRECONDITION: u8 = 9;
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
            (422, FAILED_PRECONDITION, "Idempotency-Key was used for another request")
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
