//! Scenario files: mistakes are named with their place, and a failed expectation says what was seen.

use std::path::Path;

use tidegate_host_sim::{Report, Runner, Scenario};

use crate::support::{Plugin, run};

/// A file that is right but for one line.
fn with(line: &str) -> String {
    format!("name: x\nplugin: {{}}\n{line}\n")
}

fn error(yaml: &str) -> String {
    Scenario::parse(yaml)
        .map_or_else(|error| error.to_string(), |_| panic!("{yaml} must not be accepted"))
}

#[test]
fn each_mistake_is_named_with_its_place() {
    let rows = [
        ("hots: {}", vec!["scenario:3:1", "hots", "host"]),
        ("host: { worker: 2 }", vec!["scenario:3:9", "worker", "workers"]),
        ("host: { workers: 0 }", vec!["host.workers", "0", "between 1 and 64"]),
        ("host: { workers: two }", vec!["scenario:3:18"]),
        ("host: { reload_base_interval: 10 }", vec!["scenario:3:31", "10ms"]),
        ("host: { memory_max: 1GB }", vec!["scenario:3", "1GB", "GiB"]),
        (
            "host: { fail_policy: FAIL_SHUT }",
            vec!["scenario:3", "FAIL_SHUT", "FAIL_CLOSED", "FAIL_OPEN", "FAIL_RELOAD"],
        ),
        ("host: { properties: { a: [null] } }", vec!["properties.a", "null", "{duration: 5ms}"]),
        ("host: { properties: { a: { duration: soon } } }", vec!["properties.a", "soon"]),
        (
            "gateway: [{ on: post /x, answer: 200 }]",
            vec!["scenario:3:17", "post /x", "POST /v1/decide"],
        ),
        (
            "gateway: [{ on: POST /x }]",
            vec!["gateway", "line 3", "exactly one of answer and fault"],
        ),
        (
            "gateway: [{ answer: 200, fault: refused }]",
            vec!["line 3", "exactly one of answer and fault"],
        ),
        ("gateway: [{ fault: broken }]", vec!["scenario:3", "broken", "refused"]),
        (
            "gateway: [{ answer: { status: 200, body: '{{request.nothing}}' } }]",
            vec!["line 3", "request.nothing", "request.json./POINTER"],
        ),
        ("gateway: yes please", vec!["scenario:3", "in-process"]),
        ("timeline: [{ client: a, send: {} }]", vec!["scenario:3", "at"]),
        ("timeline: [{ at: soon, client: a, send: {} }]", vec!["scenario:3:18", "soon", "10ms"]),
        ("timeline: [{ at: 0ms, client: a }]", vec!["timeline", "line 3", "send", "disconnect"]),
        (
            "timeline: [{ at: 0ms, client: a, disconnect: true }]",
            vec!["line 3", "has sent nothing"],
        ),
        ("timeline: [{ at: 0ms, client: a, worker: 1, send: {} }]", vec!["line 3", "no worker 1"]),
        (
            "timeline: [{ at: 0ms, client: a, address: localhost, send: {} }]",
            vec!["line 3", "address", "localhost"],
        ),
        ("timeline: [{ at: 0ms, client: a, send: same as b }]", vec!["line 3", "\"b\""]),
        (
            "timeline: [{ at: 0ms, client: a, send: { methd: GET } }]",
            vec!["scenario:3", "methd", "method"],
        ),
        (
            "timeline: [{ at: 0ms, client: a, send: { headers: { x: { hex: 6 } } } }]",
            vec!["scenario:3", "hexadecimal"],
        ),
        (
            "timeline: [{ at: 0ms, client: a, send: { body: a, chunks: [{ data: b }] } }]",
            vec!["line 3", "body or chunks"],
        ),
        (
            "expect: [{ client: a, upstream: requests }]",
            vec!["expect", "line 3", "exactly one of client"],
        ),
        ("expect: [{ status: 200 }]", vec!["expect", "line 3", "exactly one of client"]),
        (
            "expect: [{ metric: m, status: 200, equals: 1 }]",
            vec!["line 3", "status does not belong"],
        ),
        ("expect: [{ upstream: requests }]", vec!["line 3", "equals, min or max"]),
        ("expect: [{ client: a, stats: 200 }]", vec!["scenario:3:23", "stats", "status"]),
        ("expect: [{ client: a, at: 5ms..1ms }]", vec!["scenario:3", "ends before it begins"]),
        ("expect: [{ no_log_at: fatal }]", vec!["scenario:3", "fatal", "critical"]),
        ("name: y", vec!["scenario:3", "name"]),
    ];
    for (line, parts) in rows {
        let error = error(&with(line));
        for part in parts {
            assert!(error.contains(part), "{line}\nmust name {part:?}:\n{error}");
        }
    }
    assert!(error("plugin: {}").contains("name"));
    assert!(error("name: x\nplugin: { config: a, config_file: b }").contains("exclude each other"));
    assert!(
        error("name: x\nplugin: { config_file: /none/such.json }")
            .contains("plugin.config_file: /none/such.json")
    );
    let missing = Scenario::load(Path::new("/none/such.yaml")).unwrap_err();
    assert!(missing.to_string().starts_with("/none/such.yaml: cannot be read"), "{missing}");
}

#[test]
fn a_failed_expectation_says_what_was_expected_and_seen() {
    let yaml = "name: wrong
plugin: {}
upstream: [{ answer: { status: 201, headers: { x-a: b }, body: '{\"n\": 1}' }, after: 10ms }]
timeline: [{ at: 0ms, client: a, send: {} }]
expect:
  - client: a
    status: 200
    at: 0ms..9ms
    headers: { x-a: c, x-b: { present: true } }
    body: { json: { /n: 2 } }
    host_calls_max: 0
  - { client: b, status: 200 }
  - { upstream: requests, equals: 0 }
  - { upstream_request: 2 }
  - { log: { contains: hello } }
  - { metric: m, min: 1 }
expect_start_error: { contains: no }
";
    let report = run(yaml, &Plugin::new().build());
    let text = report.to_string();
    for (expected, seen) in [
        ("expected 200\n", "seen     201 with the body \"{\\\"n\\\": 1}\""),
        ("expected 0ms to 9ms\n", "seen     10ms"),
        ("expected \"c\"\n", "seen     \"b\""),
        ("expected present\n", "seen     absent"),
        ("expected /n is 2\n", "seen     1"),
        ("expected a request of this client\n", "seen     none was sent"),
        ("expected 0\n", "seen     1"),
        ("expected a request\n", "seen     only 1 were sent"),
        ("expected a line with \"hello\"\n", "seen     an empty log"),
        ("expected at least 1\n", "seen     no such metric"),
        ("expected a start error with \"no\"\n", "seen     the plugin started"),
    ] {
        assert!(text.contains(&format!("{expected}  {seen}")), "{expected}{seen}\n{text}");
    }
    assert!(text.contains("line 6: client a: status"), "{text}");
    let passed: Vec<_> = report
        .checks
        .iter()
        .filter(|check| check.passed)
        .map(|check| check.what.as_str())
        .collect();
    assert_eq!(passed, ["client a: host calls"]);
}

#[test]
fn a_start_error_is_a_failure_unless_it_is_expected() {
    let refusing = || {
        Plugin::new()
            .import("proxy_log", 3)
            .code("(data (i32.const 0) \"policies[0].per is wrong\")")
            .code("(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (drop (call $proxy_log (i32.const 4) (i32.const 0) (i32.const 24))) (i32.const 0))")
            .build()
    };
    let expected = run(
        "name: x\nplugin: {}\nexpect_start_error: { contains: returned false }\nexpect: [{ log: { contains: 'policies[0].per', level: error } }]",
        &refusing(),
    );
    assert!(expected.passed(), "{expected}");
    let by_log = run(
        "name: x\nplugin: {}\nexpect_start_error: { contains: 'policies[0].per' }",
        &refusing(),
    );
    assert!(by_log.passed(), "{by_log}");
    assert!(!run("name: x\nplugin: {}", &refusing()).passed());
    assert!(
        !run("name: x\nplugin: {}\nexpect_start_error: { contains: something else }", &refusing())
            .passed()
    );
}

#[test]
fn rules_are_taken_in_order_and_used_up() {
    let yaml = "name: rules
plugin: {}
upstream:
  - { on: GET /a, answer: 201, times: 1 }
  - { on: GET /a, answer: { status: 202, headers: { x-path: '{{request.path}}' }, body: '{{request.method}}' } }
  - { on: /b*, fault: refused }
timeline:
  - { at: 0ms, client: a, send: { path: /a }, times: 3, every: 1ms }
  - { at: 9ms, client: b, send: { path: /bcd } }
  - { at: 9ms, client: c, send: { path: /c } }
  - { at: 9ms, client: d, send: { method: HEAD, path: /a } }
expect:
  - { client: a, request: 1, status: 201, at: 0ms }
  - { client: a, request: 2, status: 202, at: 1ms, headers: { x-path: /a }, body: GET }
  - { client: a, request: 3, status: 202, at: 2ms }
  - { client: b, status: 503, body: { contains: remote connection failure } }
  - { client: c, status: 404 }
  - { client: d, status: 404, body: '' }
  - { upstream: requests, on: GET /a, equals: 3 }
";
    let report = run(yaml, &Plugin::new().build());
    assert!(report.passed(), "{report}");
}

#[test]
fn a_misspelt_metric_is_no_zero() {
    let mut plugin = Plugin::new().import("proxy_define_metric", 4);
    let name = crate::support::at(plugin.data(b"denied_total"));
    let wasm = plugin
        .on_request_headers(&format!(
            "(call $proxy_define_metric (i32.const 0) {name} (i32.const 0))"
        ))
        .build();
    let failures = |expect: &str| {
        let yaml = format!(
            "name: x\nplugin: {{}}\ntimeline: [{{ at: 0ms, client: a, send: {{}} }}]\nexpect: [{expect}]\n"
        );
        run(&yaml, &wasm).failures().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(failures("{ metric: denied_total, equals: 0 }"), "");
    assert_eq!(failures("{ metric: denied_totl, absent: true }"), "");
    for bound in ["equals: 0", "max: 0", "min: 0"] {
        let failure = failures(&format!("{{ metric: denied_totl, {bound} }}"));
        assert!(failure.contains("no such metric; there are denied_total"), "{bound}: {failure}");
    }
    let failure = failures("{ metric: denied_total, absent: true }");
    assert!(failure.contains("expected absent\n  seen     0"), "{failure}");
}

/// The lines that a failure shows, without their times.
fn shown(report: &Report) -> Vec<String> {
    let failure = report.failures().next().expect("a failure");
    failure.trace.iter().map(|line| format!("{} {}", line.context, line.name)).collect()
}

#[test]
fn a_failure_shows_its_own_request_and_no_other() {
    let yaml = "name: two at once
plugin: {}
gateway: [{ answer: 200, after: 5ms }]
timeline:
  - { at: 0ms, client: a, send: {} }
  - { at: 1ms, client: b, send: {} }
  - { at: 2ms, client: a, send: {} }
expect: [{ client: a, status: 201 }]
";
    let wasm = crate::callouts::asking().build();
    let lines = shown(&run(yaml, &wasm));
    assert_eq!(lines.first().map(String::as_str), Some("0 client a"), "{lines:?}");
    assert!(lines.contains(&"2 proxy_on_request_headers".to_owned()), "{lines:?}");
    for other in ["0 client b", "3 proxy_on_request_headers", "4 proxy_on_request_headers"] {
        assert!(!lines.contains(&other.to_owned()), "{other} in {lines:?}");
    }
}

#[test]
fn a_chain_shows_every_filter_of_the_request() {
    let yaml = "name: a chain
plugins: [{ name: one }, { name: two }]
gateway: [{ answer: 200, after: 5ms }]
timeline:
  - { at: 0ms, client: a, send: {} }
  - { at: 20ms, client: b, send: {} }
expect: [{ client: a, details: none }]
";
    let wasm = crate::callouts::asking().build();
    let report = run(yaml, &wasm);
    let failure = report.failures().next().expect("a failure");
    let roots: Vec<_> = failure
        .trace
        .iter()
        .filter(|line| line.name == "proxy_http_call")
        .map(|line| (line.vm.as_str(), line.at_ns))
        .collect();
    assert!(roots.iter().any(|(_, at_ns)| *at_ns == 5_000_000), "{failure}");
    assert!(failure.trace.len() <= 12, "{failure}");
}

#[test]
fn a_run_that_passes_is_not_traced_and_one_that_fails_is_run_again() {
    let wasm = Plugin::new().build();
    let folder = std::env::temp_dir();
    let path = folder.join(format!("host-sim-explained-{}.wasm", std::process::id()));
    std::fs::write(&path, &wasm).expect("a plugin");
    let scenario = |status: u16| {
        let yaml = format!(
            "name: x\nplugin: {{}}\ntimeline: [{{ at: 0ms, client: a, send: {{}} }}]\nexpect: [{{ client: a, status: {status} }}]\n"
        );
        Scenario::parse(&yaml).expect("a scenario").with_wasm(&path)
    };
    let runner = Runner::with_cache(None).expect("no cache, no error");
    let passed = runner.run(&scenario(200)).expect("it runs");
    let failed = runner.run(&scenario(201)).expect("it runs");
    std::fs::remove_file(&path).expect("it was there");
    assert!(passed.passed() && passed.trace.is_empty());
    assert!(!failed.passed() && failed.trace.is_empty());
    assert_eq!(shown(&failed).first().map(String::as_str), Some("0 client a"));
}
