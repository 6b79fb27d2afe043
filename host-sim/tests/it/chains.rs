//! Several filters in one chain, and new configurations while requests are under way.

use crate::support::{Plugin, at, names, passes, trace};

/// Sets `x-seen` by appending its plugin name to request and response, and pauses, replies or traps by its configuration.
fn appending() -> Vec<u8> {
    let mut plugin =
        Plugin::new().import("proxy_add_header_map_value", 5).import("proxy_get_property", 4);
    let name = at(plugin.data(b"plugin_name"));
    let key = at(plugin.data(b"x-seen"));
    let add = |map: u32| {
        format!(
            "(drop (call $proxy_get_property {name} (i32.const 0) (i32.const 4)))
             (drop (call $proxy_add_header_map_value (i32.const {map}) {key} (i32.load (i32.const 0)) (i32.load (i32.const 4))))
             (i32.const 0)"
        )
    };
    let (request, response) = (add(0), add(2));
    plugin
        .on_request_headers(&request)
        .code(&format!(
            "(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) {response})
             (func (export \"proxy_on_log\") (param i32))
             (func (export \"proxy_on_done\") (param i32) (result i32) (i32.const 1))"
        ))
        .build()
}

#[test]
fn requests_go_down_the_chain_responses_up_and_logs_down_again() {
    let report = passes(
        "name: chain
plugins: [{ name: a, vm_id: one }, { name: b, vm_id: two }]
timeline: [{ at: 0ms, client: c, send: {} }]
expect: [{ client: c, status: 200 }]",
        &appending(),
    );
    let seen = |headers: &tidegate_host_sim::HeaderMap| {
        headers.all("x-seen").map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(seen(&report.calls[0].request.headers), [b"a", b"b"]);
    assert_eq!(seen(&report.exchanges[0].headers), [b"b", b"a"]);
    let callbacks: Vec<_> =
        names(&report).into_iter().filter(|name| name.starts_with("proxy_on_")).collect();
    assert_eq!(
        callbacks,
        [
            "proxy_on_request_headers",
            "proxy_on_request_headers",
            "proxy_on_response_headers",
            "proxy_on_response_headers",
            "proxy_on_log",
            "proxy_on_log",
            "proxy_on_done",
            "proxy_on_done"
        ]
    );
}

/// Plugins of one code, `vm_id` and `vm_config` live in one VM and count contexts together.
#[test]
fn a_vm_id_is_shared_and_another_is_not() {
    let yaml = |second: &str| {
        format!(
            "name: shared
plugins: [{{ name: a, vm_id: one }}, {{ name: b, vm_id: {second} }}]
timeline: [{{ at: 0ms, client: c, send: {{}} }}]
expect: [{{ client: c, status: 200 }}]"
        )
    };
    let contexts = |second: &str| {
        let report = passes(&yaml(second), &appending());
        report
            .trace
            .iter()
            .filter(|line| line.name == "proxy_on_request_headers")
            .map(|line| line.context)
            .collect::<Vec<_>>()
    };
    assert_eq!(contexts("one"), [3, 4]);
    assert_eq!(contexts("two"), [2, 2]);
}

#[test]
fn a_disabled_filter_sees_nothing() {
    let report = passes(
        "name: disabled
plugins: [{ name: a, disabled: true }, { name: b }]
timeline: [{ at: 0ms, client: c, send: {} }]
expect: [{ client: c, status: 200, headers: { x-seen: b } }]",
        &appending(),
    );
    assert_eq!(report.calls[0].request.headers.all("x-seen").count(), 1);
}

/// Traps on every request that has the header `x-trap`.
fn trapping() -> Vec<u8> {
    let mut plugin = Plugin::new().import("proxy_get_header_map_value", 5);
    let key = at(plugin.data(b"x-trap"));
    plugin
        .on_request_headers(&format!(
            "(if (i32.eqz (call $proxy_get_header_map_value (i32.const 0) {key} (i32.const 0) (i32.const 4))) (then unreachable)) (i32.const 0)"
        ))
        .build()
}

#[test]
fn each_fail_policy_treats_the_one_that_traps_and_the_next_in_its_own_way() {
    let rows = [("FAIL_CLOSED", 503, 503), ("FAIL_OPEN", 503, 200), ("fail_open", 200, 200)];
    for (policy, trapped, next) in rows {
        passes(
            &format!(
                "name: {policy}
plugin: {{ fail_policy: {policy} }}
timeline:
  - {{ at: 0ms, client: a, send: {{ headers: {{ x-trap: '1' }} }} }}
  - {{ at: 9s, client: b, send: {{}} }}
expect:
  - {{ client: a, status: {trapped} }}
  - {{ client: b, status: {next} }}"
            ),
            &trapping(),
        );
    }
}

/// What a filter before the dead one does with the 503 still happens.
#[test]
fn a_failed_streams_503_goes_through_the_living_filters() {
    let wasm = appending_and_trapping();
    passes(
        "name: failed
plugins: [{ name: a, vm_id: one }, { name: trap, vm_id: two }]
timeline: [{ at: 0ms, client: c, send: {} }]
expect: [{ client: c, status: 503, body: '', details: wasm_fail_stream, headers: { x-seen: a } }, { upstream: requests, equals: 0 }]",
        &wasm,
    );
}

/// As `appending`, but a plugin whose name has four letters traps.
fn appending_and_trapping() -> Vec<u8> {
    let mut plugin =
        Plugin::new().import("proxy_add_header_map_value", 5).import("proxy_get_property", 4);
    let name = at(plugin.data(b"plugin_name"));
    let key = at(plugin.data(b"x-seen"));
    plugin
        .on_request_headers(&format!(
            "(drop (call $proxy_get_property {name} (i32.const 0) (i32.const 4)))
             (if (i32.eq (i32.load (i32.const 4)) (i32.const 4)) (then unreachable)) (i32.const 0)"
        ))
        .code(&format!(
            "(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32)
               (drop (call $proxy_get_property {name} (i32.const 0) (i32.const 4)))
               (drop (call $proxy_add_header_map_value (i32.const 2) {key} (i32.load (i32.const 0)) (i32.load (i32.const 4))))
               (i32.const 0))"
        ))
        .build()
}

/// Answers every request with its configuration; a configuration of three bytes is refused.
fn answering() -> Vec<u8> {
    Plugin::new()
        .import("proxy_get_buffer_bytes", 5)
        .import("proxy_send_local_response", 8)
        .code(
            "(global $ptr (mut i32) (i32.const 0)) (global $len (mut i32) (i32.const 0))
             (func (export \"proxy_on_configure\") (param $root i32) (param $size i32) (result i32)
               (drop (call $proxy_get_buffer_bytes (i32.const 7) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 4)))
               (global.set $ptr (i32.load (i32.const 0))) (global.set $len (i32.load (i32.const 4)))
               (i32.ne (local.get $size) (i32.const 3)))
             (func (export \"proxy_on_done\") (param i32) (result i32) (i32.const 1))
             (func (export \"proxy_on_delete\") (param i32))",
        )
        .on_request_headers(
            "(drop (call $proxy_send_local_response (i32.const 200) (i32.const 0) (i32.const 0) (global.get $ptr) (global.get $len) (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)",
        )
        .build()
}

#[test]
fn an_update_takes_new_requests_a_refused_one_changes_nothing_and_the_old_root_drains() {
    let report = passes(
        "name: update
plugin: { name: a, config: first }
host: { drain: 100ms, until: 1s }
timeline:
  - { at: 0ms, client: a, send: {} }
  - { at: 10ms, update: { config: bad } }
  - { at: 20ms, client: a, send: {} }
  - { at: 30ms, update: { plugin: a, config: other } }
  - { at: 40ms, client: a, send: {} }
expect:
  - { client: a, request: 1, body: first }
  - { client: a, request: 2, body: first }
  - { client: a, request: 3, body: other }
  - { metric: lds.update_rejected, equals: 1 }
  - { metric: lds.update_success, equals: 1 }",
        &answering(),
    );
    let ended: Vec<_> = report
        .trace
        .iter()
        .filter(|line| line.name == "proxy_on_delete" && line.at_ns == 130_000_000)
        .map(|line| (line.vm.as_str(), line.context))
        .collect();
    assert_eq!(ended, [("main", 1), ("w0", 1)], "{}", trace(&report));
}

#[test]
fn a_buffer_over_the_limit_is_413_or_500() {
    let pausing_body = |callback: &str| {
        Plugin::new()
            .code(&format!(
                "(func (export \"{callback}\") (param i32 i32 i32) (result i32) (i32.const 1))"
            ))
            .build()
    };
    passes(
        "name: request
plugin: {}
host: { buffer_limit: 1KiB }
timeline: [{ at: 0ms, client: a, send: { method: POST, body: { zeros: 5000 } } }]
expect: [{ client: a, status: 413, details: request_payload_too_large }]",
        &pausing_body("proxy_on_request_body"),
    );
    let with_headers = Plugin::new()
        .code(
            "(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) (i32.const 1))
             (func (export \"proxy_on_response_body\") (param i32 i32 i32) (result i32) (i32.const 1))",
        )
        .build();
    passes(
        "name: response
plugin: {}
host: { buffer_limit: 1KiB, allow_on_headers_stop_iteration: true }
upstream: [{ answer: { status: 200, body: { zeros: 5000 } } }]
timeline: [{ at: 0ms, client: a, send: {} }]
expect: [{ client: a, status: 500, details: response_payload_too_large }]",
        &with_headers,
    );
}

#[test]
fn an_early_upstream_answers_before_the_body_and_in_pieces() {
    passes(
        "name: early
plugin: {}
upstream: [{ early: true, after: 5ms, answer: { status: 200, chunks: [{ data: a }, { after: 10ms, data: b }] } }]
timeline: [{ at: 0ms, client: a, send: { method: POST, chunks: [{ data: x }, { after: 100ms, data: y }] } }]
expect: [{ client: a, status: 200, body: ab, at: 15ms }, { upstream_request: 1, body: x, at: 0ms }]",
        &Plugin::new().build(),
    );
}

#[test]
fn a_chain_needs_names_and_not_both_spellings() {
    let error =
        |yaml: &str| tidegate_host_sim::Scenario::parse(yaml).expect_err("it is wrong").to_string();
    assert!(error("name: x\n").contains("plugin: missing"));
    assert!(error("name: x\nplugin: {}\nplugins: [{}]\n").contains("exclude each other"));
    assert!(error("name: x\nplugins: [{}, {}]\n").contains("plugins[1].name"));
    let update = "name: x\nplugins: [{ name: a }, { name: b }]\ntimeline: [{ at: 0ms, update: { plugin: c, config: x } }]\n";
    assert!(error(update).contains("none of a, b"));
}
