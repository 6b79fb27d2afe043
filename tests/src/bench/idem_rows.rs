//! Owns what idempotency costs: begin and complete against SET of the same size, inside Redis and through the
//! gateway (closed loop), at the gateway by a timetable, and a POST of 1 KiB through Envoy with a key
//! against the same without.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::claims::{BODY_OCTETS, Callers, Offered, Round};
use super::envoy_rows::Effort;
use super::stats::{Figures, at_share, shuffle};
use super::summary::Summary;
use super::{redis_rows, wrk};
use crate::envoy::{Envoy, Options};
use crate::gateway::{self, Gateway};
use crate::orders::Orders;
use crate::parts;
use crate::redis::Redis;

/// Callers that wait for their answers.
const CALLERS: u32 = 50;
/// Pairs of begin and complete by the timetable: 5,000 calls a second, and 5,000 of each.
const OFFERED_PER_S: [u64; 2] = [2_500, 5_000];
const PAIRS: usize = 8;
const ROOMY: [&str; 5] = ["--dev", "--deadline", "2s", "--pool-wait", "1s"];

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    inside_redis(summary).await?;
    at_the_gateway(effort, summary).await?;
    through_envoy(effort, summary).await
}

async fn inside_redis(summary: &mut Summary) -> Result<(), String> {
    let redis = Redis::start_with_tcp().await;
    let text = std::fs::read_to_string(parts::root().join("lua/idem_begin.lua"));
    let reply = redis.command(&["SCRIPT", "LOAD", &text.map_err(|e| e.to_string())?]).await;
    let sha = reply.lines().nth(1).ok_or(format!("SCRIPT LOAD said {reply}"))?.to_owned();
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    // A key and an owner of its own each time; a record in flight has 70 octets.
    let key = "idempotency:tenant:bench:ep:POST%20%2Fv1%2Forders:__rand_int__";
    let (hash, record) = ("h".repeat(32), "r".repeat(70));
    let life = "86400000";
    let begin: Vec<Vec<u8>> =
        words(&["EVALSHA", &sha, "1", key, "0", "own-__rand_int__", &hash, "15000000", life, "0"]);
    let set: Vec<Vec<u8>> = words(&["SET", key, &record, "PX", life]);
    println!(
        "\nRedis, redis-benchmark -c 50 over TCP, {PAIRS} interleaved pairs, ratio to SET of 70 octets"
    );
    for (name, words) in [("idem_begin_in_redis_vs_set", &begin), ("set_in_redis_aa", &set)] {
        let mut ratio = Figures::default();
        for _ in 0..PAIRS {
            // Each on an empty store; what SET wrote is no record.
            redis.command(&["FLUSHALL"]).await;
            let base = redis_rows::once(&redis, &set, 1).await?;
            redis.command(&["FLUSHALL"]).await;
            ratio.push(redis_rows::once(&redis, words, 1).await? / base);
        }
        println!("  {name:<32} {ratio}");
        summary.set(name, ratio.median());
    }
    Ok(())
}

/// A gateway with a Redis of its own.
struct Side {
    redis: Redis,
    gateway: Gateway,
    callers: Arc<Callers>,
}

impl Side {
    async fn start(program: Option<PathBuf>) -> Result<Self, String> {
        let redis = Redis::start_with_tcp().await;
        let url = format!("redis://127.0.0.1:{}", redis.tcp_port());
        let options = gateway::Options::redis(&url).flags(&ROOMY);
        let gateway = Gateway::start(&gateway::Options { program, ..options }).await;
        let callers = Callers::connect(gateway.addr).await?;
        Ok(Self { redis, gateway, callers })
    }
}

async fn at_the_gateway(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    // The second one is the same program with SET in place of the scripts of claims.
    let sides = [Side::start(None).await?, Side::start(Some(parts::plain_gateway())).await?];
    let [scripts, plain] = [0, 1];
    let rows = [
        (plain, Round::Begin),
        (plain, Round::Begin),
        (scripts, Round::Begin),
        (plain, Round::Both),
        (scripts, Round::Both),
        (scripts, Round::Decision),
    ];
    let lasts = Duration::from_secs(effort.seconds.into());
    println!(
        "\nclaims at the gateway over HTTP/2, {} rounds of {} s, shuffled: {CALLERS} callers that wait, ÷ the same through the same gateway with SET in place of scripts; {OFFERED_PER_S:?} pairs a second by a timetable, answers of {BODY_OCTETS} octets",
        effort.rounds, effort.seconds
    );
    let mut rates: [Figures; 6] = Default::default();
    let offered = OFFERED_PER_S.map(|rate| [(scripts, rate), (plain, rate)]);
    let offered = offered.as_flattened();
    let mut took = vec![<[[Figures; 2]; 2]>::default(); offered.len()];
    let mut failures = 0;
    let mut order: Vec<usize> = (0..rows.len() + offered.len()).collect();
    let mut seed = effort.seed;
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            match rows.get(row) {
                None => {
                    let which = row - rows.len();
                    let (side, rate) = offered[which];
                    let seen = Offered::measure(sides[side].gateway.addr, rate, lasts).await?;
                    if round > 0 {
                        failures += seen.failed;
                        for (figures, times) in took[which].iter_mut().zip([seen.begun, seen.ended])
                        {
                            figures[0].push(at_share(&times, 50));
                            figures[1].push(at_share(&times, 99));
                        }
                    }
                }
                Some((side, what)) => {
                    let rate = sides[*side].callers.eager(CALLERS, lasts, *what).await;
                    if round > 0 {
                        rates[row].push(rate);
                    }
                }
            }
            // Records live for a day.
            for side in &sides {
                side.redis.command(&["FLUSHALL"]).await;
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    for (row, base, name) in [
        (1, 0, "set_aa"),
        (2, 0, "idem_begin_vs_set"),
        (4, 3, "idem_begin_and_complete_vs_sets"),
        (2, 5, "idem_begin_vs_decide"),
    ] {
        let ratio = rates[row].over(&rates[base]);
        println!("  {name:<32} {ratio}");
        summary.set(name, ratio.median());
    }
    for ((side, rate), figures) in offered.iter().zip(&took) {
        let names =
            if *side == scripts { ["idem_begin", "idem_complete"] } else { ["set", "second_set"] };
        for (name, [p50, p99]) in names.iter().zip(figures) {
            println!("  {:<32} p50 {p50}, p99 {p99} ms", format!("{name} at {rate} pairs/s"));
            summary.set(format!("{name}_at_{rate}_p50_ms"), p50.median());
            summary.set(format!("{name}_at_{rate}_p99_ms"), p99.median());
        }
    }
    println!("  pairs that failed: {failures}");
    Ok(())
}

async fn through_envoy(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    const CONFIG: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}},
        "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
        "policies": [{"name": "keyed", "match": {"path": "/keyed"},
          "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}}]}"#;
    const WAITING: u32 = 16;
    let redis = Redis::start_with_tcp().await;
    let url = format!("redis://127.0.0.1:{}", redis.tcp_port());
    let gateway = Gateway::start(&gateway::Options::redis(&url).flags(&ROOMY)).await;
    let upstream = Orders::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(CONFIG);
    options.access_log = false;
    let envoy = Envoy::start(&options).await;
    println!(
        "\na POST of {BODY_OCTETS} octets through Envoy to an upstream, wrk -t1 -c{WAITING}, {} rounds of {} s, shuffled: with a key of its own each time, and of no policy",
        effort.rounds, effort.seconds
    );
    let rows = ["/plain", "/plain_again", "/keyed"];
    let mut times: [[Figures; 2]; 3] = Default::default();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut seed = effort.seed;
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            let prefix = format!("{row}-{round}");
            let (load, taken) =
                wrk::keyed(envoy.addr, rows[row], &prefix, BODY_OCTETS, WAITING, effort.seconds)
                    .await?;
            load.served(rows[row])?;
            if round > 0 {
                times[row].iter_mut().zip(taken).for_each(|(figures, ms)| figures.push(ms));
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    for (share, name) in ["p50", "p99"].into_iter().enumerate() {
        for (row, key) in [(1, "post_aa"), (2, "idempotent_post")] {
            let ratio = times[row][share].over(&times[0][share]);
            println!("  {key:<18} {name} {ratio} of the plain one, {} ms", times[row][share]);
            summary.set(format!("{key}_{name}_vs_plain"), ratio.median());
            summary.set(format!("{key}_{name}_ms"), times[row][share].median());
        }
    }
    Ok(())
}
