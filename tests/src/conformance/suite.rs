//! Owns a whole run: every scenario through both runners, and the verdict on each.

use std::fs;

use super::corpus::Case;
use super::measured::{measure, runner};
use super::simulated::{Simulated, simulate};
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

/// Runs scenarios in both hosts.
pub async fn run(cases: &[Case]) -> Vec<Judged> {
    let wasm = fs::read(parts::filter("conformance")).expect("the built filter");
    let runner = runner();
    let simulated: Vec<Simulated> =
        cases.iter().map(|case| simulate(&runner, case, &wasm)).collect();
    let cases: Vec<&Case> = cases.iter().collect();
    let simulated: Vec<&Simulated> = simulated.iter().collect();
    let measured = measure(&cases, &simulated).await;
    let judged = cases.iter().zip(&simulated).zip(measured).map(|((case, simulated), measured)| {
        let moments = moments(&simulated.entries);
        Judged {
            id: case.id.clone(),
            name: case.name.clone(),
            simulator: Transcript::new(&simulated.entries, &moments),
            envoy: Transcript::new(&measured, &moments),
        }
    });
    judged.collect()
}
