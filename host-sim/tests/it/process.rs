//! What VMs share and what is their own: shared data, queues, metrics, timers, traps and reloads, configuration, WASI.

use tidegate_host_sim::{Answer, Reply, Runner, Scenario, Service, ServiceRequest, Services};

use crate::support::{Plugin, at, passes, run, trace};

/// Every request traps while shared data has no key `healed`; `/heal` sets it.
fn crashing() -> Plugin {
    let mut plugin = Plugin::new().import("proxy_get_header_map_value", 5);
    let path = at(plugin.data(b":path"));
    plugin.on_request_headers(&format!(
        "(drop (call $proxy_get_header_map_value (i32.const 0) {path} (i32.const 0) (i32.const 4)))
         (if (i32.eq (i32.load8_u (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.const 99)) (then unreachable))
         (i32.const 0)"
    ))
}

#[test]
fn after_a_trap_fail_closed_refuses_this_worker_for_ever_and_no_other() {
    passes(
        "name: closed
plugin: {}
host: { workers: 2 }
timeline:
  - { at: 0ms, client: a, send: { path: /crash } }
  - { at: 10s, client: a, send: { path: /fine } }
  - { at: 10s, client: b, worker: 1, send: { path: /fine } }
expect:
  - { client: a, status: 503, body: \"\", details: wasm_fail_stream }
  - { client: a, request: 2, status: 503, details: wasm_fail_stream }
  - { client: b, status: 200 }
  - { upstream: requests, equals: 1 }
  - { log: { contains: \"proxy_on_request_headers failed: wasm trap\", level: critical } }",
        &crashing().build(),
    );
}

#[test]
fn fail_reload_brings_a_new_vm_after_the_interval() {
    let report = passes(
        "name: reload
plugin: {}
host: { fail_policy: FAIL_RELOAD, reload_base_interval: 2s, canary: false, main: false }
timeline:
  - { at: 1s, client: a, send: { path: /crash } }
  - { at: 1500ms, client: a, send: { path: /fine } }
  - { at: 2s, client: a, send: { path: /fine } }
  - { at: 3s, client: a, send: { path: /crash } }
  - { at: 3900ms, client: a, send: { path: /fine } }
  - { at: 4s, client: a, send: { path: /fine } }
expect:
  - { client: a, status: 503 }
  - { client: a, request: 2, status: 503 }
  - { client: a, request: 3, status: 200 }
  - { client: a, request: 4, status: 503 }
  - { client: a, request: 5, status: 503 }
  - { client: a, request: 6, status: 200 }",
        &crashing()
            .code(
                "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.const 1))",
            )
            .build(),
    );
    let starts = report.trace.iter().filter(|line| line.name == "proxy_on_configure").count();
    assert_eq!(starts, 3);
}

/// A plugin takes its randomness for its own: who is loaded anew does not draw what was drawn before.
#[test]
fn a_vm_that_is_loaded_anew_draws_other_numbers() {
    let wasm = crashing()
        .import("proxy_log", 3)
        .import_text("(import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))")
        .code(
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32)
               (if (call $random (i32.const 300) (i32.const 8)) (then unreachable))
               (i64.store (i32.const 300) (i64.or (i64.const 0x4040404040404040) (i64.and (i64.const 0x0f0f0f0f0f0f0f0f) (i64.load (i32.const 300)))))
               (drop (call $proxy_log (i32.const 2) (i32.const 300) (i32.const 8)))
               (i32.const 1))",
        )
        .build();
    let report = passes(
        "name: reload\nplugin: {}\nhost: { fail_policy: FAIL_RELOAD, canary: false, workers: 2 }\ntimeline:\n\
         \x20 - { at: 1s, client: a, send: { path: /crash } }\n  - { at: 5s, client: a, send: { path: /fine } }\n\
         \x20 - { at: 6s, client: a, send: { path: /crash } }\n  - { at: 9s, client: a, send: { path: /fine } }",
        &wasm,
    );
    let drawn: Vec<_> = report.logs.iter().filter(|line| line.message.len() == 8).collect();
    let mut numbers: Vec<_> = drawn.iter().map(|line| &line.message).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!((drawn.len(), numbers.len()), (5, 5), "main, two workers, two more: {drawn:?}");
}

#[test]
fn a_stream_paused_in_a_vm_that_died_hangs_and_one_waiting_for_upstream_gets_503() {
    let wasm = crate::callouts::asking()
        .code("(func (export \"proxy_on_response_headers\") (param i32 i32 i32) (result i32) (i32.const 0))")
        .code("(func (export \"proxy_on_tick\") (param i32) unreachable)")
        .import("proxy_set_tick_period_milliseconds", 1)
        .code("(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (drop (call $proxy_set_tick_period_milliseconds (i32.const 30))) (i32.const 1))")
        .build();
    passes(
        "name: trap in a timer
plugin: {}
gateway: [{ answer: 200, after: 5ms }]
upstream: [{ answer: 200, after: 20ms }]
timeline:
  - { at: 10ms, client: up, send: {} }
  - { at: 28ms, client: paused, send: {} }
expect:
  - { client: paused, waiting: true }
  - { client: up, status: 503, details: wasm_fail_stream, at: 35ms }",
        &wasm,
    );
}

/// Copies a shared counter into its own memory, adds one and sets it with the number it read.
fn counting() -> Plugin {
    let mut plugin = Plugin::new()
        .import("proxy_get_shared_data", 5)
        .import("proxy_set_shared_data", 5)
        .import("proxy_log", 3);
    let key = at(plugin.data(b"count"));
    let one = at(plugin.data(b"x"));
    plugin.on_request_headers(&format!(
        "(if (call $proxy_get_shared_data {key} (i32.const 0) (i32.const 4) (i32.const 8))
           (then (if (call $proxy_set_shared_data {key} {one} (i32.const 0)) (then unreachable)))
           (else
             (if (i32.ne (call $proxy_set_shared_data {key} {one} (i32.const 12345)) (i32.const 8)) (then unreachable))
             (i32.store8 (i32.add (i32.load (i32.const 0)) (i32.load (i32.const 4))) (i32.const 120))
             (if (call $proxy_set_shared_data {key} (i32.load (i32.const 0)) (i32.add (i32.load (i32.const 4)) (i32.const 1)) (i32.load (i32.const 8))) (then unreachable))))
         (i32.const 0)"
    ))
}

#[test]
fn workers_share_data_and_a_wrong_cas_is_refused() {
    passes(
        "name: shared
plugin: {}
host: { workers: 3 }
timeline:
  - { at: 0ms, client: a, worker: 0, send: {} }
  - { at: 0ms, client: b, worker: 1, send: {} }
  - { at: 0ms, client: c, worker: 2, send: {} }
expect:
  - { shared_data: count, value: xxx }
  - { shared_data: other, value: { absent: true } }
  - { no_log_at: error }",
        &counting().build(),
    );
}

#[test]
fn a_queue_wakes_the_vm_that_registered_last() {
    let mut plugin = Plugin::new()
        .import("proxy_register_shared_queue", 3)
        .import("proxy_resolve_shared_queue", 5)
        .import("proxy_enqueue_shared_queue", 3)
        .import("proxy_dequeue_shared_queue", 3)
        .import("proxy_log", 3);
    let name = at(plugin.data(b"events"));
    let value = at(plugin.data(b"hello"));
    let wasm = plugin
        .code(&format!(
            "(func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.eqz (call $proxy_register_shared_queue {name} (i32.const 0))))
             (func (export \"proxy_on_queue_ready\") (param $root i32) (param $queue i32)
               (if (call $proxy_dequeue_shared_queue (local.get $queue) (i32.const 0) (i32.const 4)) (then unreachable))
               (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))
               (if (i32.ne (call $proxy_dequeue_shared_queue (local.get $queue) (i32.const 0) (i32.const 4)) (i32.const 7)) (then unreachable)))"
        ))
        .on_request_headers(&format!(
            "(if (call $proxy_resolve_shared_queue (i32.const 0) (i32.const 0) {name} (i32.const 0)) (then unreachable))
             (call $proxy_enqueue_shared_queue (i32.load (i32.const 0)) {value})"
        ))
        .build();
    let report = passes(
        "name: queue\nplugin: {}\nhost: { workers: 2 }\ntimeline: [{ at: 5ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200 }, { log: { contains: hello } }, { no_log_at: error }]",
        &wasm,
    );
    assert_eq!(report.logs.iter().map(|line| line.vm.as_str()).collect::<Vec<_>>(), ["w1"]);
}

#[test]
fn metrics_are_the_processs_and_ids_are_the_vms() {
    let mut plugin = Plugin::new()
        .import("proxy_define_metric", 4)
        .import("proxy_get_metric", 2)
        .import_text(
        "(import \"env\" \"proxy_increment_metric\" (func $increment (param i32 i64) (result i32)))
         (import \"env\" \"proxy_record_metric\" (func $record (param i32 i64) (result i32)))",
    );
    let counter = at(plugin.data(b"requests"));
    let gauge = at(plugin.data(b"level"));
    let wasm = plugin
        .on_request_headers(&format!(
            "(if (call $proxy_define_metric (i32.const 0) {counter} (i32.const 0)) (then unreachable))
             (if (i32.ne (i32.and (i32.load (i32.const 0)) (i32.const 3)) (i32.const 0)) (then unreachable))
             (if (call $increment (i32.load (i32.const 0)) (i64.const 2)) (then unreachable))
             (if (i32.ne (call $increment (i32.load (i32.const 0)) (i64.const 0)) (i32.const 2)) (then unreachable))
             (if (i32.ne (call $increment (i32.const 400) (i64.const 1)) (i32.const 1)) (then unreachable))
             (if (call $proxy_define_metric (i32.const 1) {gauge} (i32.const 0)) (then unreachable))
             (if (call $record (i32.load (i32.const 0)) (i64.const 7)) (then unreachable))
             (if (call $increment (i32.load (i32.const 0)) (i64.const -3)) (then unreachable))
             (if (call $proxy_get_metric (i32.load (i32.const 0)) (i32.const 8)) (then unreachable))
             (if (i64.ne (i64.load (i32.const 8)) (i64.const 4)) (then unreachable))
             (i32.const 0)"
        ))
        .build();
    passes(
        "name: metrics
plugin: {}
host: { workers: 2 }
timeline:
  - { at: 0ms, client: a, worker: 0, send: {}, times: 2, every: 1ms }
  - { at: 0ms, client: b, worker: 1, send: {} }
expect: [{ metric: requests, equals: 6 }, { metric: level, equals: 4 }, { metric: none, absent: true }, { no_log_at: error }]",
        &wasm,
    );
}

#[test]
fn timers_tick_in_every_vm_but_the_canary_and_can_be_stopped() {
    let wasm = Plugin::new()
        .import("proxy_set_tick_period_milliseconds", 1)
        .import("proxy_log", 3)
        .code(
            "(global $ticks (mut i32) (i32.const 0))
             (func (export \"proxy_on_configure\") (param i32 i32) (result i32) (i32.eqz (call $proxy_set_tick_period_milliseconds (i32.const 10))))
             (func (export \"proxy_on_tick\") (param i32)
               (drop (call $proxy_log (i32.const 2) (i32.const 0) (i32.const 1)))
               (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
               (if (i32.eq (global.get $ticks) (i32.const 3)) (then (drop (call $proxy_set_tick_period_milliseconds (i32.const 0))))))",
        )
        .build();
    let report = passes("name: ticks\nplugin: {}\nhost: { workers: 2, until: 1s }", &wasm);
    let ticks: Vec<_> =
        report.logs.iter().map(|line| (line.at_ns / 1_000_000, line.vm.as_str())).collect();
    let each = |at| [(at, "main"), (at, "w0"), (at, "w1")];
    assert_eq!(ticks, [each(10), each(20), each(30)].concat());
    let none = passes("name: no ticks\nplugin: {}", &wasm);
    assert!(none.logs.is_empty(), "without work or until, timers do not run");
}

/// Logs its configuration, its environment and 4 random bytes.
fn curious() -> Vec<u8> {
    let plugin = Plugin::new().import("proxy_get_buffer_bytes", 5).import("proxy_log", 3).import("proxy_get_current_time_nanoseconds", 1).import_text(
        "(import \"wasi_snapshot_preview1\" \"environ_get\" (func $environ (param i32 i32) (result i32)))
         (import \"wasi_unstable\" \"random_get\" (func $random (param i32 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
         (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))",
    );
    plugin
        .code(
            "(func $show (param $buffer i32)
               (if (call $proxy_get_buffer_bytes (local.get $buffer) (i32.const 0) (i32.const 999) (i32.const 0) (i32.const 4)) (then unreachable))
               (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))
             (func (export \"proxy_on_vm_start\") (param i32 i32) (result i32) (call $show (i32.const 6)) (i32.const 1))
             (func (export \"proxy_on_configure\") (param i32 i32) (result i32)
               (call $show (i32.const 7))
               (if (call $environ (i32.const 100) (i32.const 200)) (then unreachable))
               (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 100)) (i32.const 3)))
               (if (call $random (i32.const 300) (i32.const 4)) (then unreachable))
               (if (call $proxy_get_current_time_nanoseconds (i32.const 400)) (then unreachable))
               (if (call $clock (i32.const 0) (i64.const 1) (i32.const 408)) (then unreachable))
               (if (i64.ne (i64.load (i32.const 400)) (i64.load (i32.const 408))) (then unreachable))
               (if (i64.ne (i64.load (i32.const 400)) (i64.const 1767225600000000000)) (then unreachable))
               ;; One line on stderr made of two pieces.
               (i32.store (i32.const 500) (i32.const 200)) (i32.store (i32.const 504) (i32.const 1))
               (i32.store (i32.const 508) (i32.const 202)) (i32.store (i32.const 512) (i32.const 1))
               (if (call $write (i32.const 2) (i32.const 500) (i32.const 2) (i32.const 520)) (then unreachable))
               (if (i32.ne (call $write (i32.const 3) (i32.const 500) (i32.const 2) (i32.const 520)) (i32.const 8)) (then unreachable))
               (drop (call $proxy_log (i32.const 2) (i32.const 300) (i32.const 4)))
               (i32.const 1))",
        )
        .build()
}

#[test]
fn configuration_environment_clock_and_streams_reach_the_plugin() {
    let report = passes(
        "name: curious\nplugin: { config: { b: [1], a: x }, vm_config: raw text, env: { A: bcd } }\nhost: { main: false, canary: false }",
        &curious(),
    );
    let lines: Vec<_> =
        report.logs.iter().take(4).map(|line| (line.level.name(), line.message.as_str())).collect();
    assert_eq!(
        lines,
        [("info", "raw text"), ("info", r#"{"a":"x","b":[1]}"#), ("info", "A=b"), ("error", "Ab")]
    );
}

#[test]
fn the_same_run_is_the_same_to_the_byte_and_another_seed_is_not() {
    let yaml = |seed: u32| {
        format!(
            "name: seed\nplugin: {{ config: x, vm_config: y, env: {{ A: bcd }} }}\nhost: {{ seed: {seed}, workers: 2 }}\ntimeline: [{{ at: 0ms, client: a, send: {{}} }}]"
        )
    };
    let all = |seed| {
        let report = run(&yaml(seed), &curious());
        format!("{}{:?}{:?}", trace(&report), report.logs, report.exchanges)
    };
    assert_eq!(all(1), all(1));
    assert_ne!(all(1), all(2));
}

/// Answers with the number of calls so far and the time it was asked.
struct Counter {
    calls: u32,
}

impl Service for Counter {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        self.calls += 1;
        assert_eq!((request.method().as_str(), request.path().as_str()), ("POST", "/v1/decide"));
        let at_ms = (now_unix_ns / 1_000_000) % 1_000;
        Reply {
            after_ns: 7_000_000,
            ..Reply::now(Answer::new(
                200 + u16::try_from(self.calls + 10 * u32::try_from(at_ms).unwrap()).unwrap(),
                "",
            ))
        }
    }
}

#[test]
fn a_service_of_the_callers_own_stands_behind_a_cluster() {
    let scenario = Scenario::parse(
        "name: in process
plugin: {}
gateway: in-process
timeline: [{ at: 3ms, client: a, send: {} }, { at: 13ms, client: a, send: {} }]
expect:
  - { upstream_request: 1, headers: { x-verdict: 231 }, at: 10ms }
  - { upstream_request: 2, headers: { x-verdict: 332 }, at: 20ms }",
    )
    .unwrap();
    let wasm = crate::callouts::asking().build();
    let runner = Runner::with_cache(None).unwrap();
    let report = runner
        .run_bytes(&scenario, &wasm, Services::default().bind("gateway", Counter { calls: 0 }))
        .unwrap();
    assert!(report.passed(), "{report}");
    let error = runner.run_bytes(&scenario, &wasm, Services::default()).unwrap_err();
    assert!(error.to_string().contains("Services::bind"), "{error}");
}

/// Envoy's allow-list of functions and callbacks, as an operator writes it.
#[test]
fn what_is_not_among_the_capabilities_is_refused_or_not_called() {
    let wasm = Plugin::new()
        .import("proxy_get_current_time_nanoseconds", 1)
        .code("(func (export \"proxy_on_log\") (param i32) unreachable)")
        .on_request_headers(
            "(if (i32.ne (call $proxy_get_current_time_nanoseconds (i32.const 0)) (i32.const 10)) (then unreachable)) (i32.const 0)",
        )
        .build();
    let report = passes(
        "name: restricted
plugin: { capabilities: [proxy_on_request_headers, proxy_log] }
host: { main: false, canary: false }
timeline: [{ at: 0ms, client: a, send: {} }]
expect: [{ client: a, status: 200 }, { no_log_at: error }]",
        &wasm,
    );
    let names: Vec<_> =
        report.trace.iter().filter(|line| line.vm == "w0").map(|line| line.name.as_str()).collect();
    assert_eq!(names, ["proxy_on_request_headers", "proxy_get_current_time_nanoseconds"]);
}

#[test]
fn a_clock_that_is_set_shows_another_time_and_moves_no_timer() {
    let plugin = Plugin::new().import("proxy_get_current_time_nanoseconds", 1).on_request_headers(
        "(drop (call $proxy_get_current_time_nanoseconds (i32.const 0)))
         (if (i64.lt_u (i64.load (i32.const 0)) (i64.const 1767225603500000000)) (then unreachable))
         (i32.const 0)",
    );
    passes(
        "name: clock steps
plugin: {}
host: { workers: 2, clock_steps: [[5s, -2000], [6s, 10000]] }
timeline:
  - { at: 4s, client: before, send: {} }
  - { at: 5s, client: back, worker: 1, send: {} }
  - { at: 6s, client: forth, send: {} }
expect:
  - { client: before, status: 200, at: 4s }
  - { client: back, status: 503 }
  - { client: forth, status: 200, at: 6s }",
        &plugin.build(),
    );
}
