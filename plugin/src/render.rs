//! Owns how a denial looks to a client: status, headers, problem document, details. Total: every
//! denial has one rendering, and nothing of the request is echoed in it.
//!
//! Source: RFC 9457 (problem details), RFC 9110 §10.2.3 (Retry-After), product row A5.

use serde::Serialize;
use tidegate_policy::exchange::Denial;
use tidegate_policy::reason::{PROBLEM_BASE, Reason};

use crate::codec;

/// Marks the filter's own replies, so that no other hop takes one for its upstream's answer.
const REPLY_HEADER: &str = "x-tidegate-reply";

/// A reply as the host wants it.
pub(crate) struct Reply {
    pub code: u32,
    pub grpc_status: i32,
    pub details: String,
    pub headers: Vec<u8>,
    pub body: Vec<u8>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u32,
    instance: String,
    #[serde(rename = "violated-policies")]
    violated_policies: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

pub(crate) fn reply(denial: &Denial) -> Reply {
    let look = look(denial.reason);
    let overload = denial.reason == Reason::ServiceOverloaded;
    let problem = Problem {
        r#type: format!("{PROBLEM_BASE}{}", denial.reason),
        title: look.title,
        status: look.code,
        instance: format!("urn:uuid:{}", denial.id),
        violated_policies: &denial.violated,
        error: overload.then_some("service_overloaded"),
        message: overload.then_some("Service temporarily overloaded, please retry"),
    };
    let retry_after = denial.retry_after_s.map(|s| s.to_string());
    let mut headers = vec![
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        (REPLY_HEADER, denial.reason.as_str()),
    ];
    if let Some(seconds) = &retry_after {
        headers.push(("retry-after", seconds));
    }
    if look.code == 429 {
        // Other Envoys then know that a retry is no use.
        headers.push(("x-envoy-ratelimited", "true"));
    }
    Reply {
        code: look.code,
        grpc_status: look.grpc_status,
        details: format!("tidegate:{}:{}", denial.reason, denial.violated.join(",")),
        headers: codec::encode(&headers),
        // A document of strings and numbers always serialises.
        body: serde_json::to_vec(&problem).unwrap_or_default(),
    }
}

struct Look {
    code: u32,
    /// Used by Envoy for gRPC requests only.
    grpc_status: i32,
    title: &'static str,
}

fn look(reason: Reason) -> Look {
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const UNAVAILABLE: i32 = 14;
    match reason {
        Reason::QuotaExceeded => {
            Look { code: 429, grpc_status: RESOURCE_EXHAUSTED, title: "Request quota exceeded" }
        }
        Reason::ServiceOverloaded => {
            Look { code: 429, grpc_status: UNAVAILABLE, title: "Service temporarily overloaded" }
        }
        Reason::ClientIdentityRequired => {
            Look { code: 403, grpc_status: PERMISSION_DENIED, title: "Client identity required" }
        }
        _ => Look { code: 503, grpc_status: UNAVAILABLE, title: "Policy store unavailable" },
    }
}
