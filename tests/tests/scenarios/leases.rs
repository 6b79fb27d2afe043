//! What an operator does to a leased limit while an Envoy denies it by itself: how soon a client that goes on
//! asking is let through, what it is told until then, and what it costs.

use std::fs;

use host_sim::in_process::InProcess;
use tidegate_host_sim::{
    Exchange, Reply, Report, Scenario, Service, ServiceCall, ServiceRequest, Services,
};
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
