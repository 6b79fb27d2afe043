//! Owns what a circuit breaker costs inside Envoy while it is closed: a policy with a leased limit without one and with
//! one, and a policy that has nothing else, off and on; without and with an upstream hop. How far apart two rows
//! are that are the same stands beside it.

use super::envoy_rows::{self, Effort, Plan};
use super::starts::{STARTS, Starts};
use super::summary::Summary;
use super::turns::SHORT;
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
    let plan = |name, config: String| Plan {
        name,
        filter: Some(parts::filter("tidegate")),
        config,
        gateway: Some(0),
        denies: false,
    };
    let alone = |mode: &str| document(&format!(r#", "mode": "{mode}"{BREAKER}"#));
    vec![
        Plan::bare("no_filter", None),
        Plan::bare("noop", Some("noop_filter")),
        plan("breaker_off", limited("off", "")),
        plan("breaker_off_again", limited("again", "")),
        plan("breaker_closed", limited("on", BREAKER)),
        plan("breaker_alone_off", alone("off")),
        plan("breaker_alone", alone("enforce")),
    ]
}

/// Measures, prints, adds to the summary: `breaker_on_us`, µs of Envoy's CPU per request that a closed breaker adds to a
/// policy with a leased limit (`breaker_alone_us`: to nothing), and the same ÷ what the no-op filter adds to none
/// (`breaker_on_vs_noop`: where the aims were set, 1.2 beside 3.3 µs);
/// `breaker_on`, requests per second with it ÷ without it, with a real upstream; of each the row that compares nothing.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let upstream = envoy_rows::upstream().await;
    for (hop, suffix) in [(None, ""), (Some(upstream.addr), "_upstream")] {
        let title = match hop {
            None => "circuit breakers, Envoy answers itself (no upstream hop)",
            Some(_) => "circuit breakers, with an upstream hop",
        };
        let behind = envoy_rows::Load { hop, connections: CONNECTIONS, title, turns: SHORT };
        let first = envoy_rows::measure_plans(plans(), effort, behind, suffix, summary).await?;
        let starts = Starts::take(first, plans, |_| Vec::new(), effort, behind).await?;
        let added_us = starts.added_us("breaker_closed", "breaker_off")?;
        let same_us = starts.added_us("breaker_off_again", "breaker_off")?;
        let alone_us = starts.added_us("breaker_alone", "breaker_alone_off")?;
        let noop_us = starts.added_us("noop", "no_filter")?;
        let of_noop = added_us.over(&noop_us);
        let rate = starts.rate("breaker_closed", "breaker_off")?;
        let same_rate = starts.rate("breaker_off_again", "breaker_off")?;
        println!(
            "  by turns, the medians of {STARTS} starts: a closed breaker adds {added_us} µs of Envoy's CPU per request; \
             off and off: {same_us}"
        );
        println!(
            "  the no-op filter adds {noop_us} µs to none, of which the closed breaker's are {of_noop}"
        );
        println!("  a policy that has only a breaker, on and not off, adds {alone_us} µs");
        println!("  requests per second with it ÷ without: {rate}; off and off: {same_rate}");
        summary.set(format!("breaker_on_us{suffix}"), added_us.median());
        summary.set(format!("breaker_aa_us{suffix}"), same_us.median());
        summary.set(format!("breaker_noop_us{suffix}"), noop_us.median());
        summary.set(format!("breaker_on_vs_noop{suffix}"), of_noop.median());
        summary.set(format!("breaker_alone_us{suffix}"), alone_us.median());
        if hop.is_some() {
            summary.set("breaker_on", rate.median());
            summary.set("breaker_aa", same_rate.median());
        }
    }
    Ok(())
}
