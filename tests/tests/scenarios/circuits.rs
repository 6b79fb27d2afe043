//! Circuit breakers over minutes of virtual time: what reaches an upstream that dies, how long it is left alone,
//! and that one which only half works stays shut.

use tidegate_host_sim::{Report, Scenario};
use tidegate_tests::parts;

use super::{runner, services};

const S: u64 = 1_000_000_000;

fn run(yaml: &str, seed: u64) -> Report {
    let yaml = format!("name: circuits\n{yaml}");
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    let scenario = scenario.with_seed(seed);
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    report
}

fn plugin(breaker: &str) -> String {
    format!(
        "plugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, circuit_breaker: {breaker} }}] }}\n"
    )
}

/// `workers` clients, one for each worker, out of step with each other.
fn clients(workers: u64, per_second: u64, from_ms: u64, for_ms: u64) -> String {
    let every_us = 1_000_000 / per_second;
    let times = for_ms * per_second / 1_000;
    let client = |worker: u64| {
        let at_us = from_ms * 1_000 + every_us * worker / workers;
        format!(
            "  - {{ at: {at_us}us, client: w{worker}, worker: {worker}, times: {times}, every: {every_us}us, send: {{ path: /p }} }}\n"
        )
    };
    (0..workers).map(client).collect()
}

/// The requests that reached the upstream once it was dead, and when the last of them was sent.
fn leaked(report: &Report) -> (usize, u64) {
    let failed = report.exchanges.iter().filter(|one| one.details == "via_upstream");
    let failed = failed.filter(|one| one.status == Some(500));
    failed.fold((0, 0), |(count, last_ns), one| (count + 1, last_ns.max(one.sent_at_ns)))
}

/// 16 workers of one Envoy, healthy for two seconds. No rate lets more through than five failures in each.
#[test]
fn what_reaches_an_upstream_that_dies_is_bounded_at_every_rate() {
    for (per_second, for_ms) in [(1, 8_000), (10, 3_000), (100, 1_500)] {
        let healthy = 16 * per_second * 2;
        for (what, after, in_flight) in [("fails", "0ms", 0), ("hangs", "1s", 16 * per_second)] {
            let yaml = format!(
                "{}host: {{ workers: 16 }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 200 }}, times: {healthy} }}\n  - {{ answer: {{ status: 500 }}, after: {after} }}\ntimeline:\n{}",
                plugin("{ open: 1h }"),
                clients(16, per_second, 0, 2_000 + for_ms),
            );
            let report = run(&yaml, 1);
            let (count, last_ns) = leaked(&report);
            println!(
                "{what}, {per_second}/s in each of 16 workers: {count} leaked, the last {:.2} s after its death",
                (last_ns.saturating_sub(2 * S)) as f64 / 1e9
            );
            let bound = usize::try_from(16 * 5 + in_flight).expect("small");
            assert!((5..=bound).contains(&count), "{what} at {per_second}/s: {count}");
            let after = report.exchanges.iter().filter(|one| one.sent_at_ns > last_ns);
            let refused = after.filter(|one| one.details == "tidegate:circuit-open:p").count();
            assert!(refused > 0, "{what} at {per_second}/s: nobody was refused");
        }
    }
}

/// Each Envoy waits 8 to 12 s, and not all the same.
#[test]
fn the_first_test_comes_after_eight_to_twelve_seconds_spread_over_instances() {
    let mut waits_ms = Vec::new();
    for seed in 1..=24 {
        let yaml = format!(
            "{}gateway: [{{ fault: no_hosts }}]\nupstream:\n  - {{ answer: {{ status: 500 }} }}\ntimeline:\n  - {{ at: 0ms, client: dies, times: 5, every: 1ms, send: {{ path: /p }} }}\n  - {{ at: 1s, client: asks, times: 1300, every: 10ms, send: {{ path: /p }} }}\n",
            plugin("{}"),
        );
        let report = run(&yaml, seed);
        let tests = report.exchanges.iter().filter(|one| one.client == "asks");
        let test = tests.clone().find(|one| one.status == Some(500)).expect("a test");
        waits_ms.push(test.sent_at_ns / 1_000_000);
        // It failed: all after it waits as long again.
        assert_eq!(tests.filter(|one| one.status == Some(500)).count(), 1, "seed {seed}");
    }
    assert!(waits_ms.iter().all(|ms| (8_000..=12_020).contains(ms)), "{waits_ms:?}");
    let spread_ms = waits_ms.iter().max().expect("some") - waits_ms.iter().min().expect("some");
    assert!(spread_ms > 2_000, "{waits_ms:?}");
}

/// Two good tests, then a bad one, again and again: three in a row are never reached.
#[test]
fn an_upstream_that_flaps_stays_shut() {
    let cycle =
        "  - { answer: { status: 200 }, times: 2 }\n  - { answer: { status: 500 }, times: 1 }\n";
    let yaml = format!(
        "{}host: {{ workers: 3 }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 500 }}, times: 5 }}\n{}timeline:\n  - {{ at: 0ms, client: dies, worker: 0, times: 5, every: 1ms, send: {{ path: /p }} }}\n{}",
        plugin("{ open: 2s }"),
        cycle.repeat(100),
        clients(3, 20, 100, 120_000),
    );
    let report = run(&yaml, 1);
    let passed = report.exchanges.iter().filter(|one| one.client != "dies");
    let passed: Vec<u16> = passed
        .filter(|one| one.details != "tidegate:circuit-open:p")
        .filter_map(|one| one.status)
        .collect();
    assert!(passed.len() >= 60, "it was tested again and again: {}", passed.len());
    let cycles = passed.chunks(3).filter(|three| three.len() == 3);
    assert!(cycles.clone().all(|three| three == [200, 200, 500]), "{passed:?}");
    // At least 1.6 s between a bad test and the next.
    assert!(passed.len() <= 3 * 120 * 10 / 16, "{}", passed.len());
}

/// A third of all calls fails, of an upstream of which none does: that is not half of them, but unusual.
#[test]
fn an_adaptive_one_opens_by_what_is_unusual() {
    let third =
        "  - { answer: { status: 200 }, times: 2 }\n  - { answer: { status: 500 }, times: 1 }\n";
    let refused = |adaptive: &str| {
        let yaml = format!(
            "{}host: {{ workers: 2 }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 200 }}, times: 4000 }}\n{}timeline:\n{}",
            plugin(&format!("{{ consecutive: 1000{adaptive} }}")),
            third.repeat(1_000),
            clients(2, 100, 0, 30_000),
        );
        let report = run(&yaml, 1);
        let refused = |one: &&tidegate_host_sim::Exchange| one.details == "tidegate:circuit-open:p";
        report.exchanges.iter().find(refused).map(|one| one.sent_at_ns)
    };
    assert_eq!(refused(""), None);
    let at_ns = refused(", adaptive: {}").expect("it opens");
    // It dies after 20 s: 5 % of the window's 2,000 calls, a third of each second's 200, and a tick.
    assert!((20 * S..23 * S).contains(&at_ns), "{at_ns}");
}

/// The tenth of ten that come at once to four workers is no more lucky than the first.
#[test]
fn of_ten_at_once_one_is_the_test() {
    let clients: String = (0..10)
        .map(|n| {
            format!("  - {{ at: 13s, client: c{n}, worker: {}, send: {{ path: /p }} }}\n", n % 4)
        })
        .collect();
    let yaml = format!(
        "{}host: {{ workers: 4 }}\ngateway: [{{ fault: no_hosts }}]\nupstream:\n  - {{ answer: {{ status: 500 }}, times: 5 }}\n  - {{ answer: {{ status: 200 }}, after: 50ms }}\ntimeline:\n  - {{ at: 0ms, client: dies, times: 5, every: 1ms, send: {{ path: /p }} }}\n{clients}",
        plugin("{}"),
    );
    let report = run(&yaml, 1);
    let at_once = report.exchanges.iter().filter(|one| one.client != "dies");
    assert_eq!(at_once.filter(|one| one.status == Some(200)).count(), 1);
}

/// A tenth at first, all in the end, in every worker.
#[test]
fn what_tests_closed_is_let_go_slowly() {
    let yaml = format!(
        "{}host: {{ workers: 2 }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 500 }}, times: 5 }}\n  - {{ answer: {{ status: 200 }} }}\ntimeline:\n  - {{ at: 0ms, client: dies, worker: 0, times: 5, every: 1ms, send: {{ path: /p }} }}\n{}",
        plugin("{ open: 1s, successes: 1, ramp: 10s }"),
        clients(2, 100, 500, 15_000),
    );
    let report = run(&yaml, 1);
    let after = |one: &&tidegate_host_sim::Exchange| one.client != "dies";
    let healed_ns = report.exchanges.iter().filter(after).find(|one| one.status == Some(200));
    let healed_ns = healed_ns.expect("a test").sent_at_ns;
    let share = |from_s: u64, to_s: u64| {
        let within =
            report.exchanges.iter().filter(after).filter(|one| {
                (healed_ns + from_s * S..healed_ns + to_s * S).contains(&one.sent_at_ns)
            });
        let passed = within.clone().filter(|one| one.status == Some(200)).count();
        passed * 100 / within.count()
    };
    let shares = [share(1, 2), share(4, 6), share(8, 10), share(11, 13)];
    assert!((10..=40).contains(&shares[0]), "{shares:?}");
    assert!((40..=75).contains(&shares[1]), "{shares:?}");
    assert!((75..=99).contains(&shares[2]), "{shares:?}");
    assert_eq!(shares[3], 100, "{shares:?}");
}

/// What a closed breaker adds to a request that is admitted inside Envoy, in instructions of the filter: the bound of
/// docs/breakers.md.
#[test]
fn a_closed_breaker_adds_few_instructions() {
    let limits = "rate_limits: [{ name: a, by: ip, limit: 1000000, per: second, decide: lease }]";
    // Alone, and beside as many others as a busy worker has: who is looked for must not cost more among them.
    for after_ms in [0, 48] {
        let of = |policy: &str| {
            let yaml = format!(
                "plugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /p }}, {policy} }}] }}\ngateway: in-process\nupstream:\n  - {{ answer: {{ status: 200, body: done }}, after: {after_ms}ms }}\ntimeline:\n  - {{ at: 0ms, client: c, times: 200, every: 3ms, send: {{ path: /p }} }}\n"
            );
            let report = run(&yaml, 1);
            let mut fuel: Vec<u64> = report.exchanges.iter().map(|one| one.usage.fuel).collect();
            fuel.sort_unstable();
            fuel[100]
        };
        let added = |off: &str, on: &str| (of(off), of(on));
        let beside = added(limits, &format!("{limits}, circuit_breaker: {{}}"));
        let alone = added("mode: \"off\", circuit_breaker: {}", "circuit_breaker: {}");
        println!("{after_ms} ms: beside a leased limit {beside:?}, alone {alone:?}");
        assert!(beside.1 - beside.0 < 2_500, "{after_ms} ms: {beside:?}");
        assert!(alone.1 - alone.0 < 2_500, "{after_ms} ms: {alone:?}");
    }
}
