//! Owns the scenario files: several scenarios to a file, each with a name of its own. It must not
//! run them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tidegate_host_sim::Scenario;

use crate::parts;

/// One scenario of a file.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file's stem and the scenario's place in it: `headers.3`. The scenario's mark in Envoy.
    pub id: String,
    /// The scenario's name.
    pub name: String,
    /// As the simulator reads it.
    pub scenario: Scenario,
    /// As it is written, for what only an Envoy needs to be told.
    pub raw: Value,
}

/// Every scenario under `tests/conformance/`, in order.
pub fn corpus() -> Vec<Case> {
    let mut files: Vec<PathBuf> = fs::read_dir(parts::root().join("tests/conformance"))
        .expect("the scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    let cases: Vec<Case> = files.iter().flat_map(read).collect();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two scenarios have one name");
    cases
}

fn read(file: &PathBuf) -> Vec<Case> {
    let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
    let text = fs::read_to_string(file).expect("a readable file");
    let documents = text.split("\n---\n").enumerate();
    let case = |(at, document): (usize, &str)| {
        let id = format!("{stem}.{}", at + 1);
        let scenario = Scenario::parse(document).unwrap_or_else(|error| panic!("{id}: {error}"));
        let raw: Value = serde_saphyr::from_str(document).expect("the simulator read it");
        Case { id, name: scenario.name().to_owned(), scenario, raw }
    };
    documents.map(case).collect()
}

// === impl Case ===

impl Case {
    /// The filters in request order.
    pub(super) fn plugins(&self) -> Vec<&Value> {
        match self.raw["plugins"].as_array() {
            Some(chain) => chain.iter().collect(),
            None => vec![&self.raw["plugin"]],
        }
    }

    /// The clusters that exist.
    pub(super) fn clusters(&self) -> Vec<&str> {
        let listed = self.raw["clusters"].as_array().map(Vec::as_slice).unwrap_or_default();
        listed.iter().filter_map(Value::as_str).collect()
    }

    /// Whether the scenario needs an Envoy of its own: it kills it, keeps its worker busy, or has new
    /// listeners, which makes Envoy try those again that it refused.
    pub(super) fn is_alone(&self) -> bool {
        self.id.starts_with("alone") || !self.scenario.updates().is_empty()
    }

    /// An option of the host.
    pub(super) fn host(&self, option: &str) -> &Value {
        &self.raw["host"][option]
    }

    /// How much Envoy may buffer of a message.
    pub(super) fn buffer_bytes_max(&self) -> u64 {
        const DEFAULT: u64 = 1 << 20;
        self.host("buffer_limit").as_u64().unwrap_or(DEFAULT)
    }

    /// A name that only this scenario has, within one Envoy.
    pub(super) fn own(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }
}
