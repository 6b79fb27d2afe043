//! Owns the table of scenarios in `docs/conformance.md`: what the clients of each got in both
//! hosts. It must not run anything.

use super::judged::Judged;
use super::transcript::Transcript;
use crate::parts;

const BEGIN: &str = "<!-- table: written by `conformance --write` -->\n";
const END: &str = "<!-- end of the table -->\n";

/// The table's rows.
pub fn table(judged: &[Judged]) -> String {
    let mut out = "| scenario | simulator | Envoy | |\n|---|---|---|---|\n".to_owned();
    for one in judged {
        let Judged { name, simulator, envoy, .. } = one;
        let (simulator, envoy) = (outcome(simulator), outcome(envoy));
        out += &format!("| {name} | {simulator} | {envoy} | {} |\n", one.verdict());
    }
    out
}

/// The table that stands in the document.
pub fn written() -> String {
    let document = document();
    let table = document.split(BEGIN).nth(1).and_then(|rest| rest.split(END).next());
    table.expect("the document has the table's marks").to_owned()
}

/// Puts the table into the document.
pub fn write(table: &str) {
    let document = document();
    let (before, rest) = document.split_once(BEGIN).expect("the table's first mark");
    let (_, after) = rest.split_once(END).expect("the table's last mark");
    let text = [before, BEGIN, table, END, after].concat();
    std::fs::write(path(), text).expect("a writable document");
}

fn path() -> std::path::PathBuf {
    parts::root().join("docs/conformance.md")
}

fn document() -> String {
    std::fs::read_to_string(path()).expect("docs/conformance.md")
}

/// What the clients got, in a few words.
fn outcome(transcript: &Transcript) -> String {
    let mut words = Vec::new();
    for line in &transcript.lines {
        let text = line.trim_start();
        if let Some((_, what)) = text.strip_prefix("client ").and_then(|rest| rest.split_once("  "))
        {
            let what = what.trim_start();
            match what.split(' ').next() {
                Some("gets") => words.push(what.split(' ').nth(1).unwrap_or_default().to_owned()),
                Some("is") => words.push("reset".to_owned()),
                Some("still") => words.push("waits".to_owned()),
                Some("left") => words.push("left".to_owned()),
                _ => {}
            }
        } else if let Some(end) = text.strip_prefix("at the end ") {
            words.extend(end.trim_start().strip_prefix("the ").map(str::to_owned));
        }
    }
    words.join(", ")
}
