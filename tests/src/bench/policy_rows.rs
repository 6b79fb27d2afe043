//! Owns what many policies cost: their documents for the rows in Envoy, and how long a VM takes to load
//! them, measured in the simulator.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use tidegate_host_sim::{Runner, Scenario, Services};

use super::summary::Summary;
use crate::parts;

/// A document of so many policies. The last takes in what the benchmark asks for, but for its method, so
/// that a request is matched by host, path and method, and asks nobody.
#[must_use]
pub fn document(count: usize) -> String {
    let mut policies = String::new();
    for n in 0..count {
        let (path, comma) = match n + 1 == count {
            true => ("/bench".to_owned(), ""),
            false => (format!("/v1/service-{n}/items/{{id}}/**"), ","),
        };
        write!(
            policies,
            r#"{{"name": "p{n}", "match": {{"host": "127.0.0.1", "path": "{path}", "methods": ["DELETE"]}},
                "rate_limits": [{{"name": "ip", "by": "ip", "limit": 100, "per": "minute"}}]}}{comma}"#
        )
        .expect("a String takes everything");
    }
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "5s"}}, "policies": [{policies}]}}"#
    )
}

/// Prints and notes how long one VM takes to start with 0, 10, 1,000 and 10,000 policies: the fastest of
/// several starts.
pub fn measure(summary: &mut Summary) -> Result<(), String> {
    const STARTS: u32 = 7;
    let wasm = fs::read(parts::filter("tidegate")).map_err(|error| error.to_string())?;
    let cache = parts::root().join("target/host-sim-cache");
    let runner = Runner::with_cache(Some(cache)).map_err(|error| error.to_string())?;
    println!("\nstart of one VM in the simulator, the fastest of {STARTS}");
    for count in [0, 10, 1_000, 10_000] {
        let scenario =
            "name: start\nplugin: {}\nhost: { main: false, canary: false, fuel: 100000000000 }\n";
        let scenario = Scenario::parse(scenario).map_err(|error| error.to_string())?;
        let scenario = scenario.with_config(document(count));
        let mut fastest = Duration::MAX;
        for _ in 0..STARTS {
            let started = Instant::now();
            let report = runner
                .run_bytes(&scenario, &wasm, Services::default())
                .map_err(|error| error.to_string())?;
            fastest = fastest.min(started.elapsed());
            if let Some(error) = report.start_error {
                return Err(format!("{count} policies: {error}"));
            }
        }
        let ms = fastest.as_secs_f64() * 1_000.0;
        println!("  {count:>6} policies {ms:>9.1} ms");
        summary.set(format!("load_ms_policies_{count}"), ms);
    }
    Ok(())
}
