//! What an operator does to a leased limit while an Envoy denies it by itself: how soon a client that goes on
//! asking is let through, what it is told until then, and what it costs. What becomes of a busy limit while
//! workers' VMs are built anew.

use std::collections::BTreeSet;
use std::fs;

use host_sim::in_process::{InProcess, services};
use tidegate_host_sim::{
    Exchange, Reply, Report, Scenario, Service, ServiceCall, ServiceRequest, Services,
};
use tidegate_policy::wire::MESSAGE_BYTES_MAX;
use tidegate_tests::lab::ideal::{Ideal, Numbers};
use tidegate_tests::{lab, parts};

use super::runner;

const S: u64 = 1_000_000_000;
/// When the operator acts: long before the first unit comes back, and not when a round begins.
const ACT_NS: u64 = 121 * S + S / 10;
/// A round, a tick until it begins, a tick of the worker until it hears.
const HEARD_NS: u64 = 2 * S + S / 2;

/// A gateway, and what its operator does once.
struct Operated {
    gateway: InProcess,
    act: Option<(u64, &'static str, String)>,
}

impl Service for Operated {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        // Nobody sees that it is done at the next call only.
        if let Some((at_ns, path, body)) = self.act.take_if(|(at_ns, ..)| *at_ns <= now_unix_ns) {
            assert_eq!(self.gateway.operate(at_ns, path, &body), Some(200), "{path} {body}");
        }
        self.gateway.call(now_unix_ns, request)
    }
}

/// A gateway that takes 40 ms.
struct Far(InProcess);

impl Service for Far {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        Reply { after_ns: 40_000_000, ..self.0.call(now_unix_ns, request) }
    }
}

/// Five an hour, and one client that asks so often in each of four workers.
fn run(every_ms: u64, shares: bool, act: Option<(&'static str, &'static str)>) -> Report {
    let times = 180_000 / every_ms;
    let worker = |worker: u64| {
        let at_ms = worker * every_ms / 4;
        format!(
            "  - {{ at: {at_ms}ms, client: w{worker}, worker: {worker}, address: \"192.0.2.1:1\", times: {times}, every: {every_ms}ms, send: {{ path: /p }} }}\n"
        )
    };
    let capabilities = if shares { String::new() } else { lab::alone() };
    let yaml = format!(
        "name: an operator acts\nplugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, rate_limits: [{{ name: l, by: ip, limit: 5, per: 1h, decide: lease }}] }}] }}{capabilities} }}\n\
         host: {{ workers: 4, main: {shares}, start_unix_s: {start}, until: 190s, lints: \"off\" }}\ngateway: in-process\ntimeline:\n{}",
        (0..4).map(worker).collect::<String>(),
        start = lab::START_UNIX_S,
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let act = act.map(|(path, units)| {
        let of =
            r#""limit": "p.l", "subject": {"kind": "ip", "name": "192.0.2.1"}, "tenant": null"#;
        (lab::START_UNIX_S * S + ACT_NS, path, format!("{{{of}{units}}}"))
    });
    let gateway = InProcess::new(&[]).expect("the gateway's defaults");
    let services = Services::default().bind_any(Operated { gateway, act });
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

/// When requests were let through, by time.
fn admitted_ns(report: &Report) -> Vec<u64> {
    let sent = report.exchanges.iter().filter(|one| one.status == Some(200));
    let mut sent: Vec<u64> = sent.map(|one| one.sent_at_ns).collect();
    sent.sort_unstable();
    sent
}

/// How many callouts there were, of requests and besides.
fn callouts(report: &Report) -> (usize, usize) {
    let to = |path: &str| {
        let is_to = |call: &&ServiceCall| !call.is_upstream && call.request.path() == path;
        report.calls.iter().filter(is_to).count()
    };
    (to("/v1/decide"), to("/v1/sync"))
}

/// The moments at which those who were denied were told that they may come again, in s; by time.
fn told_s(report: &Report, from_ns: u64, to_ns: u64) -> Vec<f64> {
    let sent = report.exchanges.iter().filter(|one| (from_ns..to_ns).contains(&one.sent_at_ns));
    let mut denied: Vec<_> = sent.filter(|one| one.status == Some(429)).collect();
    denied.sort_unstable_by_key(|one| one.sent_at_ns);
    let told = |one: &&Exchange| {
        let text = one.headers.text("retry-after").expect("a denial says when");
        one.sent_at_ns as f64 / S as f64 + text.parse::<f64>().expect("whole seconds")
    };
    denied.iter().map(told).collect()
}

/// Slow and busy, a process and a worker each a holder: within seconds, where a unit comes back after twelve minutes. Until
/// then clients are told no earlier moment than is true, and nobody's later than the first.
#[test]
fn a_client_that_is_denied_hears_of_a_grant_and_of_a_reset() {
    const GRANT: (&str, &str) = ("/v1/limits/grant", r#", "units": 3, "seconds": 600"#);
    const RESET: (&str, &str) = ("/v1/limits/reset", "");
    // A unit comes back each 720 s; who is busy is told when it is worth while, at half of an hour. A fourth spreads.
    for (every_ms, told_most_s) in [(2_000, 900.0), (100, 2_250.0)] {
        for shares in [true, false] {
            for (act, units) in [(None, 0), (Some(GRANT), 3), (Some(RESET), 5)] {
                let row = format!("every {every_ms} ms, shares {shares}, {act:?}");
                let report = run(every_ms, shares, act);
                let admitted = admitted_ns(&report);
                let (decides, syncs) = callouts(&report);
                println!("{row}: {decides} asked, {syncs} beside, {:?}", admitted.get(5..));
                // A message of each holder in two seconds, whoever comes how often.
                let holders = if shares { 1 } else { 4 };
                assert!(decides <= 20 && syncs <= holders * 96, "{row}: {decides}, {syncs}");
                assert_eq!(admitted.len(), 5 + units, "{row}: {admitted:?}");
                assert!(admitted.iter().take(5).all(|at_ns| *at_ns < 10 * S), "{row}");
                if let Some(first) = admitted.get(5) {
                    let most_ns = ACT_NS + HEARD_NS + every_ms * 1_000_000;
                    assert!((ACT_NS..most_ns).contains(first), "{row}: heard at {first}");
                }
                let told = told_s(&report, 20 * S, ACT_NS);
                let (least, most) = told.iter().fold((f64::MAX, 0.0f64), |(least, most), told| {
                    (least.min(*told), most.max(*told))
                });
                println!("{row}: told {least} to {most}");
                assert!(least >= 719.0 && most <= told_most_s + 1.0, "{row}: {least} to {most}");
            }
        }
    }
}

/// What reached the upstream, and how often a VM was built anew, where one worker asks for a path in the first 25 s and the
/// other keeps the limit busy for 40 s. At 35 s a whole burst comes at once: how much of it is let through.
fn beside(path: &str, numbers: Numbers) -> (Vec<u64>, u64, usize) {
    let Numbers { limit, burst, .. } = numbers;
    let yaml = format!(
        "name: a worker ends\n\
         plugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /** }}, rate_limits: [{{ name: l, by: ip, limit: {limit}, per: 1s, burst: {burst}, decide: lease }}] }}] }}, fail_policy: FAIL_RELOAD }}\n\
         host: {{ workers: 2, canary: false, until: 41s, lints: \"off\" }}\ngateway: in-process\n\
         upstream: [{{ on: GET /trap, answer: {{ status: 200, headers: {{ x-tidegate-trap: now }} }} }}, {{ answer: 200 }}]\n\
         timeline:\n\
         \x20 - {{ at: 0ms, client: stays, worker: 0, address: \"192.0.2.1:1\", times: 400, every: 100ms, send: {{ path: /p }} }}\n\
         \x20 - {{ at: 7ms, client: ends, worker: 1, address: \"192.0.2.1:1\", times: 357, every: 70ms, send: {{ path: {path} }} }}\n\
         \x20 - {{ at: 35060ms, client: many, worker: 0, address: \"192.0.2.1:1\", times: {burst}, every: 1us, send: {{ path: /p }} }}\n",
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let wasm = fs::read(parts::trapping_filter()).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    let calls = report.calls.iter().filter(|call| call.is_upstream);
    let mut reached: Vec<u64> = calls.map(|call| call.at_ns).collect();
    reached.sort_unstable();
    let anew = report.metrics.get("wasm.plugin.vm_reload_success").copied().unwrap_or(0);
    let is_through =
        |nth| report.exchange("many", nth).is_some_and(|sent| sent.status == Some(200));
    let many = (1..=burst as usize).filter(|nth| is_through(*nth)).count();
    (reached, anew, many)
}

/// Answers end a worker's VM as often as Envoy builds it anew, with the units that it has, while its process is never at
/// rest. Some seconds later its key is worth its burst as if that had never been; and at no time more.
#[test]
fn a_worker_that_traps_again_and_again_takes_no_burst_with_it() {
    for burst in [8, 20] {
        let numbers = Numbers { limit: 20, period_ns: S, burst };
        let (_, none, calm) = beside("/p", numbers);
        let (reached, anew, many) = beside("/trap", numbers);
        println!("burst {burst}: {many} of it, {calm} if none of {anew} VMs is built anew");
        assert!(none == 0 && anew >= burst, "too few to take it: {anew}");
        assert!(calm * 2 >= burst as usize && many >= calm - 1, "{many} of {burst}, not {calm}");
        let mut ideal = Ideal::new(numbers);
        reached.iter().for_each(|at_ns| ideal.admit(*at_ns, 1));
        assert!(ideal.worst < 0.01, "{} too many", ideal.worst);
    }
}

/// Two workers of a busy limit, of which one ends by a trap after three seconds and is built anew.
fn one_ends(worker: usize, shares: bool, seed: u64) -> Report {
    let capabilities = if shares { String::new() } else { lab::alone() };
    let yaml = format!(
        "name: a worker ends\n\
         plugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /** }}, rate_limits: [{{ name: l, by: ip, limit: 1000, per: 1s, decide: lease }}] }}] }}, fail_policy: FAIL_RELOAD{capabilities} }}\n\
         host: {{ workers: 2, main: false, canary: false, seed: {seed}, until: 9s, lints: \"off\" }}\ngateway: in-process\n\
         upstream: [{{ on: GET /trap, answer: {{ status: 200, headers: {{ x-tidegate-trap: now }} }} }}, {{ answer: 200 }}]\n\
         timeline:\n\
         \x20 - {{ at: 0ms, client: one, worker: 0, address: \"192.0.2.1:1\", times: 400, every: 20ms, send: {{ path: /p }} }}\n\
         \x20 - {{ at: 7ms, client: two, worker: 1, address: \"192.0.2.1:1\", times: 400, every: 20ms, send: {{ path: /p }} }}\n\
         \x20 - {{ at: 3003ms, client: ends, worker: {worker}, address: \"192.0.2.1:1\", send: {{ path: /trap }} }}\n",
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let wasm = fs::read(parts::trapping_filter()).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    assert_eq!(report.metrics.get("wasm.plugin.vm_reload_success"), Some(&1), "{report}");
    report
}

/// Whoever leads a process's tick may be gone. A lead is over after three ticks; then another has it.
#[test]
fn the_tick_is_led_by_another_once_its_leader_is_gone() {
    const TICK_NS: u64 = S / 4;
    let longest = [0, 1].map(|worker| {
        let report = one_ends(worker, true, 1);
        let syncs = report.calls.iter().filter(|call| call.request.path() == "/v1/sync");
        let at_ns: Vec<u64> = syncs.map(|call| call.at_ns).filter(|at_ns| *at_ns < 8 * S).collect();
        let last = at_ns.last().map_or(8 * S, |at_ns| 8 * S - at_ns);
        at_ns.windows(2).map(|two| two[1] - two[0]).fold(last, u64::max)
    });
    println!("longest without a message, if the one or the other ends: {longest:?} ns");
    assert!(longest.iter().all(|gap_ns| *gap_ns <= 6 * TICK_NS), "{longest:?}");
    assert!(longest.iter().any(|gap_ns| *gap_ns > 3 * TICK_NS), "neither led: {longest:?}");
}

/// Nobody is heard under the name of somebody who is gone: not of a VM before it, nor of another process.
#[test]
fn each_start_of_a_vm_is_a_holder_of_its_own() {
    let mut all = BTreeSet::new();
    for (seed, shares, count) in [(1, false, 3), (2, false, 3), (3, true, 1), (4, true, 1)] {
        let report = one_ends(0, shares, seed);
        let bodies = report.calls.iter().map(|call| String::from_utf8_lossy(&call.request.body));
        let named = bodies.flat_map(|body| {
            let parts = body.split("\"holder\":\"").skip(1);
            parts.map(|part| part.chars().take(16).collect()).collect::<Vec<String>>()
        });
        let holders: BTreeSet<String> = named.collect();
        assert_eq!(holders.len(), count, "{holders:?}");
        let known = all.len();
        all.extend(holders);
        assert_eq!(all.len(), known + count, "somebody's name was had before: {all:?}");
    }
}

/// Units of a busy key are asked for before they are used up: behind its first ones no request waits, however far the gateway is.
#[test]
fn what_a_busy_key_needs_is_there_before_it_is_needed() {
    let yaml = "name: ahead\n\
         plugin: { config: { version: 1, gateway: { cluster: tidegate, timeout: 200ms }, policies: [{ name: p, match: { path: /p }, rate_limits: [{ name: l, by: ip, limit: 1000, per: 1s, decide: lease }] }] } }\n\
         host: { workers: 1, until: 12s, lints: \"off\" }\ngateway: in-process\n\
         timeline:\n  - { at: 0ms, client: busy, times: 2000, every: 5ms, send: { path: /p } }\n";
    let scenario = Scenario::parse(yaml).unwrap_or_else(|error| panic!("{error}"));
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let services =
        Services::default().bind_any(Far(InProcess::new(&[]).expect("the gateway's defaults")));
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.exchanges.iter().all(|one| one.status == Some(200)), "{report}");
    let waited = |from: usize| {
        let later = report.exchanges.get(from..).unwrap_or_default().iter();
        later.filter(|one| one.headers_at_ns > Some(one.sent_at_ns)).count()
    };
    let ahead = report.metrics.get("tidegate_lease_prefetches_total").copied().unwrap_or(0);
    println!("{} waited, {} of them behind the first 100, {ahead} ahead", waited(0), waited(100));
    assert!(waited(0) > 0 && waited(100) == 0, "{} wait", waited(100));
    assert!(ahead > 0, "{:?}", report.metrics);
}

/// As many subjects as a message may name, and more octets than it may have.
#[test]
fn subjects_with_long_names_go_in_messages_of_their_own() {
    const CLIENTS: usize = 128;
    let timeline: String = (0..CLIENTS)
        .map(|client| {
            let value = format!("{client:0>95}");
            format!("  - {{ at: 10ms, client: c{client}, times: 40, every: 100ms, send: {{ path: /p, headers: {{ x-a: a{value}, x-b: b{value}, x-c: c{value} }} }} }}\n")
        })
        .collect();
    let yaml = format!(
        "name: long names\nplugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, identities: {{ a: {{ header: x-a, trusted: true }}, b: {{ header: x-b, trusted: true }}, c: {{ header: x-c, trusted: true }} }}, policies: [{{ name: a-policy-whose-name-says-what-it-is-for, match: {{ path: /p }}, rate_limits: [{{ name: l, by: [a, b, c], limit: 50, per: 1s, decide: lease }}] }}] }} }}\n\
         host: {{ workers: 1, canary: false, until: 5s, lints: \"off\" }}\ngateway: in-process\ntimeline:\n{timeline}"
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = Services::default().bind_any(InProcess::new(&[]).expect("the defaults"));
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    let syncs = report.calls.iter().filter(|call| call.request.path() == "/v1/sync");
    let sizes: Vec<usize> = syncs.map(|call| call.request.body.len()).collect();
    assert!(sizes.iter().all(|size| *size <= MESSAGE_BYTES_MAX), "{sizes:?}");
    assert!(sizes.windows(2).any(|two| two.iter().sum::<usize>() > MESSAGE_BYTES_MAX), "{sizes:?}");
    assert!(report.exchanges.iter().all(|one| one.status == Some(200)), "{report}");
}

/// Whoever invents clients takes no room from those that come after them.
#[test]
fn a_busy_client_is_leased_to_after_more_strangers_than_there_is_room_for() {
    let stranger = |nth: u64| {
        let (high, low) = (nth / 250, nth % 250);
        format!(
            "  - {{ at: {nth}ms, client: stranger, address: \"198.51.{high}.{low}:1\", send: {{ path: /p }} }}\n"
        )
    };
    let yaml = format!(
        "name: strangers\nplugin: {{ config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, rate_limits: [{{ name: l, by: ip, limit: 1000, per: second, decide: lease }}] }}] }} }}\n\
         host: {{ workers: 1, start_unix_s: {start}, until: 20s, lints: \"off\" }}\ngateway: in-process\ntimeline:\n{}  - {{ at: 12s, client: busy, address: \"192.0.2.1:1\", times: 1000, every: 2ms, send: {{ path: /p }} }}\n",
        (0..9_000).map(stranger).collect::<String>(),
        start = lab::START_UNIX_S,
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    let busy = report.exchanges.iter().filter(|one| one.client == "busy");
    let asked = busy.clone().filter(|one| one.usage.callouts > 0).count();
    assert_eq!(busy.count(), 1_000);
    assert!(asked < 60, "{asked} of 1,000 asked the gateway");
}
