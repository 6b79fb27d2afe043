//! Listener updates, one after the other, while requests are asked about: what configurations leave behind.

use std::fmt::Write as _;

use tidegate_host_sim::Scenario;
use tidegate_tests::parts;

use super::{runner, services};

const UPDATES: usize = 60;
const POLICIES: usize = 80;

/// A large one, told from the others by a name.
fn config(number: usize) -> String {
    let mut text = String::from(
        "{ version: 1, gateway: { cluster: tidegate, timeout: 45ms }, policies: [{ name: p, match: { path: /p }, rate_limits: [{ name: l, by: ip, limit: 5, per: 1s }] }",
    );
    for policy in 0..POLICIES {
        write!(
            text,
            ", {{ name: q{policy}-{number}, match: {{ path: '/q/{policy}/{{id}}/**', host: h{policy}.example.com, methods: [GET, PUT] }}, rate_limits: [{{ name: a, by: ip, limit: 5, per: 1s }}, {{ name: b, by: ip, limit: 50, per: 1m }}] }}"
        )
        .expect("text");
    }
    text + "] }"
}

/// The client leaves while the gateway is asked, so the root's end waits for nobody and its call is never answered.
#[test]
fn configurations_that_end_with_a_call_under_way_leave_nothing_behind() {
    let mut timeline = String::new();
    for number in 1..=UPDATES {
        let at_ms = number * 100;
        write!(
            timeline,
            "  - {{ at: {at_ms}ms, client: c{number}, send: {{ path: /p }} }}\n  - {{ at: {}ms, client: c{number}, disconnect: true }}\n  - {{ at: {}ms, update: {{ config: {} }} }}\n",
            at_ms + 1,
            at_ms + 2,
            config(number),
        )
        .expect("text");
    }
    let last_ms = (UPDATES + 1) * 100;
    let scenario = Scenario::parse(&format!(
        "name: updates\nplugin:\n  config: {}\nhost: {{ workers: 1, main: false, canary: false, drain: 10ms, memory_max: 6MiB }}\ngateway: [{{ answer: {{ status: 200 }}, after: 3s }}]\ntimeline:\n{timeline}  - {{ at: {last_ms}ms, client: last, send: {{ path: /free }} }}\n",
        config(0),
    ));
    let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
    let wasm = std::fs::read(parts::filter("tidegate")).expect("the built filter");
    let services = services(&scenario, &[]).expect("the gateway's defaults");
    let report = runner().run_bytes(&scenario, &wasm, services).expect("it can run");
    assert!(report.start_error.is_none(), "{report}");
    let last = report.exchange("last", 1).expect("it was sent");
    assert_eq!(last.status, Some(200), "{report}");
    // A VM that may have no more memory traps, and is made anew.
    let traps: Vec<_> =
        report.logs.iter().filter(|line| line.message.contains("failed:")).collect();
    assert!(traps.is_empty(), "{traps:?}");
}
