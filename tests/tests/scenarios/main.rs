//! The shipped filter in the simulator: every scenario file under tests/scenarios/, in virtual time.

mod audit;
mod breakers_clocks;
mod breakers_many;
mod breakers_orders;
mod circuits;
mod costs;
mod leases;
mod memory;
mod ticks;
mod updates;

use std::fs;
use std::path::PathBuf;

use host_sim::in_process::services;
use tidegate_host_sim::{Report, Runner, Scenario, Services};
use tidegate_tests::parts;

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(parts::root().join(folder))
        .expect("the scenarios")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn runner() -> Runner {
    let cache = parts::root().join("target/host-sim-cache");
    Runner::with_cache(Some(cache)).expect("a simulator")
}

#[test]
fn every_scenario_holds() {
    hold("tests/scenarios", 15);
}

/// docs/cookbook.md shows the configurations of these.
#[test]
fn every_recipe_does_what_it_says() {
    hold("tests/cookbook", 12);
}

fn hold(folder: &str, count_min: usize) {
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let runner = runner();
    let files = files(folder);
    assert!(files.len() >= count_min, "only {} scenarios found", files.len());
    let mut failed = Vec::new();
    for file in &files {
        let scenario = Scenario::load(file).unwrap_or_else(|error| panic!("{error}"));
        let services = services(&scenario, &[]).expect("the gateway's defaults");
        let report = runner.run_bytes(&scenario, &wasm, services).expect("it can run");
        if !report.passed() {
            failed.push(format!("{}\n{report}", file.display()));
        }
        // What Envoy tolerates but bites, the shipped filter never does.
        for lint in &report.lints {
            failed.push(format!("{}\n{lint}", file.display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The whole chain without a socket or a clock: the filter, the wire, the gateway's rules, its store.
#[test]
fn whoever_waits_as_long_as_retry_after_says_is_let_through() {
    let yaml = |wait_s: u64| {
        format!(
            "name: retry after {wait_s} s\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate, timeout: 45ms }}, policies: [{{ name: p, match: {{ path: /** }}, rate_limits: [{{ name: l, by: ip, limit: 5, per: minute }}] }}] }}\n\
             gateway: in-process\n\
             timeline:\n  - {{ at: 0ms, client: a, times: 6, send: {{}} }}\n  - {{ at: {wait_s}s, client: a, send: {{}} }}\n"
        )
    };
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let runner = runner();
    let run = |wait_s| {
        let scenario = Scenario::parse(&yaml(wait_s)).unwrap_or_else(|error| panic!("{error}"));
        let services = services(&scenario, &[]).expect("the gateway's defaults");
        runner.run_bytes(&scenario, &wasm, services).expect("it can run")
    };
    let status = |report: &Report, nth| report.exchange("a", nth).and_then(|sent| sent.status);
    let report = run(11);
    assert_eq!(
        (1..=7).map(|nth| status(&report, nth)).collect::<Vec<_>>(),
        [Some(200), Some(200), Some(200), Some(200), Some(200), Some(429), Some(429)]
    );
    let refused = report.exchange("a", 6).expect("the sixth");
    let wait_s = refused.headers.text("retry-after").and_then(|text| text.parse().ok());
    let wait_s: u64 = wait_s.expect("a number of seconds");
    // One of five in a minute takes 12 s; a tenth more spreads those who wait.
    assert!((12..=14).contains(&wait_s), "{wait_s}");
    assert_eq!(status(&run(wait_s), 7), Some(200));
}

/// The simulator runs plugins of others, too: this one is built with the SDK.
#[test]
fn a_plugin_of_the_sdk_runs_unchanged() {
    let yaml = "name: the no-op filter sets its header\nplugin: {}\n\
        timeline: [{ at: 0ms, client: a, send: { path: / } }]\n\
        expect: [{ client: a, status: 200, headers: { x-noop: '1' } }]\n";
    let scenario = Scenario::parse(yaml).expect("a scenario");
    let wasm = fs::read(parts::filter("noop_filter")).expect("the built filter");
    let report = runner().run_bytes(&scenario, &wasm, Services::default()).expect("it can run");
    assert!(report.passed(), "{report}");
}

/// A filter with debug assertions traps where it should degrade.
#[test]
fn the_shipped_filter_cannot_be_told_to_trap() {
    let mark = b"x-tidegate-trap";
    let says = |wasm: &[u8]| wasm.windows(mark.len()).any(|window| window == mark);
    let shipped = fs::read(parts::filter("tidegate")).expect("the built filter");
    assert!(!says(&shipped), "built with the feature trap-on-header: run `make plugin`");
    let trapping = fs::read(parts::trapping_filter()).expect("the built filter");
    assert!(says(&trapping), "it is what is looked for");
}

#[test]
fn the_shipped_filter_has_no_debug_assertions() {
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let mark = b"tidegate_debug_assertions";
    let marked = wasm.windows(mark.len()).any(|window| window == mark);
    assert!(
        !marked,
        "built with debug assertions; `make plugin` builds the profile that is shipped"
    );
}

#[test]
fn two_hundred_headers_are_read() {
    let headers: Vec<String> = (0..200).map(|n| format!("[x-h-{n}, '{n}']")).collect();
    let yaml = format!(
        "name: many headers\nplugin:\n  config: {{ version: 1, gateway: {{ cluster: tidegate }}, policies: [{{ name: p, match: {{ path: /** }}, rate_limits: [{{ name: k, by: {{ header: x-h-199 }}, limit: 1, per: 1s }}], on_unavailable: deny }}] }}\n\
         gateway: [{{ fault: refused }}]\n\
         timeline: [{{ at: 0ms, client: a, send: {{ path: /, headers: [{}] }} }}]\n\
         expect: [{{ client: a, status: 503 }}, {{ callout: 1, body: {{ json: {{ /limits/0/subject/name: '199' }} }} }}]\n",
        headers.join(", ")
    );
    let scenario = Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}"));
    let wasm = fs::read(parts::filter("tidegate")).expect("the built filter");
    let report = runner().run_bytes(&scenario, &wasm, Services::default()).expect("it can run");
    assert!(report.passed(), "{report}");
}
