//! Owns what an event of the audit costs a request inside Envoy: the same decision with and without `audit`,
//! each request an event, handing them over to a gateway with a chain included.

use super::chains::PEM;
use crate::bench::envoy_rows::{self, Effort, Load, Plan};
use crate::bench::starts::{STARTS, Starts};
use crate::bench::summary::Summary;
use crate::bench::turns::STEADY;
use crate::parts;

const CONNECTIONS: u32 = 16;

/// Each row with a bucket of its own; decided inside Envoy.
fn config(name: &str, limit: &str, audit: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "5s", "token": {{"env": "TIDEGATE_TOKEN"}}}}{audit},
            "policies": [{{"name": "bench", "match": {{"path": "/**"}},
            "rate_limits": [{{"name": "{name}", "by": "ip", {limit}, "decide": "lease"}}]}}]}}"#
    )
}

fn plans() -> Vec<Plan> {
    const ROOMY: &str = r#""limit": 1000000, "per": "second""#;
    const TIGHT: &str = r#""limit": 1000, "per": "1000s""#;
    const ALL: &str = r#", "audit": {"allows": "100%"}"#;
    const SOME: &str = r#", "audit": {"allows": "1%"}"#;
    let plan = |name, limit, audit, denies| Plan {
        name,
        filter: Some(parts::filter("tidegate")),
        config: config(&name.replace('_', "-"), limit, audit),
        gateway: Some(1),
        denies,
    };
    vec![
        Plan::bare("no_filter", None),
        Plan::bare("noop", Some("noop_filter")),
        plan("audit_off", ROOMY, "", false),
        plan("audit_off_again", ROOMY, "", false),
        plan("audit_1_percent", ROOMY, SOME, false),
        plan("audit_all", ROOMY, ALL, false),
        plan("audit_off_denied", TIGHT, "", true),
        plan("audit_denied", TIGHT, ALL, true),
    ]
}

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    // A folder for each: what one Redis had is no chain that the next one has lost.
    let chain = |start: usize| {
        let folder = dir.path().join(start.to_string()).display().to_string();
        vec![("AUDIT_PRIVATE_KEY_V1", PEM.to_owned()), ("TIDEGATE_AUDIT_DIR", folder)]
    };
    let title = "audit events of the filter, decided inside Envoy (no upstream hop)";
    let load = Load { hop: None, connections: CONNECTIONS, title, turns: STEADY };
    let first = envoy_rows::measure_audited(plans(), chain(0), effort, load, summary).await?;
    let starts = Starts::take(first, plans, chain, effort, load).await?;
    println!("  Envoy's CPU for each request in µs, by turns, the medians of {STARTS} starts:");
    for (key, with, without) in [
        ("audit_noop_us", "noop", "no_filter"),
        ("audit_off_aa_us", "audit_off_again", "audit_off"),
        ("audit_sampled_us", "audit_1_percent", "audit_off"),
        ("audit_async_us", "audit_all", "audit_off"),
        ("audit_async_denied_us", "audit_denied", "audit_off_denied"),
    ] {
        let more = starts.added_us(with, without)?;
        println!("  {key:<24} {more}");
        summary.set(key, more.median());
    }
    Ok(())
}
