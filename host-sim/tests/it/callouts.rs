//! A filter that pauses on a callout: every answer a gateway can give, and what becomes of the request.

use crate::support::{Plugin, at, passes, trace};

/// Pauses in request headers, asks `gateway` with a timeout of 50 ms, and copies the answer's `:status` into the request
/// header `x-verdict` before it resumes. No headers at all become the verdict `none`.
pub fn asking() -> Plugin {
    let mut plugin = Plugin::new()
        .import("proxy_http_call", 10)
        .import("proxy_continue_stream", 1)
        .import("proxy_set_effective_context", 1)
        .import("proxy_get_header_map_value", 5)
        .import("proxy_replace_header_map_value", 5)
        .import("proxy_send_local_response", 8);
    let cluster = at(plugin.data(b"gateway"));
    let headers =
        at(plugin.map(&[(":method", "POST"), (":path", "/v1/decide"), (":authority", "gateway")]));
    let body = at(plugin.data(br#"{"id":"d-1","limits":[{"limit":5}]}"#));
    let status = at(plugin.data(b":status"));
    let verdict = at(plugin.data(b"x-verdict"));
    let none = at(plugin.data(b"none"));
    let details = at(plugin.data(b"callout_refused"));
    plugin
        .code("(global $waiting (mut i32) (i32.const 0))")
        .on_request_headers(&format!(
            "(global.set $waiting (local.get $context))
             (if (call $proxy_http_call {cluster} {headers} {body} (i32.const 0) (i32.const 0) (i32.const 50) (i32.const 0))
               (then (drop (call $proxy_send_local_response (i32.const 500) {details} (i32.const 0) (i32.const 0)
                 (i32.const 0) (i32.const 0) (i32.const -1)))))
             (i32.const 1)"
        ))
        .code(&format!(
            "(func (export \"proxy_on_http_call_response\") (param $root i32) (param $token i32) (param $headers i32) (param $size i32) (param $trailers i32)
               (if (call $proxy_get_header_map_value (i32.const 6) {status} (i32.const 16) (i32.const 20))
                 (then (i32.store (i32.const 16) (i32.const {none_ptr})) (i32.store (i32.const 20) (i32.const 4))))
               ;; A stream that is gone meanwhile is no context any more.
               (if (i32.eqz (call $proxy_set_effective_context (global.get $waiting)))
                 (then
                   (drop (call $proxy_replace_header_map_value (i32.const 0) {verdict} (i32.load (i32.const 16)) (i32.load (i32.const 20))))
                   (drop (call $proxy_continue_stream (i32.const 0))))))",
            none_ptr = none.split(')').next().unwrap().trim_start_matches("(i32.const ")
        ))
}

fn scenario(rule: &str, expect: &str) -> String {
    format!(
        "name: callout
plugin: {{}}
clusters: [gateway]
gateway: [{rule}]
timeline:
  - {{ at: 10ms, client: a, send: {{ path: /x }} }}
expect:
{expect}
"
    )
}

#[test]
fn an_answer_frees_the_paused_request_when_it_comes() {
    let report = passes(
        &scenario(
            "{ on: POST /v1/decide, answer: 200, after: 20ms }",
            "  - { client: a, status: 200, body: ok, at: 30ms, sent_callouts: 1 }
  - { upstream: requests, equals: 1 }
  - { upstream_request: 1, headers: { x-verdict: 200, :path: /x }, at: 30ms }
  - { callout: 1, cluster: gateway, headers: { x-envoy-expected-rq-timeout-ms: 50 }, body: { json: { /id: d-1 } }, at: 10ms }
  - { no_log_at: warn }",
        ),
        &asking().build(),
    );
    let trace = trace(&report);
    assert!(
        trace.contains("proxy_http_call gateway POST /v1/decide 35 bytes, 50 ms -> Ok"),
        "{trace}"
    );
    assert!(
        trace.contains("proxy_on_http_call_response token 4, 3 headers, 0 bytes, 0 trailers"),
        "{trace}"
    );
}

#[test]
fn faults_look_like_answers_as_in_envoy() {
    let rows = [
        ("fault: refused", "503", "10ms"),
        ("fault: timeout", "504", "60ms"),
        ("answer: 200, after: 50ms", "504", "60ms"),
        ("answer: 200, after: 49ms", "200", "59ms"),
        ("fault: garbage, after: 1ms", "502", "11ms"),
        ("fault: reset_before_headers", "503", "10ms"),
        ("fault: reset_after_headers", "none", "10ms"),
    ];
    for (rule, verdict, at) in rows {
        let expect =
            format!("  - {{ upstream_request: 1, headers: {{ x-verdict: {verdict} }}, at: {at} }}");
        passes(&scenario(&format!("{{ {rule} }}"), &expect), &asking().build());
    }
}

#[test]
fn a_cluster_that_cannot_take_the_call_refuses_at_once() {
    for fault in ["no_hosts", "overflow"] {
        let report = passes(
            &scenario(
                &format!("{{ fault: {fault} }}"),
                "  - { client: a, status: 500, at: 10ms, details: callout_refused }
  - { upstream: requests, equals: 0 }",
            ),
            &asking().build(),
        );
        assert!(trace(&report).contains("-> InternalFailure"), "{}", trace(&report));
    }
    let unknown = scenario(
        "{ answer: 200 }",
        "  - { client: a, status: 500 }\n  - { callouts: requests, equals: 0 }",
    );
    let report =
        passes(&unknown.replace("clusters: [gateway]", "clusters: [other]"), &asking().build());
    assert!(trace(&report).contains("-> BadArgument"), "{}", trace(&report));
}

#[test]
fn after_a_reset_the_status_stays_11_and_only_its_message_goes() {
    let mut plugin = Plugin::new()
        .import("proxy_http_call", 10)
        .import("proxy_get_status", 3)
        .import("proxy_log", 3);
    let cluster = at(plugin.data(b"gateway"));
    let headers = at(plugin.map(&[(":method", "GET"), (":path", "/"), (":authority", "gateway")]));
    let none = "(i32.const 0) (i32.const 0)";
    let plugin = plugin
        .on_request_headers(&format!(
            "(call $proxy_http_call {cluster} {headers} {none} {none} (i32.const 50) (i32.const 0))"
        ))
        .code(
            "(func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
               (if (call $proxy_get_status (i32.const 8) (i32.const 0) (i32.const 4)) (then unreachable))
               (i32.store8 (i32.const 12) (i32.add (i32.const 65) (i32.load (i32.const 8))))
               (drop (call $proxy_log (i32.const 2) (i32.const 12) (i32.const 1)))
               (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))",
        );
    let report = passes(
        "name: status
plugin: {}
gateway: [{ fault: refused, times: 1 }, { fault: reset_after_headers, times: 1 }, { answer: 200 }]
timeline: [{ at: 0ms, client: a, send: {}, times: 3, every: 1ms }]
expect: [{ no_log_at: error }]",
        &plugin.build(),
    );
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
    // A letter for the code: A is 0, L is 11.
    assert_eq!(logged, ["A", "", "L", "reset", "L", ""]);
}
