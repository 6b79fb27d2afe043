//! Owns the report of the bound on calls to Redis: 80 and 150 callers of the gateway, each waiting for
//! its answer before it asks again at once; with Redis near, far away, or standing still. What they
//! were told, how long it took, and what the gateway's statistics say of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::envoy_rows::Effort;
use super::far::Far;
use super::stats::{Figures, at_share, shuffle};
use super::{question, summary};
use crate::client;
use crate::gateway::{self, Gateway};
use crate::redis::Redis;

const CALLERS: [u32; 2] = [80, 150];
/// Of a Redis that is far away.
pub const ROUND_TRIP: Duration = Duration::from_millis(20);

/// How Redis is, and what the gateway is told besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Near,
    Far,
    Stopped,
    /// So that the bound alone is seen.
    StoppedNoBreaker,
}

const STORES: [Store; 4] = [Store::Near, Store::Far, Store::Stopped, Store::StoppedNoBreaker];

/// What callers are told, as it stands in the table.
const TOLD: [(&str, &str); 4] = [
    ("admitted", "200"),
    ("overloaded", "429 service-overloaded"),
    ("timeout", "503 store-timeout"),
    ("open", "503 store-circuit-open"),
];

type Row = BTreeMap<&'static str, Figures>;

// === impl Store ===

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "20 ms away",
            Self::Stopped => "stopped",
            Self::StoppedNoBreaker => "stopped, no breaker",
        }
    }
}

/// Measures, prints the table, writes `target/bench/pool.json`.
pub async fn measure(effort: Effort) -> Result<(), String> {
    println!(
        "callers of the gateway (its region declared warm), default bound and deadlines: 100 in flight, pool wait 15 ms, deadline 30 ms; {} rounds of {} s, shuffled, medians",
        effort.rounds, effort.seconds
    );
    let mut rows: Vec<(Store, u32, Row)> = STORES
        .into_iter()
        .flat_map(|store| CALLERS.map(|callers| (store, callers, Row::new())))
        .collect();
    let mut seed = effort.seed;
    for round in 1..=effort.rounds {
        shuffle(&mut rows, &mut seed);
        for (store, callers, row) in &mut rows {
            measure_row(*store, *callers, effort.seconds, row).await?;
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    rows.sort_by_key(|(store, callers, _)| (STORES.iter().position(|s| s == store), *callers));
    print(&rows);
    let told = rows.iter().map(|(store, callers, row)| {
        let figures = row.iter().map(|(name, figures)| ((*name).to_owned(), figures.json()));
        let mut told: serde_json::Map<_, _> = figures.collect();
        told.insert("redis".to_owned(), store.name().into());
        told.insert("callers".to_owned(), (*callers).into());
        told
    });
    let path = summary::write("pool", &told.collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

async fn measure_row(
    store: Store,
    callers: u32,
    seconds: u32,
    row: &mut Row,
) -> Result<(), String> {
    let mut redis = Redis::start().await;
    let far = Far::start(redis.socket(), ROUND_TRIP).await.map_err(|error| error.to_string())?;
    let url = if store == Store::Far { far.url() } else { redis.url() };
    let mut flags = vec!["--dev"];
    if store == Store::StoppedNoBreaker {
        flags.extend(["--store-breaker-failures", "1000000000"]);
    }
    let gateway = Gateway::start(&gateway::Options::redis(&url).flags(&flags)).await;
    let stopped = matches!(store, Store::Stopped | Store::StoppedNoBreaker);
    if stopped {
        redis.process().signal(libc::SIGSTOP);
    }
    let lasts = Duration::from_secs(seconds.into());
    let answers = storm(gateway.addr, callers, lasts).await;
    let metrics = gateway.admin("/metrics").await.body;
    if stopped {
        redis.process().signal(libc::SIGCONT);
    }
    let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (told, after) in answers? {
        took.entry(told).or_default().push(after);
    }
    let per_s =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / lasts.as_secs_f64();
    for (name, keys) in [
        ("admitted", ["admitted_per_s", "admitted_p50_ms", "admitted_p99_ms"]),
        ("overloaded", ["overloaded_per_s", "overloaded_p50_ms", "overloaded_p99_ms"]),
        ("timeout", ["timeout_per_s", "timeout_p50_ms", "timeout_p99_ms"]),
        ("open", ["open_per_s", "open_p50_ms", "open_p99_ms"]),
    ] {
        let mut took = took.remove(name).unwrap_or_default();
        took.sort_unstable();
        let figures = [per_s(took.len()), at_share(&took, 50), at_share(&took, 99)];
        for (key, figure) in keys.into_iter().zip(figures) {
            row.entry(key).or_default().push(figure);
        }
    }
    if let Some(other) = took.keys().next() {
        return Err(format!("{callers} callers, Redis {}: told {other}", store.name()));
    }
    for key in ["in_flight_peak", "waits_total", "acquire_timeouts_total", "outlived_calls_total"] {
        let line =
            metrics.lines().find_map(|l| l.strip_prefix("tidegate_gateway_")?.strip_prefix(key));
        let value = line.and_then(|rest| rest.trim().parse().ok());
        row.entry(key).or_default().push(value.ok_or(format!("no {key} in {metrics}"))?);
    }
    let critical = gateway.output().lines().filter(|line| line.contains("is exhausted")).count();
    row.entry("critical_lines").or_default().push(per_s(critical) * lasts.as_secs_f64());
    Ok(())
}

/// What each caller was told, and how long it took.
async fn storm(
    to: SocketAddr,
    callers: u32,
    lasts: Duration,
) -> Result<Vec<(&'static str, Duration)>, String> {
    let begin = Instant::now();
    let tasks: Vec<_> =
        (0..callers).map(|caller| tokio::spawn(call(to, caller, begin, lasts))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.map_err(|error| error.to_string())??);
    }
    Ok(answers)
}

async fn call(
    to: SocketAddr,
    caller: u32,
    begin: Instant,
    lasts: Duration,
) -> Result<Vec<(&'static str, Duration)>, String> {
    let request = question::http1(caller);
    let mut stream = client::connect(to, None).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut answers = Vec::new();
    while begin.elapsed() < lasts {
        let asked = Instant::now();
        let answer = client::raw(&mut stream, &request).await;
        let took = asked.elapsed();
        let reason = || answer.json()["reason"].as_str().unwrap_or_default().to_owned();
        let told = match (answer.status, answer.header("retry-after")) {
            (200, _) => "admitted",
            (429, Some("5")) => "overloaded",
            (503, None) if reason() == "store-timeout" => "timeout",
            (503, None) if reason() == "store-circuit-open" => "open",
            _ => return Err(format!("no answer of the gateway's bound: {answer:?}")),
        };
        answers.push((told, took));
    }
    Ok(answers)
}

fn print(rows: &[(Store, u32, Row)]) {
    let heads = TOLD.map(|(_, head)| format!("{:>24}", format!("{head}/s, p99 ms")));
    println!(
        "  {:<20} {:>7} {} {:>9} {:>9} {:>9} {:>8}",
        "Redis",
        "callers",
        heads.join(" "),
        "in flight",
        "waited",
        "in vain",
        "critical"
    );
    for (store, callers, row) in rows {
        let median = |key: &str| row.get(key).map_or(f64::NAN, Figures::median);
        let told = TOLD.map(|(name, _)| {
            let rate = median(&format!("{name}_per_s"));
            if rate > 0.0 {
                format!("{:>24}", format!("{rate:.0}, {:.1}", median(&format!("{name}_p99_ms"))))
            } else {
                format!("{:>24}", "-")
            }
        });
        println!(
            "  {:<20} {callers:>7} {} {:>9.0} {:>9.0} {:>9.0} {:>8.0}",
            store.name(),
            told.join(" "),
            median("in_flight_peak"),
            median("waits_total"),
            median("acquire_timeouts_total"),
            median("critical_lines"),
        );
    }
}
