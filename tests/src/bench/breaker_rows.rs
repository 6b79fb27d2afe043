//! Owns what a circuit breaker costs inside Envoy while it is closed: a policy with a leased limit without one and with
//! one, and a policy that has nothing else, off and on; without and with an upstream hop. How far apart two rows
//! are that are the same stands beside it.

use super::envoy_rows::{self, Effort, Measured, Plan};
use super::stats::Figures;
use super::summary::Summary;
use super::turns::Taken;
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

/// Envoys of each row one after the other, by turns: between two that run the same the middle differs by up to 1.5 µs,
/// however long they are measured.
const STARTS: usize = 7;

/// What rows of one start differ by, each the median of its turns.
#[derive(Default)]
struct Differences {
    /// A closed breaker beside a leased limit, against none: µs of Envoy's CPU time for each request.
    added_us: Figures,
    /// Two rows without one.
    same_us: Figures,
    /// A policy with nothing else, against the same switched off.
    alone_us: Figures,
    /// Requests a second with one ÷ without.
    rate: Figures,
    /// Two rows without one.
    same_rate: Figures,
}

// === impl Differences ===

impl Differences {
    fn push(&mut self, rows: &[Measured]) -> Result<(), String> {
        let row = |name: &str| -> Result<&Taken, String> {
            let row = rows.iter().find(|row| row.name == name);
            Ok(&row.ok_or_else(|| format!("no row {name}"))?.by_turns)
        };
        let (off, again, on) =
            (row("breaker_off")?, row("breaker_off_again")?, row("breaker_closed")?);
        let (alone_off, alone) = (row("breaker_alone_off")?, row("breaker_alone")?);
        let us = |row: &Taken, from: &Taken| row.envoy_cpu_us.less(&from.envoy_cpu_us).median();
        self.added_us.push(us(on, off));
        self.same_us.push(us(again, off));
        self.alone_us.push(us(alone, alone_off));
        self.rate.push(on.rps.over(&off.rps).median());
        self.same_rate.push(again.rps.over(&off.rps).median());
        Ok(())
    }
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
        let mut found = Differences::default();
        found.push(&envoy_rows::measure_plans(plans(), effort, behind, suffix, summary).await?)?;
        for start in 1..STARTS {
            let seed = effort.seed.wrapping_add(u64::try_from(start).expect("a few"));
            let short = Effort { rounds: 1, seed, ..effort };
            found.push(&envoy_rows::turns_anew(plans(), short, behind).await?)?;
        }
        let Differences { added_us, same_us, alone_us, rate, same_rate } = found;
        println!(
            "  by turns, the medians of {STARTS} starts: a closed breaker adds {added_us} µs of Envoy's CPU per request; \
             off and off: {same_us}"
        );
        println!("  a policy that has only a breaker, on and not off, adds {alone_us} µs");
        println!("  requests per second with it ÷ without: {rate}; off and off: {same_rate}");
        summary.set(format!("breaker_on_us{suffix}"), added_us.median());
        summary.set(format!("breaker_aa_us{suffix}"), same_us.median());
        summary.set(format!("breaker_alone_us{suffix}"), alone_us.median());
        if hop.is_some() {
            summary.set("breaker_on", rate.median());
            summary.set("breaker_aa", same_rate.median());
        }
    }
    Ok(())
}
