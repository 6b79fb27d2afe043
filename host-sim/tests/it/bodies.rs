//! Bodies and trailers: what each pause holds back, what the next callback sees, what a resume lets go.

use tidegate_host_sim::Report;

use crate::support::{Plugin, at, passes};

/// A plugin that returns fixed actions from its request callbacks; the body action changes at the end of the body.
fn pausing(headers: u32, body: u32, body_at_end: u32) -> Plugin {
    Plugin::new().on_request_headers(&format!("(i32.const {headers})")).code(&format!(
        "(func (export \"proxy_on_request_body\") (param $c i32) (param $size i32) (param $end i32) (result i32)
           (select (i32.const {body_at_end}) (i32.const {body}) (local.get $end)))"
    ))
}

/// Two pieces of 4 bytes, 10 ms apart.
fn chunked(flag: bool, more: &str) -> String {
    format!(
        "name: chunked
plugin: {{}}
host: {{ allow_on_headers_stop_iteration: {flag} }}
timeline: [{{ at: 0ms, client: a, send: {{ method: POST, chunks: [{{ data: aaaa }}, {{ after: 10ms, data: bbbb }}] }} }}]
expect:
{more}"
    )
}

fn body_callbacks(report: &Report) -> Vec<String> {
    report
        .trace
        .iter()
        .filter(|line| line.name == "proxy_on_request_body")
        .map(|line| line.args.clone())
        .collect()
}

#[test]
fn without_a_pause_each_callback_sees_its_own_piece() {
    let report = passes(
        &chunked(false, "  - { upstream_request: 1, body: aaaabbbb, at: 0ms }"),
        &pausing(0, 0, 0).build(),
    );
    assert_eq!(
        body_callbacks(&report),
        ["4 bytes, end=false", "4 bytes, end=false", "0 bytes, end=true"]
    );
}

#[test]
fn a_buffering_pause_shows_what_has_gathered() {
    let report = passes(
        &chunked(false, "  - { upstream_request: 1, body: aaaabbbb }"),
        &pausing(0, 1, 0).build(),
    );
    assert_eq!(
        body_callbacks(&report),
        ["4 bytes, end=false", "8 bytes, end=false", "8 bytes, end=true"]
    );
}

#[test]
fn a_watermark_pause_holds_but_shows_only_the_new_piece() {
    let report = passes(
        &chunked(false, "  - { upstream_request: 1, body: aaaabbbb }"),
        &pausing(0, 2, 0).build(),
    );
    assert_eq!(
        body_callbacks(&report),
        ["4 bytes, end=false", "4 bytes, end=false", "0 bytes, end=true"]
    );
}

#[test]
fn a_pause_without_buffer_drops_the_piece() {
    let report = passes(
        &chunked(false, "  - { upstream_request: 1, body: \"\" }"),
        &pausing(0, 3, 0).build(),
    );
    assert_eq!(body_callbacks(&report).len(), 3);
    // Any higher number means the same.
    passes(&chunked(false, "  - { upstream_request: 1, body: \"\" }"), &pausing(0, 9, 0).build());
}

#[test]
fn without_the_flag_a_pause_in_headers_hides_the_body_for_ever() {
    let report =
        passes(&chunked(false, "  - { client: a, waiting: true }"), &pausing(1, 0, 0).build());
    assert!(body_callbacks(&report).is_empty());
}

#[test]
fn with_the_flag_headers_wait_until_the_body_was_seen() {
    let report = passes(
        &chunked(
            true,
            "  - { upstream: requests, equals: 1 }\n  - { upstream_request: 1, body: aaaabbbb, at: 10ms }",
        ),
        &pausing(1, 1, 0).build(),
    );
    assert_eq!(
        body_callbacks(&report),
        ["4 bytes, end=false", "8 bytes, end=false", "8 bytes, end=true"]
    );
}

#[test]
fn with_the_flag_stop_all_still_hides_the_body_and_two_is_continue() {
    for (action, waits) in [(3, true), (4, true), (200, true), (2, false)] {
        let expect = format!("  - {{ client: a, waiting: {waits} }}");
        let report = passes(&chunked(true, &expect), &pausing(action, 0, 0).build());
        assert_eq!(body_callbacks(&report).is_empty(), waits, "{action}");
    }
}

#[test]
fn with_the_flag_a_continue_in_the_body_lets_the_request_past_its_callout() {
    // Envoy's own trap: the filter thinks that it waits for the gateway.
    passes(
        "name: bypass
plugin: {}
host: { allow_on_headers_stop_iteration: true }
gateway: [{ answer: 403, after: 40ms }]
timeline: [{ at: 0ms, client: a, send: { method: POST, body: abc } }]
expect:
  - { upstream_request: 1, body: abc, at: 0ms }
  - { client: a, status: 200, at: 0ms }",
        &crate::callouts::asking()
            .code("(func (export \"proxy_on_request_body\") (param i32 i32 i32) (result i32) (i32.const 0))")
            .build(),
    );
}

#[test]
fn a_resume_after_stop_all_brings_the_held_body_to_the_filter_in_one_piece() {
    let report = passes(
        "name: held
plugin: {}
gateway: [{ answer: 200, after: 40ms }]
timeline: [{ at: 0ms, client: a, send: { method: POST, chunks: [{ data: aaaa }, { after: 10ms, data: bbbb }] } }]
expect:
  - { upstream_request: 1, body: aaaabbbb, at: 40ms, headers: { x-verdict: 200 } }",
        &crate::callouts::asking()
            .code("(func (export \"proxy_on_request_body\") (param i32 i32 i32) (result i32) (i32.const 0))")
            .build(),
    );
    assert_eq!(body_callbacks(&report), ["8 bytes, end=true"]);
}

#[test]
fn trailers_come_instead_of_the_end_of_the_body_and_can_hold_it() {
    let text = |expect: &str| {
        format!(
            "name: trailers
plugin: {{}}
timeline: [{{ at: 0ms, client: a, send: {{ method: POST, body: abc, trailers: {{ x-t: 1 }} }} }}]
expect: [{expect}]"
        )
    };
    let trailers = |action: u32| {
        pausing(0, 1, 0)
            .code(&format!("(func (export \"proxy_on_request_trailers\") (param i32 i32) (result i32) (i32.const {action}))"))
            .build()
    };
    let report = passes(&text("{ upstream_request: 1, body: abc }"), &trailers(0));
    assert_eq!(body_callbacks(&report), ["3 bytes, end=false"]);
    passes(&text("{ client: a, waiting: true }"), &trailers(1));
}

#[test]
fn a_trailer_written_at_the_end_of_a_body_makes_trailers() {
    let mut plugin = Plugin::new().import("proxy_add_header_map_value", 5);
    let key = at(plugin.data(b"x-t"));
    let plugin = plugin.code(&format!(
        "(func (export \"proxy_on_request_body\") (param $c i32) (param $size i32) (param $end i32) (result i32)
           (if (i32.ne (call $proxy_add_header_map_value (i32.const 1) {key} {key})
                       (select (i32.const 0) (i32.const 2) (local.get $end)))
             (then unreachable))
           (i32.const 0))"
    ));
    let report = passes(
        &chunked(false, "  - { upstream_request: 1, body: aaaabbbb }\n  - { no_log_at: error }"),
        &plugin.build(),
    );
    assert_eq!(report.calls[0].request.trailers.text("x-t").as_deref(), Some("x-t"));
}

#[test]
fn a_body_can_be_rewritten_on_its_way() {
    let mut plugin = Plugin::new().import("proxy_set_buffer_bytes", 5);
    let new = at(plugin.data(b"new"));
    let rewrite = |name: &str, buffer: u32| {
        format!(
            "(func (export \"{name}\") (param $c i32) (param $size i32) (param $end i32) (result i32)
               (if (local.get $end) (then (if (call $proxy_set_buffer_bytes (i32.const {buffer}) (i32.const 0) (local.get $size) {new}) (then unreachable))))
               (i32.eqz (local.get $end)))"
        )
    };
    let plugin = plugin
        .code(&rewrite("proxy_on_request_body", 0))
        .code(&rewrite("proxy_on_response_body", 1));
    passes(
        &chunked(
            false,
            "  - { upstream_request: 1, body: new }\n  - { client: a, status: 200, body: new }",
        ),
        &plugin.build(),
    );
}

#[test]
fn response_headers_and_body_are_held_until_the_end_with_the_flag() {
    let plugin = Plugin::new().code(
        "(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) (i32.const 1))
         (func (export \"proxy_on_response_body\") (param $c i32) (param $s i32) (param $end i32) (result i32) (i32.eqz (local.get $end)))",
    );
    let wasm = plugin.build();
    passes(&chunked(true, "  - { client: a, status: 200, body: ok }"), &wasm);
    passes(&chunked(false, "  - { client: a, waiting: true }"), &wasm);
}
