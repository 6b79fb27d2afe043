//! Lints: for each a plugin that earns it, and one that comes close and does not.

use tidegate_host_sim::{
    HOST_CALLS_MAX, Lint, LintName, METRIC_NAMES_MAX, Report, SHARED_KEYS_MAX, Scenario,
};

use crate::support::{Plugin, at, passes, run};

const HTTP_CALL: &str = "(call $proxy_http_call";
const PAUSE: &str = "(i32.const 1)";
const CONTINUE: &str = "(i32.const 0)";

/// A plugin that can ask `gateway`, and the call with a timeout, which leaves a status.
fn asking(timeout_ms: u32) -> (Plugin, String) {
    let mut plugin = Plugin::new()
        .import("proxy_http_call", 10)
        .import("proxy_continue_stream", 1)
        .import("proxy_set_effective_context", 1);
    let cluster = at(plugin.data(b"gateway"));
    let headers = at(plugin.map(&[(":method", "POST"), (":path", "/"), (":authority", "gateway")]));
    let none = "(i32.const 0) (i32.const 0)";
    let call = format!(
        "{HTTP_CALL} {cluster} {headers} {none} {none} (i32.const {timeout_ms}) (i32.const 0))"
    );
    (plugin, call)
}

/// Resumes the stream 2, the first of a worker, when an answer comes.
fn resuming(plugin: Plugin) -> Plugin {
    plugin.code(
        "(func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
           (drop (call $proxy_set_effective_context (i32.const 2)))
           (drop (call $proxy_continue_stream (i32.const 0))))",
    )
}

fn on(plugin: Plugin, callback: &str, params: usize, body: &str) -> Plugin {
    let params = "i32 ".repeat(params);
    plugin.code(&format!("(func (export \"{callback}\") (param {params}) (result i32) {body})"))
}

fn on_nothing(plugin: Plugin, callback: &str, params: usize, body: &str) -> Plugin {
    let params = "i32 ".repeat(params);
    plugin.code(&format!("(func (export \"{callback}\") (param {params}) {body})"))
}

/// A scenario with these host options and this timeline; the gateway answers after 20 ms.
fn scenario(host: &str, timeline: &str) -> String {
    format!(
        "name: lints\nplugin: {{}}\nhost: {{ {host} }}\ngateway: [{{ answer: 200, after: 20ms }}]\ntimeline: [{timeline}]\n"
    )
}

const GET: &str = "{ at: 0ms, client: a, send: {} }";
const POST: &str = "{ at: 0ms, client: a, send: { method: POST, chunks: [{ data: a }, { after: 5ms, data: b }] } }";
const WITH_FLAG: &str = "allow_on_headers_stop_iteration: true";

fn names(report: &Report) -> Vec<LintName> {
    report.lints.iter().map(|lint| lint.name).collect()
}

/// The one lint that there is.
fn only(report: &Report, name: LintName) -> &Lint {
    assert_eq!(names(report), [name], "{:#?}", report.lints);
    &report.lints[0]
}

fn has_none(report: &Report) {
    assert_eq!(names(report), [], "{:#?}", report.lints);
}

/// Asks in request headers and pauses; the answer's callback writes before or after it resumes.
fn writing(writes_first: bool) -> Vec<u8> {
    let (plugin, call) = asking(50);
    let mut plugin = plugin
        .import("proxy_add_header_map_value", 5)
        .import("proxy_get_header_map_size", 2)
        .import("proxy_get_header_map_value", 5);
    let key = at(plugin.data(b":path"));
    let write = format!("(drop (call $proxy_add_header_map_value (i32.const 0) {key} {key}))");
    let resume = "(drop (call $proxy_continue_stream (i32.const 0)))";
    let order =
        if writes_first { format!("{write}{resume}") } else { format!("{resume}{write}{write}") };
    let plugin = plugin.on_request_headers(&format!("(drop {call}) {PAUSE}")).code(&format!(
        "(func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
           (drop (call $proxy_set_effective_context (i32.const 2)))
           {order}
           (drop (call $proxy_get_header_map_size (i32.const 0) (i32.const 0)))
           (drop (call $proxy_get_header_map_value (i32.const 0) {key} (i32.const 0) (i32.const 4)))
           ;; The response's headers are not there yet, which is another mistake.
           (drop (call $proxy_add_header_map_value (i32.const 2) {key} {key})))"
    ));
    plugin.build()
}

#[test]
fn a_header_write_after_the_resume_is_refused() {
    let yaml = scenario("", GET);
    let report = run(&yaml, &writing(false));
    let lint = only(&report, LintName::WriteAfterResume);
    assert_eq!(
        (lint.at_ns, lint.vm.as_str(), lint.context, lint.callback, lint.host_call),
        (20_000_000, "w0", 2, "proxy_on_http_call_response", Some("proxy_add_header_map_value"))
    );
    has_none(&run(&yaml, &writing(true)));
}

#[test]
fn a_pause_hangs_that_no_callout_timer_or_queue_can_end() {
    let hanging = || Plugin::new().on_request_headers(PAUSE);
    let report = run(&scenario("", GET), &hanging().build());
    let lint = only(&report, LintName::PauseWithoutCallout);
    assert_eq!((lint.context, lint.callback), (2, "proxy_on_request_headers"));
    // Without the flag a pause in headers holds everything, and no body callback comes.
    assert_eq!(names(&run(&scenario("", POST), &hanging().build())), names(&report));

    // With the flag the body callback can still decide; it is the last one that must not pause.
    let body = |action: &str| on(hanging(), "proxy_on_request_body", 3, action).build();
    has_none(&run(&scenario(WITH_FLAG, POST), &body("(i32.eqz (local.get 2))")));
    let report = run(&scenario(WITH_FLAG, POST), &body(PAUSE));
    let lint = only(&report, LintName::PauseWithoutCallout);
    assert_eq!((lint.at_ns, lint.callback), (5_000_000, "proxy_on_request_body"));

    let response = on(Plugin::new(), "proxy_on_response_headers", 3, PAUSE);
    let report = run(&scenario("", GET), &response.build());
    assert!(only(&report, LintName::PauseWithoutCallout).detail.contains("the response waits"));
}

#[test]
fn a_pause_that_something_may_end_does_not_hang() {
    let (plugin, call) = asking(50);
    let asking = resuming(plugin.on_request_headers(&format!("(drop {call}) {PAUSE}"))).build();
    has_none(&run(&scenario("", GET), &asking));
    // The answer comes and nobody resumes.
    let (plugin, call) = asking_only();
    let report = run(&scenario("", GET), &plugin.on_request_headers(&call).build());
    assert_eq!(only(&report, LintName::PauseWithoutCallout).at_ns, 20_000_000);

    let ticking =
        Plugin::new().import("proxy_set_tick_period_milliseconds", 1).on_request_headers(PAUSE);
    let tick = |ms| {
        format!("(drop (call $proxy_set_tick_period_milliseconds (i32.const {ms}))) (i32.const 1)")
    };
    let configured = |plugin: Plugin, body: &str| on(plugin, "proxy_on_configure", 2, body);
    has_none(&run(&scenario("", GET), &configured(ticking, &tick(10)).build()));

    let mut queue =
        Plugin::new().import("proxy_register_shared_queue", 3).on_request_headers(PAUSE);
    let name = at(queue.data(b"q"));
    let register =
        format!("(call $proxy_register_shared_queue {name} (i32.const 0)) (drop) (i32.const 1)");
    let queue = configured(queue, &register).build();
    has_none(&run(&scenario("", GET), &queue));
    // The last VM that registers is the only one that hears of values.
    let on_first = "{ at: 0ms, client: a, worker: 0, send: {} }";
    let report = run(&scenario("workers: 2", on_first), &queue);
    only(&report, LintName::PauseWithoutCallout);
}

/// Asks and pauses, and does nothing with the answer.
fn asking_only() -> (Plugin, String) {
    let (plugin, call) = asking(50);
    (plugin, format!("(drop {call}) {PAUSE}"))
}

#[test]
fn a_reply_ends_a_pause_and_so_does_a_client_that_leaves() {
    let replying = Plugin::new().import("proxy_send_local_response", 8).on_request_headers(
        "(drop (call $proxy_send_local_response (i32.const 429) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
           (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1)",
    );
    has_none(&run(&scenario("", GET), &replying.build()));
    let (plugin, pause) = asking_only();
    let left = "{ at: 0ms, client: a, send: {} }, { at: 5ms, client: a, disconnect: true }";
    has_none(&run(&scenario("", left), &plugin.on_request_headers(&pause).build()));
}

#[test]
fn a_body_callback_releases_what_waits_for_a_verdict() {
    let judged = |body: Option<&str>| {
        let (plugin, pause) = asking_only();
        let plugin = resuming(plugin.on_request_headers(&pause));
        match body {
            Some(body) => on(plugin, "proxy_on_request_body", 3, body).build(),
            None => plugin.build(),
        }
    };
    let yaml = scenario(WITH_FLAG, POST) + "expect: [{ upstream_request: 1, at: 0ms }]\n";
    // No body callback at all is a Continue, too.
    for wasm in [judged(Some(CONTINUE)), judged(None)] {
        let report = passes(&yaml, &wasm);
        let lint = only(&report, LintName::ReleasedBeforeVerdict);
        assert_eq!((lint.at_ns, lint.callback), (0, "proxy_on_request_body"));
    }
    let yaml = scenario(WITH_FLAG, POST) + "expect: [{ upstream_request: 1, at: 20ms }]\n";
    has_none(&passes(&yaml, &judged(Some(PAUSE))));
    // Without the flag no body callback comes before the verdict.
    let yaml = scenario("", POST) + "expect: [{ upstream_request: 1, at: 20ms }]\n";
    has_none(&passes(&yaml, &judged(Some(CONTINUE))));
}

#[test]
fn trailers_release_what_waits_for_a_verdict() {
    let (plugin, pause) = asking_only();
    let plugin = resuming(plugin.on_request_headers(&pause));
    let plugin = on(plugin, "proxy_on_request_body", 3, PAUSE);
    let wasm = on(plugin, "proxy_on_request_trailers", 2, CONTINUE).build();
    let trailers =
        "{ at: 0ms, client: a, send: { method: POST, body: a, trailers: { x-t: '1' } } }";
    let report = run(&scenario(WITH_FLAG, trailers), &wasm);
    let lint = only(&report, LintName::ReleasedBeforeVerdict);
    assert_eq!(lint.callback, "proxy_on_request_trailers");
}

#[test]
fn a_callout_that_nobody_waits_for_holds_nothing() {
    // It is sent by a callback that continues, and the pause comes later.
    let (plugin, call) = asking(50);
    let plugin = plugin.on_request_headers(&format!("(drop {call}) {CONTINUE}"));
    let wasm = on(plugin, "proxy_on_request_body", 3, "(i32.eqz (local.get 2))").build();
    has_none(&run(&scenario("", POST), &wasm));
    // The pause is over before the answer: the first chunk's callback resumes, the second one's pauses again.
    let (plugin, pause) = asking_only();
    let plugin = plugin.code("(global $n (mut i32) (i32.const 0))").on_request_headers(&pause);
    let wasm = on(
        plugin,
        "proxy_on_request_body",
        3,
        "(global.set $n (i32.add (global.get $n) (i32.const 1)))
         (if (i32.eq (global.get $n) (i32.const 1)) (then (drop (call $proxy_continue_stream (i32.const 0)))))
         (i32.eqz (local.get 2))",
    )
    .build();
    has_none(&run(&scenario(WITH_FLAG, POST), &wasm));
}

#[test]
fn a_body_that_goes_on_after_the_verdict_is_no_bypass() {
    // Nobody resumes: the body callback knows of the answer and lets go.
    let late = POST.replace("after: 5ms", "after: 30ms");
    let (plugin, pause) = asking_only();
    let plugin = plugin
        .code("(global $answered (mut i32) (i32.const 0))")
        .code(
            "(func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
               (global.set $answered (i32.const 1)))",
        )
        .on_request_headers(&pause);
    let wasm = on(plugin, "proxy_on_request_body", 3, "(i32.eqz (global.get $answered))").build();
    let yaml = scenario(WITH_FLAG, &late) + "expect: [{ upstream_request: 1, at: 30ms }]\n";
    has_none(&passes(&yaml, &wasm));
    // The callback that asks resumes itself.
    let (plugin, call) = asking(50);
    let plugin = plugin.on_request_headers(&format!(
        "(drop {call}) (drop (call $proxy_continue_stream (i32.const 0))) {PAUSE}"
    ));
    has_none(&run(&scenario(WITH_FLAG, POST), &plugin.build()));
}

#[test]
fn a_reply_in_on_log_kills_envoy() {
    let replying = |callback: &str| {
        let plugin = Plugin::new().import("proxy_send_local_response", 8);
        on_nothing(
            plugin,
            callback,
            1,
            "(drop (call $proxy_send_local_response (i32.const 500) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const 0) (i32.const 0) (i32.const -1)))",
        )
        .build()
    };
    let report = run(&scenario("", GET), &replying("proxy_on_log"));
    assert!(!report.passed());
    only(&report, LintName::LocalReplyInLog);
    has_none(&run(&scenario("", GET), &replying("proxy_on_delete")));
}

#[test]
fn a_callout_needs_a_timeout() {
    let sending = |timeout_ms| {
        let (plugin, call) = asking(timeout_ms);
        resuming(plugin.on_request_headers(&format!("(drop {call}) {PAUSE}"))).build()
    };
    only(&run(&scenario("", GET), &sending(0)), LintName::CalloutWithoutTimeout);
    has_none(&run(&scenario("", GET), &sending(1_000)));
    // What is refused at once waits for nobody.
    let (plugin, call) = asking(0);
    let wasm = plugin.on_request_headers(&format!("(drop {call}) {CONTINUE}")).build();
    has_none(&run(&format!("{}clusters: [other]\n", scenario("", GET)), &wasm));
}

#[test]
fn the_status_of_a_callout_cannot_be_relied_on() {
    let reading = |function: &str, params| {
        let zeros = "(i32.const 0) ".repeat(params);
        Plugin::new()
            .import(function, params)
            .on_request_headers(&format!("(drop (call ${function} {zeros})) {CONTINUE}"))
            .build()
    };
    let report = run(&scenario("", GET), &reading("proxy_get_status", 3));
    let lint = only(&report, LintName::GetStatus);
    assert_eq!(lint.host_call, Some("proxy_get_status"));
    has_none(&run(&scenario("", GET), &reading("proxy_get_buffer_status", 3)));
}

/// Sets keys, each with another number in its name, as often as the callback loops.
fn setting_keys(callback: &str, params: usize, count: usize, is_new: bool) -> Vec<u8> {
    let step = i32::from(is_new);
    on(
        Plugin::new().import("proxy_set_shared_data", 5).code("(global $key (mut i32) (i32.const 0))"),
        callback,
        params,
        &format!(
            "(local $n i32)
             (loop $more
               (global.set $key (i32.add (global.get $key) (i32.const {step})))
               (i32.store (i32.const 0) (global.get $key))
               (drop (call $proxy_set_shared_data (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 0)))
               (local.set $n (i32.add (local.get $n) (i32.const 1)))
               (br_if $more (i32.lt_u (local.get $n) (i32.const {count}))))
             (i32.eqz (i32.const {}))",
            i32::from(callback == "proxy_on_request_headers")
        ),
    )
    .build()
}

const MANY_CALLS: &str = "host_calls_lint: 1000000";

#[test]
fn shared_keys_of_requests_have_a_bound() {
    const CALLBACK: &str = "proxy_on_request_headers";
    let yaml = scenario(MANY_CALLS, "{ at: 0ms, client: a, send: {}, times: 2, every: 1ms }");
    let half = SHARED_KEYS_MAX / 2;
    has_none(&run(&yaml, &setting_keys(CALLBACK, 3, half, true)));
    let report = run(&yaml, &setting_keys(CALLBACK, 3, half + 1, true));
    assert_eq!(only(&report, LintName::SharedKeysGrow).at_ns, 1_000_000);
    has_none(&run(&yaml, &setting_keys(CALLBACK, 3, SHARED_KEYS_MAX + 1, false)));
    // Those of the configuration are as many as it says.
    has_none(&run(&yaml, &setting_keys("proxy_on_configure", 2, SHARED_KEYS_MAX + 1, true)));
}

#[test]
fn shared_keys_that_an_answer_creates_are_its_request_s() {
    let (plugin, call) = asking(50);
    let setting = |sender: &str, plugin: Plugin| {
        let plugin = plugin.import("proxy_set_shared_data", 5);
        let plugin = match sender {
            "stream" => plugin.on_request_headers(&format!("(drop {call}) {CONTINUE}")),
            _ => on(plugin, "proxy_on_configure", 2, &format!("(drop {call}) {PAUSE}")),
        };
        on_nothing(
            plugin,
            "proxy_on_http_call_response",
            5,
            &format!(
                "(local $n i32)
                 (loop $more
                   (i32.store (i32.const 0) (local.get $n))
                   (drop (call $proxy_set_shared_data (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 0)))
                   (local.set $n (i32.add (local.get $n) (i32.const 1)))
                   (br_if $more (i32.le_u (local.get $n) (i32.const {SHARED_KEYS_MAX}))))"
            ),
        )
        .build()
    };
    let wasm = setting("stream", plugin);
    only(&run(&scenario("", GET), &wasm), LintName::SharedKeysGrow);
    let (plugin, _) = asking(50);
    has_none(&run(&scenario("", GET), &setting("root", plugin)));
}

#[test]
fn metric_names_of_requests_have_a_bound() {
    let defining = |count: usize, step: i32| {
        Plugin::new()
            .import("proxy_define_metric", 4)
            .code("(global $name (mut i32) (i32.const 0))")
            .on_request_headers(&format!(
                "(local $n i32)
                 (loop $more
                   (global.set $name (i32.add (global.get $name) (i32.const {step})))
                   ;; Two letters of 64 each, so that every name is text.
                   (i32.store8 (i32.const 0) (i32.or (i32.const 64) (i32.and (global.get $name) (i32.const 63))))
                   (i32.store8 (i32.const 1) (i32.or (i32.const 64) (i32.shr_u (global.get $name) (i32.const 6))))
                   (drop (call $proxy_define_metric (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 8)))
                   (local.set $n (i32.add (local.get $n) (i32.const 1)))
                   (br_if $more (i32.lt_u (local.get $n) (i32.const {count}))))
                 (i32.const 0)"
            ))
            .build()
    };
    let yaml = scenario(MANY_CALLS, GET);
    has_none(&run(&yaml, &defining(METRIC_NAMES_MAX, 1)));
    only(&run(&yaml, &defining(METRIC_NAMES_MAX + 1, 1)), LintName::MetricNamesGrow);
    has_none(&run(&yaml, &defining(METRIC_NAMES_MAX + 1, 0)));
}

#[test]
fn a_counter_at_the_start_counts_vms() {
    let counting = |callback: &str, params: usize, kind: u32| {
        let mut plugin = Plugin::new()
            .import("proxy_define_metric", 4)
            .import_text("(import \"env\" \"proxy_increment_metric\" (func $increment (param i32 i64) (result i32)))");
        let name = at(plugin.data(b"starts"));
        on(
            plugin,
            callback,
            params,
            &format!(
                "(drop (call $proxy_define_metric (i32.const {kind}) {name} (i32.const 0)))
                 (drop (call $increment (i32.load (i32.const 0)) (i64.const 1)))
                 (i32.eqz (i32.const {}))",
                i32::from(params == 3)
            ),
        )
        .build()
    };
    let (counter, gauge) = (0, 1);
    for callback in ["proxy_on_configure", "proxy_on_vm_start"] {
        let report = run(&scenario("workers: 2", GET), &counting(callback, 2, counter));
        let vms: Vec<_> = report.lints.iter().map(|lint| lint.vm.as_str()).collect();
        assert_eq!(vms, ["canary", "main", "w0", "w1"], "{:#?}", report.lints);
        assert_eq!(report.lints[0].name, LintName::CounterInConfigure);
    }
    has_none(&run(&scenario("", GET), &counting("proxy_on_configure", 2, gauge)));
    has_none(&run(&scenario("", GET), &counting("proxy_on_request_headers", 3, counter)));
}

#[test]
fn memory_that_grows_with_requests_is_a_leak() {
    let growing = |until: u32| {
        on_nothing(
            Plugin::new().code("(global $n (mut i32) (i32.const 0))"),
            "proxy_on_delete",
            1,
            &format!(
                "(global.set $n (i32.add (global.get $n) (i32.const 1)))
                 (if (i32.le_u (global.get $n) (i32.const {until}))
                   (then (drop (memory.grow (i32.const 1)))))"
            ),
        )
        .build()
    };
    let yaml = scenario("", "{ at: 0ms, client: a, send: {}, times: 600, every: 1ms }");
    let report = run(&yaml, &growing(600));
    let lint = only(&report, LintName::MemoryGrows);
    assert_eq!((lint.at_ns, lint.vm.as_str(), lint.context), (511_000_000, "w0", 0));
    has_none(&run(&yaml, &growing(200)));
}

#[test]
fn host_calls_of_one_request_have_a_bound() {
    let calling = |count: u64| {
        Plugin::new()
            .import("proxy_get_current_time_nanoseconds", 1)
            .on_request_headers(&format!(
                "(local $n i32)
                 (loop $more
                   (drop (call $proxy_get_current_time_nanoseconds (i32.const 0)))
                   (local.set $n (i32.add (local.get $n) (i32.const 1)))
                   (br_if $more (i32.lt_u (local.get $n) (i32.const {count}))))
                 (i32.const 0)"
            ))
            .build()
    };
    // Two requests are two budgets.
    let timeline = "{ at: 0ms, client: a, send: {}, times: 2, every: 1ms }";
    has_none(&run(&scenario("", timeline), &calling(HOST_CALLS_MAX)));
    let report = run(&scenario("", timeline), &calling(HOST_CALLS_MAX + 1));
    assert_eq!(names(&report), [LintName::TooManyHostCalls; 2]);
    only(&run(&scenario("host_calls_lint: 3", GET), &calling(4)), LintName::TooManyHostCalls);
}

#[test]
fn a_scenario_reports_denies_or_ignores_lints() {
    let wasm = Plugin::new().on_request_headers(PAUSE).build();
    let with = |host: &str, expect: &str| {
        run(&format!("{}expect: [{expect}]\n", scenario(host, GET)), &wasm)
    };
    let reported = with("", "");
    assert!(reported.passed() && reported.lints.len() == 1, "{reported}");
    let denied = with("lints: deny", "").to_string();
    for part in
        ["no pause-without-callout", "at 0ms in w0, context 2", "pause only after a callout"]
    {
        assert!(denied.contains(part), "{part:?} is not in:\n{denied}");
    }
    assert!(with("lints: deny", "{ lint: pause-without-callout }").passed());
    let off = with("lints: off", "");
    assert!(off.passed() && off.lints.is_empty(), "{off}");

    assert!(with("", "{ lint: pause-without-callout }").passed());
    assert!(with("", "{ lint: pause-without-callout, max: 1 }").passed());
    assert!(with("", "{ lint: get-status, equals: 0 }").passed());
    assert!(!with("", "{ lint: get-status }").passed());
    let unwanted = with("", "{ lint: pause-without-callout, equals: 0 }").to_string();
    assert!(
        unwanted.contains("1, the first: pause-without-callout: the request waits"),
        "{unwanted}"
    );
}

#[test]
fn a_lint_that_does_not_exist_is_named_with_those_that_do() {
    let error = |host: &str, expect: &str| {
        let yaml = format!("{}expect: [{expect}]\n", scenario(host, GET));
        Scenario::parse(&yaml).expect_err("it must not be accepted").to_string()
    };
    let unknown = error("", "{ lint: get-state }");
    assert!(unknown.contains("get-state"), "{unknown}");
    for name in LintName::ALL {
        assert!(unknown.contains(name.as_str()), "{name} is not in:\n{unknown}");
    }
    let off = error("lints: off", "{ lint: get-status }");
    assert!(off.contains("host.lints is off") && off.contains("get-status"), "{off}");
    assert!(error("lints: maybe", "").contains("maybe"));
}

#[test]
fn a_mistake_that_every_request_makes_is_reported_a_hundred_times() {
    let wasm = Plugin::new().on_request_headers(PAUSE).build();
    let report =
        run(&scenario("", "{ at: 0ms, client: a, send: {}, times: 150, every: 1ms }"), &wasm);
    assert_eq!(names(&report), [LintName::PauseWithoutCallout; 100]);
}
