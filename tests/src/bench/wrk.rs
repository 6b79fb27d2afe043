//! Owns one run of the load generator wrk.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_policy::wire::DECIDE_PATH;
use tokio::process::Command;

use crate::gateway::TOKEN;
use crate::parts;

/// What wrk saw.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests per second.
    pub rps: f64,
    /// Requests in all.
    pub requests: f64,
    /// Answers that were not 2xx or 3xx.
    pub refused: f64,
    /// Requests without an answer.
    pub broken: f64,
}

// === impl Load ===

impl Load {
    /// Whether every request was served. A figure of refusals is none of the row's: refusing is
    /// quicker than serving.
    pub fn served(&self, row: &str) -> Result<(), String> {
        if self.requests > 0.0 && self.refused == 0.0 && self.broken == 0.0 {
            return Ok(());
        }
        Err(format!(
            "{row}: of {} requests {} were refused and {} had no answer; every one should have been served, so there is no figure",
            self.requests, self.refused, self.broken
        ))
    }
}

/// wrk's binary: `WRK`, else what `make` brought, else the system's.
fn wrk() -> PathBuf {
    let brought = parts::root().join(".tools/bin/wrk");
    let default = if brought.is_file() { brought } else { PathBuf::from("/usr/bin/wrk") };
    env::var_os("WRK").map_or(default, PathBuf::from)
}

/// One thread, `connections` connections, for `seconds`.
pub async fn run(
    to: SocketAddr,
    path: &str,
    connections: u32,
    seconds: u32,
) -> Result<Load, String> {
    run_words(&[format!("http://{to}{path}")], connections, seconds).await
}

/// The same with decisions asked of a gateway.
pub async fn decide(
    to: SocketAddr,
    body: &[u8],
    connections: u32,
    seconds: u32,
) -> Result<Load, String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("decide.lua");
    let text = format!(
        "wrk.method = 'POST'\nwrk.body = [[{}]]\nwrk.headers['Authorization'] = 'Bearer {TOKEN}'\nwrk.headers['Content-Type'] = 'application/json'\n",
        String::from_utf8_lossy(body)
    );
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let words = ["-s".to_owned(), file.display().to_string(), format!("http://{to}{DECIDE_PATH}")];
    run_words(&words, connections, seconds).await
}

/// POSTs of so many octets, each with a key of its own that begins with `prefix`; beside the load the
/// median and the 99th percentile of what an answer takes, in ms.
pub async fn keyed(
    to: SocketAddr,
    path: &str,
    prefix: &str,
    octets: usize,
    connections: u32,
    seconds: u32,
) -> Result<(Load, [f64; 2]), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = dir.path().join("keyed.lua");
    let text = format!(
        "local body, nth = string.rep('x', {octets}), 0\nfunction request()\n  nth = nth + 1\n  return wrk.format('POST', '{path}', {{ ['x-tenant'] = 'bench', ['idempotency-key'] = '{prefix}-' .. nth, ['content-type'] = 'text/plain' }}, body)\nend\n"
    );
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let words = [
        "--latency".to_owned(),
        "-s".to_owned(),
        file.display().to_string(),
        format!("http://{to}"),
    ];
    let text = spoken(&words, connections, seconds).await?;
    let share = |percent: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(percent))?;
        ms(line.trim())
    };
    let read = read(&text).zip(share("50%").zip(share("99%")));
    let (load, (p50, p99)) = read.ok_or_else(|| format!("wrk said: {text}"))?;
    Ok((load, [p50, p99]))
}

/// A time as wrk writes it: `812.00us`, `1.53ms`, `2.01s`.
fn ms(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)];
    let (number, factor) =
        units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    number.parse::<f64>().ok().map(|number| number * factor)
}

async fn run_words(words: &[String], connections: u32, seconds: u32) -> Result<Load, String> {
    let text = spoken(words, connections, seconds).await?;
    read(&text).ok_or_else(|| format!("wrk said: {text}"))
}

/// All that it wrote.
async fn spoken(words: &[String], connections: u32, seconds: u32) -> Result<String, String> {
    let mut command = Command::new(wrk());
    command.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    command.args(words);
    let done = command
        .output()
        .await
        .map_err(|error| format!("wrk cannot be run: {error}; run `make bench`"))?;
    let said = [done.stdout, done.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn read(text: &str) -> Option<Load> {
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
    let rps = after("Requests/sec:")?.trim().parse().ok()?;
    let requests = text.lines().find(|line| line.contains(" requests in "))?;
    let requests = requests.split_whitespace().next()?.parse().ok()?;
    let refused =
        after("Non-2xx or 3xx responses:").map_or(Some(0.0), |n| n.trim().parse().ok())?;
    // connect 0, read 0, write 0, timeout 0
    let broken = after("Socket errors:").map_or(Some(0.0), |counts| {
        counts.split(',').map(|count| count.split_whitespace().last()?.parse::<f64>().ok()).sum()
    })?;
    Some(Load { rps, requests, refused, broken })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_report_is_read() {
        let text = "  1 threads and 16 connections\n  50210 requests in 1.00s, 9.1MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 12\nRequests/sec:  50133.20\n";
        let load = read(text).expect("a report");
        assert_eq!((load.rps, load.requests), (50_133.2, 50_210.0));
        assert_eq!((load.refused, load.broken), (12.0, 4.0));
        assert!(read("unable to connect").is_none());
    }

    #[test]
    fn times_are_read_in_their_units() {
        for (text, expected) in [("812.50us", 0.8125), ("1.53ms", 1.53), ("2.01s", 2010.0)] {
            assert!(ms(text).is_some_and(|ms| (ms - expected).abs() < 1e-9), "{text}");
        }
        assert_eq!(ms("1.53m"), None);
    }

    #[test]
    fn what_was_refused_is_no_figure() {
        let all = Load { rps: 9.0, requests: 9.0, refused: 0.0, broken: 0.0 };
        assert_eq!(all.served("row"), Ok(()));
        for bad in [
            Load { refused: 1.0, ..all },
            Load { broken: 1.0, ..all },
            Load { requests: 0.0, ..all },
        ] {
            let problem = bad.served("noop, 16 connections").expect_err("no figure");
            assert!(problem.starts_with("noop, 16 connections: "), "{problem}");
        }
    }
}
