//! Owns a real Envoy's run of many scenarios at once, told as entries of transcripts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_host_sim::Runner;

use super::bootstrap::bootstrap;
use super::clients::{Played, play};
use super::clock::Clock;
use super::corpus::Case;
use super::envoy_log::{self, LOG_FORMAT};
use super::record::{Entry, Lane, Recorder};
use super::services::{self, Place};
use super::simulated::Simulated;
use crate::envoy_process::{EnvoyProcess, Settings};
use crate::{client, eventually};

/// How long Envoy may take to write its log once all is over.
const LOG_WITHIN: Duration = Duration::from_secs(5);
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
        arguments: ["--log-format", LOG_FORMAT, "--file-flush-interval-msec", "20"]
            .map(str::to_owned)
            .to_vec(),
    };
    let envoy = EnvoyProcess::start(bootstrap(&told), &settings).await;
    let envoy = envoy.unwrap_or_else(|output| panic!("Envoy ended at its start:\n{output}"));
    let listeners = envoy.listeners().await;
    let clock = Clock::start();
    let runs: Vec<_> = cases
        .iter()
        .zip(simulated)
        .map(|(case, simulated)| {
            let at = listeners.get(&case.id).copied();
            tokio::spawn(one((*case).clone(), at, clock, lasts_ns(simulated)))
        })
        .collect();
    let mut results = Vec::new();
    for run in runs {
        results.push(run.await.expect("no panic"));
    }
    let stats = stats(envoy.admin).await;
    let output = complete_output(&envoy, cases, &results, clock).await;
    drop(running);
    let mut all = Vec::new();
    for (((case, (played, clients)), services), simulated) in
        cases.iter().zip(&results).zip(&recorders).zip(simulated)
    {
        let mut entries = clients.entries();
        entries.extend(services.entries().into_iter().map(|entry| early.moved(entry, clock)));
        let written = envoy_log::of_case(&output, case, &clock);
        let end_ms = ms(lasts_ns(simulated));
        // What happens when clients that still wait are cut off is not part of the timeline.
        entries.extend(envoy_log::entries(&written.lines).into_iter().filter(|e| e.at_ms < end_ms));
        for one in played {
            let details = one.port.and_then(|port| written.details.get(&port));
            if let (Some(at_ms), Some(details)) = (one.ended_ms, details) {
                let text = format!("details {details}");
                entries.push(Entry { at_ms, lane: one.lane.clone(), text });
            }
        }
        entries.extend(metrics(&stats, simulated));
        if !listeners.contains_key(&case.id) {
            let text = "the configuration is refused".to_owned();
            entries.push(Entry { at_ms: f64::MAX, lane: Lane::End, text });
        }
        all.push(entries);
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "a run is far shorter than 2^53 ns")]
fn ms(ns: u64) -> f64 {
    ns as f64 / 1_000_000.0
}

fn lasts_ns(simulated: &Simulated) -> u64 {
    simulated.report.ended_at_ns + AFTERMATH_NS
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

/// Envoy's output, once it has the access log of every request that ended.
async fn complete_output(
    envoy: &EnvoyProcess,
    cases: &[&Case],
    results: &[(Vec<Played>, Recorder)],
    clock: Clock,
) -> String {
    eventually(LOG_WITHIN, "the access log is complete", async || {
        let output = envoy.output();
        for (case, (played, _)) in cases.iter().zip(results) {
            let written = envoy_log::of_case(&output, case, &clock);
            let ended = played.iter().filter(|one| one.ended_ms.is_some());
            let missing =
                ended.filter_map(|one| one.port).find(|p| !written.details.contains_key(p));
            if let Some(port) = missing {
                return Err(format!("{}: no access log for port {port}\n{output}", case.id));
            }
        }
        Ok(output)
    })
    .await
}

/// The plugins' metrics by name.
async fn stats(admin: SocketAddr) -> BTreeMap<String, u64> {
    const PREFIX: &str = "wasmcustom.";
    let all = client::get(admin, "/stats?filter=^wasmcustom").await.body;
    let one = |line: &str| {
        let (name, value) = line.strip_prefix(PREFIX)?.split_once(": ")?;
        // A histogram's value is a text of quantiles.
        Some((name.to_owned(), value.parse().ok()?))
    };
    all.lines().filter_map(one).collect()
}

/// The metrics whose first part the scenario's own metrics have.
fn metrics(stats: &BTreeMap<String, u64>, simulated: &Simulated) -> Vec<Entry> {
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let ours: Vec<String> = simulated.report.metrics.keys().map(|name| first(name)).collect();
    let stats = stats.iter().filter(|(name, _)| ours.contains(&first(name)));
    let entry = |(name, value): (&String, &u64)| Entry {
        at_ms: f64::MAX,
        lane: Lane::End,
        text: format!("metric {name} = {value}"),
    };
    stats.map(entry).collect()
}

/// A simulator whose compiled modules are kept.
pub(super) fn runner() -> Runner {
    let cache = crate::parts::root().join("target/host-sim-cache");
    Runner::with_cache(Some(cache)).expect("a simulator")
}
