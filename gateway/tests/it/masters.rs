//! What is done at every master of a Cluster, or at one server from time to time: the probe, an operator's word on
//! the region, and the look at what becomes of keys when the memory is full.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tidegate_gateway::clock::Clock;
use tidegate_gateway::store::redis::RedisStore;
use tidegate_gateway::store::redis::place::Place;
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_gateway::{Cores, Running};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{
    self, ADMIN, Answer, Caller, Speaks, decides, question, request, settings, start,
};
use crate::redis_store;
use crate::redis_store::swift::Swift;

const PATIENCE: Duration = Duration::from_secs(60);

async fn set(redis: &Redis, name: &str, value: &str) {
    let reply = redis.command(&["CONFIG", "SET", name, value]).await;
    assert!(reply.starts_with("+OK"), "{reply}");
}

async fn full(redis: &Redis, is_full: bool) {
    set(redis, "maxmemory", if is_full { "1" } else { "0" }).await;
}

/// A full master answers a PING, and fails every decision that falls to it.
#[tokio::test]
async fn the_probe_fails_while_one_master_of_a_cluster_takes_no_writes() {
    let cluster = RedisCluster::start().await;
    let store = redis_store::start_at(&cluster.url()).await;
    for master in &cluster.nodes[..3] {
        let keys = master.command(&["KEYS", "*"]).await;
        let probes: Vec<&str> = keys.lines().filter(|line| line.contains("probe")).collect();
        assert!(probes.len() == 1 && probes[0].starts_with("tidegate:probe:"), "{keys}");
        let ttl = master.command(&["PTTL", probes[0]]).await;
        let ttl: i64 = ttl.trim().trim_start_matches(':').parse().expect("a number");
        assert!((1..=5_000).contains(&ttl), "{ttl}");
        full(master, true).await;
        let failure = store.probe().await.expect_err("it is full").to_string();
        assert!(failure.contains("OOM"), "{failure}");
        full(master, false).await;
        assert_eq!(store.probe().await, Ok(()));
    }
}

/// Ends a move: both nodes say who serves the slot now.
async fn served_by(cluster: &RedisCluster, slot: &str, nodes: [usize; 2], id: &str) {
    for node in nodes {
        let words = ["CLUSTER", "SETSLOT", slot, "NODE", id];
        assert!(cluster.nodes[node].command(&words).await.starts_with("+OK"));
    }
}

#[tokio::test]
async fn the_probe_follows_a_slot_that_moves_from_under_it() {
    let cluster = RedisCluster::start().await;
    let store = redis_store::start_at(&cluster.url()).await;
    let keys = cluster.nodes[0].command(&["KEYS", "tidegate:probe:*"]).await;
    let probe =
        keys.lines().find(|line| line.starts_with("tidegate:")).expect("a probe").to_owned();
    let (slot, from) = cluster.begin_move(&probe, 1).await;
    assert_eq!((from, store.probe().await), (0, Ok(())), "of two masters");
    let to = cluster.id(1).await;
    served_by(&cluster, &slot, [1, 0], &to).await;
    assert_eq!(store.probe().await, Ok(()), "of another");
    full(&cluster.nodes[0], true).await;
    eventually(PATIENCE, "it has another key there", async || match store.probe().await {
        Ok(()) => Err("up"),
        Err(_full) => Ok(()),
    })
    .await;
}

async fn region(gateway: &Running, temperature: &str) -> Answer {
    let body = format!(r#"{{"temperature": "{temperature}"}}"#);
    let call = request(gateway.admin_addr, Method::POST, "/v1/region", Some(ADMIN), body);
    Caller::new(Speaks::Http1).send(call).await
}

async fn of_a_warm_region(cluster: &RedisCluster) -> Running {
    let flags = format!("--cold-start 5m --redis-url {}", cluster.url());
    let gateway = start(settings(&flags)).await;
    decides(&gateway, &question("a")).await;
    bench::warm(&gateway).await;
    gateway
}

/// How many marks of a region there say that it is old, and how many there are.
async fn warm(master: &Redis) -> (usize, usize) {
    let keys = master.command(&["KEYS", "ratelimit:*:start"]).await;
    let marks: Vec<&str> = keys.lines().filter(|line| line.starts_with("ratelimit:")).collect();
    let mut warm = 0;
    for mark in &marks {
        warm += usize::from(master.command(&["GET", mark]).await.ends_with("\r\n0\r\n"));
    }
    (warm, marks.len())
}

/// Cold is what a restored backup has to be made: whoever is told that nothing was done has half of a region warm.
#[tokio::test]
async fn an_order_to_a_region_reaches_every_master_that_can_and_names_the_others() {
    let cluster = RedisCluster::start().await;
    let gateway = of_a_warm_region(&cluster).await;
    for broken in 0..3 {
        full(&cluster.nodes[broken], true).await;
        let told = region(&gateway, "cold").await;
        assert_eq!(told.status, 503);
        let first = [0, 5_461, 10_922][broken];
        let expected = format!(
            "not carried out by the master of slot {first} (store-error); by all others it was"
        );
        assert!(told.text().contains(&expected), "{}", told.text());
        for (index, master) in cluster.nodes[..3].iter().enumerate() {
            let (warm, all) = warm(master).await;
            assert_eq!(warm, if index == broken { all } else { 0 }, "{index} of {broken}: {all}");
        }
        full(&cluster.nodes[broken], false).await;
        assert_eq!(region(&gateway, "warm").await.status, 200);
    }
    for master in &cluster.nodes[..3] {
        full(master, true).await;
    }
    let text = region(&gateway, "cold").await.text();
    assert!(text.contains("the store did not carry it out"), "{text}");
}

/// An order follows a slot as every call does, while it moves and before the gateway's map says so.
#[tokio::test]
async fn an_order_to_a_region_follows_a_slot_that_moves() {
    let cluster = RedisCluster::start().await;
    let gateway = of_a_warm_region(&cluster).await;
    let all_warm = async || {
        let mut sum = (0, 0);
        for master in &cluster.nodes[..3] {
            let (warm, all) = warm(master).await;
            sum = (sum.0 + warm, sum.1 + all);
        }
        sum
    };
    let (warm_before, all) = all_warm().await;
    assert!(warm_before == all && all > 0, "{warm_before} of {all}");
    let keys = cluster.nodes[0].command(&["KEYS", "ratelimit:*:start"]).await;
    let mark = keys.lines().find(|line| line.starts_with("ratelimit:")).expect("a mark");
    let (slot, from) = cluster.begin_move(mark, 1).await;
    assert_eq!(from, 0);
    let told = region(&gateway, "cold").await;
    assert_eq!(told.status, 200, "on its way: {}", told.text());
    served_by(&cluster, &slot, [1, 0], &cluster.id(1).await).await;
    assert_eq!(all_warm().await, (0, all), "that one as well");
    let told = region(&gateway, "warm").await;
    assert_eq!(told.status, 200, "moved: {}", told.text());
    assert_eq!(all_warm().await, (all, all));
}

/// Whatever the region's guard: without marks there is as much to lose.
#[tokio::test]
async fn a_redis_that_throws_keys_away_is_noticed_without_a_guard_and_behind_a_node_that_fails() {
    let (one, cluster) = (Redis::start().await, RedisCluster::start().await);
    let guard = Some(Duration::from_secs(300));
    for (redis, url, cold) in [
        (&one, one.url(), None),
        (&cluster.nodes[2], cluster.url(), None),
        (&cluster.nodes[2], cluster.url(), guard),
    ] {
        let mut settings = redis_store::settings(&one);
        settings.place = Place::parse(&url).expect("a URL");
        settings.region.cold = cold;
        let (clock, counters): (Arc<dyn Clock>, _) =
            (Arc::new(Swift::default()), StoreCounters::default());
        let cores = Arc::new(Cores::here());
        let store = RedisStore::start(&settings, &cores, &clock, counters.clone()).expect("one");
        eventually(PATIENCE, "it is connected", async || store.probe().await).await;
        assert_eq!(counters.evicting.get(), 0);
        full(&cluster.nodes[0], cold.is_some()).await;
        set(redis, "maxmemory", "1000000000").await;
        set(redis, "maxmemory-policy", "allkeys-lru").await;
        eventually(PATIENCE, "it is noticed", async || {
            if counters.evicting.get() > 0 { Ok(()) } else { Err(url.as_str()) }
        })
        .await;
        set(redis, "maxmemory-policy", "noeviction").await;
    }
}
