//! The example plugins in the SDK's own packages: 0.1.3 speaks ABI 0.1.0, 0.2.0 speaks ABI 0.2.1. Not a byte of them is ours.

use crate::support::{callbacks, example, logged, passes};

const VERSIONS: [&str; 2] = ["0.1.3", "0.2.0"];

#[test]
fn http_auth_random_asks_before_it_lets_a_request_pass() {
    for version in VERSIONS {
        let report = passes(
            "name: an even byte is a yes, an odd one a no
plugin: {}
clusters: [httpbin]
gateway:
  - { on: GET /bytes/1, after: 20ms, times: 1, answer: { status: 200, body: { hex: '02' } } }
  - { on: GET /bytes/1, after: 20ms, times: 1, answer: { status: 200, body: { hex: '03' } } }
  - { fault: timeout }
timeline:
  - { at: 0ms, client: even, send: { path: / } }
  - { at: 100ms, client: odd, send: { path: / } }
  - { at: 200ms, client: late, send: { path: / } }
expect:
  - { client: even, status: 200, at: 20ms, body: ok, headers: { powered-by: proxy-wasm } }
  - { client: odd, status: 403, at: 120ms, body: { contains: forbidden }, headers: { powered-by: proxy-wasm } }
  - { client: late, at: 5200ms }
  - { callout: 1, cluster: httpbin, headers: { :authority: httpbin.org } }
  - { upstream: requests, min: 1 }
  - { no_log_at: warn }",
            &example(version, "http_auth_random"),
        );
        assert_eq!(report.calls.iter().filter(|call| !call.is_upstream).count(), 3, "{version}");
    }
}

#[test]
fn hello_world_ticks_by_the_virtual_clock() {
    for (version, lucky) in
        [("0.1.3", "there is no lucky number."), ("0.2.0", "your lucky number is")]
    {
        let report = passes(
            "name: hello
plugin: {}
host: { until: 12s }
expect: [{ log: { contains: 'Hello, World!' } }, { no_log_at: warn }]",
            &example(version, "hello_world"),
        );
        let lines = logged(&report);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[1].starts_with("It's 2026-01-01 00:00:05") && lines[1].contains(lucky),
            "{lines:?}"
        );
        assert!(lines[2].starts_with("It's 2026-01-01 00:00:10"), "{lines:?}");
    }
}

#[test]
fn http_body_rewrites_a_whole_answer() {
    for version in VERSIONS {
        passes(
            "name: a secret is redacted
plugin: {}
upstream: [{ on: GET /secret, answer: { status: 200, body: a secret word } }, { answer: 200 }]
timeline:
  - { at: 0ms, client: a, send: { path: /secret } }
  - { at: 0ms, client: b, send: { path: / } }
expect:
  - { client: a, status: 200, body: 'Original message body (13 bytes) redacted.', headers: { content-length: { absent: true } } }
  - { client: b, status: 200 }
  - { no_log_at: warn }",
            &example(version, "http_body"),
        );
    }
}

#[test]
fn http_config_reads_its_configuration() {
    for version in VERSIONS {
        passes(
            "name: the configuration is a header
plugin: { config: from the configuration }
timeline: [{ at: 0ms, client: a, send: { path: / } }]
expect: [{ client: a, status: 200, headers: { custom-header: from the configuration } }, { no_log_at: warn }]",
            &example(version, "http_config"),
        );
    }
}

#[test]
fn http_headers_answers_and_logs_at_the_end() {
    for version in VERSIONS {
        let report = passes(
            "name: hello is answered at once
plugin: {}
host: { log_level: trace }
timeline:
  - { at: 0ms, client: a, send: { path: /hello } }
  - { at: 1ms, client: b, send: { path: /other } }
expect:
  - { client: a, status: 200, body: { contains: 'Hello, World!' }, headers: { hello: World } }
  - { client: b, status: 200, body: ok }
  - { upstream: requests, equals: 1 }",
            &example(version, "http_headers"),
        );
        let lines = logged(&report);
        assert!(
            lines.contains(&"#2 -> :path: /hello") && lines.contains(&"#2 completed."),
            "{lines:?}"
        );
        assert!(callbacks(&report, "w0").contains(&"proxy_on_log"));
    }
}
