//! Owns `by` and `max` of a circuit breaker: whom there is one for each of, and of how many.

use alloc::format;
use alloc::vec::Vec;

use super::super::identities::{Atom, Names};
use super::super::missing::Missing;
use super::super::reader::{At, Table};
use super::BREAKERS_MAX;
use crate::breaker::by::By;
use crate::matching::PathPattern;

const CLUSTER: &str = "cluster";
const ROUTE: &str = "route";
/// Fewer than a bucket of the table that they lie in make no sense.
const MAX_MIN: u32 = 8;
/// How many have one of their own if nothing is said.
const MAX_DEFAULT: u32 = 1_000;

/// What `by` says, before it is known under which path.
pub(super) struct Many<'r, 'd> {
    at: At<'r, 'd>,
    whom: Whom,
    pub max: usize,
}

enum Whom {
    Cluster,
    Route,
    Named(Vec<Atom>),
}

/// Reads both fields; `Some(None)` is one for all.
pub(super) fn many<'r, 'd>(
    table: &Table<'r, 'd>,
    identities: &Names<'_, '_>,
) -> Option<Option<Many<'r, 'd>>> {
    let Some(at) = table.get("by") else {
        if let Some(at) = table.get("max") {
            max(&at)?;
            at.doubt(
                "without \"by\" there is one breaker, not many",
                "add \"by\": \"cluster\", \"route\" or an identity, or leave max out",
            );
        }
        return Some(None);
    };
    let max = match table.get("max") {
        None => Some(MAX_DEFAULT),
        Some(at) => max(&at),
    };
    let whom = whom(&at, identities);
    let (max, whom) = (usize::try_from(max?).ok()?, whom?);
    Some(Some(Many { at, whom, max }))
}

fn max(at: &At<'_, '_>) -> Option<u32> {
    at.whole(MAX_MIN, u32::try_from(BREAKERS_MAX).unwrap_or(u32::MAX))
}

fn whom(at: &At<'_, '_>, identities: &Names<'_, '_>) -> Option<Whom> {
    let word =
        if at.is_text() { at.text("write \"cluster\", \"route\" or an identity")? } else { "" };
    let whom = match word {
        CLUSTER => Whom::Cluster,
        ROUTE => Whom::Route,
        _ => return identities.by(at).map(Whom::Named),
    };
    if identities.defines(word) {
        at.wrong(
            format!("an identity is called {word:?}, too, and here it means Envoy's"),
            "give the identity another name",
        );
        return None;
    }
    Some(whom)
}

// === impl Many ===

impl Many<'_, '_> {
    /// Whom a policy's requests fall under. Those that name nobody share one breaker, so that there is
    /// nothing to be said of what is missing.
    pub fn of_path(&self, path: Option<&PathPattern>) -> Option<By> {
        let by = match &self.whom {
            Whom::Cluster => By::Cluster,
            Whom::Route => By::Route,
            Whom::Named(atoms) => By::Identity(Missing::default().bind(&self.at, atoms, path)?),
        };
        if !by.is_trusted() {
            self.at.doubt(
                "clients choose which breaker they fall under here: whoever takes a new one each time is not kept back, and takes the room of others",
                "take a trusted identity, or write \"trusted\": true where something before the filter verifies it",
            );
        }
        Some(by)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Reading};
    use alloc::format;
    use alloc::string::{String, ToString};

    fn read(breakers: &str, circuit: &str) -> Reading {
        Config::read(&format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "tenant": {{"header": "x-t", "trusted": true}},
                "identities": {{"client": {{"header": "x-c"}}}}, "circuit_breakers": {{{breakers}}},
                "policies": [{{"name": "p", "match": {{"path": "/a/{{id}}"}}, "circuit_breaker": {circuit}}}]}}"#
        ))
    }

    fn told(reading: &Reading) -> String {
        reading.diagnostics.iter().map(|one| one.to_string() + "\n").collect()
    }

    #[test]
    fn whom_there_is_one_for_each_of() {
        let rows = [
            (r#"{"by": "cluster"}"#, Some(1_000), "xds\0cluster_name", ""),
            (r#"{"by": "route", "max": 8}"#, Some(8), "xds\0route_name", ""),
            (r#"{"by": "tenant", "max": 10000}"#, Some(10_000), "", ""),
            (r#"{"by": ["tenant", "ip"]}"#, Some(1_000), "", ""),
            (r#"{"by": {"path": "id", "trusted": true}}"#, Some(1_000), "", ""),
            (r#"{"by": "client"}"#, Some(1_000), "", "clients choose which breaker"),
            ("{}", None, "", ""),
            (r#"{"max": 9}"#, None, "", "without \"by\" there is one breaker"),
        ];
        for (circuit, many, property, doubt) in rows {
            let reading = read("", circuit);
            let config = reading.config.as_ref().unwrap_or_else(|| panic!("{}", told(&reading)));
            assert_eq!(config.circuit_breakers[0].many, many, "{circuit}");
            let policy = &config.policies[0];
            assert_eq!(policy.circuit_by.is_some(), many.is_some());
            assert_eq!(policy.properties.concat(), property, "{circuit}");
            assert_eq!(policy.reads_address, circuit.contains("\"ip\""), "{circuit}");
            assert!(told(&reading).contains(doubt), "{circuit}: {}", told(&reading));
        }
    }

    #[test]
    fn what_cannot_be_says_what_to_write() {
        let rows = [
            ("", r#"{"max": 7}"#, "circuit_breaker.max: 7 is no valid number here"),
            (
                "",
                r#"{"by": "cluster", "max": 7}"#,
                "circuit_breaker.max: 7 is no valid number here",
            ),
            ("", r#"{"by": "clutser"}"#, "circuit_breaker.by: \"clutser\" is no identity"),
            ("", r#"{"by": {"path": "nr", "trusted": true}}"#, "has no part {nr}; it has {id}"),
            (r#""a": {"by": "route"}"#, r#"{"depends_on": ["a"]}"#, "nobody knows on which"),
            (
                r#""a": {"by": "route", "max": 9995}"#,
                r#"{"by": "ip", "max": 8}"#,
                "more than 10000",
            ),
        ];
        for (breakers, circuit, expected) in rows {
            let reading = read(breakers, circuit);
            assert!(reading.config.is_none(), "{circuit}");
            assert!(told(&reading).contains(expected), "{circuit}: {}", told(&reading));
        }
        let both = read("", r#"{"by": "route"}"#);
        assert!(both.config.is_some());
        let document = r#"{"version": 1, "gateway": {"cluster": "g"}, "identities": {"route": {"ip": {}}},
            "policies": [{"name": "p", "match": {"path": "/"}, "circuit_breaker": {"by": "route"}}]}"#;
        let reading = Config::read(document);
        assert!(told(&reading).contains("give the identity another name"), "{}", told(&reading));
    }
}
