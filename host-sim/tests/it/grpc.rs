//! gRPC calls and streams: tokens, statuses, callbacks and their order, as Envoy 1.40 gave them.

use crate::support::{Plugin, at, calls, passes, run, statuses, trace};

const CALLBACKS: [&str; 4] = [
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_grpc_close",
];

/// Runs these calls in request headers. Every callback logs the status message and buffer 5, and counts its map.
fn plugin(body: impl Fn(&mut Plugin) -> String) -> Vec<u8> {
    let mut plugin = Plugin::new()
        .import("proxy_grpc_call", 12)
        .import("proxy_grpc_stream", 9)
        .import("proxy_grpc_send", 4)
        .import("proxy_grpc_close", 1)
        .import("proxy_grpc_cancel", 1)
        .import("proxy_get_status", 3)
        .import("proxy_get_buffer_bytes", 5)
        .import("proxy_get_header_map_pairs", 3)
        .import("proxy_log", 3);
    let body = body(&mut plugin);
    let log =
        "(drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))";
    let look = format!(
        "(drop (call $proxy_get_status (i32.const 8) (i32.const 0) (i32.const 4))) {log}
         (drop (call $proxy_get_buffer_bytes (i32.const 5) (i32.const 0) (i32.const 99) (i32.const 0) (i32.const 4))) {log}
         (drop (call $proxy_get_header_map_pairs (i32.const 4) (i32.const 0) (i32.const 4)))
         (drop (call $proxy_get_header_map_pairs (i32.const 5) (i32.const 0) (i32.const 4)))"
    );
    for name in CALLBACKS {
        plugin = plugin.code(&format!("(func (export \"{name}\") (param i32 i32 i32) {look})"));
    }
    plugin.on_request_headers(&format!("{body} (i32.const 0)")).build()
}

/// A call of `/test.Echo/METHOD` at a target with a message; the token goes to address 16.
fn call(plugin: &mut Plugin, target: &[u8], method: &str, timeout_ms: u32) -> String {
    let (target, service) = (at(plugin.data(target)), at(plugin.data(b"test.Echo")));
    let (method, message) = (at(plugin.data(method.as_bytes())), at(plugin.data(b"hello")));
    let metadata = at(plugin.map(&[("x-meta", "1")]));
    format!(
        "(drop (call $proxy_grpc_call {target} {service} {method} {metadata} {message} (i32.const {timeout_ms}) (i32.const 16)))"
    )
}

fn stream(plugin: &mut Plugin, target: &[u8], method: &str) -> String {
    let (target, service) = (at(plugin.data(target)), at(plugin.data(b"test.Echo")));
    let method = at(plugin.data(method.as_bytes()));
    format!(
        "(drop (call $proxy_grpc_stream {target} {service} {method} (i32.const 0) (i32.const 0) (i32.const 16)))"
    )
}

fn send(plugin: &mut Plugin, message: &str, end: bool) -> String {
    let message = at(plugin.data(message.as_bytes()));
    let end = u32::from(end);
    format!("(drop (call $proxy_grpc_send (i32.load (i32.const 16)) {message} (i32.const {end})))")
}

fn scenario(rule: &str, expect: &str) -> String {
    format!(
        "name: grpc
plugin: {{}}
host: {{ main: false, canary: false }}
clusters: [svc]
gateway: [{rule}]
timeline: [{{ at: 0ms, client: a, send: {{ path: /x }} }}]
expect:
  - {{ client: a, status: 200 }}
{expect}"
    )
}

/// The gRPC callbacks in order with their arguments, shortened.
fn heard(report: &tidegate_host_sim::Report) -> Vec<String> {
    let lines = report.trace.iter().filter(|line| CALLBACKS.contains(&line.name.as_str()));
    lines
        .map(|line| format!("{} {}", line.name.trim_start_matches("proxy_on_grpc_"), line.args))
        .collect()
}

const ECHO: &str = "{ on: POST /test.Echo/Unary, after: 5ms, answer: { status: 200, headers: { im: 1 }, body: { hex: '0000000003616263' }, trailers: { grpc-status: 0 } } }";

#[test]
fn a_call_hears_its_answer_and_nothing_else() {
    let wasm = plugin(|plugin| call(plugin, b"svc", "Unary", 100));
    let expect = "  - { callout: 1, cluster: svc, headers: { :method: POST, :path: /test.Echo/Unary, :authority: svc, te: trailers, grpc-timeout: 100m, content-type: application/grpc, x-meta: 1, x-envoy-expected-rq-timeout-ms: 100 }, body: { contains: hello } }
  - { client: a, sent_callouts: 1 }";
    let report = passes(&scenario(ECHO, expect), &wasm);
    assert_eq!(heard(&report), ["receive token 5, 3 bytes"]);
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(logged, ["", "abc"]);
    assert_eq!(report.calls[0].request.body, b"\0\0\0\0\x05hello");
    assert_eq!(
        report.trace.iter().find(|line| line.name == CALLBACKS[1]).map(|line| line.at_ns),
        Some(5_000_000)
    );
}

#[test]
fn a_call_that_fails_hears_its_status() {
    let rows = [
        (
            "{ answer: { status: 200, headers: { grpc-status: 5, grpc-message: no such thing } } }",
            "5",
            "no such thing{via_upstream}",
        ),
        (
            "{ fault: refused }",
            "14",
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure{upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}}",
        ),
        ("{ fault: timeout }", "14", "upstream request timeout{response_timeout}"),
        ("{ after: 200ms, answer: 200 }", "14", "upstream request timeout{response_timeout}"),
        ("{ answer: 503 }", "14", ""),
        ("{ fault: reset_after_headers }", "13", ""),
    ];
    for (rule, status, message) in rows {
        let wasm = plugin(|plugin| call(plugin, b"svc", "Unary", 100));
        let report = passes(&scenario(rule, ""), &wasm);
        assert_eq!(heard(&report), [format!("close token 5, status {status}")], "{rule}");
        assert_eq!(report.logs[0].message, message, "{rule}");
    }
}

#[test]
fn a_stream_sends_and_hears_everything_in_order() {
    let wasm = plugin(|plugin| {
        [
            stream(plugin, b"svc", "Bidi"),
            send(plugin, "one", false),
            send(plugin, "two", true),
            send(plugin, "late", false),
        ]
        .concat()
    });
    let rule = "{ on: POST /test.Echo/Bidi, answer: { status: 200, headers: { im: 1 }, body: { hex: '000000000161 000000000162' }, trailers: { grpc-status: 0, tm: 2 } } }";
    let report = passes(&scenario(rule, ""), &wasm);
    assert_eq!(
        heard(&report),
        [
            "receive_initial_metadata token 6, 3 headers",
            "receive token 6, 1 bytes",
            "receive token 6, 1 bytes",
            "receive_trailing_metadata token 6, 2 trailers",
            "close token 6, status 0",
        ]
    );
    assert_eq!(report.calls[0].request.body, b"\0\0\0\0\x03one\0\0\0\0\x03two");
    assert_eq!(statuses(&report, "proxy_grpc_send"), ["Ok", "Ok", "Ok"]);
}

#[test]
fn a_stream_that_cannot_connect_hears_envoys_own_answer() {
    let wasm = plugin(|plugin| [stream(plugin, b"svc", "Bidi"), send(plugin, "x", true)].concat());
    let report = passes(&scenario("{ fault: refused }", ""), &wasm);
    assert_eq!(
        heard(&report),
        [
            "receive_initial_metadata token 6, 0 headers",
            "receive_trailing_metadata token 6, 4 trailers",
            "close token 6, status 14",
        ]
    );
}

#[test]
fn what_is_cancelled_hears_nothing_and_what_is_closed_hears_its_answer() {
    let end = |name: &str| format!("(drop (call $proxy_grpc_{name} (i32.load (i32.const 16))))");
    for (ends, statuses_of_it, hears) in [
        (["cancel", "cancel"], ["Ok", "NotFound"], 0),
        (["close", "close"], ["Ok", "Ok"], 3),
        (["close", "cancel"], ["Ok", "Ok"], 0),
    ] {
        let wasm = plugin(|plugin| {
            [stream(plugin, b"svc", "Bidi"), end(ends[0]), end(ends[1]), send(plugin, "x", false)]
                .concat()
        });
        let rule = "{ after: 1ms, answer: { status: 200, trailers: { grpc-status: 0 } } }";
        let report = passes(&scenario(rule, ""), &wasm);
        assert_eq!(heard(&report).len(), hears, "{ends:?}");
        let got: Vec<_> = report
            .trace
            .iter()
            .filter(|line| line.name == "proxy_grpc_cancel" || line.name == "proxy_grpc_close")
            .map(|line| line.status.as_str())
            .collect();
        assert_eq!(got, statuses_of_it);
    }
    for name in ["cancel", "close"] {
        let wasm =
            plugin(|plugin| [call(plugin, b"svc", "Unary", 100), end(name), end(name)].concat());
        let report = passes(&scenario(ECHO, ""), &wasm);
        assert!(heard(&report).is_empty(), "{}", trace(&report));
        assert_eq!(statuses(&report, &format!("proxy_grpc_{name}")), ["Ok", "NotFound"]);
    }
}

#[test]
fn tokens_carry_their_kind() {
    // The kind is in the low bits: 1 a call, 2 a stream, and 0 and 3 are none of gRPC's.
    let rows = [
        (400, ["BadArgument"; 3]),
        (401, ["BadArgument", "NotFound", "NotFound"]),
        (402, ["NotFound"; 3]),
        (403, ["BadArgument"; 3]),
    ];
    for (token, expected) in rows {
        let wasm = plugin(|_| {
            format!(
                "(drop (call $proxy_grpc_send (i32.const {token}) (i32.const 0) (i32.const 0) (i32.const 0)))
                 (drop (call $proxy_grpc_close (i32.const {token}))) (drop (call $proxy_grpc_cancel (i32.const {token})))"
            )
        });
        let report = passes(&scenario("{ answer: 200 }", ""), &wasm);
        let got = ["send", "close", "cancel"]
            .map(|name| statuses(&report, &format!("proxy_grpc_{name}")).concat());
        assert_eq!(got, expected, "{token}");
    }
    let wasm = plugin(|plugin| {
        let mut all = call(plugin, b"svc", "Unary", 100);
        all += &call(plugin, b"other", "Unary", 100);
        all += &call(plugin, b"svc", "Unary", 100);
        all
    });
    let report = passes(&scenario(ECHO, ""), &wasm);
    assert_eq!(statuses(&report, "proxy_grpc_call"), ["Ok", "ParseFailure", "Ok"]);
    assert_eq!(heard(&report), ["receive token 5, 3 bytes", "receive token 9, 3 bytes"]);
}

#[test]
fn a_target_may_be_a_message_and_an_unknown_one_fails_twice() {
    let wasm = plugin(|plugin| call(plugin, b"\x0a\x05\x0a\x03svc", "Unary", 100));
    let report = passes(&scenario(ECHO, ""), &wasm);
    assert_eq!(heard(&report), ["receive token 5, 3 bytes"]);
    let wasm = plugin(|plugin| stream(plugin, b"\x0a\x05\x0a\x03xxx", "Bidi"));
    let report = passes(&scenario(ECHO, ""), &wasm);
    assert_eq!(statuses(&report, "proxy_grpc_stream"), ["InternalFailure"]);
    assert_eq!(heard(&report), ["close token 6, status 14"]);
    assert_eq!(report.logs[0].message, "Cluster not available");
}

/// Seen on Envoy 1.40: the process aborts. A plugin's author must hear of it before an operator does.
#[test]
fn what_kills_envoy_ends_the_run_and_says_so() {
    for (target, rule) in [(b"".as_slice(), "{ answer: 200 }"), (b"svc", "{ fault: no_hosts }")] {
        let wasm = plugin(|plugin| call(plugin, target, "Unary", 100));
        let report = run(&scenario(rule, ""), &wasm);
        assert!(!report.passed());
        let shown = report.to_string();
        assert!(shown.contains("Envoy's whole process crashes"), "{shown}");
        assert_eq!(calls(&report, "proxy_grpc_call").len(), 1);
    }
}
