//! Owns a whole run: every scenario through both runners, and the verdict on each.

use std::collections::BTreeMap;
use std::fs;

use super::corpus::Case;
use super::measured::{measure, runner};
use super::record::{Entry, Lane};
use super::simulated::{DIES, Simulated, simulate};
use super::transcript::{Transcript, moments};
use crate::parts;

/// What came of one scenario.
#[derive(Debug)]
pub struct Judged {
    /// The scenario's place in the files.
    pub id: String,
    /// The scenario's name.
    pub name: String,
    /// The simulator's transcript.
    pub simulator: Transcript,
    /// Envoy's transcript.
    pub envoy: Transcript,
}

// === impl Judged ===

impl Judged {
    fn new(case: &Case, simulated: &Simulated, measured: Vec<Entry>) -> Self {
        let moments = moments(&simulated.entries);
        Self {
            id: case.id.clone(),
            name: case.name.clone(),
            simulator: Transcript::new(&until_death(simulated.entries.clone()), &moments),
            envoy: Transcript::new(&until_death(measured), &moments),
        }
    }

    /// Whether both runners say the same.
    pub fn agrees(&self) -> bool {
        self.simulator == self.envoy
    }
}

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often a scenario that differs is run again: on a busy machine a moment may be missed,
    /// and a difference that is one repeats itself.
    pub repeats: usize,
    /// Whether each scenario has an Envoy of its own, which finds those that kill one.
    pub all_alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { repeats: 2, all_alone: false }
    }
}

/// Runs scenarios in both hosts; in one Envoy, except where a scenario asks for its own.
pub async fn run(cases: &[Case], options: &Options) -> Vec<Judged> {
    let wasm = fs::read(parts::filter("conformance")).expect("the built filter");
    let runner = runner();
    let simulated: Vec<Simulated> =
        cases.iter().map(|case| simulate(&runner, case, &wasm)).collect();
    let mut left: Vec<(&Case, &Simulated)> = cases.iter().zip(&simulated).collect();
    let mut judged: BTreeMap<&str, Judged> = BTreeMap::new();
    for _ in 0..=options.repeats {
        judged.extend(once(&left, options.all_alone).await);
        left.retain(|(case, _)| judged.get(case.id.as_str()).is_some_and(|one| !one.agrees()));
    }
    cases.iter().filter_map(|case| judged.remove(case.id.as_str())).collect()
}

async fn once<'c>(all: &[(&'c Case, &Simulated)], all_alone: bool) -> Vec<(&'c str, Judged)> {
    let is_alone = |one: &(&Case, &Simulated)| all_alone || one.0.is_alone();
    let (alone, together): (Vec<_>, Vec<_>) = all.iter().copied().partition(is_alone);
    let groups = alone.into_iter().map(|one| vec![one]).chain([together]);
    let mut judged = Vec::new();
    for group in groups.filter(|group| !group.is_empty()) {
        let (cases, simulated): (Vec<&Case>, Vec<&Simulated>) = group.into_iter().unzip();
        let measured = measure(&cases, &simulated).await;
        for ((case, simulated), measured) in cases.into_iter().zip(simulated).zip(measured) {
            judged.push((case.id.as_str(), Judged::new(case, simulated, measured)));
        }
    }
    judged
}

/// Of a host that dies only what led to it is told: what was still on its way to clients, and what
/// Envoy did between the deadly call and its end, is chance.
fn until_death(mut entries: Vec<Entry>) -> Vec<Entry> {
    if !entries.iter().any(|entry| entry.text == DIES) {
        return entries;
    }
    let is_deadly = |text: &str| {
        ["  reply(", "  close(", "  continue("].iter().any(|call| text.starts_with(call))
    };
    let mut is_over = false;
    entries.retain(|entry| match entry.lane {
        Lane::Client { .. } | Lane::Root { .. } => false,
        Lane::Stream { .. } => {
            let keeps = !is_over;
            is_over |= is_deadly(&entry.text);
            keeps
        }
        Lane::Call { .. } | Lane::End => true,
    });
    entries
}
