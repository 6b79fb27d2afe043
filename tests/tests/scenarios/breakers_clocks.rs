//! Circuit breakers whose store had a clock that was ahead, by seconds or by days, until it was set right, with its records or
//! without them: what it said until then keeps nobody from hearing what it says since.

use host_sim::in_process::InProcess;
use tidegate_host_sim::{Exchange, Reply, Report, Scenario, Service, ServiceRequest, Services};
use tidegate_tests::{lab, parts};

use super::runner;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const START_NS: u64 = lab::START_UNIX_S * S;
const DAY_NS: u64 = 86_400 * S;
/// Long enough for an answer, a report upon it, and that one's answer.
const TWO_TICKS_NS: u64 = 2 * 250 * MS + 50 * MS;
/// For whom breakers are.
const BY: [&str; 2] = ["", "by: { header: x-c, trusted: true }, max: 8, "];

/// A gateway whose clock is ahead until it is set right, and what its operator orders.
struct Corrected {
    gateway: InProcess,
    ahead_ns: u64,
    right_from_ns: u64,
    /// With its clock set right it knows nothing any more.
    forgets: bool,
    orders: Vec<(u64, String)>,
}

impl Service for Corrected {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        let now_ns = now_unix_ns - START_NS;
        let is_ahead = now_ns < self.right_from_ns;
        if !is_ahead && std::mem::take(&mut self.forgets) {
            self.gateway = InProcess::new(&[]).expect("the gateway's defaults");
        }
        let clock_ns = now_unix_ns + if is_ahead { self.ahead_ns } else { 0 };
        while self.orders.first().is_some_and(|(at_ns, _)| *at_ns <= now_ns) {
            let (_, body) = self.orders.remove(0);
            let said = self.gateway.operate(clock_ns, "/v1/breakers/order", &body);
            assert_eq!(said, Some(200), "{body}");
        }
        self.gateway.call(clock_ns, request)
    }
}

/// Two workers of which each is sent a request every 20 ms; between `fails_ns` they fail.
fn run(
    by: &str,
    fails_ns: std::ops::Range<u64>,
    until_ns: u64,
    (ahead_ns, right_from_ns, forgets): (u64, u64, bool),
    orders: &[(u64, String)],
) -> Report {
    let mut timeline = String::new();
    for worker in 0..2 {
        let mut phase = |path: &str, from_ns: u64, to_ns: u64| {
            let (from_ms, times) = (from_ns / MS, (to_ns - from_ns) / (20 * MS));
            if times > 0 {
                timeline.push_str(&format!(
                    "  - {{ at: {}ms, client: c, worker: {worker}, times: {times}, every: 20ms, send: {{ path: {path}, headers: {{ x-c: acme }} }} }}\n",
                    from_ms + worker,
                ));
            }
        };
        phase("/works", 0, fails_ns.start);
        phase("/fails", fails_ns.start, fails_ns.end);
        phase("/works", fails_ns.end, until_ns);
    }
    let yaml = format!(
        "name: a clock that is set right\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: \"/**\" }}, circuit_breaker: {{ {by}consecutive: 3, open: 1s, successes: 2, upstream_timeout: 1s }} }}] }}\nhost: {{ workers: 2, start_unix_s: {} }}\ngateway: in-process\nupstream: [{{ on: GET /fails, answer: {{ status: 500 }} }}, {{ answer: {{ status: 200 }} }}]\ntimeline:\n{timeline}",
        lab::START_UNIX_S,
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let gateway = InProcess::new(&[]).expect("the gateway's defaults");
    let orders = orders.to_vec();
    let world = Corrected { gateway, ahead_ns, right_from_ns, forgets, orders };
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = Services::default().bind_any(world);
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

/// The first request sent within these times that was refused, or was not.
fn wrong(report: &Report, within_ns: std::ops::Range<u64>, refused: bool) -> Option<&Exchange> {
    let is_refused = |one: &Exchange| one.details.starts_with("tidegate:circuit-open");
    let sent = report.exchanges.iter().filter(|one| within_ns.contains(&one.sent_at_ns));
    assert!(sent.clone().count() > 10, "{within_ns:?}");
    sent.into_iter().find(|one| is_refused(one) != refused)
}

/// The clock is set right while the breaker is closed, open and tested: it closes as soon as its upstream works, and keeps to what
/// is ordered afterwards.
#[test]
fn a_store_whose_clock_was_ahead_holds_no_breaker() {
    const HEALED_NS: u64 = 6 * S;
    // A lease, an open time, and ticks.
    const CLOSED_NS: u64 = HEALED_NS + 2 * S + 1_200 * MS + 8 * 250 * MS;
    let orders =
        ["force_open", "reset"].map(|order| format!(r#"{{"breaker": "p", "order": "{order}"}}"#));
    let orders: Vec<(u64, String)> = [14 * S, 16 * S].into_iter().zip(orders).collect();
    for by in BY {
        for ahead_ns in [3 * S, 3 * DAY_NS] {
            for (right_from_ns, forgets) in
                [S, 2_300 * MS, 5 * S].into_iter().flat_map(|at| [(at, false), (at, true)])
            {
                let clock = (ahead_ns, right_from_ns, forgets);
                let report = run(by, 2 * S..HEALED_NS, 18 * S, clock, &orders);
                let what = format!(
                    "by {by:?}, {ahead_ns} ns ahead until {right_from_ns}, forgets: {forgets}"
                );
                for (within_ns, refused) in [
                    (3 * S..HEALED_NS - S, None),
                    (CLOSED_NS..14 * S, Some(false)),
                    (14 * S + TWO_TICKS_NS..16 * S, Some(true)),
                    (16 * S + TWO_TICKS_NS..18 * S, Some(false)),
                ] {
                    let Some(refused) = refused else {
                        let one = wrong(&report, within_ns, false);
                        assert!(one.is_some(), "{what}: nobody is refused");
                        continue;
                    };
                    let wrong = wrong(&report, within_ns, refused);
                    assert!(wrong.is_none(), "{what}, refused {refused}: {wrong:?}");
                }
            }
        }
    }
}

/// An operator shut it, and the store that was told is lost; another one takes its place, its clock behind. Nobody reports on what is
/// shut by order, and still what he orders then is heard of by all who were shut.
#[test]
fn what_was_ordered_of_a_store_whose_clock_was_ahead_can_be_taken_back() {
    for (by, breaker) in [(BY[0], "p"), (BY[1], "p"), (BY[1], "p:acme")] {
        for shuts in
            [r#""force_open""#, r#""force_open", "for_s": 3600"#, r#""trip", "for_s": 3600"#]
        {
            // On all of many a trip is once for each.
            let trips_all = shuts.starts_with(r#""trip"#) && breaker == "p" && !by.is_empty();
            for ahead_ns in [10 * S, 3 * DAY_NS] {
                let order =
                    |order: &str| format!(r#"{{"breaker": "{breaker}", "order": {order}}}"#);
                let orders = [(2 * S, order(shuts)), (6 * S, order(r#""reset""#))];
                if trips_all {
                    continue;
                }
                let report = run(by, 0..0, 9 * S, (ahead_ns, 4 * S, true), &orders);
                let what = format!("{breaker}, by {by:?}, {shuts}, {ahead_ns} ns ahead");
                for (within_ns, refused) in [
                    (S..2 * S, false),
                    (2 * S + TWO_TICKS_NS..6 * S, true),
                    (6 * S + 2 * TWO_TICKS_NS..9 * S, false),
                ] {
                    let wrong = wrong(&report, within_ns, refused);
                    assert!(wrong.is_none(), "{what}, refused {refused}: {wrong:?}");
                }
            }
        }
    }
}
