//! Owns what a circuit breaker costs inside Envoy while it is closed: a policy with a leased limit without one and with
//! one, and a policy that has nothing else, off and on; without and with an upstream hop. How far apart two rows
//! are that are the same stands beside it.

use super::envoy_rows::{self, Effort, Measured, Plan};
use super::summary::Summary;
use crate::parts;

const CONNECTIONS: u32 = 16;
const BREAKER: &str = r#", "circuit_breaker": {}"#;

fn document(policy: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "5s", "token": {{"env": "TIDEGATE_TOKEN"}}}},
            "policies": [{{"name": "bench", "match": {{"path": "/**"}}{policy}}}]}}"#
    )
}

/// Each row with a bucket of its own.
fn limited(name: &str, breaker: &str) -> String {
    document(&format!(
        r#", "rate_limits": [{{"name": "{name}", "by": "ip", "limit": 1000000, "per": "second", "decide": "lease"}}]{breaker}"#
    ))
}

fn plans() -> Vec<Plan> {
    let plan = |name, filter: &str, config: String| Plan {
        name,
        filter: Some(parts::filter(filter)),
        config,
        gateway: Some(0),
        denies: false,
    };
    let alone = |mode: &str| document(&format!(r#", "mode": "{mode}"{BREAKER}"#));
    vec![
        plan("noop", "noop_filter", String::new()),
        plan("breaker_off", "tidegate", limited("off", "")),
        plan("breaker_off_again", "tidegate", limited("again", "")),
        plan("breaker_closed", "tidegate", limited("on", BREAKER)),
        plan("breaker_alone_off", "tidegate", alone("off")),
        plan("breaker_alone", "tidegate", alone("enforce")),
    ]
}

/// Measures, prints, adds to the summary: `breaker_on_us`, µs of Envoy's CPU per request that a closed breaker adds to a
/// policy with a leased limit (`breaker_alone_us`: to nothing);
/// `breaker_on`, requests per second with it ÷ without it, with a real upstream; of each the row that compares nothing.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let upstream = envoy_rows::upstream().await;
    for (hop, suffix) in [(None, ""), (Some(upstream.addr), "_upstream")] {
        let title = match hop {
            None => "circuit breakers, Envoy answers itself (no upstream hop)",
            Some(_) => "circuit breakers, with an upstream hop",
        };
        let behind = envoy_rows::Load { hop, connections: CONNECTIONS, title };
        let rows = envoy_rows::measure_plans(plans(), effort, behind, suffix, summary).await?;
        let row = |name: &str| -> Result<&Measured, String> {
            rows.iter().find(|row| row.name == name).ok_or_else(|| format!("no row {name}"))
        };
        let (off, again, on) =
            (row("breaker_off")?, row("breaker_off_again")?, row("breaker_closed")?);
        let cpu_us = |row: &Measured| row.by_turns.envoy_cpu_us.clone();
        let alone = cpu_us(row("breaker_alone")?).less(&cpu_us(row("breaker_alone_off")?));
        let (added, nothing) = (cpu_us(on).less(&cpu_us(off)), cpu_us(again).less(&cpu_us(off)));
        let off_rps = &off.by_turns.rps;
        let (rate, same) = (on.by_turns.rps.over(off_rps), again.by_turns.rps.over(off_rps));
        println!(
            "  by turns a closed breaker adds {} µs of Envoy's CPU per request; off and off: {}",
            added.surely(),
            nothing.surely()
        );
        println!("  a policy that has only a breaker, on and not off, adds {} µs", alone.surely());
        println!(
            "  requests per second with it ÷ without: {}; off and off: {}",
            rate.surely(),
            same.surely()
        );
        summary.set(format!("breaker_on_us{suffix}"), added.median());
        summary.set(format!("breaker_aa_us{suffix}"), nothing.median());
        summary.set(format!("breaker_alone_us{suffix}"), alone.median());
        if hop.is_some() {
            summary.set("breaker_on", rate.median());
            summary.set("breaker_aa", same.median());
        }
    }
    Ok(())
}
