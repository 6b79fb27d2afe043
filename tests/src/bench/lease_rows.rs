//! Owns what leases cost: decisions inside Envoy, admitted and denied, beside the no-op filter and the same
//! limit decided by callout; callouts per request; `rl_lease` beside INCR, by Redis's own CPU time.

use std::fs;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::envoy_rows::{self, Effort, Plan};
use super::stats::Figures;
use super::summary::Summary;
use super::turns::SHORT;
use crate::redis::Redis;
use crate::{client, parts};

/// Interleaved pairs.
const PAIRS: usize = 8;
/// Connections to Redis, each a holder, and what each sends.
const HOLDERS: u32 = 16;
const CALLS: u32 = 4_000;

/// Each row with a bucket of its own.
fn config(name: &str, limit: &str, decide: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "5s", "token": {{"env": "TIDEGATE_TOKEN"}}}},
            "policies": [{{"name": "bench", "match": {{"path": "/**"}},
            "rate_limits": [{{"name": "{name}", "by": "ip", {limit}, "decide": "{decide}"}}]}}]}}"#
    )
}

fn plans() -> Vec<Plan> {
    let plan = |name, config: String, denies| Plan {
        name,
        filter: Some(parts::filter("tidegate")),
        config,
        gateway: Some(1),
        denies,
    };
    let (roomy, tight) =
        (r#""limit": 1000000, "per": "second""#, r#""limit": 1000, "per": "1000s""#);
    vec![
        Plan::bare("no_filter", None),
        Plan::bare("noop", Some("noop_filter")),
        Plan::bare("aa_leases", Some("noop_filter")),
        plan("in_filter", config("in-filter", roomy, "lease"), false),
        plan("denied_local", config("denied-local", tight, "lease"), true),
        plan("exact_beside", config("exact", roomy, "exact"), false),
        plan("denied_exact", config("denied-exact", tight, "exact"), true),
    ]
}

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    for connections in [16, 64] {
        let title = "leases, Envoy answers itself (no upstream hop)";
        let suffix = if connections == 16 { "" } else { "_c64" };
        let load = envoy_rows::Load { hop: None, connections, title, turns: SHORT };
        let rows = envoy_rows::measure_plans(plans(), effort, load, suffix, summary).await?;
        let row = |name: &str| {
            let row = rows.iter().find(|row| row.name == name);
            row.ok_or_else(|| format!("no row {name}"))
        };
        let noop = &row("noop")?.by_turns;
        println!("  by turns:            req/s ÷ no-op, and Envoy's µs per request over it");
        for row in &rows {
            let (rps, cpu_us) = (&row.by_turns.rps, &row.by_turns.envoy_cpu_us);
            let (rate, added) = (rps.over(&noop.rps), cpu_us.less(&noop.envoy_cpu_us));
            println!("  {:<18} {:>26} {:>26}", row.name, rate.surely(), added.surely());
            summary.set(format!("{}_turns{suffix}", row.name), rate.median());
            summary.set(format!("{}_over_us{suffix}", row.name), added.median());
        }
        let stats = client::get(row("in_filter")?.envoy.admin, "/stats").await.body;
        let number = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(": ")?.parse::<f64>().ok();
            stats.lines().find_map(of).unwrap_or(0.0)
        };
        let callouts = number("cluster.tidegate.upstream_rq_total");
        let requests = number("wasmcustom.tidegate_decisions_total.policy.bench.outcome.allowed");
        let each = callouts / requests.max(1.0);
        println!("  {callouts} callouts for {requests} requests: {each:.5} each");
        summary.set(format!("lease_callouts_per_request{suffix}"), each);
    }
    redis(summary).await
}

/// A command as Redis reads it.
fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// A holder's call, as `lua/rl_lease.lua` takes it: a busy key, a limit that is never used up.
fn call(holder: u32, seq: u32) -> Vec<u8> {
    let mut packed = u64::from(holder).to_le_bytes().to_vec();
    for number in [seq, 1_000, 400, 50] {
        packed.extend(number.to_le_bytes());
    }
    packed.push(1);
    packed.extend([1.0f64, 1_000_000.0, 2.0, 500_000.0].map(f64::to_le_bytes).as_flattened());
    for us in [1_000_000u32, 1_000_000, 50_000] {
        packed.extend(us.to_le_bytes());
    }
    packed
}

async fn redis(summary: &mut Summary) -> Result<(), String> {
    let mut redis = Redis::start_with_tcp().await;
    let script =
        fs::read_to_string(parts::root().join("lua/rl_lease.lua")).map_err(|e| e.to_string())?;
    let reply = redis.command(&["SCRIPT", "LOAD", &script]).await;
    let sha = reply.lines().nth(1).ok_or(format!("SCRIPT LOAD said {reply}"))?.to_owned();
    redis.command(&["SET", "{s}:start", "0"]).await;
    println!(
        "\nrl_lease, {HOLDERS} connections unpipelined, {PAIRS} interleaved pairs: calls a second ÷ INCR's, and INCR's CPU time of Redis ÷ its own"
    );
    for (name, is_shared) in [("rl_lease_vs_incr", false), ("rl_lease_16_holders_vs_incr", true)] {
        let (mut rate, mut cpu, mut seq) = (Figures::default(), Figures::default(), 0);
        for _ in 0..PAIRS {
            let incr = each(&mut redis, |_, _| command(&[b"INCR", b"counter"])).await?;
            let lease = each(&mut redis, |holder, nth| {
                let key = if is_shared { "{s}:l".to_owned() } else { format!("{{s}}:l{holder}") };
                let packed = call(holder, seq + nth + 1);
                let words: [&[u8]; 8] = [
                    b"EVALSHA",
                    sha.as_bytes(),
                    b"2",
                    key.as_bytes(),
                    b"{s}:start",
                    b"0",
                    b"300000000",
                    &packed,
                ];
                command(&words)
            });
            let lease = lease.await?;
            rate.push(incr.each_us / lease.each_us);
            cpu.push(incr.cpu_us / lease.cpu_us);
            seq += CALLS;
        }
        println!("  {name:<32} {rate}   CPU {cpu}");
        summary.set(name, rate.median());
        summary.set(format!("{name}_cpu"), cpu.median());
    }
    Ok(())
}

/// What one call took, in µs.
struct Each {
    /// Of Redis's CPU time.
    cpu_us: f64,
    /// From one answer to the next, of all connections together.
    each_us: f64,
}

/// Every connection waits for its answers.
async fn each(redis: &mut Redis, bytes: impl Fn(u32, u32) -> Vec<u8>) -> Result<Each, String> {
    let (before, began) = (redis.cpu_us(), Instant::now());
    let port = redis.tcp_port();
    let mut callers = Vec::new();
    for holder in 0..HOLDERS {
        let calls: Vec<Vec<u8>> = (0..CALLS).map(|nth| bytes(holder, nth)).collect();
        callers.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let mut reply = [0; 4_096];
            for call in calls {
                stream.write_all(&call).await?;
                let read = stream.read(&mut reply).await?;
                if reply[..read].first() == Some(&b'-') {
                    let said = String::from_utf8_lossy(&reply[..read]).into_owned();
                    return Err(std::io::Error::other(said));
                }
            }
            Ok::<_, std::io::Error>(())
        }));
    }
    for caller in callers {
        let ended = caller.await.map_err(|error| error.to_string())?;
        ended.map_err(|error| error.to_string())?;
    }
    let calls = f64::from(HOLDERS * CALLS);
    let each_us = began.elapsed().as_secs_f64() * 1e6 / calls;
    Ok(Each { cpu_us: (redis.cpu_us() - before) as f64 / calls, each_us })
}
