//! Ten thousand circuit breakers in one filter: what they cost in memory, a request, and a tick.

use std::collections::BTreeMap;

use host_sim::in_process::InProcess;
use tidegate_host_sim::{
    Outcome, Reply, Report, Scenario, Service, ServiceRequest, Services, TraceKind,
};
use tidegate_policy::wire::breaker::{BreakerName, BreakersReply, BreakersRequest};
use tidegate_policy::wire::encode;
use tidegate_tests::{lab, parts};

use super::{runner, services};

const COUNT: usize = 10_000;
/// How many of them have a request a second time.
const AGAIN: usize = 2_000;
/// What one tick may ask of the host at most, whatever there is to do (docs/breakers.md).
const TICK_CALLS_MAX: usize = 2_200;

pub(crate) fn run(yaml: &str) -> Report {
    let scenario = Scenario::parse(yaml).unwrap_or_else(|error| panic!("{error}"));
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    run_with(scenario, services)
}

fn run_with(scenario: Scenario, services: Services) -> Report {
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let scenario = scenario.with_trace();
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

/// How many host calls each callback of a name made, in order.
pub(crate) fn calls_of(report: &Report, callback: &str) -> Vec<usize> {
    let mut open: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    let mut calls: Vec<usize> = Vec::new();
    for line in &report.trace {
        match line.kind {
            TraceKind::Callback if line.name == callback => {
                calls.push(0);
                open.insert(&line.vm, Some(calls.len() - 1));
            }
            TraceKind::Callback => {
                open.insert(&line.vm, None);
            }
            TraceKind::HostCall => {
                if let Some(Some(at)) = open.get(line.vm.as_str()) {
                    calls[*at] += 1;
                }
            }
            TraceKind::World => {}
        }
    }
    calls
}

#[test]
fn ten_thousand_breakers_cost_a_bounded_tick() {
    let mut timeline = String::new();
    for (round, count) in [COUNT, AGAIN].into_iter().enumerate() {
        for value in 0..count {
            let at_us = round * 4_000_000 + value * 100;
            timeline.push_str(&format!(
                "  - {{ at: {at_us}us, client: r{round}, worker: {}, send: {{ path: /p, headers: {{ x-c: c{value} }} }} }}\n",
                value % 2,
            ));
        }
    }
    let report = run(&format!(
        "name: many\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: {COUNT} }} }}] }}\nhost: {{ workers: 2, memory_max: 32MiB }}\ngateway: in-process\ntimeline:\n{timeline}"
    ));
    assert_eq!(report.exchanges.len(), COUNT + AGAIN);
    assert!(report.exchanges.iter().all(|one| one.status == Some(200)));
    let shared = report.metrics.iter().filter(|(name, _)| name.ends_with("no_room"));
    let shared: u64 = shared.map(|(_, count)| *count).sum();
    let grown: u64 = report.exchanges.iter().map(|one| one.usage.grown_bytes).sum();
    let most = |calls: &[usize]| calls.iter().copied().max().unwrap_or_default();
    let (ticks, answers) =
        (calls_of(&report, "proxy_on_tick"), calls_of(&report, "proxy_on_http_call_response"));
    let later = report.exchanges.iter().filter(|one| one.client == "r1");
    let request = later.map(|one| one.usage.host_calls).max().unwrap_or_default();
    println!(
        "{COUNT} breakers, 2 workers: {} KiB for both workers' requests, {} of {} requests found no room, a request {request} host calls at most once known, a tick {} (of {}), an answer {} (of {})",
        grown / 1024,
        shared,
        COUNT + AGAIN,
        most(&ticks),
        ticks.len(),
        most(&answers),
        answers.len(),
    );
    assert_eq!(shared, 0, "there is room for as many as there are to be");
    assert!(grown < 3 << 20, "{grown} bytes");
    assert!(most(&ticks) <= TICK_CALLS_MAX, "{}", most(&ticks));
    assert!(most(&answers) <= 1_500, "{}", most(&answers));
}

/// Each of so many fails once, and is asked again.
fn shut_and_asked_again(count: usize, again_ms: usize) -> String {
    let mut timeline = String::new();
    for (round, at_ms) in [0, again_ms].into_iter().enumerate() {
        for value in 0..count {
            timeline.push_str(&format!(
                "  - {{ at: {}ms, client: r{round}, worker: {}, send: {{ path: /p/bad, headers: {{ x-c: c{value} }} }} }}\n",
                at_ms + value,
                value % 2,
            ));
        }
    }
    timeline
}

/// So many are shut and wait for a test that one report cannot name them all: the failures of another one are heard of
/// all the same.
#[test]
fn many_that_are_shut_keep_no_outage_of_another_from_being_noticed() {
    let shut = 600;
    let mut timeline = shut_and_asked_again(shut, 3_000);
    for (nth, path) in ["/h/good", "/h/bad"].into_iter().cycle().take(60).enumerate() {
        let at_ms = 6_000 + nth * 100;
        let worker = nth / 2 % 2;
        timeline.push_str(&format!(
            "  - {{ at: {at_ms}ms, client: h, worker: {worker}, send: {{ path: {path} }} }}\n"
        ));
    }
    let report = run(&format!(
        "name: many that are shut\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p/** }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: {shut}, consecutive: 1, open: 1s }} }}, {{ name: h, match: {{ path: /h/** }}, circuit_breaker: {{ failure_rate: 40%, consecutive: 100 }} }}] }}\nhost: {{ workers: 2, memory_max: 32MiB }}\ngateway: in-process\nupstream:\n  - {{ on: GET /p/bad, answer: {{ status: 500 }} }}\n  - {{ on: GET /h/bad, answer: {{ status: 500 }} }}\n  - {{ answer: {{ status: 200 }} }}\ntimeline:\n{timeline}"
    ));
    let of = |client| report.exchanges.iter().filter(move |one| one.client == client);
    assert!(of("r1").all(|one| one.status == Some(503)), "all of them are shut");
    assert_eq!(of("h").next_back().and_then(|one| one.status), Some(503), "it was shut, too");
}

/// So many are shut and wait for a test that one report names only every tenth of them: the end of a test is told with the
/// next report all the same, long before the test is lost.
#[test]
fn many_that_are_shut_keep_no_end_of_a_test_from_being_told_in_time() {
    let shut = 1_200;
    let mut timeline = shut_and_asked_again(shut, 4_000);
    timeline.push_str("  - { at: 5s, client: dies, worker: 0, send: { path: /h/bad } }\n");
    timeline.push_str(
        "  - { at: 7s, client: h, worker: 1, times: 200, every: 50ms, send: { path: /h/good } }\n",
    );
    let own = "consecutive: 1, open: 1s, upstream_timeout: 1s";
    let report = run(&format!(
        "name: many that are shut\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p/** }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: {shut}, {own} }} }}, {{ name: h, match: {{ path: /h/** }}, circuit_breaker: {{ {own} }} }}] }}\nhost: {{ workers: 2, memory_max: 32MiB }}\ngateway: in-process\nupstream:\n  - {{ on: GET /p/bad, answer: {{ status: 500 }} }}\n  - {{ on: GET /h/bad, answer: {{ status: 500 }} }}\n  - {{ answer: {{ status: 200 }} }}\ntimeline:\n{timeline}"
    ));
    let of = |client| report.exchanges.iter().filter(move |one| one.client == client);
    assert!(of("r1").all(|one| one.status == Some(503)), "all of them are shut");
    let told =
        |event| report.metrics.get(&format!("tidegate_circuit_total.breaker.h.event.{event}"));
    assert_eq!((told("test"), told("test_ok")), (Some(&3), Some(&3)), "each of them counted");
    assert_eq!(of("h").next_back().and_then(|one| one.status), Some(200), "it is closed");
}

/// A gateway that from some moment on cannot reach those of its breakers that have this configured name.
struct Partly {
    gateway: InProcess,
    away: &'static str,
    from_unix_ns: u64,
}

impl Service for Partly {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        let message = BreakersRequest::decode(&request.body).ok();
        let Some(mut message) = message.filter(|_| now_unix_ns >= self.from_unix_ns) else {
            return self.gateway.call(now_unix_ns, request);
        };
        let is_there = |name: &BreakerName| name.configured() != self.away;
        message.breakers.reports.retain(|report| is_there(&report.name));
        let request = ServiceRequest { body: encode(&message), ..request.clone() };
        let mut reply = self.gateway.call(now_unix_ns, &request);
        if let Outcome::Answer(answer) = &mut reply.outcome
            && let Ok(mut told) = BreakersReply::decode(&answer.body, message.id)
        {
            told.breakers.states.retain(|state| is_there(&state.name));
            answer.body = encode(&told);
        }
        reply
    }
}

/// More tests have ended than one report names, and nobody hears of it, since their part of the store is away: they are told again
/// with each report, and still one of another part that wants a test gets it.
#[test]
fn ends_that_nobody_hears_of_keep_no_other_from_being_tested() {
    const AWAY_MS: u64 = 4_150;
    let shut = 200;
    let mut timeline = shut_and_asked_again(shut, 3_000);
    for value in 0..shut {
        timeline.push_str(&format!(
            "  - {{ at: {}ms, client: tests, worker: {}, send: {{ path: /p/good, headers: {{ x-c: c{value} }} }} }}\n",
            4_200 + value,
            value % 2,
        ));
    }
    timeline.push_str("  - { at: 3900ms, client: dies, worker: 0, send: { path: /h/bad } }\n");
    timeline.push_str(
        "  - { at: 7s, client: h, worker: 1, times: 200, every: 50ms, send: { path: /h/good } }\n",
    );
    let own = "consecutive: 1, open: 1s";
    let scenario = Scenario::parse(&format!(
        "name: ends that nobody hears of\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p/** }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: {shut}, {own}, upstream_timeout: 30s }} }}, {{ name: h, match: {{ path: /h/** }}, circuit_breaker: {{ {own}, upstream_timeout: 1s }} }}] }}\nhost: {{ workers: 2, memory_max: 32MiB, start_unix_s: {} }}\ngateway: in-process\nupstream:\n  - {{ on: GET /p/bad, answer: {{ status: 500 }} }}\n  - {{ on: GET /h/bad, answer: {{ status: 500 }} }}\n  - {{ answer: {{ status: 200 }} }}\ntimeline:\n{timeline}",
        lab::START_UNIX_S,
    ));
    let gateway = InProcess::new(&[]).expect("the gateway's defaults");
    let from_unix_ns = lab::START_UNIX_S * 1_000_000_000 + AWAY_MS * 1_000_000;
    let services = Services::default().bind_any(Partly { gateway, away: "p", from_unix_ns });
    let report = run_with(scenario.expect("a scenario"), services);
    let of = |client| report.exchanges.iter().filter(move |one| one.client == client);
    assert!(of("r1").all(|one| one.status == Some(503)), "all of them are shut");
    assert!(of("tests").all(|one| one.status == Some(200)), "each of them is tested");
    assert_eq!(of("h").next().and_then(|one| one.status), Some(503), "it is shut");
    assert_eq!(of("h").next_back().and_then(|one| one.status), Some(200), "and is closed");
}
