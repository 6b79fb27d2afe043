//! What a request may cost at most, by scenario: read, compared, written. It must not measure.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tidegate_host_sim::{Exchange, Report, Usage};

/// Budgets by the scenario's name.
pub(crate) type Budgets = BTreeMap<String, Budget>;

/// The most that one request may cost; what is absent has no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Budget {
    host_calls: Option<u64>,
    host_bytes: Option<u64>,
    callouts: Option<u64>,
    allocations: Option<u64>,
    grown_bytes: Option<u64>,
    fuel: Option<u64>,
}

/// A new compiler changes the instructions of a plugin, and nothing else here; so only fuel gets room: a fifth.
const FUEL_ROOM: u64 = 5;

/// A name and how to read it: from what a request used, and from a budget.
type Field = (&'static str, fn(&Usage) -> u64, fn(&Budget) -> Option<u64>);

pub(crate) const FIELDS: [Field; 6] = [
    ("host_calls", |usage| usage.host_calls, |budget| budget.host_calls),
    ("host_bytes", |usage| usage.host_bytes, |budget| budget.host_bytes),
    ("callouts", |usage| usage.callouts, |budget| budget.callouts),
    ("allocations", |usage| usage.allocations, |budget| budget.allocations),
    ("grown_bytes", |usage| usage.grown_bytes, |budget| budget.grown_bytes),
    ("fuel", |usage| usage.fuel, |budget| budget.fuel),
];

pub(crate) fn read(path: &Path) -> Result<Budgets, Box<dyn Error>> {
    let named = |error: &dyn std::fmt::Display| format!("--budget {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    Ok(serde_json::from_str(&text).map_err(|error| named(&error))?)
}

pub(crate) fn write(path: &Path, budgets: &Budgets) -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string_pretty(budgets)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("--budget {}: {error}", path.display()))?;
    Ok(())
}

/// What the dearest request of a run used, field by field.
pub(crate) fn dearest(report: &Report) -> [u64; FIELDS.len()] {
    FIELDS.map(|(_, used, _)| {
        report.exchanges.iter().map(|exchange| used(&exchange.usage)).max().unwrap_or(0)
    })
}

/// What a run costs today, with room where a compiler decides.
pub(crate) fn today(report: &Report) -> Budget {
    let [host_calls, host_bytes, callouts, allocations, grown_bytes, fuel] =
        dearest(report).map(Some);
    let fuel = fuel.map(|fuel| fuel.saturating_add(fuel / FUEL_ROOM));
    Budget { host_calls, host_bytes, callouts, allocations, grown_bytes, fuel }
}

/// A line for each field that a request exceeds; of several requests the dearest is named.
pub(crate) fn exceeded(report: &Report, budget: &Budget) -> Vec<String> {
    let line = |(name, used, allowed): &Field| {
        let allowed = allowed(budget)?;
        let used_by = |exchange: &&Exchange| used(&exchange.usage);
        let dearest = report.exchanges.iter().max_by_key(used_by)?;
        let seen = used_by(&dearest);
        let who = format!("client {}, request {}", dearest.client, dearest.nth);
        (seen > allowed).then(|| {
            format!(
                "over budget: {}: {name} is {seen}, the budget is {allowed} ({who})",
                report.name
            )
        })
    };
    FIELDS.iter().filter_map(line).collect()
}
