//! Three plugins written for these tests: two against the Rust SDK, one in C with wasi-libc and the bare ABI.

use crate::support::{built, callbacks, logged, passes};

/// Headers and shared data.
#[test]
fn visits_are_counted_in_data_that_all_workers_share() {
    passes(
        "name: visits
plugin: {}
host: { workers: 2 }
timeline:
  - { at: 0ms, client: a, worker: 0, times: 3, every: 10ms, send: { path: /, headers: { x-user: ann } } }
  - { at: 5ms, client: b, worker: 1, times: 2, every: 10ms, send: { path: /, headers: { x-user: ann } } }
  - { at: 7ms, client: c, worker: 1, send: { path: /, headers: { x-user: bob } } }
  - { at: 9ms, client: d, send: { path: / } }
expect:
  - { client: a, request: 1, headers: { x-visits: 1 } }
  - { client: b, request: 1, headers: { x-visits: 2 } }
  - { client: a, request: 2, headers: { x-visits: 3 } }
  - { client: b, request: 2, headers: { x-visits: 4 } }
  - { client: a, request: 3, headers: { x-visits: 5 } }
  - { client: c, headers: { x-visits: 1 } }
  - { client: d, status: 400, body: 'who are you?', headers: { x-why: no user, x-visits: 0 } }
  - { upstream_request: 1, headers: { x-visits: 1, x-user: { absent: true } } }
  - { upstream: requests, equals: 6 }
  - { shared_data: visits.ann, value: { present: true } }
  - { no_log_at: warn }",
        &built("visits_filter"),
    );
}

/// HTTP callout and ticks.
#[test]
fn flags_are_fetched_by_every_worker_on_its_timer() {
    let report = passes(
        "name: flags
plugin: {}
host: { workers: 2, main: false, canary: false, until: 3500ms }
clusters: [flags]
gateway:
  - { on: 'GET /flags?n=1', after: 10ms, answer: { status: 200, body: blue } }
  - { on: 'GET /flags?n=2', fault: refused }
  - { on: 'GET /flags?n=3', after: 10ms, answer: { status: 200, body: green } }
timeline:
  - { at: 0ms, client: early, send: { path: / } }
  - { at: 1500ms, client: one, send: { path: / } }
  - { at: 2500ms, client: two, worker: 1, send: { path: / } }
  - { at: 3200ms, client: three, send: { path: / } }
expect:
  - { upstream_request: 1, headers: { x-flags: unknown } }
  - { upstream_request: 2, headers: { x-flags: blue } }
  - { upstream_request: 3, headers: { x-flags: blue } }
  - { upstream_request: 4, headers: { x-flags: green } }
  - { callouts: requests, cluster: flags, equals: 6 }
  - { log: { contains: 'no flags: Some(\"503\")', level: warn } }",
        &built("flags_filter"),
    );
    let ticks = callbacks(&report, "w1").iter().filter(|name| **name == "proxy_on_tick").count();
    assert_eq!(ticks, 3);
}

/// Shared queue and body rewrite, in C.
#[test]
fn words_are_hidden_and_one_root_hears_of_it() {
    let report = passes(
        "name: redact
plugin: { config: pass, env: { STAGE: test } }
host: { workers: 2, main: false, canary: false }
upstream:
  - { on: GET /secret, answer: { status: 200, body: 'the passphrase passes' } }
  - { on: GET /empty, answer: 204 }
  - { answer: { status: 200, body: nothing here } }
timeline:
  - { at: 0ms, client: a, worker: 0, send: { path: /secret } }
  - { at: 1s, client: b, worker: 1, send: { path: / } }
  - { at: 2s, client: c, worker: 1, send: { path: /empty } }
expect:
  - { client: a, status: 200, body: 'the ****phrase ****es', headers: { content-length: { absent: true }, x-redacted: 'yes' } }
  - { client: b, status: 200, body: nothing here }
  - { client: c, status: 204 }
  - { no_log_at: warn }",
        &built("redact"),
    );
    let audit: Vec<_> = report
        .logs
        .iter()
        .filter(|line| line.message.starts_with("context"))
        .map(|line| (line.vm.as_str(), line.message.as_str()))
        .collect();
    // The worker that registered last has the queue, whoever sends.
    assert_eq!(
        audit,
        [("w1", "context 2 hid 2 at 1767225600"), ("w1", "context 2 hid 0 at 1767225601")]
    );
    assert_eq!(logged(&report)[0], "redact starts in test with 0 arguments");
}

#[test]
fn a_c_plugin_says_on_standard_error_why_it_refuses() {
    let word = "x".repeat(64);
    passes(
        &format!(
            "name: too long
plugin: {{ config: {word} }}
expect_start_error: {{ contains: 'the word must have 1 to 63 bytes, not 64' }}"
        ),
        &built("redact"),
    );
}
