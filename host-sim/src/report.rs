//! What a caller gets back from a run. It must not judge again.

use std::collections::BTreeMap;
use std::fmt;

use crate::host::load::StartError;
use crate::host::network::ServiceCall;
use crate::host::trace::{LogLine, TraceLine};
use crate::scenario::check::CheckResult;
use crate::world::exchange::Exchange;
use crate::world::run::RunOutcome;

/// A run and its judgement.
#[derive(Debug)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// Every check, in the file's order.
    pub checks: Vec<CheckResult>,
    /// What every client saw, in the order of sending.
    pub exchanges: Vec<Exchange>,
    /// What reached the upstream and the services, in order.
    pub calls: Vec<ServiceCall>,
    /// Metrics at the end.
    pub metrics: BTreeMap<String, u64>,
    /// The plugins' log.
    pub logs: Vec<LogLine>,
    /// Callbacks and host calls, if the scenario was traced.
    pub trace: Vec<TraceLine>,
    /// Why the plugin did not start.
    pub start_error: Option<StartError>,
    /// Virtual time at the end.
    pub ended_at_ns: u64,
    /// How many orders of the threads were run up to this one; 0 where none were asked for.
    pub interleavings: u64,
    /// The choices that led to this order.
    pub choices: Vec<usize>,
}

impl Report {
    pub(crate) fn new(name: &str, checks: Vec<CheckResult>, outcome: RunOutcome) -> Self {
        let RunOutcome { start_error, exchanges, calls, metrics, trace, logs, ended_at_ns, .. } =
            outcome;
        Self {
            name: name.to_owned(),
            checks,
            exchanges,
            calls,
            metrics,
            logs,
            trace,
            start_error,
            ended_at_ns,
            interleavings: 0,
            choices: Vec::new(),
        }
    }

    /// There are more orders than were run: nobody may take that for a proof.
    pub(crate) fn give_up(&mut self, runs_max: u64) {
        self.checks.push(CheckResult {
            line: 0,
            what: "interleavings".to_owned(),
            passed: false,
            expected: "all of them".to_owned(),
            seen: format!("more than {runs_max}; use fewer steps, or a number of seeded ones"),
        });
    }

    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// What was not as expected.
    pub fn failures(&self) -> impl Iterator<Item = &CheckResult> {
        self.checks.iter().filter(|check| !check.passed)
    }

    /// A client's first, second, ... request.
    pub fn exchange(&self, client: &str, nth: usize) -> Option<&Exchange> {
        self.exchanges.iter().find(|exchange| exchange.client == client && exchange.nth == nth)
    }
}

/// The name and every failure: what a failing test should print.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.passed() { "passed" } else { "FAILED" }, self.name)?;
        for failure in self.failures() {
            write!(f, "\n{failure}")?;
        }
        if !self.passed() && self.interleavings > 0 {
            let Self { interleavings, choices, .. } = self;
            write!(
                f,
                "\n  in interleaving {interleavings}; `host: {{ interleavings: {choices:?} }}` runs it again"
            )?;
        }
        Ok(())
    }
}
