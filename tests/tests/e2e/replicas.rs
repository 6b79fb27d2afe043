//! A claim has to be on a replica before its request runs, where the policy says so: a real Redis and a
//! real replica, there and stopped.

use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::orders::Orders;
use tidegate_tests::redis::Redis;

use crate::idempotency::{Bench, replayed};

const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "some", "match": {"path": "/some/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "response": "fast",
       "wait_replicas": 1, "replicas_within": "500ms", "on_too_few_replicas": "allow"}},
    {"name": "sure", "match": {"path": "/**"},
     "rate_limits": [{"name": "day", "by": "tenant", "limit": 5, "per": "day"}],
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s",
       "wait_replicas": 1, "replicas_within": "1s"}}
  ]
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_runs_once_its_claim_is_on_a_replica() {
    let redis = Redis::start_with_tcp().await;
    let mut replica = Redis::replica_of(&redis).await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Orders::start().await;
    let options = Options::new(gateway.addr, upstream.addr).config(CONFIG);
    let envoys = vec![Envoy::start(&options).await];
    let bench = Bench { redis, gateway, upstream, envoys };

    let first = bench.post("/pay", "k1", "", "{}").await;
    assert_eq!((first.status, bench.upstream.runs()), (201, 1), "{first:?}");
    assert!(replica.command(&["KEYS", "idempotency:*"]).await.contains("k1"));

    replica.process().pause();
    // More often than its limit admits: what was charged is given back with the claim.
    for nth in 1..=5 {
        let refused = bench.post("/pay", "k2", "", "{}").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.header("x-tidegate-reply"), Some("policy-store-unavailable"));
        assert_eq!(refused.header("retry-after"), Some("1"));
        bench.reaches("sure", "released", nth).await;
    }
    assert_eq!((bench.upstream.runs(), bench.counted("sure", "unavailable").await), (1, 5));
    let record = r#"{"tenant": "acme", "endpoint": "POST /pay", "key": "k2"}"#;
    let look = bench.gateway.command("/v1/idempotency/look", record).await;
    assert_eq!(look.json()["state"], "absent", "{look:?}");
    // Where the policy goes on with fewer, it is counted.
    let goes_on = bench.post("/some/pay", "k3", "", "{}").await;
    assert_eq!((goes_on.status, bench.upstream.runs()), (201, 2), "{goes_on:?}");
    assert_eq!(bench.counted("some", "too_few_replicas").await, 1);
    // What is done already needs no replica to be given again.
    let again = bench.post("/pay", "k1", "", "{}").await;
    assert!(replayed(&again), "{again:?}");

    replica.process().resume();
    let runs = tidegate_tests::eventually(crate::idempotency::WITHIN, "it is back", async || {
        let answer = bench.post("/pay", "k2", "", "{}").await;
        if answer.status == 201 { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert_eq!((replayed(&runs), bench.upstream.runs()), (false, 3));
}
