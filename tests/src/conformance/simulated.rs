//! Owns the simulator's run of a scenario, told as entries of a transcript.

use tidegate_host_sim::{Exchange, Fault, Report, Runner, ServiceCall, Services};

use super::corpus::Case;
use super::envoy_log::Line;
use super::record::{Entry, Lane, Recorder, escaped, shown};

/// A run in virtual time.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) entries: Vec<Entry>,
    pub(super) report: Report,
}

/// What stands at the end for a plugin that does not start.
pub(super) const REFUSED: &str = "the configuration is refused";
const NS_PER_MS: f64 = 1_000_000.0;

/// Runs a scenario in the simulator.
pub(super) fn simulate(runner: &Runner, case: &Case, wasm: &[u8]) -> Simulated {
    let services = Services::default();
    let report = runner.run_bytes(&case.scenario, wasm, services);
    let report = report.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let out = Recorder::default();
    for line in &report.logs {
        if let Some(line) = Line::of_message(&line.message, ms(line.at_ns), &line.vm) {
            out.push(line.at_ms, line.lane(), line.text);
        }
    }
    calls(case, &report, &out);
    for exchange in &report.exchanges {
        client(exchange, &out);
    }
    for (name, value) in &report.metrics {
        out.push(f64::MAX, Lane::End, format!("metric {name} = {value}"));
    }
    if report.start_error.is_some() {
        out.push(f64::MAX, Lane::End, REFUSED.to_owned());
    }
    Simulated { entries: out.entries(), report }
}

#[expect(clippy::cast_precision_loss, reason = "a run is far shorter than 2^53 ns")]
fn ms(ns: u64) -> f64 {
    ns as f64 / NS_PER_MS
}

/// A request that meets a cluster without a host behind it reaches nobody.
fn calls(case: &Case, report: &Report, out: &Recorder) {
    let is_lost = |call: &&ServiceCall| {
        let fate = match call.is_upstream {
            true => case.scenario.fate_of_upstream(),
            false => case.scenario.fate_of_cluster(&call.request.cluster),
        };
        matches!(fate, Some(Fault::Refused | Fault::NoHosts | Fault::Overflow))
    };
    let mut counts = [0, 0];
    for call in report.calls.iter().filter(|call| !is_lost(call)) {
        let count = &mut counts[usize::from(call.is_upstream)];
        *count += 1;
        let lane = Lane::Call { is_upstream: call.is_upstream, nth: *count };
        let at_ms = ms(call.at_ns);
        out.push(at_ms, lane.clone(), shown(&call.request.headers));
        out.push(
            at_ms,
            lane,
            end(
                &call.request.body,
                call.request.trailers.pairs().is_empty(),
                &shown(&call.request.trailers),
            ),
        );
    }
}

/// How the end of a message is told.
pub(super) fn end(body: &[u8], no_trailers: bool, trailers: &str) -> String {
    let body = if body.is_empty() { String::new() } else { format!(", body {}", escaped(body)) };
    let trailers = if no_trailers { String::new() } else { format!(", trailers {trailers}") };
    format!("ends{body}{trailers}")
}

fn client(exchange: &Exchange, out: &Recorder) {
    let lane = Lane::Client { name: exchange.client.clone(), nth: exchange.nth };
    let ended = exchange.ended_at_ns.filter(|_| !exchange.is_disconnected);
    let at_ms = ended.map_or(f64::MAX, ms);
    if let Some(status) = exchange.status {
        out.push(at_ms, lane.clone(), format!("gets {status} {}", shown(&exchange.headers)));
    }
    let trailers = exchange.trailers.clone().unwrap_or_default();
    let ended = match ended {
        _ if exchange.is_reset => "is reset".to_owned(),
        Some(_) => end(&exchange.body, trailers.pairs().is_empty(), &shown(&trailers)),
        None if exchange.is_disconnected => "left".to_owned(),
        None => "still waits".to_owned(),
    };
    let waits = ended == "still waits";
    out.push(at_ms, lane.clone(), ended);
    if !waits && !exchange.details.is_empty() {
        out.push(at_ms, lane, format!("details {}", exchange.details));
    }
}
