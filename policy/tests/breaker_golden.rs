//! What messages say of breakers, frozen.

use tidegate_policy::breaker::mesh::Adaptive;
use tidegate_policy::wire::breaker::{BreakerName, BreakersReply, BreakersRequest};
use tidegate_policy::wire::{DecisionId, encode};

const ASKED: &str = include_str!("golden/breakers-request.json");
const REPLY: &str = include_str!("golden/breakers-reply.json");

fn normal(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("JSON")
}

const SLOW: &str = "\"slow_permille\": 0,";

fn adaptive(min_permille: u32, over_ms: u32) -> String {
    format!(r#"{SLOW} "adaptive": {{"min_permille": {min_permille}, "over_ms": {over_ms}}},"#)
}

fn id() -> DecisionId {
    serde_json::from_str("\"01234567-89ab-8def-8123-456789abcdef\"").expect("an id")
}

#[test]
fn a_report() {
    let message = BreakersRequest::decode(ASKED.as_bytes()).expect("the golden file is read");
    assert_eq!(normal(&encode(&message)), normal(ASKED.as_bytes()));
    for (from, to, expected) in [
        ("\"v\": 1", "\"v\": 2", "version 2"),
        ("0123456789abcdef\",\n    \"seq", "0123456789ABCDEF\",\n    \"seq", "hexadecimal"),
        ("\"seq\": 7", "\"seq\": 0", "seq is 1"),
        ("payments:acme", "payments/acme", "a breaker is 1 to 200"),
        ("{ \"ms\": 10000 }", "{ \"ms\": 9 }", "100 ms to a day"),
        ("{ \"ms\": 10000 }", "{ \"calls\": 0 }", "1 to 1000000 calls"),
        ("\"failure_permille\": 500", "\"failure_permille\": 1001", "0 to 1000"),
        ("\"open_ms\": 10000", "\"open_ms\": 0", "open_ms"),
        ("\"backoff\": 0", "\"backoff\": 6", "backoff"),
        ("\"successes\": 3", "\"successes\": 0", "successes"),
        ("\"probe_ms\": 16000", "\"probe_ms\": 0", "probe_ms"),
        ("\"trip_reporters\": 2", "\"trip_reporters\": 0", "trip_reporters"),
        (SLOW, &adaptive(0, 600_000), "min_permille is 1"),
        (SLOW, &adaptive(500, 600_000), "below failure_permille"),
        (SLOW, &adaptive(50, 9_999), "at least the window"),
        (SLOW, &adaptive(50, 86_400_001), "at most a day"),
        ("\"failures\": 6", "\"failures\": 10", "some of the calls"),
    ] {
        let broken = ASKED.replacen(from, to, 1);
        assert_ne!(broken, ASKED, "{from}");
        let error = BreakersRequest::decode(broken.as_bytes()).expect_err(to);
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    let told = ASKED.replacen(SLOW, &adaptive(50, 600_000), 1);
    let told = BreakersRequest::decode(told.as_bytes()).expect("an adaptive one");
    let adaptive = Adaptive { min_permille: 50, over_ms: 600_000 };
    assert_eq!(told.breakers.reports[0].terms.adaptive, Some(adaptive));
    assert_eq!(BreakersRequest::decode(&encode(&told)).expect("the same"), told);
    let mut twice = message.clone();
    twice.breakers.reports.push(twice.breakers.reports[0].clone());
    let error = BreakersRequest::decode(&encode(&twice)).expect_err("twice");
    assert!(error.to_string().contains("each breaker once"), "{error}");
}

#[test]
fn an_answer() {
    let reply = BreakersReply::decode(REPLY.as_bytes(), id()).expect("the golden file is read");
    assert_eq!(normal(&encode(&reply)), normal(REPLY.as_bytes()));
    assert!(BreakersReply::decode(REPLY.as_bytes(), DecisionId::new(1)).is_err(), "to another");
    let names: Vec<&str> =
        reply.breakers.states.iter().map(|state| state.name.configured()).collect();
    assert_eq!(names, ["payments", "search"]);
    assert_eq!(BreakerName::new(&"a".repeat(201)), None);
}
