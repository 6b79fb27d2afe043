//! Servers of a Cluster, and Sentinels, that say what the others do not: one that lost its memory, or is parted from
//! them.

use std::time::Duration;

use tidegate_policy::wire::DecideRequest;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;
use tidegate_tests::redis::sentinel::Watched;

use crate::bench::{Caller, Speaks, decides, question, settings, start};

const PATIENCE: Duration = Duration::from_secs(60);
/// More looks at the map than it takes to ask every node once.
const LOOKS: usize = 20;

async fn slots(node: &Redis) -> String {
    node.command(&["CLUSTER", "SLOTS"]).await
}

/// The others are slower, so it is the only one that answers at first.
#[tokio::test]
async fn a_node_of_no_cluster_that_comes_first_keeps_nobody_from_the_others() {
    let mut cluster = RedisCluster::start().await;
    let blank = Redis::start_with_words(None, &["--cluster-enabled", "yes"]).await;
    let url = cluster.url().replacen("//", &format!("//127.0.0.1:{},", blank.tcp_port()), 1);
    cluster.nodes.iter_mut().for_each(|node| node.process().pause());
    let gateway = start(settings(&format!("--redis-url {url}"))).await;
    eventually(PATIENCE, "it was asked", async || {
        let asked = blank.command(&["INFO", "commandstats"]).await;
        if asked.contains("cluster|slots") { Ok(()) } else { Err(asked) }
    })
    .await;
    cluster.nodes.iter_mut().for_each(|node| node.process().resume());
    decides(&gateway, &question("a")).await;
}

/// It is asked first: its name is the lowest.
#[tokio::test]
async fn a_master_that_lost_its_memory_takes_the_map_of_no_other_away() {
    let cluster = RedisCluster::start().await;
    let gateway = start(settings(&format!("--redis-url {}", cluster.url()))).await;
    let lost = (0..3).min_by_key(|node| format!("127.0.0.1:{}", cluster.nodes[*node].tcp_port()));
    let lost = lost.expect("three");
    let mut by_node: [Option<DecideRequest>; 3] = Default::default();
    for number in 0..200 {
        let asked = question(&format!("203.0.113.{number}"));
        decides(&gateway, &asked).await;
        for (node, first) in cluster.nodes[..3].iter().zip(&mut by_node) {
            let keys = node.command(&["KEYS", &format!("*203.0.113.{number}:*")]).await;
            if keys.trim() != "*0" && first.is_none() {
                *first = Some(asked.clone());
            }
        }
        if by_node.iter().all(Option::is_some) {
            break;
        }
    }
    let node = &cluster.nodes[lost];
    node.command(&["FLUSHALL"]).await;
    assert_eq!(node.command(&["CLUSTER", "RESET", "HARD"]).await.trim(), "+OK");
    assert_eq!(slots(node).await.trim(), "*0");
    let caller = Caller::new(Speaks::Http2);
    let mut failed = 0;
    for look in 0..LOOKS {
        // That it cannot be found makes the gateway look at the map again.
        let asked = by_node[lost].as_ref().expect("a key of it");
        eventually(PATIENCE, "an answer", async || {
            let answer = caller.decide(gateway.data_addr, asked).await;
            failed += usize::from(answer.status != 200);
            if answer.status == 200 || failed > look { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        for other in (0..3).filter(|other| *other != lost) {
            let asked = by_node[other].as_ref().expect("a key of it");
            let answer = caller.decide(gateway.data_addr, asked).await;
            assert_eq!(answer.status, 200, "{look}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn one_sentinel_is_not_believed_against_the_others() {
    let mut watched = Watched::start().await;
    let other = Redis::start_with_tcp().await;
    watched.part_one(&other).await;
    let gateway = start(settings(&format!("--redis-url {}", watched.url()))).await;
    decides(&gateway, &question("a")).await;
    let keys = async |redis: &Redis| redis.command(&["KEYS", "ratelimit*"]).await;
    assert_eq!(keys(&other).await.trim(), "*0");
    assert_ne!(keys(&watched.master).await.trim(), "*0");
}

/// A master that the Sentinels cannot reach any more, nor its replica: the gateway can, and it stays a master of its own mind.
#[tokio::test(flavor = "multi_thread")]
async fn a_master_in_whose_place_the_sentinels_name_another_is_charged_no_more() {
    const KEEPER: &str = "keeper:secret@";
    let watched = Watched::start().await;
    let (old, new) = (&watched.master, &watched.replica);
    let words = ["ACL", "SETUSER", "keeper", "on", ">secret", "~*", "&*", "+@all"];
    for server in [old, new] {
        assert_eq!(server.command(&words).await.trim(), "+OK");
    }
    let flags = format!("--redis-url {} --redis-connections 3", watched.url_as(KEEPER));
    let gateway = start(settings(&flags)).await;
    decides(&gateway, &question("before")).await;
    eventually(PATIENCE, "the replica has it", async || {
        let keys = new.command(&["KEYS", "*:ip:before:*"]).await;
        if keys.trim() == "*0" { Err(keys) } else { Ok(()) }
    })
    .await;
    watched.fails_over_soon().await;
    // To whoever is not told of the other user it is down.
    assert_eq!(old.command(&["ACL", "SETUSER", "default", "-@all"]).await.trim(), "+OK");
    eventually(PATIENCE, "the replica takes over", async || {
        // A Sentinel that promotes it ends its connections.
        let role = new.try_command(&["ROLE"]).await;
        if role.as_ref().is_ok_and(|role| role.contains("master")) { Ok(()) } else { Err(role) }
    })
    .await;
    let url = format!("redis://{KEEPER}127.0.0.1:{}", old.tcp_port());
    let client = redis::Client::open(url).expect("a URL");
    let mut keeper = client.get_multiplexed_async_connection().await.expect("a connection");
    let mut turn = 0;
    let mut lies = async |count: usize| {
        let mut there = 0;
        for _ in 0..count {
            turn += 1;
            decides(&gateway, &question(&format!("after-{turn}-"))).await;
            let keys = new.command(&["KEYS", &format!("*:ip:after-{turn}-:*")]).await;
            there += usize::from(keys.trim() != "*0");
        }
        there
    };
    // The connections take turns.
    eventually(PATIENCE, "all connections lead to it", async || match lies(9).await {
        9 => Ok(()),
        fewer => Err(fewer),
    })
    .await;
    let role: redis::Value = redis::cmd("ROLE").query_async(&mut keeper).await.expect("a role");
    assert!(format!("{role:?}").contains("master"), "{role:?}");
    assert_eq!(lies(30).await, 30, "and none goes back");
}
