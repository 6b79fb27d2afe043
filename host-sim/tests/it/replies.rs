//! Local replies: from which callback, through which callbacks, and what the client gets.

use crate::support::{Plugin, at, names, passes, run};

/// A call that sends 429 with a body, a header and details.
fn reply(plugin: &mut Plugin) -> String {
    let details = at(plugin.data(b"policy rate limited"));
    let body = at(plugin.data(b"slow down"));
    let headers = at(plugin.map(&[("retry-after", "12")]));
    format!(
        "(drop (call $proxy_send_local_response (i32.const 429) {details} {body} {headers} (i32.const -1)))"
    )
}

fn callback(name: &str, params: usize, body: &str) -> String {
    let params = "i32 ".repeat(params);
    format!("(func (export \"{name}\") (param {params}) (result i32) {body})")
}

#[test]
fn a_reply_from_request_headers_stops_whatever_is_returned_and_runs_through_the_response_callbacks()
{
    let mut plugin = Plugin::new()
        .import("proxy_send_local_response", 8)
        .import("proxy_add_header_map_value", 5);
    let reply = reply(&mut plugin);
    let own = at(plugin.data(b"x-own"));
    let plugin = plugin
        .on_request_headers(&format!("{reply} (i32.const 0)"))
        .code(&callback(
            "proxy_on_response_headers",
            3,
            &format!("(call $proxy_add_header_map_value (i32.const 2) {own} {own})"),
        ))
        .code(&callback("proxy_on_response_body", 3, "(i32.const 0)"));
    let report = passes(
        "name: reply
plugin: {}
timeline: [{ at: 0ms, client: a, send: {} }, { at: 1ms, client: b, send: { method: POST, body: abc } }]
expect:
  - { client: a, status: 429, body: slow down, details: policy_rate_limited }
  - { client: a, headers: { retry-after: 12, content-length: 9, content-type: text/plain, x-own: x-own, connection: { absent: true } } }
  - { client: b, status: 429, headers: { connection: close } }
  - { upstream: requests, equals: 0 }",
        &plugin.build(),
    );
    let of_a: Vec<_> = names(&report).into_iter().take(5).collect();
    let expected = [
        "proxy_on_request_headers",
        "proxy_send_local_response",
        "proxy_on_response_headers",
        "proxy_add_header_map_value",
        "proxy_on_response_body",
    ];
    assert_eq!(of_a, expected);
}

#[test]
fn a_reply_from_response_headers_replaces_the_answer_without_more_callbacks() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    let plugin = plugin
        .code(&callback("proxy_on_response_headers", 3, &format!("{reply} (i32.const 0)")))
        .code(&callback("proxy_on_response_body", 3, "unreachable"));
    passes(
        "name: replaced\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 429, body: slow down }, { upstream: requests, equals: 1 }, { no_log_at: error }]",
        &plugin.build(),
    );
}

#[test]
fn a_reply_after_the_headers_went_out_cuts_the_response() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    let plugin =
        plugin.code(&callback("proxy_on_response_body", 3, &format!("{reply} (i32.const 0)")));
    passes(
        "name: cut\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200, reset: true, body: \"\" }]",
        &plugin.build(),
    );
}

#[test]
fn of_two_replies_the_second_wins() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    let second = "(drop (call $proxy_send_local_response (i32.const 418) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1)))";
    let plugin = plugin.on_request_headers(&format!("{reply} (i32.const 1)")).code(&callback(
        "proxy_on_response_headers",
        3,
        &format!("{second} (i32.const 0)"),
    ));
    passes(
        "name: twice\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 418, body: \"\" }]",
        &plugin.build(),
    );
}

#[test]
fn a_grpc_client_gets_its_own_kind_of_reply() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    passes(
        "name: grpc
plugin: {}
timeline: [{ at: 0ms, client: a, send: { method: POST, headers: { content-type: application/grpc } } }]
expect: [{ client: a, status: 200, headers: { grpc-status: 14, grpc-message: slow down }, body: \"\" }]",
        &plugin.on_request_headers(&format!("{reply} (i32.const 1)")).build(),
    );
}

#[test]
fn a_reply_from_on_log_fails_the_run_because_it_kills_envoy() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    let plugin = plugin.code(&format!("(func (export \"proxy_on_log\") (param i32) {reply})"));
    let report = run(
        "name: log\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }, { at: 9ms, client: b, send: {} }]",
        &plugin.build(),
    );
    assert!(!report.passed());
    assert!(report.to_string().contains("Envoy's whole process crashes"), "{report}");
    assert!(report.exchange("b", 1).is_some_and(|exchange| exchange.status.is_none()));
}

#[test]
fn bad_reply_headers_are_dropped_in_silence() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let broken = at(plugin.data(&[9, 0, 0, 0, 1, 2, 3]));
    let plugin = plugin.on_request_headers(&format!(
        "(drop (call $proxy_send_local_response (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) {broken} (i32.const -1))) (i32.const 1)"
    ));
    let report = passes(
        "name: bad\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 403 }]",
        &plugin.build(),
    );
    let headers = report.exchanges[0].headers.pairs();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, [b":status".as_slice(), b"date", b"server", b"content-length"]);
}

#[test]
fn after_a_reply_the_rest_of_the_request_is_not_shown_even_while_the_reply_waits() {
    let mut plugin = Plugin::new().import("proxy_send_local_response", 8);
    let reply = reply(&mut plugin);
    let plugin = plugin
        .on_request_headers(&format!("{reply} (i32.const 0)"))
        .code(&callback("proxy_on_response_headers", 3, "(i32.const 1)"))
        .code(&callback("proxy_on_request_body", 3, "unreachable"));
    passes(
        "name: rest
plugin: {}
timeline: [{ at: 0ms, client: a, send: { method: POST, chunks: [{ after: 5ms, data: abc }] } }]
expect: [{ client: a, waiting: true }, { upstream: requests, equals: 0 }, { no_log_at: error }]",
        &plugin.build(),
    );
}
