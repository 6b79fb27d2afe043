//! A failover that loses a record: a real master with a replica, and Sentinels that make the replica the master.
//! The replica is cut off before the claim is made, so that the claim is on the master alone when it dies.

use std::time::Duration;

use tidegate_tests::client::Answer;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::orders::Orders;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::sentinel::Watched;

use crate::idempotency::{lines, replayed, told};

const WITHIN: Duration = Duration::from_secs(90);
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "sure", "match": {"path": "/sure/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "60s", "store": {"headers": ["x-order"]},
       "wait_replicas": 1, "replicas_within": "500ms"}},
    {"name": "orders", "match": {"path": "/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "60s", "store": {"headers": ["x-order"]}}}
  ]
}"#;

struct Bench {
    servers: Watched,
    _gateway: Gateway,
    upstream: Orders,
    envoy: Envoy,
}

async fn bench() -> Bench {
    let servers = Watched::start().await;
    let options = gateway::Options::redis(&servers.url()).flags(&ROOMY);
    let gateway = Gateway::start(&options).await;
    let upstream = Orders::start().await;
    let options = Options::new(gateway.addr, upstream.addr).config(CONFIG);
    let envoy = Envoy::start(&options).await;
    Bench { servers, _gateway: gateway, upstream, envoy }
}

impl Bench {
    async fn post(&self, path: &str, key: &str) -> Answer {
        tidegate_tests::client::post(self.envoy.addr, path, &lines(key, ""), "{}").await
    }

    /// Until the store can be asked.
    async fn asked(&self, path: &str, key: &str) -> Answer {
        eventually(WITHIN, "the store is asked", async || {
            let answer = self.post(path, key).await;
            if answer.status == 503 { Err(answer) } else { Ok(answer) }
        })
        .await
    }

    /// The replica hears nothing any more, and is none the worse for it.
    async fn cut_off(&self) {
        let master = &self.servers.master;
        master.command(&["ACL", "SETUSER", "default", "-psync", "-sync"]).await;
        master.command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
        eventually(WITHIN, "the replica is cut off", async || {
            let told = master.command(&["INFO", "replication"]).await;
            if told.contains("connected_slaves:0") { Ok(()) } else { Err(told) }
        })
        .await;
    }

    async fn fail_over(&mut self) {
        self.servers.fails_over_soon().await;
        self.servers.master.process().kill();
        eventually(WITHIN, "the replica is the master", async || {
            // A Sentinel ends the connections of whom it makes the master.
            let told = self.servers.replica.try_command(&["INFO", "replication"]).await;
            let told = told.map_err(|error| error.to_string())?;
            if told.contains("role:master") { Ok(()) } else { Err(told) }
        })
        .await;
    }
}

/// Whether the record of a key of `POST /orders` says that it is done: its first octets are the format and the state.
async fn is_done(redis: &Redis, key: &str) -> bool {
    let name = format!("idempotency:tenant:acme:ep:POST%20%2Forders:{key}");
    redis.command(&["GETRANGE", &name, "0", "1"]).await == "$2\r\n\u{1}\u{2}\r\n"
}

async fn holds(redis: &Redis, key: &str) -> bool {
    redis.command(&["KEYS", "idempotency:*"]).await.contains(key)
}

/// What was replicated outlives the master; what was not is lost, and a retry runs again.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_loses_the_record_runs_it_twice_unless_a_replica_was_waited_for() {
    let mut bench = bench().await;
    let before = bench.asked("/orders", "before").await;
    let sure = bench.asked("/sure/orders", "before").await;
    assert_eq!((before.status, sure.status, bench.upstream.runs()), (201, 201, 2));
    eventually(WITHIN, "the answer is replicated", async || {
        // Not its claim alone.
        let names = bench.servers.replica.command(&["KEYS", "idempotency:*"]).await;
        let there = is_done(&bench.servers.replica, "before").await;
        if there { Ok(()) } else { Err(names) }
    })
    .await;

    bench.cut_off().await;
    let lost = bench.post("/orders", "lost").await;
    assert_eq!((lost.status, bench.upstream.runs()), (201, 3), "{lost:?}");
    assert!(!holds(&bench.servers.replica, "lost").await);
    // Whoever asks for a replica is told now, and nothing runs.
    let refused = bench.post("/sure/orders", "lost").await;
    assert_eq!(refused.header("x-tidegate-reply"), Some("policy-store-unavailable"));
    assert_eq!((refused.status, bench.upstream.runs()), (503, 3), "{refused:?}");

    bench.fail_over().await;
    let kept = bench.asked("/orders", "before").await;
    assert_eq!((told(&kept), replayed(&kept)), (told(&before), true));
    let again = bench.asked("/orders", "lost").await;
    assert!(!replayed(&again) && told(&again) != told(&lost), "{again:?}");
    assert_eq!((again.status, bench.upstream.runs()), (201, 4), "twice, and nobody is told");
    let third = bench.post("/orders", "lost").await;
    assert_eq!((told(&third), replayed(&third)), (told(&again), true), "the second run's answer");
}
