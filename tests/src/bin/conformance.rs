//! `make conformance`: every scenario through the simulator and a real Envoy, and what differs.

use std::env;
use std::process::ExitCode;

use tidegate_tests::conformance::{Options, corpus, run};

#[tokio::main]
async fn main() -> ExitCode {
    let (options, wanted): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|word| word.starts_with("--"));
    let mut cases = corpus();
    cases.retain(|case| wanted.is_empty() || wanted.iter().any(|word| case.id.starts_with(word)));
    let has = |option: &str| options.iter().any(|given| given == option);
    let repeats = if has("--once") { 0 } else { Options::default().repeats };
    let judged = run(&cases, &Options { repeats, all_alone: has("--alone") }).await;
    let mut failed = 0;
    for one in &judged {
        let verdict = if one.agrees() { "same" } else { "DIFFERENT" };
        println!("  {:<16} {verdict:<10} {}", one.id, one.name);
    }
    for one in judged.iter().filter(|one| !one.agrees()) {
        failed += 1;
        println!(
            "\n{} {}\n- simulator  + Envoy\n{}",
            one.id,
            one.name,
            one.simulator.diff(&one.envoy)
        );
    }
    println!("{} passed, {failed} failed", judged.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
