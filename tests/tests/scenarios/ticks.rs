//! How often the filter is called by the clock, and what one call costs: to the call of the host, so that one more is a
//! decision. A worker of Envoy does nothing else meanwhile, and every configuration that drains ticks on.

use super::breakers_many::{calls_of, run};

const LIMIT: &str = "rate_limits: [{ name: l, by: ip, limit: 100, per: 1s }]";
const LEASE: &str = "rate_limits: [{ name: l, by: ip, limit: 100, per: 1s, decide: lease }]";
const BREAKER: &str = "circuit_breaker: {}";
const CLAIM: &str = "idempotency: { key: required, tenant: tenant, upstream_timeout: 10s, ephemeral: true, wait: 5s }";

/// The calls of the host within each tick of ten seconds.
fn ticks(document: &str, policy: &str, more: &str) -> Vec<usize> {
    let report = run(&format!(
        "name: ticks\n\
         plugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, {document}policies: [{{ name: p, match: {{ path: /p }}, {policy} }}] }} }}\n\
         host: {{ workers: 1, main: false, canary: false, allow_on_headers_stop_iteration: true, until: 10050ms }}\n\
         gateway: in-process\n{more}"
    ));
    let ticks = calls_of(&report, "proxy_on_tick");
    println!("{document}{policy}: {} ticks, {:?} calls", ticks.len(), ticks.iter().max());
    ticks
}

/// No request, and nothing to tell: how often it is called, and with how many calls of the host at most.
#[test]
fn a_filter_at_rest_is_called_as_seldom_as_its_policies_allow() {
    let tenant = "identities: { tenant: { header: x-tenant, trusted: true } }, ";
    for (document, policy, count, calls) in [
        ("", LIMIT, 0, 0),
        (tenant, CLAIM, 10, 0),
        ("audit: {}, ", LIMIT, 10, 1),
        ("", LEASE, 40, 4),
        ("", BREAKER, 40, 7),
    ] {
        let ticks = ticks(document, policy, "timeline: []\n");
        assert_eq!(ticks.len(), count, "{document}{policy}");
        // The first ones have something to tell.
        let most = ticks.iter().skip(2).max().copied().unwrap_or(0);
        assert_eq!(most, calls, "{document}{policy}: {ticks:?}");
    }
}

/// A request that waits for another's answer is looked after often, and for little.
#[test]
fn while_a_request_waits_its_tick_is_a_short_one_and_then_no_more() {
    let request = "send: { method: POST, path: /p, headers: { x-tenant: acme, idempotency-key: k }, body: m }";
    let timeline = format!(
        "upstream: [{{ answer: 201, after: 1s }}]\n\
         timeline:\n  - {{ at: 0ms, client: a, {request} }}\n  - {{ at: 10ms, client: b, {request} }}\n"
    );
    let tenant = "identities: { tenant: { header: x-tenant, trusted: true } }, ";
    let ticks = ticks(tenant, CLAIM, &timeline);
    // About a second of 10 to 25 ms each, and nine of one second.
    assert!((40..=110).contains(&ticks.len()), "{}", ticks.len());
    assert!(ticks.iter().all(|calls| *calls <= 6), "{ticks:?}");
    let at_rest = ticks.iter().rev().take_while(|calls| **calls == 0).count();
    assert!(at_rest >= 8, "{ticks:?}");
}
