//! `make conformance`: every scenario through the simulator and a real Envoy, and what differs.
//!
//! Words are beginnings of scenario ids (`bodies.3`); without any, all run. `--once` runs a scenario
//! that differs no second time, `--alone` gives each an Envoy of its own, `--show` prints Envoy's
//! transcripts, `--write` puts the table into docs/conformance.md.

use std::env;
use std::process::ExitCode;

use tidegate_tests::conformance::{Judged, Options, corpus, run, strayed_exceptions, table, write};

#[tokio::main]
async fn main() -> ExitCode {
    let (options, wanted): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|word| word.starts_with("--"));
    let has = |option: &str| options.iter().any(|given| given == option);
    let mut cases = corpus();
    let strayed = strayed_exceptions(&cases);
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|word| case.id.starts_with(word)));
    let repeats = if has("--once") { 0 } else { Options::default().repeats };
    let judged = run(cases, &Options { repeats, all_alone: has("--alone") }).await;
    for one in &judged {
        println!("  {:<14} {:<12} {}", one.id, one.verdict(), one.name);
    }
    let failed: Vec<&Judged> = judged.iter().filter(|one| !one.passes()).collect();
    for one in &failed {
        println!("\n{} {}\n{}", one.id, one.name, one.difference());
    }
    for name in &strayed {
        println!("\nEXCEPTIONS.md has {name:?}, which is no scenario");
    }
    if has("--show") {
        for one in &judged {
            println!("\n{} {}\n{}", one.id, one.name, one.envoy.lines.join("\n"));
        }
    }
    if has("--write") {
        write(&table(&judged));
    }
    let failures = failed.len() + strayed.len();
    println!("{} passed, {failures} failed", judged.len() - failed.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
