//! Circuit breakers at moments that a scenario file cannot say: an operator's order while requests go on, and an answer
//! that comes once the configuration that asked is nearly gone.

use std::sync::{Arc, Mutex};

use host_sim::in_process::InProcess;
use tidegate_host_sim::{
    Exchange, Fault, Outcome, Reply, Report, Scenario, Service, ServiceRequest, Services,
};
use tidegate_policy::wire::breaker::BreakersRequest;
use tidegate_tests::{lab, parts};

use super::runner;

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// A gateway, what its operator orders once, and how much later it decides.
struct Operated {
    gateway: InProcess,
    order: Option<(u64, &'static str)>,
    decides_after_ns: u64,
    turn: Option<Turn>,
    /// From then on nothing answers.
    away_from_unix_ns: u64,
}

/// What happens to the gateway's clock, and whether its store then knows nothing.
#[derive(Clone, Copy)]
struct Turn {
    at_unix_ns: u64,
    back_ns: u64,
    forgets: bool,
}

impl Service for Operated {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        if now_unix_ns >= self.away_from_unix_ns {
            return Reply { after_ns: 0, outcome: Outcome::Fault(Fault::Timeout), tries: 1 };
        }
        // Nobody sees that it is done at the next call only.
        let turn = self.turn.filter(|turn| now_unix_ns >= turn.at_unix_ns);
        if let Some(turn) = &mut self.turn
            && now_unix_ns >= turn.at_unix_ns
            && std::mem::take(&mut turn.forgets)
        {
            self.gateway = InProcess::new(&[]).expect("the gateway's defaults");
            // More than one message tells comes before the order.
            for other in 0..300 {
                let body = format!(r#"{{"breaker": "p:x{other}", "order": "disable"}}"#);
                let at_ns = turn.at_unix_ns - turn.back_ns;
                assert_eq!(self.gateway.operate(at_ns, "/v1/breakers/order", &body), Some(200));
            }
        }
        let back_ns = turn.map_or(0, |turn| turn.back_ns);
        if let Some((at_ns, body)) = self.order.take_if(|(at_ns, _)| *at_ns <= now_unix_ns) {
            let said = self.gateway.operate(at_ns - back_ns, "/v1/breakers/order", body);
            assert_eq!(said, Some(200), "{body}");
        }
        let mut reply = self.gateway.call(now_unix_ns - back_ns, request);
        if request.path() == "/v1/decide" {
            reply.after_ns += self.decides_after_ns;
        }
        reply
    }
}

fn run(yaml: &str, order: Option<(u64, &'static str)>, decides_after_ns: u64) -> Report {
    run_with(yaml, order, decides_after_ns, None, u64::MAX)
}

fn run_with(
    yaml: &str,
    order: Option<(u64, &'static str)>,
    decides_after_ns: u64,
    turn: Option<Turn>,
    away_from_ns: u64,
) -> Report {
    let scenario = Scenario::parse(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let mut gateway = InProcess::new(&[]).expect("the gateway's defaults");
    if turn.is_some() {
        // Something of which a process hears that does not report on it.
        let body = r#"{"breaker": "p:first", "order": "disable"}"#;
        assert_eq!(gateway.operate(lab::START_UNIX_S * S, "/v1/breakers/order", body), Some(200));
    }
    let order = order.map(|(at_ns, body)| (lab::START_UNIX_S * S + at_ns, body));
    let away_from_unix_ns = away_from_ns.saturating_add(lab::START_UNIX_S * S);
    let services = Services::default().bind_any(Operated {
        gateway,
        order,
        decides_after_ns,
        turn,
        away_from_unix_ns,
    });
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

/// An order on the bare name that has ended costs requests nothing any more, in no worker. Another breaker changed since, so
/// that the region does not tell of it again.
#[test]
fn an_order_for_all_of_many_leaves_nothing_behind_once_it_is_over() {
    let client = |name: &str, at: &str| {
        (0..2)
            .map(|worker| {
                format!(
                    "  - {{ at: {at}, client: {name}, worker: {worker}, times: 20, every: 20ms, send: {{ path: /p, headers: {{ x-c: acme }} }} }}\n"
                )
            })
            .collect::<String>()
    };
    for (order, refused) in [("force_open", true), ("disable", false), ("metrics_only", false)] {
        let order: &'static str =
            format!(r#"{{"breaker": "p", "order": "{order}", "for_s": 8}}"#).leak();
        let yaml = format!(
            "name: an order that ends\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: 8 }} }}, {{ name: q, match: {{ path: /q }}, circuit_breaker: {{}} }}] }}\nhost: {{ workers: 2, start_unix_s: {}, until: 16s }}\ngateway: in-process\ntimeline:\n{}{}{}  - {{ at: 8500ms, client: q, times: 3, every: 10ms, send: {{ path: /q }} }}\n{}",
            lab::START_UNIX_S,
            client("first", "0ms"),
            client("before", "1s"),
            client("ordered", "3s"),
            client("after", "12s"),
        );
        let report = run(&yaml, Some((2 * S, order)), 0);
        let of = |name: &'static str| report.exchanges.iter().filter(move |one| one.client == name);
        let is_refused = |one: &Exchange| one.status == Some(503);
        assert!(of("ordered").all(|one| is_refused(one) == refused), "{order}");
        assert!(of("after").all(|one| one.status == Some(200)), "{order}");
        let calls = |name| of(name).map(|one| one.usage.host_calls).collect::<Vec<_>>();
        let usual = calls("before").into_iter().max().expect("some");
        // Each worker finds out that it is over, and then looks once more.
        let more = calls("after").into_iter().filter(|calls| *calls > usual).count();
        assert!(more <= 4, "{order}: {usual} before, {:?} after", calls("after"));
    }
}

/// Every worker keeps to an order once the next tick's answer is there, whatever the order and wherever in a tick it is given.
#[test]
fn an_order_is_kept_to_in_all_workers_within_a_tick() {
    const TICK_NS: u64 = 250 * MS;
    const ANSWER_NS: u64 = MS;
    const EVERY_NS: u64 = 5 * MS;
    let clients: String = (0..4)
        .map(|worker| {
            format!(
                "  - {{ at: {worker}ms, client: c, worker: {worker}, times: 800, every: 5ms, send: {{ path: /p }} }}\n"
            )
        })
        .collect();
    let yaml = |upstream: u16| {
        format!(
            "name: an order\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{ open: 1h }} }}] }}\nhost: {{ workers: 4, start_unix_s: {}, until: 4s }}\ngateway: in-process\nupstream: [{{ answer: {{ status: {upstream} }} }}]\ntimeline:\n{clients}",
            lab::START_UNIX_S,
        )
    };
    // What shuts is ordered of one that is closed, what lets pass of one whose upstream shut it.
    for (order, upstream, passes_before) in [
        ("trip", 200, true),
        ("force_open", 200, true),
        ("disable", 500, false),
        ("metrics_only", 500, false),
        ("reset", 500, false),
    ] {
        // In two ticks, one after the other: who reports with every second one is late in one of them.
        for after_ms in [3, 130, 248, 253] {
            let at_ns = 2 * S + after_ms * MS;
            let for_s = if order == "reset" { 0 } else { 60 };
            let body: &'static str =
                format!(r#"{{"breaker": "p", "order": "{order}", "for_s": {for_s}}}"#).leak();
            let report = run(&yaml(upstream), Some((at_ns, body)), 0);
            let passed = |one: &Exchange| one.details == "via_upstream";
            let before: Vec<_> = report
                .exchanges
                .iter()
                .filter(|one| (S..at_ns).contains(&one.sent_at_ns))
                .collect();
            assert!(before.iter().all(|one| passed(one) == passes_before), "{order}: before");
            let firsts = (0..4).map(|worker| {
                let after = report.exchanges.iter().filter(|one| one.sent_at_ns >= at_ns);
                let mut own = after.filter(|one| one.worker == worker);
                own.find(|one| passed(one) != passes_before).map(|one| one.sent_at_ns)
            });
            let firsts: Option<Vec<u64>> = firsts.collect();
            let last_ns = firsts.and_then(|all| all.into_iter().max());
            let took_ns = last_ns.expect("all workers heard of it") - at_ns;
            println!(
                "{order} {after_ms} ms into a tick: all workers keep to it after {} ms",
                took_ns / MS
            );
            assert!(took_ns <= TICK_NS + ANSWER_NS + EVERY_NS, "{order}: {took_ns}");
        }
    }
}

/// An order has its end with it: the filter keeps to it and ends it to the tick, though the gateway is away from a second
/// after it on. Shut for longer than the breaker's own numbers would have it; then somebody tests and it closes. Let pass,
/// to an upstream that fails; then failures shut it.
#[test]
fn an_order_ends_when_it_was_said_though_the_gateway_is_away() {
    const ORDERED_NS: u64 = 2 * S;
    const ENDS_NS: u64 = ORDERED_NS + 30 * S;
    const TOLD_NS: u64 = 251 * MS;
    const EVERY_NS: u64 = 50 * MS;
    let many = "by: { header: x-c, trusted: true }, max: 8";
    for (by, breaker) in [("", "p"), (many, "p"), (many, "p:acme")] {
        for (order, shuts) in
            [("trip", true), ("force_open", true), ("disable", false), ("metrics_only", false)]
        {
            let clients: String = (0..2)
                .map(|worker| {
                    format!(
                        "  - {{ at: {worker}ms, client: c, worker: {worker}, times: 680, every: 50ms, send: {{ path: /p, headers: {{ x-c: acme }} }} }}\n"
                    )
                })
                .collect();
            let status = if shuts { 200 } else { 500 };
            let yaml = format!(
                "name: an order and its end\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{ {by} }} }}] }}\nhost: {{ workers: 2, start_unix_s: {}, until: 36s }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 200 }}, times: 100 }}\n  - {{ answer: {{ status: {status} }} }}\ntimeline:\n{clients}",
                lab::START_UNIX_S,
            );
            let body: &'static str =
                format!(r#"{{"breaker": "{breaker}", "order": "{order}", "for_s": 30}}"#).leak();
            let report = run_with(&yaml, Some((ORDERED_NS, body)), 0, None, ORDERED_NS + S);
            let what = format!("{order} on {breaker}, by {by}");
            let refused = |one: &Exchange| one.details.starts_with("tidegate:circuit-open");
            let during = report
                .exchanges
                .iter()
                .filter(|one| (ORDERED_NS + TOLD_NS..ENDS_NS).contains(&one.sent_at_ns));
            let wrong = during.clone().find(|one| refused(one) != shuts);
            assert!(wrong.is_none(), "{what}: {wrong:?}");
            assert!(during.count() > 1_000, "{what}");
            // The last of them that goes on as it was ordered.
            let last = report.exchanges.iter().filter(|one| refused(one) == shuts);
            let last_ns = last.map(|one| one.sent_at_ns).max().expect("some");
            let after_ns = (last_ns + EVERY_NS).saturating_sub(ENDS_NS);
            println!("{what}: over at most {} ms after it was to be", after_ns / MS);
            assert!(last_ns < ENDS_NS + S, "{what}: {last_ns}");
        }
    }
}

/// A configuration with more breakers takes another's place. The last that the old one does is to want a test, so late that
/// nobody of its layout reports it: the new one does, as soon as somebody wants it again.
#[test]
fn a_test_that_only_a_configuration_of_before_asked_for_is_asked_for_again() {
    let config = |policies: &str| {
        format!(
            "{{ version: 1, gateway: {{ cluster: tidegate, timeout: 4s }}, policies: [{{ name: q, match: {{ path: /q }}, circuit_breaker: {{}} }}, {policies}] }}"
        )
    };
    let breaker = "circuit_breaker: { consecutive: 2, open: 1s, successes: 1 }";
    let limit = "rate_limits: [{ name: l, by: ip, limit: 100, per: 1s }]";
    let yaml = format!(
        "name: two layouts\nplugin:\n  config: {}\nhost: {{ workers: 1, main: false, canary: false, start_unix_s: {}, drain: 510ms, until: 30s }}\ngateway: in-process\nupstream:\n  - {{ on: GET /p, answer: {{ status: 500 }}, times: 2 }}\n  - {{ answer: {{ status: 200 }} }}\ntimeline:\n  - {{ at: 0ms, client: dies, times: 2, every: 10ms, send: {{ path: /p }} }}\n  - {{ at: 10s, client: q, times: 3, every: 10ms, send: {{ path: /q }} }}\n  - {{ at: 18500ms, client: last, send: {{ path: /p }} }}\n  - {{ at: 20s, update: {{ config: {} }} }}\n  - {{ at: 21s, client: new, times: 50, every: 100ms, send: {{ path: /p }} }}\n",
        config(&format!("{{ name: p, match: {{ path: /p }}, {limit}, {breaker} }}")),
        lab::START_UNIX_S,
        config(&format!(
            "{{ name: p, match: {{ path: /p }}, {breaker} }}, {{ name: r, match: {{ path: /r }}, circuit_breaker: {{}} }}"
        )),
    );
    let report = run(&yaml, None, 2 * S + 4 * MS);
    let of = |client| report.exchanges.iter().filter(move |one| one.client == client);
    let last = of("last").next().expect("it was sent");
    assert_eq!((last.status, last.details.as_str()), (Some(503), "tidegate:circuit-open:p"));
    assert_eq!(of("new").next().and_then(|one| one.status), Some(503), "nobody tested it yet");
    assert_eq!(of("new").next_back().and_then(|one| one.status), Some(200), "{report}");
}

/// The gateway's store goes on with a clock that is far behind, with what it knew or without: an order that comes then is kept to all
/// the same, also one on the bare name of many, on which nobody reports.
#[test]
fn an_order_is_kept_to_though_the_stores_clock_went_back() {
    let yaml = format!(
        "name: a clock that goes back\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{ by: {{ header: x-c, trusted: true }}, max: 8 }} }}] }}\nhost: {{ workers: 2, start_unix_s: {}, until: 12s }}\ngateway: in-process\ntimeline:\n{}",
        lab::START_UNIX_S,
        (0..2)
            .map(|worker| format!(
                "  - {{ at: {worker}ms, client: c, worker: {worker}, times: 500, every: 20ms, send: {{ path: /p, headers: {{ x-c: acme }} }} }}\n"
            ))
            .collect::<String>(),
    );
    let at_unix_ns = lab::START_UNIX_S * S + 4 * S;
    for breaker in ["p", "p:acme"] {
        for (back_ns, forgets) in [(20 * S, false), (3_600 * S, false), (0, true), (20 * S, true)] {
            let order: &'static str =
                format!(r#"{{"breaker": "{breaker}", "order": "force_open", "for_s": 0}}"#).leak();
            let turn = Turn { at_unix_ns, back_ns, forgets };
            let report = run_with(&yaml, Some((6 * S, order)), 0, Some(turn), u64::MAX);
            let what = format!("{breaker}, {back_ns} ns back, forgets: {forgets}");
            let wrong = report.exchanges.iter().find(|one| {
                let ordered = one.sent_at_ns > 6 * S + 300 * MS;
                let between = one.sent_at_ns >= 6 * S && !ordered;
                !between && one.status != Some(if ordered { 503 } else { 200 })
            });
            assert!(wrong.is_none(), "{what}: {wrong:?}");
        }
    }
}

/// Hears who reports, and as which of its messages.
struct Heard {
    gateway: InProcess,
    said: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Service for Heard {
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply {
        if let Ok(BreakersRequest { breakers, .. }) = BreakersRequest::decode(&request.body) {
            let process = format!("{:02x?}", breakers.process.0);
            self.said.lock().expect("unpoisoned").push((process, breakers.seq));
        }
        self.gateway.call(now_unix_ns, request)
    }
}

/// While a configuration with other breakers takes another's place two report for one Envoy: to the region they are one, whose
/// messages have numbers of their own.
#[test]
fn an_envoy_is_one_reporter_whatever_configurations_it_has() {
    let config = |more: &str| {
        format!(
            "{{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {{}} }}{more}] }}"
        )
    };
    let yaml = format!(
        "name: two layouts\nplugin:\n  config: {}\nhost: {{ workers: 2, start_unix_s: {}, drain: 3s, until: 8s }}\ngateway: in-process\ntimeline:\n  - {{ at: 0ms, client: before, times: 5, every: 100ms, send: {{ path: /p }} }}\n  - {{ at: 2s, update: {{ config: {} }} }}\n  - {{ at: 2100ms, client: after, worker: 1, times: 5, every: 100ms, send: {{ path: /p }} }}\n",
        config(""),
        lab::START_UNIX_S,
        config(", { name: q, match: { path: /q }, circuit_breaker: {} }"),
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let said = Arc::new(Mutex::new(Vec::new()));
    let gateway = InProcess::new(&[]).expect("the gateway's defaults");
    let services = Services::default().bind_any(Heard { gateway, said: Arc::clone(&said) });
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    let said = said.lock().expect("unpoisoned");
    assert!(said.len() > 30, "two report for a while: {}", said.len());
    assert!(said.iter().all(|(process, _)| *process == said[0].0), "{said:?}");
    let mut numbers: Vec<u64> = said.iter().map(|(_, seq)| *seq).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{said:?}");
}

/// Under an order that lets all pass nothing can come of failures: each is counted in its worker, once, and goes with the
/// tick. What is shared with the other workers is left alone.
#[test]
fn what_fails_under_an_order_costs_no_more_than_what_works() {
    for order in ["disable", "metrics_only"] {
        let body = format!(r#"{{"breaker": "p", "order": "{order}"}}"#).leak();
        let yaml = "name: an upstream that fails under an order
plugin:
  config: { version: 1, gateway: { cluster: tidegate, timeout: 45ms }, policies: [{ name: p, match: { path: /p/** }, circuit_breaker: { consecutive: 3 } }] }
host: { workers: 1, main: false, canary: false }
gateway: in-process
upstream:
  - { on: GET /p/bad, answer: { status: 500 } }
  - { answer: { status: 200 } }
timeline:
  - { at: 100ms, client: first, worker: 0, times: 10, every: 100ms, send: { path: /p/good } }
  - { at: 3s, client: works, worker: 0, times: 20, every: 10ms, send: { path: /p/good } }
  - { at: 4s, client: fails, worker: 0, times: 20, every: 10ms, send: { path: /p/bad } }
";
        let report = run(yaml, Some((S, body)), 0);
        let calls = |client: &str| -> Vec<u64> {
            let of = report.exchanges.iter().filter(|one| one.client == client);
            of.map(|one| one.usage.host_calls).collect()
        };
        let (works, fails) = (calls("works"), calls("fails"));
        let most = |calls: &[u64]| calls.iter().copied().max().unwrap_or_default();
        assert_eq!((works.len(), fails.len()), (20, 20));
        assert_eq!(most(&fails), most(&works), "{order}: {fails:?}, {works:?}");
    }
}
