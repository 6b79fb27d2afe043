//! Owns the comparison of the gateway alone with a bare INCR and with a server that decides nothing:
//! `POST /v1/decide` under wrk, in memory and in Redis, against `redis-benchmark INCR`, all with 50
//! connections and unpipelined.

use std::net::SocketAddr;

use super::envoy_rows::Effort;
use super::floor::Floor;
use super::stats::{Figures, shuffle};
use super::summary::Summary;
use super::{question, redis_rows, wrk};
use crate::gateway::{self, Gateway};
use crate::process::Process;
use crate::redis::Redis;

/// As many as redis-benchmark opens unless told.
const CONNECTIONS: u32 = 50;

/// What is compared, in the order of the table.
const ROWS: [&str; 5] = ["incr", "incr_again", "http_floor", "gateway_memory", "gateway_redis"];

/// Where those begin whose CPU is counted.
const SERVERS: usize = 2;

/// Measures, prints the table, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    let redis = Redis::start_with_tcp().await;
    // Nobody is to be refused for the load generators' sake.
    let roomy =
        ["--dev", "--deadline", "2s", "--pool-wait", "1s", "--redis-response-timeout", "2s"];
    let url = format!("redis://127.0.0.1:{}", redis.tcp_port());
    let mut memory = Gateway::start(&gateway::Options::memory().flags(&roomy)).await;
    let mut behind = Gateway::start(&gateway::Options::redis(&url).flags(&roomy)).await;
    println!(
        "\nthe gateway alone, POST /v1/decide under wrk -t1 -c{CONNECTIONS}, ÷ redis-benchmark INCR -c {CONNECTIONS} (region declared warm), {} rounds of {} s, shuffled",
        effort.rounds, effort.seconds
    );
    let floor = Floor::start().await?;
    let mut rates: [Figures; ROWS.len()] = Default::default();
    let mut cpu_us: [Figures; ROWS.len()] = Default::default();
    let body = question::body(1);
    let incr = [b"INCR".to_vec(), b"counter".to_vec()];
    let mut seed = effort.seed;
    let mut order: Vec<usize> = (0..ROWS.len()).collect();
    // The first round does not count.
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            let (rate, cpu) = match ROWS[row] {
                "http_floor" => decided(floor.addr, &floor.process, &body, effort.seconds).await?,
                "gateway_memory" => {
                    decided(memory.addr, memory.process(), &body, effort.seconds).await?
                }
                "gateway_redis" => {
                    decided(behind.addr, behind.process(), &body, effort.seconds).await?
                }
                _ => (redis_rows::once(&redis, &incr, 1).await?, f64::NAN),
            };
            if round > 0 {
                rates[row].push(rate);
                cpu_us[row].push(cpu);
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    println!("  {:<16} {:>10} {:>22} {:>20}", "", "req/s", "÷ INCR", "µs CPU/decision");
    for (row, name) in ROWS.into_iter().enumerate() {
        let ratio = rates[row].over(&rates[0]);
        let serves = row >= SERVERS;
        let cpu = if serves { cpu_us[row].to_string() } else { String::new() };
        println!(
            "  {name:<16} {:>10.0} {:>22} {:>20}",
            rates[row].median(),
            ratio.to_string(),
            cpu
        );
        let (least, most) = ratio.spread();
        let key = if row == 1 { "incr_vs_incr".to_owned() } else { format!("{name}_vs_incr") };
        if row > 0 {
            summary.set(format!("{key}_least"), least);
            summary.set(format!("{key}_most"), most);
            summary.set(key, ratio.median());
        }
        if serves {
            summary.set(format!("{name}_alone_cpu_us"), cpu_us[row].median());
        }
    }
    Ok(())
}

/// Answers per second, and the server's µs of CPU for each.
async fn decided(
    to: SocketAddr,
    process: &Process,
    body: &[u8],
    seconds: u32,
) -> Result<(f64, f64), String> {
    let before = process.cpu_us();
    let load = wrk::decide(to, body, CONNECTIONS, seconds).await?;
    let used = process.cpu_us() - before;
    load.served("the gateway alone")?;
    Ok((load.rps, f64::from(u32::try_from(used).unwrap_or(u32::MAX)) / load.requests))
}
