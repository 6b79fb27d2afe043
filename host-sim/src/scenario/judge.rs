//! Holds a run against its expectations. It must not change either.

use super::check::{Check, CheckResult, ClientWants, CountWants, LogWants, RequestWants, Side};
use super::excerpt;
use super::lints;
use super::matchers::{Compared, NumberMatcher, TextMatcher, compare_headers, show};
use super::rules::Pattern;
use super::units::Moments;
use crate::abi::codes::LogLevel;
use crate::host::network::ServiceCall;
use crate::host::trace::millis;
use crate::world::exchange::Exchange;
use crate::world::run::RunOutcome;

/// Checks with their lines, against what a run left behind. What nobody expects and no host survives fails too.
pub(crate) fn judge(checks: &[(u64, Check)], outcome: &RunOutcome) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for problem in &outcome.problems {
        let failure = result(0, "run", Compared::new("a run to its end", problem, false));
        results.push(CheckResult { trace: excerpt::end(outcome), ..failure });
    }
    let expects_start_error =
        checks.iter().any(|(_, check)| matches!(check, Check::StartError { .. }));
    if let (Some(error), false) = (&outcome.start_error, expects_start_error) {
        let failure = result(0, "start", Compared::new("a plugin that starts", error, false));
        results.push(CheckResult { trace: excerpt::end(outcome), ..failure });
    }
    for (line, check) in checks {
        let mut compared: Vec<_> = compare(check, outcome)
            .into_iter()
            .map(|(what, compared)| result(*line, what, compared))
            .collect();
        // Once for an expectation: its parts have the same story.
        if let Some(failure) = compared.iter_mut().find(|result| !result.passed) {
            failure.trace = excerpt::around(check, outcome);
        }
        results.append(&mut compared);
    }
    results
}

fn result(line: u64, what: impl Into<String>, compared: Compared) -> CheckResult {
    let Compared { expected, seen, is_met } = compared;
    CheckResult { line, what: what.into(), passed: is_met, expected, seen, trace: Vec::new() }
}

fn compare(check: &Check, outcome: &RunOutcome) -> Vec<(String, Compared)> {
    match check {
        Check::Client(wants) => client(wants, outcome),
        Check::Count(wants) => vec![count(wants, outcome)],
        Check::Request(wants) => request(wants, outcome),
        Check::Metric { name, value } => {
            vec![(format!("metric {name}"), metric(name, *value, outcome))]
        }
        Check::NoMetric(name) => vec![(format!("metric {name}"), no_metric(name, outcome))],
        Check::SharedData { key, value } => shared_data(key, value, outcome),
        Check::Log(wants) => vec![("log".to_owned(), log(wants, outcome))],
        Check::NoLogAt(level) => vec![("log".to_owned(), no_log_at(*level, outcome))],
        Check::Lint { name, count } => lints::named(*name, *count, outcome),
        Check::NoOtherLint { named } => lints::denied(named, outcome),
        Check::StartError { contains } => {
            vec![("start".to_owned(), start_error(contains, outcome))]
        }
    }
}

fn client(wants: &ClientWants, outcome: &RunOutcome) -> Vec<(String, Compared)> {
    let who = if wants.nth == 1 {
        format!("client {}", wants.client)
    } else {
        format!("client {}, request {}", wants.client, wants.nth)
    };
    let Some(exchange) = outcome
        .exchanges
        .iter()
        .find(|exchange| exchange.client == wants.client && exchange.nth == wants.nth)
    else {
        return vec![(who, Compared::new("a request of this client", "none was sent", false))];
    };
    let mut all = Vec::new();
    let mut add = |what: &str, compared: Compared| all.push((format!("{who}: {what}"), compared));
    if let Some(status) = wants.status {
        add(
            "status",
            Compared::new(status, seen_status(exchange), exchange.status == Some(status)),
        );
    }
    if let Some(at) = wants.at {
        add("response at", moment(at, exchange.ended_at_ns));
    }
    for (name, compared) in compare_headers(&wants.headers, &exchange.headers) {
        add(&format!("header {name}"), compared);
    }
    for compared in wants.body.iter().flat_map(|body| body.compare(Some(&exchange.body))) {
        add("body", compared);
    }
    for compared in
        wants.details.iter().flat_map(|details| details.compare(Some(exchange.details.as_bytes())))
    {
        add("details", compared);
    }
    if let Some(is_reset) = wants.is_reset {
        add("reset", Compared::new(is_reset, exchange.is_reset, exchange.is_reset == is_reset));
    }
    if let Some(is_waiting) = wants.is_waiting {
        let waits = exchange.ended_at_ns.is_none();
        add("waiting at the end", Compared::new(is_waiting, waits, waits == is_waiting));
    }
    let usage = exchange.usage;
    let limits = [
        ("host calls", wants.host_calls_max, usage.host_calls),
        ("host bytes", wants.host_bytes_max, usage.host_bytes),
    ];
    for (what, max, seen) in limits {
        if max.is_some() {
            add(what, NumberMatcher { max, ..NumberMatcher::default() }.compare(seen));
        }
    }
    if let Some(callouts) = wants.callouts {
        add("callouts", Compared::new(callouts, usage.callouts, usage.callouts == callouts));
    }
    all
}

fn seen_status(exchange: &Exchange) -> String {
    match exchange.status {
        Some(status) if exchange.body.is_empty() => status.to_string(),
        Some(status) => format!("{status} with the body {}", show(&exchange.body)),
        None if exchange.is_disconnected => "no response, the client left".to_owned(),
        None if exchange.is_reset => "a reset connection".to_owned(),
        None => "no response until the end of the run".to_owned(),
    }
}

fn moment(wanted: Moments, seen_ns: Option<u64>) -> Compared {
    let expected = if wanted.from_ns == wanted.to_ns {
        millis(wanted.from_ns)
    } else {
        format!("{} to {}", millis(wanted.from_ns), millis(wanted.to_ns))
    };
    let is_met = seen_ns.is_some_and(|seen_ns| (wanted.from_ns..=wanted.to_ns).contains(&seen_ns));
    Compared::new(expected, seen_ns.map_or_else(|| "never".to_owned(), millis), is_met)
}

fn calls<'a>(
    side: Side,
    on: Option<&'a Pattern>,
    cluster: Option<&'a String>,
    outcome: &'a RunOutcome,
) -> impl Iterator<Item = &'a ServiceCall> {
    outcome.calls.iter().filter(move |call| {
        call.is_upstream == (side == Side::Upstream)
            && on.is_none_or(|pattern| pattern.fits(&call.request))
            && cluster.is_none_or(|cluster| *cluster == call.request.cluster)
    })
}

fn count(wants: &CountWants, outcome: &RunOutcome) -> (String, Compared) {
    let seen = calls(wants.side, wants.on.as_ref(), wants.cluster.as_ref(), outcome).count();
    let compared = wants.count.compare(u64::try_from(seen).unwrap_or(u64::MAX));
    let on = wants.on.as_ref().map(|pattern| format!(" {pattern}")).unwrap_or_default();
    (format!("number of {}s{on}", wants.side.name()), compared)
}

fn request(wants: &RequestWants, outcome: &RunOutcome) -> Vec<(String, Compared)> {
    let who = format!("{} {}", wants.side.name(), wants.nth);
    let mut fitting = calls(wants.side, wants.on.as_ref(), wants.cluster.as_ref(), outcome);
    let Some(call) = wants.nth.checked_sub(1).and_then(|index| fitting.nth(index)) else {
        let sent = calls(wants.side, wants.on.as_ref(), wants.cluster.as_ref(), outcome).count();
        return vec![(who, Compared::new("a request", format!("only {sent} were sent"), false))];
    };
    let mut all = Vec::new();
    if let Some(at) = wants.at {
        all.push((format!("{who}: sent at"), moment(at, Some(call.at_ns))));
    }
    for (name, compared) in compare_headers(&wants.headers, &call.request.headers) {
        all.push((format!("{who}: header {name}"), compared));
    }
    for compared in wants.body.iter().flat_map(|body| body.compare(Some(&call.request.body))) {
        all.push((format!("{who}: body"), compared));
    }
    if all.is_empty() {
        all.push((who, Compared::new("a request", "a request", true)));
    }
    all
}

/// A metric nobody defined is no zero: most often its name is misspelt.
fn metric(name: &str, wanted: NumberMatcher, outcome: &RunOutcome) -> Compared {
    match outcome.metrics.get(name) {
        Some(seen) => wanted.compare(*seen),
        None => Compared::new(wanted, known_metrics(outcome), false),
    }
}

fn no_metric(name: &str, outcome: &RunOutcome) -> Compared {
    match outcome.metrics.get(name) {
        Some(seen) => Compared::new("absent", seen, false),
        None => Compared::new("absent", "absent", true),
    }
}

fn known_metrics(outcome: &RunOutcome) -> String {
    const SHOWN_MAX: usize = 40;
    if outcome.metrics.is_empty() {
        return "no such metric; the plugin defined none".to_owned();
    }
    let known: Vec<_> = outcome.metrics.keys().map(String::as_str).take(SHOWN_MAX).collect();
    let more = outcome.metrics.len().saturating_sub(SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("no such metric; there are {}{more}", known.join(", "))
}

fn shared_data(key: &str, wanted: &TextMatcher, outcome: &RunOutcome) -> Vec<(String, Compared)> {
    let seen = outcome.shared_data.get(key.as_bytes()).map(Vec::as_slice);
    wanted
        .compare(seen)
        .into_iter()
        .map(|compared| (format!("shared data {key}"), compared))
        .collect()
}

fn log(wants: &LogWants, outcome: &RunOutcome) -> Compared {
    let mut levelled =
        outcome.logs.iter().filter(|line| wants.level.is_none_or(|level| line.level == level));
    let is_met = levelled.any(|line| line.message.contains(&wants.contains));
    let level = wants.level.map(|level| format!(" at {}", level.name())).unwrap_or_default();
    let seen = if is_met { "such a line".to_owned() } else { all_lines(outcome) };
    Compared::new(format!("a line{level} with {:?}", wants.contains), seen, is_met)
}

fn no_log_at(level: LogLevel, outcome: &RunOutcome) -> Compared {
    let worst = outcome.logs.iter().find(|line| line.level >= level);
    let seen = worst.map_or_else(|| "none".to_owned(), ToString::to_string);
    Compared::new(format!("no line at {} or worse", level.name()), seen, worst.is_none())
}

fn all_lines(outcome: &RunOutcome) -> String {
    const SHOWN_MAX: usize = 10;
    if outcome.logs.is_empty() {
        return "an empty log".to_owned();
    }
    let lines: Vec<_> =
        outcome.logs.iter().take(SHOWN_MAX).map(|line| format!("\n    {line}")).collect();
    let more = outcome.logs.len().saturating_sub(SHOWN_MAX);
    let more = if more > 0 { format!("\n    and {more} more") } else { String::new() };
    format!("{}{more}", lines.concat())
}

fn start_error(contains: &str, outcome: &RunOutcome) -> Compared {
    let log: Vec<_> = outcome.logs.iter().map(|line| line.message.as_str()).collect();
    let error = outcome.start_error.as_ref().map(ToString::to_string);
    let is_met = error.as_ref().is_some_and(|error| {
        error.contains(contains) || log.iter().any(|line| line.contains(contains))
    });
    let seen = error.map_or_else(
        || "the plugin started".to_owned(),
        |error| format!("{error}; log: {}", all_lines(outcome)),
    );
    Compared::new(format!("a start error with {contains:?}"), seen, is_met)
}
