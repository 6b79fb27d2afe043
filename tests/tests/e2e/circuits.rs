//! Circuit breakers on three real Envoys, a real gateway and a real Redis: an upstream dies, hangs and
//! comes back. What reached it meanwhile is counted where it is.

use std::time::Duration;

use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::faults::{Fault, Relay, Target};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::redis::Redis;
use tidegate_tests::upstream::Upstream;

use crate::idempotency::{bench_of, lines, replayed};

const PATIENCE: Duration = Duration::from_secs(60);
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "policies": [
    {"name": "p", "match": {"path": "/p"},
     "circuit_breaker": {"open": "3s", "window": "1m", "min_calls": 10, "upstream_timeout": "30s"}}
  ]
}"#;

const STAGES: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "pay", "match": {"path": "/pay"},
     "rate_limits": [{"name": "client", "by": {"header": "x-client"}, "limit": 10, "per": "day"}],
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"},
     "circuit_breaker": {}}
  ]
}"#;

fn is_refused(answer: &Answer) -> bool {
    answer.header("x-tidegate-reply") == Some("circuit-open")
}

async fn event(envoys: &[Envoy], event: &str) -> u64 {
    let name = format!("tidegate_circuit_total{{breaker=\"p\",event=\"{event}\"}}");
    let mut sum = 0;
    for envoy in envoys {
        sum += envoy.metric(&name).await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_is_left_alone_by_three_envoys_tested_by_one_and_found_again() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Upstream::start().await;
    let relay = Relay::start(Target::Tcp(upstream.addr)).await;
    let mut envoys = Vec::new();
    for _ in 0..3 {
        let options = Options { concurrency: 2, ..Options::new(gateway.addr, relay.addr) };
        envoys.push(Envoy::start(&options.config(CONFIG)).await);
    }
    for envoy in &envoys {
        eventually(PATIENCE, "it serves", async || {
            let answer = client::get(envoy.addr, "/p").await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    // It dies: every Envoy refuses by itself, the first on its own failures.
    relay.set(Fault::Cut);
    for envoy in &envoys {
        let answer = eventually(PATIENCE, "its circuit is open", async || {
            let answer = client::get(envoy.addr, "/p").await;
            assert_eq!(answer.status, 503, "{answer:?}");
            if is_refused(&answer) { Ok(answer) } else { Err(answer) }
        })
        .await;
        assert_eq!(answer.header("x-envoy-overloaded"), Some("true"));
        let seconds = answer.header("retry-after").and_then(|s| s.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| (1..=4).contains(&seconds)), "{answer:?}");
    }
    let listed = gateway.admin("/v1/breakers").await;
    assert!(listed.body.contains("\"breaker\":\"p\""), "{listed:?}");

    // It comes back: three tests in all of the mesh, one at a time, and all three Envoys go on.
    let (before, tests_before) = (upstream.seen(), event(&envoys, "test_ok").await);
    relay.set(Fault::None);
    for envoy in &envoys {
        eventually(PATIENCE, "its circuit is closed", async || {
            let answer = client::get(envoy.addr, "/p").await;
            if answer.status == 200 && event(&envoys, "test_ok").await >= tests_before + 3 {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
    }
    assert!(upstream.seen() >= before + 3);
    for envoy in &envoys {
        eventually(PATIENCE, "ten pass in a row", async || {
            for _ in 0..10 {
                let answer = client::get(envoy.addr, "/p").await;
                if answer.status != 200 {
                    return Err(answer);
                }
            }
            Ok(())
        })
        .await;
    }

    // An operator shuts it: every Envoy keeps to it with its next tick, and nothing reaches the upstream.
    let order = r#"{"breaker": "p", "order": "force_open", "for_s": 600}"#;
    let told = gateway.command("/v1/breakers/order", order).await;
    assert_eq!(told.status, 200, "{told:?}");
    for envoy in &envoys {
        eventually(PATIENCE, "it is forced open", async || {
            let answer = client::get(envoy.addr, "/p").await;
            if is_refused(&answer) { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    let before = upstream.seen();
    for envoy in envoys.iter().cycle().take(30) {
        assert!(is_refused(&client::get(envoy.addr, "/p").await));
    }
    assert_eq!(upstream.seen(), before);
    let told = gateway.command("/v1/breakers/order", r#"{"breaker": "p", "order": "reset"}"#).await;
    assert_eq!(told.status, 200, "{told:?}");
    for envoy in &envoys {
        eventually(PATIENCE, "it is let go", async || {
            let answer = client::get(envoy.addr, "/p").await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
        assert!(!envoy.output().contains("wasm_fail_stream"), "{}", envoy.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_neither_charged_nor_holds_a_key_and_what_is_done_is_answered() {
    let bench = bench_of(1, STAGES).await;
    let addr = bench.envoys[0].addr;
    let pay = async |client: &str, key: &str| {
        let headers = lines(key, &format!("x-client: {client}\r\n"));
        client::post(addr, "/pay", &headers, "{}").await
    };
    let order = async |order: &str| {
        let order = format!(r#"{{"breaker": "pay", {order}}}"#);
        let told = bench.gateway.command("/v1/breakers/order", &order).await;
        assert_eq!(told.status, 200, "{told:?}");
    };
    let first = pay("c", "k1").await;
    assert_eq!(first.status, 201, "{first:?}");
    for key in 0..10 {
        assert_eq!(pay("s", &format!("s{key}")).await.status, 201);
    }
    order(r#""order": "force_open", "for_s": 600"#).await;
    let mut others = 0;
    eventually(PATIENCE, "it is open", async || {
        others += 1;
        let answer = pay(&format!("other{others}"), &format!("o{others}")).await;
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    let between = bench.upstream.runs();

    let over = pay("s", "s10").await;
    assert_eq!((over.status, over.header("x-tidegate-reply")), (429, Some("quota-exceeded")));
    let again = pay("c", "k1").await;
    assert!(again.status == 201 && replayed(&again), "{again:?}");
    for _ in 0..12 {
        let answer = pay("c", "k2").await;
        assert!(is_refused(&answer), "{answer:?}");
    }
    assert_eq!(bench.upstream.runs(), between);

    order(r#""order": "reset""#).await;
    // Two of ten were used, the first one and its repetition.
    eventually(PATIENCE, "the refused key runs", async || {
        let answer = pay("c", "k2").await;
        if answer.status == 201 && !replayed(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    for key in ["k3", "k4", "k5"] {
        assert_eq!(pay("c", key).await.status, 201);
    }
    assert_eq!(bench.upstream.runs(), between + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_gets_an_answer_or_another_cluster_of_the_example() {
    let gateway = Gateway::start(&gateway::Options::memory()).await;
    let (upstream, standby) = (Upstream::start().await, Upstream::start().await);
    let mut options = Options::new(gateway.addr, upstream.addr).example("fallback");
    let port = "/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    *options.part(port) = standby.addr.port().into();
    let envoy = Envoy::start(&options).await;
    for breaker in ["search", "suggest"] {
        let order = format!(r#"{{"breaker": "{breaker}", "order": "force_open", "for_s": 600}}"#);
        let path = format!("/{breaker}/x");
        // An order needs a breaker that the gateway has heard of.
        eventually(PATIENCE, "it is forced open", async || {
            let told = gateway.command("/v1/breakers/order", &order).await;
            let answer = client::get(envoy.addr, &path).await;
            let is_open = match breaker {
                "search" => standby.seen() > 0,
                _ => is_refused(&answer),
            };
            if told.status == 200 && is_open { Ok(()) } else { Err((told, answer)) }
        })
        .await;
    }
    let before = (upstream.seen(), standby.seen());
    for _ in 0..10 {
        let answer = client::get(envoy.addr, "/search/x").await;
        assert_eq!((answer.status, answer.header("x-tidegate-reply")), (200, None), "{answer:?}");
        let answer = client::get(envoy.addr, "/suggest/x").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "[]"), "{answer:?}");
        assert!(is_refused(&answer), "{answer:?}");
    }
    assert_eq!((upstream.seen(), standby.seen()), (before.0, before.1 + 10));
    // Envoy's route took the header away again; a client's own leads nowhere.
    assert!(standby.saw("x-upstream").is_empty());
    let headers = "x-upstream: standby\r\n";
    let answer = client::get_from(envoy.addr, None, "/suggest/x", headers).await;
    assert!(is_refused(&answer), "{answer:?}");
    assert_eq!(standby.seen(), before.1 + 10);
}
