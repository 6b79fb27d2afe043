//! Owns a real Envoy's run of many scenarios at once, told as entries of transcripts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tidegate_host_sim::Runner;

use super::bootstrap::{bootstrap, listener};
use super::clients::{Played, play};
use super::clock::Clock;
use super::corpus::Case;
use super::envoy_log::{LOG_FORMAT, Written};
use super::record::{Entry, Lane, Recorder};
use super::services::{self, Place};
use super::simulated::{DIES, OF_VMS, REFUSED, Simulated, metric};
use crate::envoy_process::{EnvoyProcess, Settings};
use crate::{client, eventually};

/// How long Envoy may take to write its log once all is over.
const LOG_WITHIN: Duration = Duration::from_secs(10);
/// A log that did not grow for so long is complete; Envoy flushes it every 20 ms.
const LOG_STILL: Duration = Duration::from_millis(200);
/// How far apart timelines begin: what all do at once, Envoy cannot do on time.
const APART: Duration = Duration::from_millis(25);
/// How long after the last event of the simulator a real run is still looked at.
const AFTERMATH_NS: u64 = 300_000_000;

/// Runs scenarios against one Envoy. The simulator's runs say how long each takes.
pub(super) async fn measure(cases: &[&Case], simulated: &[&Simulated]) -> Vec<Vec<Entry>> {
    let mut bound = Vec::new();
    for case in cases {
        bound.push(services::bind(case).await);
    }
    let places: Vec<BTreeMap<String, Place>> = bound.iter().map(|bound| bound.at.clone()).collect();
    let told: Vec<_> = cases.iter().copied().zip(&places).collect();
    let early = Clock::start();
    let recorders: Vec<Recorder> = cases.iter().map(|_| Recorder::default()).collect();
    let running: Vec<_> = bound
        .into_iter()
        .zip(cases)
        .zip(&recorders)
        .map(|((bound, case), out)| bound.run(case, early, out))
        .collect();
    let settings = Settings {
        concurrency: 1,
        dynamic: true,
        environment: Vec::new(),
        arguments: arguments(cases),
    };
    let envoy = EnvoyProcess::start(bootstrap(&told), &settings).await;
    let mut envoy = envoy.unwrap_or_else(|output| panic!("Envoy ended at its start:\n{output}"));
    let listeners = envoy.listeners().await;
    let begin = Clock::start();
    let clocks: Vec<Clock> =
        (0_u32..).zip(cases).map(|(nth, _)| begin.later(APART * nth)).collect();
    let runs: Vec<_> = cases
        .iter()
        .zip(simulated)
        .zip(&clocks)
        .map(|((case, simulated), clock)| {
            let at = listeners.get(&case.id).copied();
            tokio::spawn(one((*case).clone(), at, *clock, lasts_ns(simulated)))
        })
        .collect();
    update(&envoy, cases, &clocks).await;
    let mut results = Vec::new();
    for run in runs {
        results.push(run.await.expect("no panic"));
    }
    let stats = stats(envoy.admin).await;
    let output = settled_output(&envoy).await;
    let death = envoy.process().ended().map(|_| DIES.to_owned());
    drop(running);
    let written = Written::read(&output);
    let mut all = Vec::new();
    let runs = cases.iter().zip(&results).zip(&recorders).zip(simulated).zip(&clocks);
    for ((((case, (played, clients)), services), simulated), clock) in runs {
        let mut entries = written.entries(case, clock);
        entries.extend(services.entries().into_iter().map(|entry| early.moved(entry, *clock)));
        // What happens when clients that still wait are cut off is not part of the timeline.
        let end_ms = ms(lasts_ns(simulated));
        entries.retain(|entry| entry.at_ms < end_ms);
        entries.extend(clients.entries());
        for one in played {
            let details = one.port.and_then(|port| written.details(case, port));
            if let (Some(at_ms), Some(details)) = (one.ended_ms, details) {
                let text = format!("details {details}");
                entries.push(Entry { at_ms, lane: one.lane.clone(), text });
            }
        }
        entries.extend(metrics(&stats, simulated));
        let refused = (!listeners.contains_key(&case.id)).then(|| REFUSED.to_owned());
        for text in death.iter().cloned().chain(refused) {
            entries.push(Entry { at_ms: f64::MAX, lane: Lane::End, text });
        }
        all.push(entries);
    }
    all
}

/// Log and access log at once, and a drain as long as the scenario says.
fn arguments(cases: &[&Case]) -> Vec<String> {
    let always = ["--log-format", LOG_FORMAT, "--file-flush-interval-msec", "20"];
    let drain = cases.iter().find_map(|case| case.host("drain").as_str()?.strip_suffix('s'));
    let drain = drain.map(|seconds| ["--drain-time-s", seconds, "--drain-strategy", "immediate"]);
    let all = always.into_iter().chain(drain.into_iter().flatten());
    all.map(str::to_owned).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a run is far shorter than 2^53 ns")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1_000_000.0
}

fn lasts_ns(simulated: &Simulated) -> u64 {
    simulated.report.ended_at_ns + AFTERMATH_NS
}

/// Gives the listeners their new configurations when the timelines say so.
async fn update(envoy: &EnvoyProcess, cases: &[&Case], clocks: &[Clock]) {
    let mut updates: Vec<_> = cases
        .iter()
        .enumerate()
        .flat_map(|(at, case)| case.scenario.updates().into_iter().map(move |one| (at, one)))
        .collect();
    updates.sort_by_key(|(at, update)| clocks[*at].moment(update.at_ns));
    let mut updated: Vec<BTreeMap<usize, Vec<u8>>> = vec![BTreeMap::new(); cases.len()];
    for (at, update) in updates {
        clocks[at].until(update.at_ns).await;
        updated[at].insert(update.plugin, update.config);
        // Envoy leaves those alone that are as before.
        envoy.update(cases.iter().zip(&updated).map(|(case, new)| listener(case, new)).collect());
    }
}

/// The clients of one scenario, all at once.
async fn one(
    case: Case,
    at: Option<SocketAddr>,
    clock: Clock,
    until_ns: u64,
) -> (Vec<Played>, Recorder) {
    let out = Recorder::default();
    let Some(at) = at else {
        return (Vec::new(), out);
    };
    let clients = case.scenario.clients().into_iter();
    let tasks: Vec<_> =
        clients.map(|view| tokio::spawn(play(view, at, clock, until_ns, out.clone()))).collect();
    let mut played = Vec::new();
    for task in tasks {
        played.push(task.await.expect("no panic"));
    }
    clock.until(until_ns).await;
    (played, out)
}

/// Envoy's output, once it stands still: the access log is written with a delay.
async fn settled_output(envoy: &EnvoyProcess) -> String {
    let mut before = String::new();
    let mut since = Instant::now();
    eventually(LOG_WITHIN, "Envoy's log stands still", async || {
        let output = envoy.output();
        if output.len() > before.len() {
            since = Instant::now();
            before = output;
        }
        if since.elapsed() >= LOG_STILL { Ok(before.clone()) } else { Err("it grows") }
    })
    .await
}

/// The plugins' metrics and what Envoy counts of their VMs, by name; of a histogram how often it was
/// recorded.
async fn stats(admin: SocketAddr) -> BTreeMap<String, u64> {
    const PATH: &str =
        "/stats?filter=^(wasmcustom|wasm|listener_manager\\.lds)\\.&histogram_buckets=cumulative";
    let Some(all) = client::try_get(admin, PATH).await else {
        return BTreeMap::new();
    };
    let one = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let name = name.strip_prefix("wasmcustom.").unwrap_or(name);
        // A bucket is `B0.5(in this interval,ever)`; the last one holds all.
        let value = value.rsplit(',').next()?.trim_end_matches(')');
        Some((name.to_owned(), value.parse().ok()?))
    };
    let mut all: BTreeMap<String, u64> = all.body.lines().filter_map(one).collect();
    // Updates count from the start on, where the first listeners came.
    for (name, at_start) in [("lds.update_success", 1), ("lds.update_rejected", 0)] {
        let count = all.remove(&format!("listener_manager.{name}")).unwrap_or(0);
        all.insert(name.to_owned(), count.saturating_sub(at_start));
    }
    all
}

/// The metrics of those owners that the scenario's own metrics have.
fn metrics(stats: &BTreeMap<String, u64>, simulated: &Simulated) -> Vec<Entry> {
    let ours: Vec<&str> = simulated.report.metrics.keys().map(|name| owner(name)).collect();
    let stats = stats.iter().filter(|(name, _)| ours.contains(&owner(name)));
    stats.filter_map(|(name, value)| metric(name, *value)).collect()
}

/// The first part of a metric's name, which only one scenario has; of a VM's the plugin's name.
fn owner(name: &str) -> &str {
    let rest = name.strip_prefix(OF_VMS).unwrap_or(name);
    rest.split('.').next().unwrap_or_default()
}

/// A simulator whose compiled modules are kept.
pub(super) fn runner() -> Runner {
    let cache = crate::parts::root().join("target/host-sim-cache");
    Runner::with_cache(Some(cache)).expect("a simulator")
}
