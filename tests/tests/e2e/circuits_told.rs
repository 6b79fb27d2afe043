//! What is told of circuit breakers on real parts, in metrics and lists: what would have opened, how long it was in which
//! state, what a window of calls holds, and how soon all Envoys keep to an order.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidegate_tests::client;
use tidegate_tests::envoy::Envoy;
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::puppet::{Does, Puppet};
use tidegate_tests::redis::Redis;

use crate::circuits_lost::{envoys, is_refused, state};

const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    _redis: Redis,
    gateway: Gateway,
    upstream: Puppet,
    envoys: Vec<Envoy>,
}

// === impl Bench ===

impl Bench {
    /// So many Envoys that pass, and a region that knows their breaker.
    async fn of(count: usize, breaker: &Value) -> Self {
        let redis = Redis::start().await;
        let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
        let upstream = Puppet::start(Does::Works).await;
        let envoys = envoys(count, &gateway, &upstream, breaker, "60s").await;
        for envoy in &envoys {
            eventually(PATIENCE, "it passes, and its region knows it", async || {
                let (answer, state) = (client::get(envoy.addr, "/").await, state(&gateway).await);
                if answer.status == 200 && state == "closed" {
                    Ok(())
                } else {
                    Err((answer, state))
                }
            })
            .await;
        }
        Self { _redis: redis, gateway, upstream, envoys }
    }

    async fn order(&self, order: &str) {
        let order = format!(r#"{{"breaker": "p", "order": "{order}"}}"#);
        let told = self.gateway.command("/v1/breakers/order", &order).await;
        assert_eq!(told.status, 200, "{told:?}");
    }

    /// The sum of the gateway's series that begin so.
    async fn counted(&self, series: &str) -> u64 {
        let metrics = self.gateway.admin("/metrics").await.body;
        let lines = metrics.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// What the region's window holds of failures, if it is closed.
    async fn failures(&self) -> Option<u64> {
        let listed = self.gateway.admin("/v1/breakers").await.json();
        listed[0]["failures"].as_u64().filter(|_| listed[0]["state"] == "closed")
    }
}

/// Nothing comes of failures while an operator has it in metrics only, however many there are, and the region tells what
/// would have come of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_have_opened_is_told_and_nobody_is_refused() {
    // More than all workers see before each of them would have shut its process.
    let bench = Bench::of(2, &json!({"open": "1h", "window": "1m", "min_calls": 40})).await;
    let changes = async |envoy: &Envoy| envoy.metric("tidegate_circuit_changes{}").await;
    let mut before = Vec::new();
    for envoy in &bench.envoys {
        before.push(changes(envoy).await);
    }
    bench.order("metrics_only").await;
    for (envoy, before) in bench.envoys.iter().zip(before) {
        eventually(PATIENCE, "it is told", async || {
            let now = changes(envoy).await;
            if now > before { Ok(()) } else { Err(now) }
        })
        .await;
    }
    bench.upstream.now(Does::Fails);
    let seen = bench.upstream.seen();
    for _ in 0..60 {
        for envoy in &bench.envoys {
            assert_eq!(client::get(envoy.addr, "/").await.status, 500);
        }
    }
    assert_eq!(bench.upstream.seen(), seen + 120);
    let series = r#"tidegate_gateway_breaker_changes_total{breaker="p",from="metrics_only",to="would_open",cause="failures"}"#;
    eventually(PATIENCE, "it would have opened", async || {
        let told = bench.counted(series).await;
        if told > 0 { Ok(()) } else { Err(told) }
    })
    .await;
    assert_eq!(state(&bench.gateway).await, "metrics_only");
    let stands = r#"tidegate_gateway_breakers{breaker="p",state="metrics_only"}"#;
    assert_eq!(bench.counted(stands).await, 1);
    for envoy in &bench.envoys {
        let name = "tidegate_circuit_total{breaker=\"p\",event=\"refused\"}";
        assert_eq!(envoy.metric(name).await, 0);
    }
    bench.order("reset").await;
    eventually(PATIENCE, "it opens", async || {
        let answer = client::get(bench.envoys[0].addr, "/").await;
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// A window of calls holds the last so many, however long ago, and what they are of opens it; how long it was closed, open and
/// half open is counted as it leaves each.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_calls_forgets_by_calls_and_the_time_in_each_state_is_counted() {
    let breaker = json!({
        "open": "1s", "window": {"calls": 10}, "min_calls": 10, "consecutive": 1_000, "successes": 2,
    });
    let begun = Instant::now();
    let bench = Bench::of(1, &breaker).await;
    let addr = bench.envoys[0].addr;
    // Each is a report of its own, so that the window holds just so many.
    let fails = async |nth: u64| {
        assert_eq!(client::get(addr, "/").await.status, 500);
        eventually(PATIENCE, "it is reported", async || {
            let failures = bench.failures().await;
            if failures.is_none_or(|failures| failures == nth) {
                Ok(failures)
            } else {
                Err(failures)
            }
        })
        .await
    };
    for _ in 0..10 {
        assert_eq!(client::get(addr, "/").await.status, 200);
    }
    bench.upstream.now(Does::Fails);
    for nth in 1..=4 {
        assert_eq!(fails(nth).await, Some(nth), "four of ten do not open it");
    }
    bench.upstream.now(Does::Works);
    let mut since = 0;
    eventually(PATIENCE, "they are forgotten", async || {
        assert_eq!(client::get(addr, "/").await.status, 200);
        since += 1;
        let failures = bench.failures().await;
        if failures == Some(0) { Ok(()) } else { Err(failures) }
    })
    .await;
    assert!(since >= 10, "after {since} calls more");
    bench.upstream.now(Does::Fails);
    let (fell, mut failed) = (Instant::now(), 0);
    loop {
        failed += 1;
        if fails(failed).await.is_none() {
            break;
        }
    }
    println!("forgotten after {since} calls, opened by {failed} failures");
    assert!((5..=10).contains(&failed), "{failed}");
    bench.upstream.now(Does::Works);
    eventually(PATIENCE, "it is closed", async || {
        let answer = client::get(addr, "/").await;
        if bench.failures().await.is_some() { Ok(()) } else { Err(answer) }
    })
    .await;
    let shut_ms = u64::try_from(fell.elapsed().as_millis()).expect("short");
    let all_ms = u64::try_from(begun.elapsed().as_millis()).expect("short");
    let mut in_state = Vec::new();
    for state in ["closed", "open", "half_open"] {
        let series =
            format!(r#"tidegate_gateway_breaker_state_ms_total{{breaker="p",state="{state}"}}"#);
        in_state.push(bench.counted(&series).await);
    }
    println!("{in_state:?} ms closed, open and half open, of {shut_ms} and of {all_ms}");
    let [closed, open, half_open] = in_state[..] else { unreachable!("three states") };
    assert!(closed > 0 && open >= 800 && half_open > 0, "{in_state:?}");
    assert!(open + half_open <= shut_ms && closed + open + half_open <= all_ms, "{in_state:?}");
}

/// Three Envoys keep to each order an operator can give, and how soon the last of them does is told.
#[tokio::test(flavor = "multi_thread")]
async fn every_order_reaches_three_envoys() {
    let bench = Bench::of(3, &json!({"open": "1h", "window": "1m"})).await;
    for (order, refuses) in [
        ("force_open", true),
        ("disable", false),
        ("trip", true),
        ("reset", false),
        ("force_open", true),
        ("metrics_only", false),
    ] {
        bench.order(order).await;
        let given = Instant::now();
        for envoy in &bench.envoys {
            eventually(PATIENCE, "it keeps to the order", async || {
                let answer = client::get(envoy.addr, "/").await;
                if is_refused(&answer) == refuses { Ok(()) } else { Err(answer) }
            })
            .await;
        }
        println!("{order}: all three keep to it after {} ms", given.elapsed().as_millis());
        for envoy in &bench.envoys {
            for _ in 0..10 {
                assert_eq!(is_refused(&client::get(envoy.addr, "/").await), refuses, "{order}");
            }
        }
    }
}
