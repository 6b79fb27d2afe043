//! The table of denials: one row per reason that a client can be told.

use super::*;
use crate::answers::{Denied, STATUSES};
use crate::wire::DecisionId;
use std::string::String;
use std::vec;

fn config(fields: &str, policy: &str) -> Config {
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "c"}}, {fields} "policies": [
            {{"name": "api", "match": {{"path": "/**"}}, {policy}
             "rate_limits": [{{"name": "l", "by": "ip", "limit": 1, "per": "1s"}}]}}]}}"#
    );
    let reading = Config::read(&document);
    reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics))
}

fn denial(reason: Reason) -> Denial {
    Denial {
        reason,
        id: DecisionId::new(7),
        violated: vec!["api.l".to_string()],
        retry_after_s: Some(12),
        fields: vec![("ratelimit", "\"api.l\";r=0".to_string())],
        grpc: false,
        worded_by: None,
        detail: None,
        stored_status: None,
        fallback: None,
        is_paid: false,
    }
}

/// A reply that outlives what it was made of.
fn told(config: Option<&Config>, denial: &Denial) -> Reply<'static> {
    let Reply { status, grpc_status, details, headers, body } = reply(config, denial);
    let owned = |(name, value): Header<'_>| (name, Cow::Owned(value.into_owned()));
    let headers = headers.into_iter().map(owned).collect();
    Reply { status, grpc_status, details, headers, body }
}

fn header<'r>(reply: &'r Reply<'_>, name: &str) -> Option<&'r str> {
    let mut found = reply.headers.iter().filter(|(key, _)| *key == name);
    let value = found.next().map(|(_, value)| value.as_ref());
    assert!(found.next().is_none(), "{name} stands twice");
    value
}

#[test]
fn every_reason_has_its_row() {
    let rows = [
        (Reason::QuotaExceeded, 429, 8, "Request quota exceeded"),
        (Reason::TemporaryReducedCapacity, 429, 8, "Capacity is temporarily reduced"),
        (Reason::ServiceOverloaded, 429, 14, "Service temporarily overloaded"),
        (Reason::PolicyStoreUnavailable, 503, 14, "Policy store unavailable"),
        (Reason::ClientIdentityRequired, 403, 7, "Client identity required"),
        (Reason::HostFailure, 503, 14, "Policy store unavailable"),
    ];
    let config = config("", "");
    for (reason, status, grpc_status, title) in rows {
        let reply = told(Some(&config), &denial(reason));
        assert_eq!((reply.status, reply.grpc_status), (status, grpc_status), "{reason}");
        assert_eq!(header(&reply, "content-type"), Some("application/problem+json"));
        assert_eq!(header(&reply, "cache-control"), Some("no-store"));
        assert_eq!(header(&reply, "retry-after"), Some("12"));
        assert_eq!(header(&reply, REPLY_HEADER), Some(reason.as_str()));
        let id = "00000000-0000-8000-8000-000000000007";
        assert_eq!(header(&reply, DECISION_HEADER), Some(id));
        assert_eq!(header(&reply, "ratelimit"), Some("\"api.l\";r=0"));
        let ratelimited = (status == 429).then_some("true");
        assert_eq!(header(&reply, "x-envoy-ratelimited"), ratelimited, "{reason}");
        assert_eq!(reply.details, format!("tidegate:{reason}:api.l"));
        let mut problem = serde_json::json!({
            "type": format!("https://tidegate.dev/problems/{reason}"), "title": title,
            "status": status, "instance": format!("urn:uuid:{id}"), "violated-policies": ["api.l"],
        });
        if reason == Reason::ServiceOverloaded {
            problem["error"] = "service_overloaded".into();
            problem["message"] = "Service temporarily overloaded, please retry".into();
        }
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!(body, problem, "{reason}");

        let reply = told(Some(&config), &Denial { grpc: true, ..denial(reason) });
        assert_eq!(reply.grpc_status, grpc_status);
        assert_eq!(reply.body, format!("{title}: api.l").into_bytes());
        assert_eq!(header(&reply, "content-type"), None, "the host sets it");
    }
}

#[test]
fn a_time_that_is_not_known_is_not_told() {
    let reply = told(None, &Denial { retry_after_s: None, ..denial(Reason::QuotaExceeded) });
    assert_eq!(header(&reply, "retry-after"), None);
}

#[test]
fn bases_of_problem_types_can_be_switched() {
    let of = |fields: &str, reason| {
        let reply = told(Some(&config(fields, "")), &denial(reason));
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        body["type"].as_str().expect("a type").to_string()
    };
    let (quota, store) = (Reason::QuotaExceeded, Reason::PolicyStoreUnavailable);
    let own = r#""problems": {"base": "urn:example:"},"#;
    assert_eq!(of(own, quota), "urn:example:quota-exceeded");
    let registered = r#""problems": {"registered": true},"#;
    let iana = "https://iana.org/assignments/http-problem-types#";
    assert_eq!(of(registered, quota), format!("{iana}quota-exceeded"));
    let reduced = Reason::TemporaryReducedCapacity;
    assert_eq!(of(registered, reduced), format!("{iana}temporary-reduced-capacity"));
    assert_eq!(of(registered, store), "https://tidegate.dev/problems/policy-store-unavailable");
    let both = r#""problems": {"base": "https://a/#", "registered": true},"#;
    assert_eq!(of(both, store), "https://a/#policy-store-unavailable");
}

#[test]
fn a_policy_words_its_own_denials_and_keeps_the_head() {
    let worded = config(
        "",
        r#""denied": {"content_type": "application/json", "body": "{\"e\": \"{{reason}}\", \"in\": {{retry_after}}, \"by\": \"{{policy}}\", \"l\": \"{{limit}}\", \"s\": {{status}}}"},"#,
    );
    let denial = Denial { worded_by: Some(0), ..denial(Reason::QuotaExceeded) };
    let own = told(Some(&worded), &denial);
    let text = String::from_utf8(own.body.clone()).expect("text");
    assert_eq!(text, r#"{"e": "quota-exceeded", "in": 12, "by": "api", "l": "api.l", "s": 429}"#);
    assert_eq!(header(&own, "content-type"), Some("application/json"));
    let usual = told(Some(&worded), &Denial { worded_by: None, ..denial.clone() });
    assert_eq!(own.headers[1..], usual.headers[1..], "all but the type and the body is as usual");
    let grpc = told(Some(&worded), &Denial { grpc: true, ..denial.clone() });
    assert_eq!(grpc.body, b"Request quota exceeded: api.l");
    let never = told(Some(&worded), &Denial { retry_after_s: None, ..denial });
    assert!(String::from_utf8(never.body).expect("text").contains("\"in\": null"));
}

#[test]
fn a_policy_chooses_among_the_statuses_of_a_reason() {
    for (reason, allowed) in STATUSES {
        for &status in allowed {
            let mut config = config("", "");
            let statuses = vec![(reason, status)];
            config.policies[0].denied = Some(Denied { wording: None, statuses });
            let denial = Denial { worded_by: Some(0), ..denial(reason) };
            let reply = told(Some(&config), &denial);
            assert_eq!(reply.status, status, "{reason}");
            let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
            assert_eq!(body["status"], status);
            let ratelimited = header(&reply, "x-envoy-ratelimited").is_some();
            assert_eq!(ratelimited, status == 429);
            let usual = look(reason).grpc_status;
            assert_eq!(reply.grpc_status, if status == 400 { 3 } else { usual });
        }
        assert_eq!(Some(&look(reason).status), allowed.first(), "the usual one comes first");
    }
}

/// What clients are told of their keys: docs/idempotency.md has the same table.
#[test]
fn each_reason_of_a_key_has_its_statuses_its_type_and_its_title() {
    let rows = [
        (Reason::IdempotencyKeyRequired, 400, 3, "Idempotency-Key required"),
        (Reason::IdempotencyKeyInvalid, 400, 3, "Idempotency-Key invalid"),
        (Reason::IdempotencyPathInvalid, 400, 3, "Path not fit for a key"),
        (Reason::IdempotencyBodyTooLong, 413, 8, "Body too long for an idempotency key"),
        (Reason::IdempotencyConflict, 422, 3, "Idempotency-Key was used for another request"),
        (
            Reason::IdempotencyInFlight,
            409,
            10,
            "The first request with this Idempotency-Key is under way",
        ),
        (
            Reason::IdempotencyUnknownOutcome,
            409,
            10,
            "The outcome of the first request with this Idempotency-Key is not known",
        ),
        (
            Reason::IdempotencyResultNotStored,
            409,
            6,
            "The first request with this Idempotency-Key is done, its answer is not stored",
        ),
    ];
    for (reason, status, grpc_status, title) in rows {
        let reply = told(None, &denial(reason));
        assert_eq!((reply.status, reply.grpc_status), (status, grpc_status), "{reason}");
        let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let kind = format!("https://tidegate.dev/problems/{reason}");
        assert_eq!((&body["type"], &body["title"]), (&kind.into(), &title.into()), "{reason}");
        assert_eq!(body["status"], status);
        assert_eq!(header(&reply, REPLY_HEADER), Some(reason.as_str()));
        let grpc = told(None, &Denial { grpc: true, ..denial(reason) });
        assert_eq!(grpc.body, format!("{title}: api.l").into_bytes());
    }
}

#[test]
fn a_fallback_is_the_answer_and_still_says_whose_it_is() {
    let breaker = r#""circuit_breaker": {"fallback": {"answer":
        {"status": 203, "content_type": "application/json", "body": "[]"}}},"#;
    let config = config("", breaker);
    let refused = Denial { fallback: Some(0), ..denial(Reason::CircuitOpen) };
    let reply = told(Some(&config), &refused);
    assert_eq!((reply.status, reply.body.as_slice()), (203, b"[]".as_slice()));
    assert_eq!(header(&reply, "content-type"), Some("application/json"));
    assert_eq!(header(&reply, REPLY_HEADER), Some("circuit-open"));
    assert_eq!(header(&reply, "cache-control"), Some("no-store"));
    assert_eq!(reply.details, "tidegate:circuit-open:api.l");
    for told_otherwise in ["retry-after", "x-envoy-overloaded", "ratelimit"] {
        assert_eq!(header(&reply, told_otherwise), None, "{told_otherwise}");
    }
}
