//! Owns the comparison inside Redis: `rl_check` against a bare INCR, by redis-benchmark, in
//! interleaved pairs; unpipelined and pipelined by 16.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use tokio::process::Command;

use super::stats::Figures;
use super::summary::Summary;
use crate::parts;
use crate::redis::Redis;

const REQUESTS: &str = "100000";
/// Interleaved pairs.
const PAIRS: usize = 8;

/// The mark of the limits' shard.
const MARK: &str = "ratelimit:{default|00}:start";

/// A limit that is never used up, as `lua/rl_check.lua` takes it. Its numbers are none that a gateway
/// would send: no byte of them is 0, which a command line could not carry.
fn packed_limit() -> Vec<u8> {
    let numbers = [1.1, 1.1, 1_000_000.1, 2.2, 500_000.1].map(f64::to_le_bytes);
    [b"g\x01".as_slice(), numbers.as_flattened()].concat()
}

fn redis_benchmark() -> PathBuf {
    let server = parts::redis_server();
    let beside = server.with_file_name("redis-benchmark");
    if beside.is_file() { beside } else { PathBuf::from("redis-benchmark") }
}

/// Measures, prints, adds to the summary.
pub async fn measure(summary: &mut Summary) -> Result<(), String> {
    let redis = Redis::start_with_tcp().await;
    let script =
        fs::read_to_string(parts::root().join("lua/rl_check.lua")).map_err(|e| e.to_string())?;
    let reply = redis.command(&["SCRIPT", "LOAD", &script]).await;
    let sha = reply.lines().nth(1).ok_or(format!("SCRIPT LOAD said {reply}"))?.to_owned();
    redis.command(&["SET", MARK, "0"]).await;
    println!(
        "\nRedis (region declared warm), redis-benchmark -c 50 over TCP, {PAIRS} interleaved pairs, ratio to INCR"
    );
    let words = |parts: &[&str]| parts.iter().map(|part| part.as_bytes().to_vec()).collect();
    // As the gateway asks, with the mark of a region that is warm.
    let limit = |keys: usize| -> Vec<Vec<u8>> {
        let mut call: Vec<Vec<u8>> = words(&["EVALSHA", &sha, &(keys + 1).to_string()]);
        let key = |n| format!("ratelimit:{{default|00}}:ip:192.0.2.1:bench.l{n}").into_bytes();
        call.extend((0..keys).map(key));
        call.extend::<Vec<Vec<u8>>>(words(&[MARK, "0", "300000000"]));
        call.extend((0..keys).map(|_| packed_limit()));
        call
    };
    let incr: Vec<Vec<u8>> = words(&["INCR", "counter"]);
    for (name, words, pipeline) in [
        ("rl_check_vs_incr", limit(1), 1),
        ("rl_check_3_limits_vs_incr", limit(3), 1),
        ("rl_check_vs_incr_pipelined_16", limit(1), 16),
        ("incr_aa", incr.clone(), 1),
    ] {
        let mut ratio = Figures::default();
        for _ in 0..PAIRS {
            let (base, this) =
                (once(&redis, &incr, pipeline).await?, once(&redis, &words, pipeline).await?);
            ratio.push(this / base);
        }
        println!("  {name:<32} {ratio}");
        summary.set(name, ratio.median());
    }
    Ok(())
}

/// Requests per second of one command by redis-benchmark with 50 connections.
pub async fn once(redis: &Redis, words: &[Vec<u8>], pipeline: u32) -> Result<f64, String> {
    let mut command = Command::new(redis_benchmark());
    command.args(["-p", &redis.tcp_port().to_string()]);
    command.args(["-c", "50", "-n", REQUESTS, "-P", &pipeline.to_string(), "-q"]);
    // Where a word holds `__rand_int__`, another number stands there each time.
    command.args(["-r", "1000000000"]);
    command.args(words.iter().map(|word| OsStr::from_bytes(word)));
    let done = command.output().await.map_err(|error| format!("redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let said = || format!("redis-benchmark said: {text}{}", String::from_utf8_lossy(&done.stderr));
    // From Redis 7 on it ends at the first error that it is answered.
    if !done.status.success() {
        return Err(said());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let figure = words
        .windows(2)
        .rev()
        .find(|pair| pair[1] == "requests")
        .and_then(|pair| pair[0].parse().ok());
    figure.ok_or_else(said)
}
