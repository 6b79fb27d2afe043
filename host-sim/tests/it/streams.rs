//! Streams: order of callbacks, which map is available when, headers, properties, trailers.

use crate::support::{Plugin, at, names, passes};

/// Traps unless the call has this status.
fn want(call: &str, status: i32) -> String {
    format!("(if (i32.ne (call {call}) (i32.const {status})) (then unreachable))")
}

const ONE_REQUEST: &str = "
timeline: [{ at: 0ms, client: a, address: \"2001:db8::1\", send: { path: \"/x?y=1\", headers: [[X-Two, a], [x-two, b], [x-bin, {hex: 61ff}]] } }]
expect: [{ client: a, status: 200 }, { no_log_at: error }";

fn scenario(name: &str, more: &str) -> String {
    format!(
        "name: {name}\nplugin: {{}}\nhost: {{ properties: {{ xds.node.locality.region: eu, limit: 5.0 }} }}{ONE_REQUEST}{more}]\n"
    )
}

#[test]
fn callbacks_come_in_envoys_order_with_log_before_done() {
    let plugin = Plugin::new().code(
        r#"(func (export "proxy_on_context_create") (param i32 i32))
           (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_log") (param i32))
           (func (export "proxy_on_done") (param i32) (result i32) (i32.const 0))
           (func (export "proxy_on_delete") (param i32))"#,
    );
    let report = passes(
        "name: order\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: { method: POST, body: abc } }]\nexpect: [{ client: a, status: 200, details: via_upstream }]",
        &plugin.build(),
    );
    let expected = [
        "context_create",
        "vm_start",
        "configure",
        "context_create",
        "request_headers",
        "request_body",
        "request_body",
        "response_headers",
        "response_body",
        "response_body",
        "log",
        "done",
        "delete",
    ];
    assert_eq!(names(&report), expected.map(|name| format!("proxy_on_{name}")));
    let vms: Vec<_> = report
        .trace
        .iter()
        .filter(|line| line.name == "proxy_on_configure")
        .map(|line| line.vm.as_str())
        .collect();
    assert_eq!(vms, ["canary", "main", "w0"]);
}

/// Envoy logs an answer over HTTP/3 once the client has acknowledged it, and no filter is told. Whoever leaves is logged at
/// once.
#[test]
fn over_http3_a_filter_is_told_of_the_log_only_of_who_left() {
    let mut plugin =
        Plugin::new().import("proxy_get_property", 4).import("proxy_get_header_map_value", 5);
    let details = plugin.data(b"response\0code_details");
    let status = plugin.data(b":status");
    let read = want(&format!("$proxy_get_property {} (i32.const 0) (i32.const 4)", at(details)), 0);
    let shut = format!(
        "$proxy_get_header_map_value (i32.const 2) {} (i32.const 0) (i32.const 4)",
        at(status)
    );
    let plugin = plugin
        .on_request_headers("(i32.const 0)")
        .code("(func (export \"proxy_on_log\") (param i32))")
        .code(&format!("(func (export \"proxy_on_delete\") (param i32) {read} {})", want(&shut, 2)))
        .build();
    let report = passes(
        "name: http3
plugin: {}
host: { http3: true }
upstream: [{ on: GET /slow, answer: 200, after: 1s }, { answer: 200 }]
timeline:
  - { at: 0ms, client: a, send: { path: /whole } }
  - { at: 10ms, client: b, send: { path: /slow } }
  - { at: 20ms, client: b, disconnect: true }
expect:
  - { client: a, status: 200, details: via_upstream }
  - { client: b, reset: true }
  - { no_log_at: error }",
        &plugin,
    );
    let told = names(&report);
    let told =
        told.iter().filter(|name| ["proxy_on_log", "proxy_on_delete"].contains(&name.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), ["proxy_on_delete", "proxy_on_log", "proxy_on_delete"]);
}

#[test]
fn request_headers_are_open_in_their_callback_shut_in_the_response_and_readable_in_the_log() {
    let mut plugin = Plugin::new()
        .import("proxy_get_header_map_value", 5)
        .import("proxy_get_header_map_pairs", 3)
        .import("proxy_replace_header_map_value", 5);
    let path = at(plugin.data(b":path"));
    let missing = at(plugin.data(b"x-none"));
    let out = "(i32.const 0) (i32.const 4)";
    let get = |map: u32, key: &str, status| {
        want(&format!("$proxy_get_header_map_value (i32.const {map}) {key} {out}"), status)
    };
    let set = |map: u32, status| {
        want(&format!("$proxy_replace_header_map_value (i32.const {map}) {path} {path}"), status)
    };
    let no_pairs = |map: u32| {
        format!(
            "{} (if (i32.load (i32.const 4)) (then unreachable))",
            want(&format!("$proxy_get_header_map_pairs (i32.const {map}) {out}"), 0)
        )
    };
    let request = [
        get(0, &path, 0),
        get(0, &missing, 1),
        get(2, &path, 2),
        get(1, &path, 2),
        get(6, &path, 2),
        no_pairs(2),
        set(2, 2),
    ]
    .concat();
    let response =
        [get(0, &path, 2), set(0, 2), no_pairs(0), get(2, &missing, 1), set(2, 0)].concat();
    let log = [get(0, &path, 0), get(2, &path, 0), get(3, &path, 1), set(0, 2)].concat();
    let plugin = plugin
        .on_request_headers(&format!("{request} (i32.const 0)"))
        .code(&format!("(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) {response} (i32.const 0))"))
        .code(&format!("(func (export \"proxy_on_log\") (param i32) {log})"));
    passes(
        &scenario("phases", ", { client: a, headers: { \":path\": \":path\" } }"),
        &plugin.build(),
    );
}

#[test]
fn writing_after_a_resume_is_bad_argument_although_the_stream_still_waits() {
    let mut plugin = Plugin::new()
        .import("proxy_continue_stream", 1)
        .import("proxy_replace_header_map_value", 5);
    let key = at(plugin.data(b"x-a"));
    let set = |status| {
        want(&format!("$proxy_replace_header_map_value (i32.const 0) {key} {key}"), status)
    };
    let plugin = plugin.on_request_headers(&format!(
        "{} (drop (call $proxy_continue_stream (i32.const 0))) {} (i32.const 0)",
        set(0),
        set(2)
    ));
    passes(
        &scenario("resume", ", { upstream_request: 1, headers: { x-a: x-a } }"),
        &plugin.build(),
    );
}

#[test]
fn a_value_is_the_first_of_its_name_and_pairs_are_all_and_bytes_survive() {
    let mut plugin = Plugin::new()
        .import("proxy_get_header_map_value", 5)
        .import("proxy_get_header_map_size", 2)
        .import("proxy_add_header_map_value", 5)
        .import("proxy_remove_header_map_value", 3);
    let two = at(plugin.data(b"X-TWO"));
    let bin = at(plugin.data(b"x-bin"));
    let copy = at(plugin.data(b"x-copy"));
    let size = want("$proxy_get_header_map_size (i32.const 0) (i32.const 8)", 0);
    let got = "(i32.load (i32.const 0)) (i32.load (i32.const 4))";
    let get = |key: &str| {
        want(
            &format!("$proxy_get_header_map_value (i32.const 0) {key} (i32.const 0) (i32.const 4)"),
            0,
        )
    };
    let add = want(&format!("$proxy_add_header_map_value (i32.const 0) {copy} {got}"), 0);
    let remove = want(&format!("$proxy_remove_header_map_value (i32.const 0) {two}"), 0);
    let code =
        [size, get(&two), add.clone(), get(&bin), add, remove, "(i32.const 0)".to_owned()].concat();
    let expect = ", { upstream_request: 1, headers: { x-two: { absent: true }, x-copy: { equals: [a, \", \", { hex: 61ff }] } } }";
    passes(&scenario("first", expect), &plugin.on_request_headers(&code).build());
}

#[test]
fn properties_come_from_the_stream_the_client_the_host_and_the_plugin() {
    let mut plugin = Plugin::new()
        .import("proxy_get_property", 4)
        .import("proxy_set_property", 4)
        .import("proxy_log", 3);
    let rows = [
        ("source\0address", "[2001:db8::1]:50000"),
        ("request\0path", "/x?y=1"),
        ("request\0url_path", "/x"),
        ("request\0query", "y=1"),
        ("request\0headers\0x-two", "a"),
        ("xds\0node\0locality\0region", "eu"),
        ("plugin_name", "plugin"),
        ("k1", "v1"),
        ("filter_state\0wasm.k1", "v1"),
    ];
    let mut code = String::new();
    let key = at(plugin.data(b"k1"));
    let value = at(plugin.data(b"v1"));
    code += &want(&format!("$proxy_set_property {key} {value}"), 0);
    for (path, _) in rows {
        let path = at(plugin.data(path.as_bytes()));
        code += &want(&format!("$proxy_get_property {path} (i32.const 0) (i32.const 4)"), 0);
        code += "(drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))";
    }
    for missing in ["node", "a\0b", "response\0code", "connection\0ja3"] {
        let path = at(plugin.data(missing.as_bytes()));
        code += &want(&format!("$proxy_get_property {path} (i32.const 0) (i32.const 4)"), 1);
    }
    let report = passes(
        &scenario("properties", ""),
        &plugin.on_request_headers(&format!("{code} (i32.const 0)")).build(),
    );
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(logged, rows.map(|(_, value)| value));
}

#[test]
fn a_client_that_leaves_ends_the_stream_and_the_answer_still_reaches_the_root() {
    let report = passes(
        "name: leaves
plugin: {}
gateway: [{ answer: 200, after: 20ms }]
timeline:
  - { at: 0ms, client: a, send: {} }
  - { at: 5ms, client: a, disconnect: true }
expect:
  - { client: a, reset: true, details: downstream_remote_disconnect, at: 5ms }
  - { upstream: requests, equals: 0 }
  - { no_log_at: error }",
        &crate::callouts::asking().code("(func (export \"proxy_on_log\") (param i32)) (func (export \"proxy_on_delete\") (param i32))").build(),
    );
    let tail = names(&report);
    let expected = ["proxy_on_log", "proxy_on_delete", "proxy_on_http_call_response"];
    let callbacks: Vec<_> = tail.iter().filter(|name| expected.contains(&name.as_str())).collect();
    assert_eq!(callbacks, expected.iter().collect::<Vec<_>>());
    let late = report
        .trace
        .iter()
        .find(|line| line.name == "proxy_on_http_call_response")
        .map(|line| (line.at_ns, line.context));
    assert_eq!(late, Some((20_000_000, 1)));
}

#[test]
fn a_stream_that_nobody_frees_is_seen_waiting() {
    let plugin = Plugin::new().on_request_headers("(i32.const 1)");
    passes(
        "name: hang\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, waiting: true }, { upstream: requests, equals: 0 }]",
        &plugin.build(),
    );
}

#[test]
fn a_closed_stream_is_a_reset() {
    let plugin = Plugin::new()
        .import("proxy_close_stream", 1)
        .on_request_headers("(drop (call $proxy_close_stream (i32.const 0))) (i32.const 0)");
    passes(
        "name: close\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, reset: true, details: wasm_close_stream }, { upstream: requests, equals: 0 }]",
        &plugin.build(),
    );
}
