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
    /// Whether both runners say the same.
    pub fn agrees(&self) -> bool {
        self.simulator == self.envoy
    }
}

/// Runs scenarios in both hosts; in one Envoy, except where a scenario asks for its own.
pub async fn run(cases: &[Case], all_alone: bool) -> Vec<Judged> {
    let wasm = fs::read(parts::filter("conformance")).expect("the built filter");
    let runner = runner();
    let simulated: Vec<Simulated> =
        cases.iter().map(|case| simulate(&runner, case, &wasm)).collect();
    let cases: Vec<&Case> = cases.iter().collect();
    let mut measured: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
    let together: Vec<_> = cases.iter().copied().zip(&simulated).collect();
    let (alone, together): (Vec<_>, Vec<_>) =
        together.into_iter().partition(|(case, _)| all_alone || case.is_alone());
    let groups = alone.into_iter().map(|one| vec![one]).chain([together]);
    for group in groups.filter(|group| !group.is_empty()) {
        let (cases, simulated): (Vec<&Case>, Vec<&Simulated>) = group.into_iter().unzip();
        let entries = measure(&cases, &simulated).await;
        measured.extend(cases.iter().map(|case| case.id.as_str()).zip(entries));
    }
    let judged = cases.iter().zip(&simulated).map(|(case, simulated)| {
        let measured = measured.remove(case.id.as_str()).unwrap_or_default();
        let moments = moments(&simulated.entries);
        Judged {
            id: case.id.clone(),
            name: case.name.clone(),
            simulator: Transcript::new(&until_death(simulated.entries.clone()), &moments),
            envoy: Transcript::new(&until_death(measured), &moments),
        }
    });
    judged.collect()
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
