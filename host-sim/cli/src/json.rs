//! A run as JSON, for programs. Its shape is a promise: fields are added, never changed, or `version` grows. It must not
//! hold times: the same run is the same file.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde::Serialize;
use tidegate_host_sim::{CheckResult, Exchange, Lint, Report};

use crate::pool::Case;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Run<'a> {
    version: u32,
    passed: usize,
    failed: usize,
    scenarios: Vec<Scenario<'a>>,
}

#[derive(Serialize)]
struct Scenario<'a> {
    file: String,
    /// Absent where the file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    passed: bool,
    /// Why it could not run at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    checks: Vec<Check<'a>>,
    requests: Vec<Request<'a>>,
    lints: Vec<LintFound<'a>>,
    metrics: BTreeMap<&'a str, u64>,
    ended_at_ns: u64,
}

#[derive(Serialize)]
struct Check<'a> {
    line: u64,
    what: &'a str,
    passed: bool,
    expected: &'a str,
    seen: &'a str,
    /// What a person would read below the failure.
    trace: Vec<String>,
}

#[derive(Serialize)]
struct Request<'a> {
    client: &'a str,
    nth: usize,
    worker: usize,
    sent_at_ns: u64,
    ended_at_ns: Option<u64>,
    status: Option<u16>,
    reset: bool,
    disconnected: bool,
    details: &'a str,
    host_calls: u64,
    host_bytes: u64,
    callouts: u64,
    allocations: u64,
    grown_bytes: u64,
    fuel: u64,
}

#[derive(Serialize)]
struct LintFound<'a> {
    name: &'a str,
    at_ns: u64,
    vm: &'a str,
    context: u32,
    callback: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_call: Option<&'a str>,
    detail: &'a str,
}

/// Writes every scenario with its checks, requests and lints.
pub(crate) fn write(path: &Path, cases: &[Case]) -> Result<(), Box<dyn Error>> {
    let failed = cases.iter().filter(|case| !case.passed()).count();
    let run = Run {
        version: VERSION,
        passed: cases.len() - failed,
        failed,
        scenarios: cases.iter().map(scenario).collect(),
    };
    let text = serde_json::to_string_pretty(&run)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("--json {}: {error}", path.display()))?;
    Ok(())
}

fn scenario(case: &Case) -> Scenario<'_> {
    let report = case.outcome.as_ref().ok();
    let all = |report: Option<&'_ Report>| report.map_or(0, |report| report.ended_at_ns);
    Scenario {
        file: case.file.display().to_string(),
        name: report.map(|report| report.name.as_str()),
        passed: case.passed(),
        error: case.outcome.as_ref().err().map(String::as_str),
        checks: report.into_iter().flat_map(|report| &report.checks).map(check).collect(),
        requests: report.into_iter().flat_map(|report| &report.exchanges).map(request).collect(),
        lints: report.into_iter().flat_map(|report| &report.lints).map(lint).collect(),
        metrics: report
            .into_iter()
            .flat_map(|report| &report.metrics)
            .map(|(name, value)| (name.as_str(), *value))
            .collect(),
        ended_at_ns: all(report),
    }
}

fn check(check: &CheckResult) -> Check<'_> {
    let CheckResult { line, what, passed, expected, seen, trace } = check;
    let trace = trace.iter().map(ToString::to_string).collect();
    Check { line: *line, what, passed: *passed, expected, seen, trace }
}

fn lint(lint: &Lint) -> LintFound<'_> {
    LintFound {
        name: lint.name.as_str(),
        at_ns: lint.at_ns,
        vm: &lint.vm,
        context: lint.context,
        callback: lint.callback,
        host_call: lint.host_call,
        detail: &lint.detail,
    }
}

fn request(exchange: &Exchange) -> Request<'_> {
    let usage = exchange.usage;
    Request {
        client: &exchange.client,
        nth: exchange.nth,
        worker: exchange.worker,
        sent_at_ns: exchange.sent_at_ns,
        ended_at_ns: exchange.ended_at_ns,
        status: exchange.status,
        reset: exchange.is_reset,
        disconnected: exchange.is_disconnected,
        details: &exchange.details,
        host_calls: usage.host_calls,
        host_bytes: usage.host_bytes,
        callouts: usage.callouts,
        allocations: usage.allocations,
        grown_bytes: usage.grown_bytes,
        fuel: usage.fuel,
    }
}
