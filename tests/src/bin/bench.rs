//! The benchmarks: `bench all` compares and writes the summary, `bench policies` does so for many policies
//! alone, `bench load` storms the gateway.

use std::env;
use std::process::ExitCode;

use tidegate_tests::bench::envoy_rows::{self, Effort};
use tidegate_tests::bench::summary::Summary;
use tidegate_tests::bench::{load, policy_rows, redis_rows};

#[tokio::main]
async fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("all") => all().await,
        Some("policies") => policies().await,
        Some("load") => load::measure().await,
        other => Err(format!(
            "{other:?} is no command; write `bench all`, `bench policies` or `bench load`"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn all() -> Result<(), String> {
    let effort = Effort { rounds: number("ROUNDS", 7)?, seconds: number("SECONDS", 1)?, seed: 1 };
    let mut summary = Summary::default();
    policy_rows::measure(&mut summary)?;
    redis_rows::measure(&mut summary).await?;
    envoy_rows::measure(effort, &mut summary).await?;
    written(&summary)
}

/// Only what many policies cost.
async fn policies() -> Result<(), String> {
    let effort = Effort { rounds: number("ROUNDS", 7)?, seconds: number("SECONDS", 1)?, seed: 1 };
    let mut summary = Summary::default();
    policy_rows::measure(&mut summary)?;
    envoy_rows::measure_policies(effort, &mut summary).await?;
    written(&summary)
}

fn written(summary: &Summary) -> Result<(), String> {
    let path = summary.write().map_err(|error| error.to_string())?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn number(variable: &str, default: u32) -> Result<u32, String> {
    match env::var(variable) {
        Err(_) => Ok(default),
        Ok(text) => text
            .parse()
            .map_err(|error| format!("{variable} is {text:?}: {error}; write a whole number")),
    }
}
