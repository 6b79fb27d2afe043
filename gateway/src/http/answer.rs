//! Owns how answers look: status, headers, and the problem documents (RFC 9457). Knows no route.
//!
//! Every answer made here carries the gateway's mark. What hyper answers by itself (a broken
//! request line, say) and the answer after a panic carry none, and read as no verdict.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::together::add_answer;
use tidegate_policy::wire::{self, DecideReply, DecisionId, MARK_HEADER, MARK_VALUE};

use crate::service::{OVERLOADED, Refused};

/// What the type of every problem begins with.
pub const PROBLEM_BASE: &str = "https://tidegate.dev/problems/";
/// Exactly this, without jitter (product row A5).
const OVERLOAD_RETRY_AFTER: &str = "5";
const OVERLOAD_ERROR: &str = "service_overloaded";
const MARK: HeaderName = HeaderName::from_static(MARK_HEADER);

/// An answer with its whole body.
pub type Answer = Response<Full<Bytes>>;

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    v: u16,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

/// A body of some type.
pub fn plain(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(MARK, HeaderValue::from_static(MARK_VALUE));
    answer
}

/// A genuine reply: a verdict, or what was settled.
pub fn reply<T: Serialize>(reply: &T) -> Answer {
    plain(StatusCode::OK, "application/json", wire::encode(reply))
}

/// A verdict, and behind it the octets of an answer that was stored.
pub fn decided(reply: &DecideReply) -> Answer {
    let framed = !reply.octets.is_empty();
    // With a frame it is no document any more.
    let content_type = if framed { "application/octet-stream" } else { "application/json" };
    plain(StatusCode::OK, content_type, wire::encode_framed(reply, &reply.octets))
}

/// What is said to each of several questions, in their order: what would have been the answer to it alone.
pub fn together(decided: &[Result<DecideReply, Refused>]) -> Answer {
    let mut body = Vec::new();
    for decided in decided {
        match decided {
            Ok(reply) => {
                let said = wire::encode_framed(reply, &reply.octets);
                add_answer(&mut body, StatusCode::OK.as_u16(), &said);
            }
            Err(refused) => {
                let status = status(refused.reason);
                let said = document(status, refused.reason, &refused.detail, refused.id);
                add_answer(&mut body, status.as_u16(), &said);
            }
        }
    }
    plain(StatusCode::OK, "application/octet-stream", body)
}

/// A refusal of the service.
pub fn refusal(refused: &Refused) -> Answer {
    problem(status(refused.reason), refused.reason, &refused.detail, refused.id)
}

/// A problem document. Its status is given, since one reason may have several.
pub fn problem(
    status: StatusCode,
    reason: Reason,
    detail: &str,
    decision: Option<DecisionId>,
) -> Answer {
    let overloaded = reason == Reason::ServiceOverloaded;
    let document = document(status, reason, detail, decision);
    let mut answer = plain(status, "application/problem+json", document);
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if overloaded {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(OVERLOAD_RETRY_AFTER));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn document(
    status: StatusCode,
    reason: Reason,
    detail: &str,
    decision: Option<DecisionId>,
) -> Vec<u8> {
    let overloaded = reason == Reason::ServiceOverloaded;
    wire::encode(&Problem {
        kind: format!("{PROBLEM_BASE}{reason}"),
        title: title(reason),
        status: status.as_u16(),
        detail,
        instance: decision.map(|id| format!("urn:uuid:{id}")),
        v: wire::VERSION,
        reason: reason.as_str(),
        error: overloaded.then_some(OVERLOAD_ERROR),
        message: overloaded.then_some(OVERLOADED),
    })
}

/// A path exists, but not with this method.
pub fn wrong_method(allowed: &'static str) -> Answer {
    let detail = format!("this path takes {allowed} only");
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, Reason::NotFound, &detail, None);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// After a panic: not marked, because it is nobody's verdict.
pub fn panicked() -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    answer
}

fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::ServiceOverloaded | Reason::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        Reason::StoreUnavailable
        | Reason::StoreCircuitOpen
        | Reason::StoreTimeout
        | Reason::StoreError => StatusCode::SERVICE_UNAVAILABLE,
        Reason::Unauthorized => StatusCode::UNAUTHORIZED,
        Reason::RegionMismatch | Reason::EnvironmentMismatch => StatusCode::CONFLICT,
        Reason::DeadlineOrder | Reason::BadMessage | Reason::UnsupportedVersion => {
            StatusCode::BAD_REQUEST
        }
        Reason::NotFound => StatusCode::NOT_FOUND,
        // The filter's own reasons; the gateway never gives them.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::ServiceOverloaded => "The gateway is at its bound",
        Reason::StoreUnavailable => "The store cannot be reached",
        Reason::StoreCircuitOpen => "The store is left alone for a while",
        Reason::StoreTimeout => "The store did not answer in time",
        Reason::StoreError => "The store failed",
        Reason::Unauthorized => "Not authorized",
        Reason::RegionMismatch => "The filter belongs to another region",
        Reason::EnvironmentMismatch => "The filter belongs to another environment",
        Reason::DeadlineOrder => "The filter waits no longer than the gateway",
        Reason::BadMessage => "The message cannot be read",
        Reason::UnsupportedVersion => "The message's version is unknown",
        Reason::NotFound => "There is nothing here",
        _ => "No verdict",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn body(answer: Answer) -> serde_json::Value {
        let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[tokio::test]
    async fn an_overload_looks_exactly_as_promised() {
        let refused = Refused {
            reason: Reason::ServiceOverloaded,
            detail: "d".to_owned(),
            id: Some(DecisionId::new(1)),
        };
        let answer = refusal(&refused);
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "5");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()[MARK_HEADER], MARK_VALUE);
        let expected = serde_json::json!({
            "type": "https://tidegate.dev/problems/service-overloaded",
            "title": "The gateway is at its bound",
            "status": 429,
            "detail": "d",
            "instance": "urn:uuid:00000000-0000-8000-8000-000000000001",
            "v": 1,
            "reason": "service-overloaded",
            "error": "service_overloaded",
            "message": "Service temporarily overloaded, please retry",
        });
        assert_eq!(body(answer).await, expected);
    }

    #[tokio::test]
    async fn each_reason_has_its_status_and_reads_as_a_refusal() {
        let rows = [
            (Reason::Unauthorized, 401),
            (Reason::BadMessage, 400),
            (Reason::UnsupportedVersion, 400),
            (Reason::DeadlineOrder, 400),
            (Reason::RegionMismatch, 409),
            (Reason::EnvironmentMismatch, 409),
            (Reason::NotFound, 404),
            (Reason::StoreUnavailable, 503),
            (Reason::StoreCircuitOpen, 503),
            (Reason::StoreTimeout, 503),
            (Reason::StoreError, 503),
        ];
        for (reason, expected) in rows {
            let answer = refusal(&Refused { reason, detail: String::new(), id: None });
            assert_eq!(answer.status(), expected, "{reason}");
            assert!(!answer.headers().contains_key("retry-after"), "{reason}");
            let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
            let read = wire::Refusal::decode(&bytes).expect("a refusal");
            assert_eq!(read.reason, reason.as_str());
        }
    }
}
