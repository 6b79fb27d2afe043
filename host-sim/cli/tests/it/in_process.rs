//! The gateway's library in virtual time: real routes, real decisions, and no other time than the simulator's.

use host_sim::in_process::InProcess;
use serde_json::{Value, json};
use tidegate_host_sim::{Answer, HeaderMap, Outcome, Service, ServiceRequest};

/// 2026-01-01.
const START_NS: u64 = 1_767_225_600_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

fn gateway(flags: &[&str]) -> InProcess {
    let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    InProcess::new(&flags).unwrap_or_else(|error| panic!("{error}"))
}

fn ask(gateway: &mut InProcess, at_ns: u64, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut map = HeaderMap::default();
    for (name, value) in headers {
        map.add(name.as_bytes(), *value);
    }
    let request = ServiceRequest { headers: map, body: body.to_vec(), ..ServiceRequest::default() };
    match gateway.call(at_ns, &request).outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Fault(fault) => panic!("{fault:?}"),
    }
}

/// One unit of one limit of two in ten seconds.
fn decide(gateway: &mut InProcess, at_ns: u64) -> Value {
    let message = json!({
        "v": 1,
        "id": "00000000-0000-8000-8000-000000000001",
        "scope": { "region": null, "environment": "default", "tenant": null, "key_format": 1 },
        "timeout_ms": 45,
        "limits": [{
            "id": "p.l", "subject": { "kind": "ip", "name": "203.0.113.9" },
            "limit": 2, "period_us": 10_000_000, "burst": 2, "cost": 1,
        }],
    });
    let headers = [(":method", "POST"), (":path", "/v1/decide"), (":authority", "gateway")];
    let answer = ask(gateway, at_ns, &headers, message.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.headers.text("x-tidegate-gateway").as_deref(), Some("v1"));
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn a_limit_comes_back_when_the_simulators_time_has_passed() {
    let mut gateway = gateway(&[]);
    let verdicts: Vec<_> = [0, 0, 0, 4, 5, 5]
        .map(|second| decide(&mut gateway, START_NS + second * SECOND_NS)["verdict"].clone())
        .into();
    assert_eq!(verdicts, ["allow", "allow", "deny", "deny", "allow", "deny"]);
    let denied = decide(&mut gateway, START_NS + 7 * SECOND_NS);
    assert_eq!(denied["limits"][0]["retry_us"], 3_000_000);
}

#[test]
fn what_the_gateway_refuses_over_http_it_refuses_here() {
    let mut gateway = gateway(&[]);
    for (method, path, status) in
        [("GET", "/v1/decide", 405), ("POST", "/v2/decide", 404), ("POST", "/v1/decide", 400)]
    {
        let headers = [(":method", method), (":path", path)];
        assert_eq!(ask(&mut gateway, START_NS, &headers, b"{}").status, status, "{method} {path}");
    }
    let odd = [(":method", "POST"), (":path", "/v1/decide"), ("a b", "c")];
    let answer = ask(&mut gateway, START_NS, &odd, b"{}");
    assert_eq!((answer.status, answer.headers.text("x-tidegate-gateway")), (400, None));
}

#[test]
fn its_flags_are_the_gateways_own() {
    let mut staging = gateway(&["--environment=staging"]);
    let message = json!({
        "v": 1, "id": "00000000-0000-8000-8000-000000000001", "timeout_ms": 45,
        "scope": { "region": null, "environment": "default", "tenant": null, "key_format": 1 },
        "limits": [{
            "id": "p.l", "subject": { "kind": "ip", "name": "203.0.113.9" },
            "limit": 2, "period_us": 10_000_000, "burst": 2, "cost": 1,
        }],
    });
    let headers = [(":method", "POST"), (":path", "/v1/decide")];
    assert_eq!(ask(&mut staging, START_NS, &headers, message.to_string().as_bytes()).status, 409);
    assert!(InProcess::new(&["--no-such-flag".to_owned()]).is_err());
}
