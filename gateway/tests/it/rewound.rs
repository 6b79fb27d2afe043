//! A Redis that begins anew with what it held some time ago, and what looks like one: a log that lacks nothing, a replica
//! that takes over, a slot that moves.

use std::time::Duration;

use tidegate_gateway::Running;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::wire::{DecideReply, DecideRequest, Verdict};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;
use tidegate_tests::redis::sentinel::Watched;

use crate::bench::{CALM_SOON_BACK, decides, metric, question, settings, start, warm};

const PATIENCE: Duration = Duration::from_secs(60);

async fn gateway(url: &str) -> Running {
    start(settings(&format!("--redis-url {url} {CALM_SOON_BACK} --cold-start 5m"))).await
}

/// Ten an hour.
fn ten(client: &str) -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 5_000, ..question(client) };
    let limit = &mut question.limits[0];
    (limit.limit, limit.burst, limit.period_us) = (10, 10, 3_600_000_000);
    limit.algorithm = Algorithm::Window;
    question
}

/// The limit that is in force if it is a reduced one, and what is left of it.
async fn stands(gateway: &Running, client: &str) -> (Option<u32>, u64) {
    let DecideReply { verdict, limits, .. } = decides(gateway, &ten(client)).await;
    assert!(verdict == Verdict::Allow || limits[0].remaining == 0, "{limits:?}");
    (limits[0].limit, limits[0].remaining)
}

async fn rewound(gateway: &Running) -> f64 {
    metric(gateway, "tidegate_gateway_store_rewound_total").await
}

async fn saves(redis: &Redis) {
    assert_eq!(redis.command(&["SAVE"]).await.trim(), "+OK");
}

async fn keeps_its_place(replica: &Redis) {
    let words = ["CONFIG", "SET", "cluster-replica-no-failover", "yes"];
    assert_eq!(replica.command(&words).await.trim(), "+OK");
}

/// A gateway that was there, and one that begins only afterwards.
#[tokio::test]
async fn a_redis_that_restarts_from_a_snapshot_has_a_cold_region() {
    let mut redis = Redis::start().await;
    for client in ["whoever lives on", "whoever comes later"] {
        let before = gateway(&redis.url()).await;
        warm(&before).await;
        for used in 1..=4 {
            assert_eq!(stands(&before, client).await, (None, 10 - used));
        }
        saves(&redis).await;
        for used in 5..=10 {
            assert_eq!(stands(&before, client).await, (None, 10 - used));
        }
        let after = if client.ends_with("on") {
            redis.restart().await;
            before
        } else {
            before.shutdown().await;
            redis.restart().await;
            gateway(&redis.url()).await
        };
        // The snapshot has four, and half of ten is five: whole, another six would have been admitted.
        assert_eq!(stands(&after, client).await, (Some(5), 0), "{client}");
        assert!(rewound(&after).await >= 1.0, "{client}");
        let found = rewound(&after).await;
        warm(&after).await;
        assert_eq!(stands(&after, client).await, (None, 4), "an operator knows better: {client}");
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert_eq!(stands(&after, client).await, (None, 3), "opened anew, and it is the same run");
        assert_eq!(rewound(&after).await, found, "{client}");
    }
}

/// With a replica its master takes over the history of its own snapshot, as a replica takes over its master's.
#[tokio::test]
async fn a_snapshot_of_a_master_with_a_replica_is_no_failover() {
    let mut redis = Redis::start_with_tcp().await;
    let replica = Redis::replica_of(&redis).await;
    let gateway = gateway(&redis.url()).await;
    warm(&gateway).await;
    assert_eq!(stands(&gateway, "a").await, (None, 9));
    let history = |info: &str, name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        line.expect("a history")
    };
    let before = redis.command(&["INFO", "replication"]).await;
    saves(&redis).await;
    redis.restart().await;
    let after = redis.command(&["INFO", "replication"]).await;
    assert_eq!(history(&before, "master_replid:"), history(&after, "master_replid2:"));
    assert_eq!(stands(&gateway, "a").await.0, Some(5));
    drop(replica);
}

#[tokio::test]
async fn a_redis_that_restarts_from_its_log_stays_warm() {
    let mut redis = Redis::start_durable().await;
    let gateway = gateway(&redis.url()).await;
    warm(&gateway).await;
    assert_eq!(stands(&gateway, "a").await, (None, 9));
    redis.restart().await;
    assert_eq!(stands(&gateway, "a").await, (None, 8));
    assert_eq!(rewound(&gateway).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_takes_over_stays_warm() {
    let mut watched = Watched::start().await;
    let gateway = gateway(&watched.url()).await;
    warm(&gateway).await;
    assert_eq!(stands(&gateway, "a").await, (None, 9));
    eventually(PATIENCE, "the replica has it all", async || {
        let acknowledged = watched.master.command(&["WAIT", "1", "1000"]).await;
        if acknowledged.starts_with(":1") { Ok(()) } else { Err(acknowledged) }
    })
    .await;
    watched.fails_over_soon().await;
    watched.master.process().kill();
    assert_eq!(stands(&gateway, "a").await, (None, 8));
    assert_eq!(rewound(&gateway).await, 0.0);
}

/// The shards of the node that began anew are cold, no others; and a shard whose slot moves stays what it is.
#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_the_shards_of_the_node_that_restarts_are_cold() {
    const KEY: &str = "ratelimit:{default|a1}:ip:203.0.113.1:p.one:W3600";
    let mut cluster = RedisCluster::start().await;
    for replica in &cluster.nodes[3..] {
        keeps_its_place(replica).await;
    }
    let gateway = gateway(&cluster.url()).await;
    decides(&gateway, &ten("203.0.113.1")).await;
    warm(&gateway).await;
    let to = (cluster.serving(KEY).await + 1) % 3;
    cluster.move_slot(KEY, to).await;
    assert_eq!(stands(&gateway, "203.0.113.1").await.0, None);
    // Whoever connects now finds the run of another node beside the mark.
    let other = self::gateway(&cluster.url()).await;
    assert_eq!(stands(&other, "203.0.113.1").await.0, None, "moved");
    assert_eq!(rewound(&other).await, 0.0);
    saves(&cluster.nodes[to]).await;
    cluster.nodes[to].restart().await;
    assert_eq!(stands(&gateway, "203.0.113.1").await.0, Some(5));
    let mut warm = 0;
    for client in 0..40 {
        warm += usize::from(stands(&gateway, &format!("198.51.100.{client}")).await.0.is_none());
    }
    assert!((1..40).contains(&warm), "{warm} of 40 lie on the other two nodes");
}

/// As where addresses are given anew at each start.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_under_another_address_has_a_cold_region() {
    const MARK: &str = "ratelimit:{default|a1}:start";
    const CLIENT: &str = "203.0.113.1";
    let mut cluster = RedisCluster::start().await;
    for replica in &cluster.nodes[3..] {
        keeps_its_place(replica).await;
    }
    let gateway = gateway(&cluster.url()).await;
    decides(&gateway, &ten(CLIENT)).await;
    warm(&gateway).await;
    assert_eq!(stands(&gateway, CLIENT).await.0, None);
    let node = cluster.serving(MARK).await;
    saves(&cluster.nodes[node]).await;
    cluster.nodes[node].restart_elsewhere().await;
    assert_eq!(stands(&gateway, CLIENT).await.0, Some(5));
    let run = cluster.nodes[node].command(&["GET", "ratelimit:{default|a1}:run"]).await;
    assert!(run.trim().ends_with(&cluster.id(node).await), "{run}");
}

/// Its marks cannot be looked at, and those of the others can.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_no_node_serves_keeps_nobody_from_the_others() {
    let cluster = RedisCluster::start().await;
    let slot = cluster.nodes[0].command(&["CLUSTER", "KEYSLOT", "ratelimit:{default|00}:run"]);
    let slot = slot.await.trim().trim_start_matches(':').to_owned();
    for node in &cluster.nodes {
        let partly = ["CONFIG", "SET", "cluster-require-full-coverage", "no"];
        assert_eq!(node.command(&partly).await.trim(), "+OK");
    }
    for node in &cluster.nodes {
        assert_eq!(node.command(&["CLUSTER", "DELSLOTS", &slot]).await.trim(), "+OK");
    }
    let gateway = gateway(&cluster.url()).await;
    for client in 0..10 {
        assert_eq!(stands(&gateway, &format!("client-{client}")).await, (Some(5), 4));
    }
}
