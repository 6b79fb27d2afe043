//! The benchmarks: `bench all` compares and writes the summary, `bench policies` does so for many policies
//! alone, `bench envoy` for the filters alone, `bench gateway` for the gateway without Envoy, `bench idempotency` for keys alone, `bench leases` for
//! what is decided inside Envoy, `bench breakers` for a closed circuit breaker alone, `bench audit` for the audit chain, `bench pool` reports on the bound of calls to
//! Redis, `bench load` draws the curve of offered load.

use std::env;
use std::process::ExitCode;

use tidegate_tests::bench::envoy_rows::{self, Effort};
use tidegate_tests::bench::summary::Summary;
use tidegate_tests::bench::{
    audit_rows, breaker_rows, gateway_rows, idem_rows, lease_rows, load, policy_rows, pool,
    redis_rows,
};

#[tokio::main]
async fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("all") => all().await,
        Some("policies") => policies().await,
        Some("envoy") => filters().await,
        Some("gateway") => gateway().await,
        Some("idempotency") => idempotency().await,
        Some("leases") => leases().await,
        Some("breakers") => breakers().await,
        Some("audit") => audit().await,
        Some("pool") => report(pool::measure).await,
        Some("load") => report(load::measure).await,
        other => Err(format!(
            "{other:?} is no command; write `bench all`, `policies`, `envoy`, `gateway`, `idempotency`, `leases`, `breakers`, `audit`, `pool` or `load`"
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
    let effort = effort()?;
    let mut summary = Summary::default();
    policy_rows::measure(&mut summary)?;
    redis_rows::measure(&mut summary).await?;
    gateway_rows::measure(effort, &mut summary).await?;
    idem_rows::measure(effort, &mut summary).await?;
    envoy_rows::measure(effort, &mut summary).await?;
    lease_rows::measure(effort, &mut summary).await?;
    breaker_rows::measure(effort, &mut summary).await?;
    audit_rows::measure(effort, &mut summary).await?;
    written(&summary)
}

/// Only what the audit chain costs.
async fn audit() -> Result<(), String> {
    let mut summary = Summary::default();
    audit_rows::measure(effort()?, &mut summary).await?;
    written(&summary)
}

/// Only what a closed circuit breaker costs.
async fn breakers() -> Result<(), String> {
    let mut summary = Summary::default();
    breaker_rows::measure(effort()?, &mut summary).await?;
    written(&summary)
}

/// Only what leases cost.
async fn leases() -> Result<(), String> {
    let mut summary = Summary::default();
    lease_rows::measure(effort()?, &mut summary).await?;
    written(&summary)
}

/// Only what many policies cost.
async fn policies() -> Result<(), String> {
    let effort = effort()?;
    let mut summary = Summary::default();
    policy_rows::measure(&mut summary)?;
    envoy_rows::measure_policies(effort, &mut summary).await?;
    written(&summary)
}

/// Only the filters inside Envoy, without the rows of many policies.
async fn filters() -> Result<(), String> {
    let mut summary = Summary::default();
    envoy_rows::measure_filters(effort()?, &mut summary).await?;
    written(&summary)
}

/// Only the gateway and Redis, without Envoy.
async fn gateway() -> Result<(), String> {
    let mut summary = Summary::default();
    redis_rows::measure(&mut summary).await?;
    gateway_rows::measure(effort()?, &mut summary).await?;
    written(&summary)
}

/// Only what idempotency costs.
async fn idempotency() -> Result<(), String> {
    let mut summary = Summary::default();
    idem_rows::measure(effort()?, &mut summary).await?;
    written(&summary)
}

async fn report(run: impl AsyncFnOnce(Effort) -> Result<(), String>) -> Result<(), String> {
    run(effort()?).await
}

fn effort() -> Result<Effort, String> {
    Ok(Effort { rounds: number("ROUNDS", 7)?, seconds: number("SECONDS", 1)?, seed: 1 })
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
