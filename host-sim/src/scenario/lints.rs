//! Lints as expectations: the one that a scenario names, and all of them where it denies any. It must not look for lints.

use super::check::Check;
use super::matchers::{Compared, NumberMatcher};
use crate::host::lints::{LintMode, LintName};
use crate::world::run::RunOutcome;

/// The check that `host.lints` asks for.
pub(crate) fn plan(mode: LintMode, checks: &[(u64, Check)]) -> Result<Option<Check>, String> {
    let named: Vec<LintName> = checks
        .iter()
        .filter_map(|(_, check)| match check {
            Check::Lint { name, .. } => Some(*name),
            _ => None,
        })
        .collect();
    match (mode, named.first()) {
        (LintMode::Off, Some(name)) => {
            Err(format!("host.lints is off, so that the expectation of {name} can never be met"))
        }
        (LintMode::Deny, _) => Ok(Some(Check::NoOtherLint { named })),
        (LintMode::Report | LintMode::Off, _) => Ok(None),
    }
}

pub(crate) fn named(
    name: LintName,
    count: NumberMatcher,
    outcome: &RunOutcome,
) -> Vec<(String, Compared)> {
    let mut found = outcome.lints.iter().filter(|lint| lint.name == name).peekable();
    let first = found.peek().map(ToString::to_string);
    // Without bounds, one will do.
    let count = if count.is_empty() { NumberMatcher { min: Some(1), ..count } } else { count };
    let mut compared = count.compare(u64::try_from(found.count()).unwrap_or(u64::MAX));
    if let (Some(first), false) = (first, compared.is_met) {
        compared.seen = format!("{}, the first: {first}", compared.seen);
    }
    vec![(format!("lint {name}"), compared)]
}

/// Each lint that no expectation names is a failure of its own.
pub(crate) fn denied(named: &[LintName], outcome: &RunOutcome) -> Vec<(String, Compared)> {
    let others = outcome.lints.iter().filter(|lint| !named.contains(&lint.name));
    let failed: Vec<_> = others
        .map(|lint| {
            let expected = format!("no {}", lint.name);
            (format!("lint {}", lint.name), Compared::new(expected, lint, false))
        })
        .collect();
    if failed.is_empty() {
        return vec![("lints".to_owned(), Compared::new("none", "none", true))];
    }
    failed
}
