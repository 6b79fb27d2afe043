//! Owns the simulator's run of a scenario, told as entries of a transcript.

use tidegate_host_sim::{
    Exchange, Fault, HeaderMap, LogLevel, LogLine, Report, Runner, ServiceCall, Services,
};

use super::corpus::Case;
use super::envoy_log::Line;
use super::record::{Entry, Lane, Recorder, escaped, shown};

/// A run in virtual time.
#[derive(Debug)]
pub(super) struct Simulated {
    pub(super) entries: Vec<Entry>,
    pub(super) report: Report,
}

/// What stands at the end where the plugin did what kills Envoy's whole process.
pub(super) const DIES: &str = "the host dies";
/// What stands at the end for a plugin that does not start.
pub(super) const REFUSED: &str = "the configuration is refused";
const NS_PER_MS: f64 = 1_000_000.0;

/// Runs a scenario in the simulator.
pub(super) fn simulate(runner: &Runner, case: &Case, wasm: &[u8]) -> Simulated {
    let services = Services::default();
    let report = runner.run_bytes(&case.scenario, wasm, services);
    let report = report.unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let out = Recorder::default();
    // What the host itself says of a trap is no line of the plugin's.
    let is_plugins = |line: &&LogLine| line.level != LogLevel::Critical;
    for line in report.logs.iter().filter(is_plugins) {
        if let Some(line) = Line::of_message(&line.message, ms(line.at_ns), &line.vm) {
            out.push(line.at_ms, line.lane(), line.text);
        }
    }
    calls(case, &report, &out);
    for exchange in &report.exchanges {
        client(exchange, &out);
    }
    let metrics: Vec<Entry> =
        report.metrics.iter().filter_map(|(name, value)| metric(name, *value)).collect();
    if report.failures().any(|failure| failure.what == "run") {
        out.push(f64::MAX, Lane::End, DIES.to_owned());
    }
    if report.start_error.is_some() {
        out.push(f64::MAX, Lane::End, REFUSED.to_owned());
    }
    let entries = out.entries().into_iter().chain(metrics).collect();
    Simulated { entries, report }
}

/// What Envoy counts of a plugin's VMs begins with this, of updates with the other.
pub(super) const OF_VMS: &str = "wasm.";
const OF_UPDATES: &str = "lds.";

/// A metric at the end of a run; of Envoy's own only what happened.
pub(super) fn metric(name: &str, value: u64) -> Option<Entry> {
    let is_own = name.starts_with(OF_VMS) || name.starts_with(OF_UPDATES);
    let is_told = value > 0 || !is_own;
    let text = format!("metric {name} = {value}");
    is_told.then_some(Entry { at_ms: f64::MAX, lane: Lane::End, text })
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
        out.push(ms(call.at_ns), lane.clone(), shown(&call.request.headers));
        let trailers = &call.request.trailers;
        if let Some(at_ns) = call.ended_at_ns {
            out.push(ms(at_ns), lane.clone(), end(&call.request.body, trailers));
        }
        if let Some(at_ns) = call.reset_at_ns {
            out.push(ms(at_ns), lane, RESET.to_owned());
        }
    }
}

/// How the end of a message is told.
pub(super) fn end(body: &[u8], trailers: &HeaderMap) -> String {
    let body = if body.is_empty() { String::new() } else { format!(", body {}", escaped(body)) };
    let no_trailers = trailers.pairs().is_empty();
    let trailers =
        if no_trailers { String::new() } else { format!(", trailers {}", shown(trailers)) };
    format!("ends{body}{trailers}")
}

fn client(exchange: &Exchange, out: &Recorder) {
    let lane = Lane::Client { name: exchange.client.clone(), nth: exchange.nth };
    let ended = exchange.ended_at_ns.filter(|_| !exchange.is_disconnected);
    if let (Some(status), Some(at_ns)) = (exchange.status, exchange.headers_at_ns) {
        let headers = shown(&exchange.headers);
        out.push(ms(at_ns), lane.clone(), format!("gets {status} {headers}"));
    }
    let trailers = exchange.trailers.clone().unwrap_or_default();
    let text = match ended {
        _ if exchange.is_disconnected => LEFT.to_owned(),
        Some(_) if exchange.is_reset => RESET.to_owned(),
        Some(_) => end(&exchange.body, &trailers),
        None => so_far(&exchange.body),
    };
    let waits = text.starts_with(WAITS);
    let at_ms = ended.map_or(f64::MAX, ms);
    out.push(at_ms, lane.clone(), text);
    if !waits && !exchange.details.is_empty() {
        out.push(at_ms, lane, format!("details {}", exchange.details));
    }
}

/// What is told of a client that waits at the end of the run.
pub(super) fn so_far(body: &[u8]) -> String {
    let body =
        if body.is_empty() { String::new() } else { format!(", body so far {}", escaped(body)) };
    format!("{WAITS}{body}")
}

/// A client whose timeline lets it go.
pub(super) const LEFT: &str = "left";
/// A message that was cut.
pub(super) const RESET: &str = "is reset";
/// A client that has no whole answer at the end of the run.
pub(super) const WAITS: &str = "still waits";
