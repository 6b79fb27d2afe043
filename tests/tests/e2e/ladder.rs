//! Without a gateway, on a real Envoy: its workers spend one local share together, the breaker ends
//! the callouts, and a gateway that is back is found again by itself.

use std::time::Duration;

use tidegate_policy::wire::Verdict;
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;

const SHARED: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "breaker": {"open": "300ms"}},
  "local_share": {"fraction": "50%", "envoys": 2},
  "policies": [
    {"name": "p", "match": {"path": "/p"},
     "rate_limits": [{"name": "ip", "by": "ip", "limit": 80, "per": "day"}]}
  ]
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn workers_spend_one_share_and_a_gateway_that_is_back_is_asked_again() {
    let gateway = Scripted::start(true, Script::Close).await;
    let upstream = Upstream::start().await;
    let options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
    let envoy = Envoy::start(&options.config(SHARED)).await;
    // Each connection of its own, so that both workers get some.
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(client::get(envoy.addr, "/p").await.status);
    }
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(admitted, 20, "half of 80 among two: {statuses:?}");
    assert_eq!(upstream.seen(), 20);
    assert!(statuses[20..].iter().all(|status| *status == 429), "{statuses:?}");
    let metric = async |name: &str| envoy.metric(name).await;
    let outcome =
        |outcome: &str| format!("tidegate_decisions_total{{policy=\"p\",outcome=\"{outcome}\"}}");
    assert_eq!(metric(&outcome("local_share_allowed")).await, 20);
    assert_eq!(metric(&outcome("local_share_denied")).await, 40);
    let way =
        |event: &str| format!("tidegate_circuit_total{{breaker=\"~gateway\",event=\"{event}\"}}");
    let opened = metric(&way("tripped")).await;
    assert!(opened >= 1, "{}", envoy.metrics().await);
    let skipped = metric("tidegate_unavailable_total{reason=\"callout-circuit-open\"}").await;
    assert!(skipped > 0, "{}", envoy.metrics().await);

    gateway.set(Script::Verdict(Verdict::Allow));
    eventually(Duration::from_secs(60), "the gateway is asked again", async || {
        let answer = client::get(envoy.addr, "/p").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    eventually(Duration::from_secs(60), "a breaker is closed again", async || {
        client::get(envoy.addr, "/p").await;
        let closed = metric(&way("closed")).await;
        if closed > 0 { Ok(()) } else { Err(closed) }
    })
    .await;
}
