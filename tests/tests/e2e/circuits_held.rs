//! Requests that wait for a circuit breaker's leave, on a real Envoy: it holds them, and lets them go on with their bodies.

use std::time::Duration;

use serde_json::json;
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::puppet::{Does, Puppet};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
const ORDER: &str = "an order";

fn is_refused(answer: &Answer) -> bool {
    answer.header("x-tidegate-reply") == Some("circuit-open")
}

async fn held(envoy: &Envoy) -> u64 {
    envoy.metric(r#"tidegate_circuit_total{breaker="p",event="held"}"#).await
}

fn ask(envoy: &Envoy, asked: &mut JoinSet<Answer>) {
    let addr = envoy.addr;
    asked.spawn(async move { client::post(addr, "/pay", "", ORDER).await });
}

/// Takes the answers that are there: each is a refusal.
fn refusals(asked: &mut JoinSet<Answer>) -> usize {
    while let Some(answer) = asked.try_join_next() {
        let answer = answer.expect("an answer");
        assert!(is_refused(&answer), "{answer:?}");
    }
    asked.len()
}

/// Sends ten at once and returns once all but `left` of those that are under way are refused.
async fn all_but(left: usize, envoy: &Envoy, asked: &mut JoinSet<Answer>) {
    (0..10).for_each(|_| ask(envoy, asked));
    eventually(PATIENCE, "all but those that wait are answered", async || {
        let waiting = refusals(asked);
        assert!(waiting >= left, "{waiting} wait, and not {left}");
        if waiting == left { Ok(()) } else { Err(waiting) }
    })
    .await;
}

/// While it is open two wait, of whom one becomes the test; while that is out one more does. All three reach the upstream once
/// it works, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_breaker_goes_on_with_its_body_once_it_has_closed() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Works).await;
    let breaker = json!({
        "open": "1s", "successes": 1, "upstream_timeout": "5m", "hold": {"for": "1m", "max": 2},
    });
    let config = json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
        "policies": [{"name": "p", "match": {"path": "/**"}, "circuit_breaker": breaker}],
    });
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config.to_string());
    let route = json!({"cluster": "upstream", "timeout": "300s"});
    options.example = Some(json!({ "routes": [{ "match": {"prefix": "/"}, "route": route }] }));
    let envoy = Envoy::start(&options).await;
    let order = async |order: &str| {
        let order = format!(r#"{{"breaker": "p", "order": {order}}}"#);
        assert_eq!(gateway.command("/v1/breakers/order", &order).await.status, 200);
    };
    order(r#""force_open", "for_s": 3600"#).await;
    eventually(PATIENCE, "it is forced open", async || {
        let answer = client::get(envoy.addr, "/").await;
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    upstream.now(Does::Hangs);
    let before = upstream.seen();
    order(r#""trip", "for_s": 1"#).await;
    // As long as it is forced open nobody waits.
    let mut asked = JoinSet::new();
    eventually(PATIENCE, "one waits", async || {
        if asked.is_empty() {
            ask(&envoy, &mut asked);
        }
        let waiting = refusals(&mut asked);
        if held(&envoy).await > 0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    all_but(2, &envoy, &mut asked).await;
    eventually(PATIENCE, "one of them is the test", async || {
        let tests = upstream.seen() - before;
        if tests == 1 { Ok(()) } else { Err(tests) }
    })
    .await;
    all_but(3, &envoy, &mut asked).await;
    assert_eq!(upstream.seen(), before + 1, "the others wait");
    upstream.now(Does::Works);
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!((answers.len(), upstream.seen()), (3, before + 3));
    assert_eq!(upstream.octets(), 3 * ORDER.len());
}
