//! Owns the comparison inside Envoy: no filter, a no-op filter (twice: the A/A row), Tidegate with
//! no matching policy, with many policies, deciding by callout in memory and in Redis, beside a filter
//! that only calls out; without and with an upstream hop.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::policy_rows;
use super::stats::{Figures, shuffle};
use super::summary::Summary;
use super::turns::{self, Style, Taken};
use super::wrk;
use crate::envoy::{Envoy, Options};
use crate::gateway::{self, Gateway};
use crate::redis::Redis;
use crate::{client, parts};

/// Rounds and seconds of one measurement.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Shuffled rounds; 7 at the least for a figure to be quoted.
    pub rounds: u32,
    /// Seconds each row runs in each round.
    pub seconds: u32,
    /// Order of the rounds.
    pub seed: u64,
}

/// One thing that is compared.
struct Row {
    name: &'static str,
    envoy: Envoy,
    gateway: Option<usize>,
    denies: bool,
    rps: Figures,
    envoy_cpu_us: Figures,
    gateway_cpu_us: Figures,
    redis_cpu_us: Figures,
}

/// A gateway's variables.
pub(super) type Variables = Vec<(&'static str, String)>;

struct Behind {
    memory: Gateway,
    redis: Gateway,
    store: Redis,
}

fn policy(path: &str, methods: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "5s", "token": {{"env": "TIDEGATE_TOKEN"}}}},
            "policies": [{{"name": "bench", "match": {{"path": "{path}"{methods}}},
            "rate_limits": [{{"name": "ip", "by": "ip", "limit": 1000000, "per": "second"}}]}}]}}"#
    )
}

/// What one row asks of Envoy.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) filter: Option<PathBuf>,
    pub(super) config: String,
    /// 0: its state in memory, 1: in Redis.
    pub(super) gateway: Option<usize>,
    /// Whether it is the refusal that is measured.
    pub(super) denies: bool,
}

impl Plan {
    /// Without Tidegate: another filter, or none.
    pub(super) fn bare(name: &'static str, filter: Option<&str>) -> Self {
        let (filter, config) = (filter.map(parts::filter), String::new());
        Self { name, filter, config, gateway: None, denies: false }
    }
}

fn plans() -> Vec<Plan> {
    let plan = |name, filter, config: String, gateway| Plan {
        name,
        filter: Some(parts::filter(filter)),
        config,
        gateway,
        denies: false,
    };
    let (elsewhere, other_method) =
        (policy("/elsewhere/**", ""), policy("/**", r#", "methods": ["DELETE"]"#));
    vec![
        Plan::bare("no_filter", None),
        Plan::bare("noop", Some("noop_filter")),
        Plan::bare("aa", Some("noop_filter")),
        plan("no_policy", "tidegate", elsewhere, None),
        plan("no_policy_method", "tidegate", other_method, None),
        plan("callout_floor", "noop_filter", "tidegate".to_owned(), Some(0)),
        plan("callout_memory", "tidegate", policy("/**", ""), Some(0)),
        plan("callout_redis", "tidegate", policy("/**", ""), Some(1)),
    ]
}

/// What matching costs among 0, 10 and 1,000 policies, of which none applies.
fn policy_plans() -> Vec<Plan> {
    let policies = |name, count| Plan {
        name,
        filter: Some(parts::filter("tidegate")),
        config: policy_rows::document(count),
        gateway: None,
        denies: false,
    };
    vec![
        Plan::bare("noop", Some("noop_filter")),
        Plan::bare("aa", Some("noop_filter")),
        policies("policies_0", 0),
        policies("policies_10", 10),
        policies("policies_1000", 1_000),
    ]
}

/// Measures all rows, prints the tables, and adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let mut behind = behind().await;
    many_policies(effort, &mut behind, summary).await?;
    compare(effort, &mut behind, summary).await
}

/// Only no filter, the no-op filter, and Tidegate with and without a callout.
pub async fn measure_filters(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let mut behind = behind().await;
    compare(effort, &mut behind, summary).await
}

async fn compare(effort: Effort, behind: &mut Behind, summary: &mut Summary) -> Result<(), String> {
    let upstream = upstream().await;
    for (suffix, hop) in [("", None), ("_upstream", Some(upstream.addr))] {
        for connections in [16, 64] {
            let mut rows = start(plans(), hop, behind).await;
            let title = match hop {
                None => "Envoy answers itself (no upstream hop)",
                Some(_) => "with an upstream hop",
            };
            println!(
                "\n{title}, wrk -t1 -c{connections}, {} rounds of {} s, shuffled",
                effort.rounds, effort.seconds
            );
            rounds(effort, connections, &mut rows, behind).await?;
            let suffix = if connections == 16 {
                suffix.to_owned()
            } else {
                format!("{suffix}_c{connections}")
            };
            report(&rows, &suffix, summary);
        }
    }
    Ok(())
}

/// An Envoy that answers what another one asks it.
pub(super) async fn upstream() -> Envoy {
    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let mut options = Options::new(nowhere, nowhere);
    options.upstream = None;
    options.filter = None;
    options.access_log = false;
    Envoy::start(&options).await
}

/// Under what plans are measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Who is behind each Envoy, if it does not answer itself.
    pub(super) hop: Option<SocketAddr>,
    pub(super) connections: u32,
    pub(super) title: &'static str,
    pub(super) turns: Style,
}

/// What one plan came to.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) envoy: Envoy,
    /// By turns: what is close is told apart by them.
    pub(super) by_turns: Taken,
}

/// Other plans in the same way.
pub(super) async fn measure_plans(
    plans: Vec<Plan>,
    effort: Effort,
    load: Load,
    suffix: &str,
    summary: &mut Summary,
) -> Result<Vec<Measured>, String> {
    let Load { hop, connections, title, .. } = load;
    let mut behind = behind().await;
    let mut rows = start(plans, hop, &behind).await;
    let Effort { rounds: count, seconds, .. } = effort;
    println!("\n{title}, wrk -t1 -c{connections}, {count} rounds of {seconds} s, shuffled");
    rounds(effort, connections, &mut rows, &mut behind).await?;
    report(&rows, suffix, summary);
    by_turns(rows, effort, load, &mut behind)
}

/// Other plans, in front of a gateway with an audit chain in Redis, which these variables say.
pub(super) async fn measure_audited(
    plans: Vec<Plan>,
    chain: Variables,
    effort: Effort,
    load: Load,
    summary: &mut Summary,
) -> Result<Vec<Measured>, String> {
    let Load { hop, connections, title, .. } = load;
    let mut behind = behind_with(chain).await;
    let mut rows = start(plans, hop, &behind).await;
    let Effort { rounds: count, seconds, .. } = effort;
    println!("\n{title}, wrk -t1 -c{connections}, {count} rounds of {seconds} s, shuffled");
    rounds(effort, connections, &mut rows, &mut behind).await?;
    report(&rows, "", summary);
    for row in &rows {
        let stats = client::get(row.envoy.admin, "/stats").await.body;
        let told = stats.lines().filter(|line| line.contains("tidegate_audit_events_total"));
        told.for_each(|line| println!("  {}: {line}", row.name));
    }
    by_turns(rows, effort, load, &mut behind)
}

/// By turns alone, on Envoys that are started for it: where a process's memory comes to lie differs from start to
/// start, and with it what the same code costs.
pub(super) async fn turns_anew(
    plans: Vec<Plan>,
    variables: Variables,
    effort: Effort,
    load: Load,
) -> Result<Vec<Measured>, String> {
    let mut behind = behind_with(variables).await;
    by_turns(start(plans, load.hop, &behind).await, effort, load, &mut behind)
}

fn by_turns(
    mut rows: Vec<Row>,
    effort: Effort,
    load: Load,
    behind: &mut Behind,
) -> Result<Vec<Measured>, String> {
    let mut turns: Vec<_> =
        rows.iter_mut().map(|row| (row.name, &mut row.envoy, row.denies)).collect();
    let Behind { memory, redis, store } = behind;
    let behind = [memory.process().pid(), redis.process().pid(), store.process().pid()];
    let take = || turns::take(&mut turns, effort, load.connections, load.turns, &behind);
    let taken = tokio::task::block_in_place(take)?;
    let measured = rows.into_iter().zip(taken).map(|(row, by_turns)| {
        let Row { name, envoy, .. } = row;
        Measured { name, envoy, by_turns }
    });
    Ok(measured.collect())
}

/// Only the rows of many policies.
pub async fn measure_policies(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let mut behind = behind().await;
    many_policies(effort, &mut behind, summary).await
}

async fn behind() -> Behind {
    behind_with(Vec::new()).await
}

/// `variables` are those of the gateway on Redis.
async fn behind_with(variables: Variables) -> Behind {
    let store = Redis::start_with_tcp().await;
    let roomy = ["--dev", "--deadline", "1s", "--pool-wait", "500ms"];
    let mut redis = gateway::Options::redis(&format!("redis://127.0.0.1:{}", store.tcp_port()));
    let pairs = variables.into_iter().map(|(name, value)| (name.to_owned(), value));
    redis.variables.extend(pairs);
    Behind {
        memory: Gateway::start(&gateway::Options::memory().flags(&roomy)).await,
        redis: Gateway::start(&redis.flags(&roomy)).await,
        store,
    }
}

async fn many_policies(
    effort: Effort,
    behind: &mut Behind,
    summary: &mut Summary,
) -> Result<(), String> {
    const CONNECTIONS: u32 = 16;
    let mut rows = start(policy_plans(), None, behind).await;
    println!(
        "\nmany policies, wrk -t1 -c{CONNECTIONS}, {} rounds of {} s, shuffled",
        effort.rounds, effort.seconds
    );
    rounds(effort, CONNECTIONS, &mut rows, behind).await?;
    report(&rows, "_policies", summary);
    let cpu = |name: &str| rows.iter().find(|row| row.name == name).map(|row| &row.envoy_cpu_us);
    if let Some((many, few)) = cpu("policies_1000").zip(cpu("policies_10")) {
        let ratio = many.over(few);
        println!("  Envoy's CPU with 1,000 policies ÷ with 10: {ratio}");
        summary.set("policies_1000_vs_10", ratio.median());
    }
    Ok(())
}

async fn start(plans: Vec<Plan>, hop: Option<SocketAddr>, behind: &Behind) -> Vec<Row> {
    let gateways = [behind.memory.addr, behind.redis.addr];
    let mut rows = Vec::new();
    for plan in plans {
        let mut options =
            Options::new(gateways[plan.gateway.unwrap_or(0)], gateways[0]).config(&plan.config);
        options.filter = plan.filter;
        options.upstream = hop;
        options.access_log = false;
        rows.push(Row {
            name: plan.name,
            envoy: Envoy::start(&options).await,
            gateway: plan.gateway,
            denies: plan.denies,
            rps: Figures::default(),
            envoy_cpu_us: Figures::default(),
            gateway_cpu_us: Figures::default(),
            redis_cpu_us: Figures::default(),
        });
    }
    rows
}

async fn rounds(
    effort: Effort,
    connections: u32,
    rows: &mut [Row],
    behind: &mut Behind,
) -> Result<(), String> {
    let mut seed = effort.seed;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    // A round that does not count: connections open, code is compiled.
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &index in &order {
            measure_row(&mut rows[index], round > 0, connections, effort.seconds, behind).await?;
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    Ok(())
}

async fn measure_row(
    row: &mut Row,
    counts: bool,
    connections: u32,
    seconds: u32,
    behind: &mut Behind,
) -> Result<(), String> {
    let gateway = |behind: &mut Behind, index: Option<usize>| match index {
        None => 0,
        Some(0) => behind.memory.process().cpu_us(),
        Some(_) => behind.redis.process().cpu_us(),
    };
    let before = (
        row.envoy.process().cpu_us(),
        gateway(behind, row.gateway),
        behind.store.process().cpu_us(),
    );
    let load = wrk::run(row.envoy.addr, "/bench", connections, seconds).await?;
    let after = (
        row.envoy.process().cpu_us(),
        gateway(behind, row.gateway),
        behind.store.process().cpu_us(),
    );
    if counts {
        if !row.denies {
            load.served(&format!("{}, {connections} connections", row.name))?;
        }
        let each = |after: u64, before: u64| {
            f64::from(u32::try_from(after - before).unwrap_or(u32::MAX)) / load.requests
        };
        row.rps.push(load.rps);
        row.envoy_cpu_us.push(each(after.0, before.0));
        row.gateway_cpu_us.push(each(after.1, before.1));
        row.redis_cpu_us.push(each(after.2, before.2));
    }
    Ok(())
}

fn report(rows: &[Row], suffix: &str, summary: &mut Summary) {
    let noop = rows.iter().find(|row| row.name == "noop").expect("the baseline is a row");
    println!(
        "  {:<18} {:>20} {:>22} {:>9} {:>7}",
        "", "req/s ÷ no-op", "Envoy µs CPU/request", "gateway", "Redis"
    );
    for row in rows {
        let ratio = row.rps.over(&noop.rps);
        println!(
            "  {:<18} {:>20} {:>22} {:>9.1} {:>7.1}",
            row.name,
            ratio.to_string(),
            row.envoy_cpu_us.to_string(),
            row.gateway_cpu_us.median(),
            row.redis_cpu_us.median(),
        );
        summary.set(format!("{}{suffix}", row.name), ratio.median());
        summary.set(format!("envoy_cpu_us_{}{suffix}", row.name), row.envoy_cpu_us.median());
        if row.gateway.is_some() {
            summary
                .set(format!("gateway_cpu_us_{}{suffix}", row.name), row.gateway_cpu_us.median());
            summary.set(format!("redis_cpu_us_{}{suffix}", row.name), row.redis_cpu_us.median());
        }
    }
}
