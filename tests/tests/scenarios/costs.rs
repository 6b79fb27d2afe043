//! What a request costs inside Envoy once its key is known, in calls of the host: to the call, so that one
//! more is a decision. A call that hands something over is the dearest thing that a filter can do.

use std::fs;

use host_sim::in_process::services;
use tidegate_host_sim::{Scenario, Usage};
use tidegate_tests::parts;

use super::runner;

const REQUESTS: usize = 200;
const ROOMY: &str = "limit: 1000000, per: second";
/// More than an event takes: half a microsecond of a processor that does a few at once.
const EVENT_FUEL: u64 = 2_000;
/// What an admission inside Envoy takes, and what a denial there does, in instructions: no more without a decision.
const ADMISSION_FUEL: u64 = 12_200;
const DENIAL_FUEL: u64 = 20_500;
const TIGHT: &str = "limit: 100, per: 1000s";

/// The cheapest of the last requests of one client: between two looks at what its process holds.
fn busy(limit: &str, matches: &str) -> Usage {
    busy_in("", limit, matches)
}

/// The same with more in the document.
fn busy_in(document: &str, limit: &str, matches: &str) -> Usage {
    let yaml = format!(
        "name: costs\n\
         plugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, {document}policies: [{{ name: p, match: {{ {matches} }}, rate_limits: [{{ name: l, by: ip, {limit} }}] }}] }}\n\
         host: {{ workers: 1, main: false, canary: false, until: 1s }}\n\
         gateway: in-process\n\
         timeline:\n  - {{ at: 0ms, client: a, address: '192.0.2.1:1', times: {REQUESTS}, every: 1ms, send: {{ path: /p, headers: {{ user-agent: wrk, accept: '*/*', x-request-id: 8e3bd7c2-6a27-4b8e-9f7b-000000000001, x-forwarded-proto: http }} }} }}\n"
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    let last = (REQUESTS - 20..=REQUESTS).filter_map(|nth| report.exchange("a", nth));
    let usage = last.map(|sent| sent.usage).min_by_key(|usage| usage.fuel).expect("requests");
    println!("{document}{limit}, {matches}: {usage:?}");
    usage
}

/// `:path`, `source.address`, the clock, one counter, two fields of the response.
#[test]
fn an_admission_inside_envoy_is_six_calls() {
    let usage = busy(&format!("{ROOMY}, decide: lease"), "path: /**");
    assert_eq!((usage.host_calls, usage.allocations, usage.callouts), (6, 2, 0));
    assert!(usage.fuel <= ADMISSION_FUEL, "{}", usage.fuel);
}

/// What a policy looks at is read: the method by itself, with the host all in one.
#[test]
fn a_policy_that_looks_at_more_reads_no_more_than_that() {
    for (matches, calls, values) in [
        ("path: /**, methods: [GET]", 7, 3),
        ("path: /**, host: example.com, methods: [GET]", 7, 3),
        ("path: /**, headers: { user-agent: wrk }", 7, 3),
    ] {
        let usage = busy(&format!("{ROOMY}, decide: lease"), matches);
        assert_eq!((usage.host_calls, usage.allocations), (calls, values), "{matches}");
    }
}

/// The same without the fields; `content-type`, which tells gRPC; two counters, the note, the reply.
#[test]
fn a_denial_inside_envoy_is_eight_calls() {
    let usage = busy(&format!("{TIGHT}, decide: lease"), "path: /**");
    assert_eq!((usage.host_calls, usage.allocations, usage.callouts), (8, 2, 0));
    assert!(usage.fuel <= DENIAL_FUEL, "{}", usage.fuel);
}

/// Each of these requests is an event: recorded without a call of the host, and in few instructions.
#[test]
fn an_event_of_the_audit_is_no_call() {
    for (limit, calls) in [(ROOMY, 6), (TIGHT, 8)] {
        let limit = format!("{limit}, decide: lease");
        let without = busy(&limit, "path: /**");
        let with = busy_in("audit: { allows: 100% }, ", &limit, "path: /**");
        let counted = (with.host_calls, with.host_bytes, with.allocations, with.callouts);
        assert_eq!(counted, (calls, without.host_bytes, without.allocations, 0), "{limit}");
        let more = with.fuel - without.fuel;
        println!("an event more: {more} instructions");
        assert!(more < EVENT_FUEL, "{limit}: {more}");
    }
}

/// `:path`, `source.address`, three headers that are told, the callout; a counter, the resumption, two
/// fields. Its answer is the root's: headers, body, the stream.
#[test]
fn a_decision_of_the_gateway_is_ten_calls_and_those_of_its_answer() {
    let usage = busy(ROOMY, "path: /**");
    assert_eq!((usage.host_calls, usage.callouts), (10, 1));
    let usage = busy(TIGHT, "path: /**");
    assert_eq!((usage.host_calls, usage.callouts), (10, 1));
}
