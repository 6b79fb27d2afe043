//! One of two connections to Redis that swallows everything, as behind a NAT that forgot it; Redis and the other are well.

use std::time::Duration;

use tidegate_gateway::{Cores, Gateway, World};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{Caller, Speaks, decides, metric, question, settings};
use crate::proxy::{Mode, Proxy};
use crate::redis_store;

const PATIENCE: Duration = Duration::from_secs(60);
/// The deadline is behind the response timeout, so that an answer that does not come is the store's.
const FLAGS: &str = "--cores 2 --deadline 10s --pool-wait 5s --redis-response-timeout 2s --store-breaker-open 200ms";

#[tokio::test(flavor = "multi_thread")]
async fn no_decision_waits_for_a_connection_that_is_silent_while_another_answers() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.socket()).await;
    let settings = settings(&format!("--redis-url {} {FLAGS}", proxy.url()));
    let cores = Cores::start(settings.cores).expect("threads");
    let world = World::from_settings(&settings, cores).expect("a world");
    let gateway = Gateway::start(settings, world).await.expect("a gateway");
    decides(&gateway, &question("first")).await;
    let up = async |expected: f64| {
        eventually(PATIENCE, "so many are up", async || {
            let up = metric(&gateway, "tidegate_gateway_store_connections_up{role=\"regional\"}");
            match up.await {
                up if up == expected => Ok(()),
                up => Err(up),
            }
        })
        .await;
    };
    up(2.0).await;
    // No new one takes its place meanwhile. Nobody asks: the probe finds out.
    proxy.set(Mode::SwallowFirstAndNew);
    up(1.0).await;
    // More connections than threads, so that both threads are asked.
    for nth in 0..12 {
        let (caller, asked) = (Caller::new(Speaks::Http2), question(&format!("client-{nth}")));
        for _ in 0..4 {
            let answer = caller.decide(gateway.data_addr, &asked).await;
            assert_eq!(answer.status, 200, "{nth}: {}", answer.text());
        }
    }
    assert_eq!(metric(&gateway, "tidegate_gateway_store_up{role=\"regional\"}").await, 1.0);
    proxy.set(Mode::Forward);
    up(2.0).await;
    assert!(metric(&gateway, "tidegate_gateway_store_reconnects_total").await >= 1.0);
}

/// Each second over each connection, which no NAT then takes for idle; and the connections to the other nodes as well.
#[tokio::test]
async fn every_connection_is_probed() {
    let cluster = RedisCluster::start().await;
    let one = Redis::start().await;
    let rows = [(one.url(), vec![&one]), (cluster.url(), cluster.nodes[..3].iter().collect())];
    for (url, masters) in rows {
        let store = redis_store::start_at(&url).await;
        for master in masters {
            eventually(PATIENCE, "both connections have written", async || {
                tidegate_gateway::store::Store::probe(&store).await.map_err(|e| e.to_string())?;
                let clients = master.command(&["CLIENT", "LIST"]).await;
                let wrote = clients.lines().filter(|line| line.contains(" cmd=set ")).count();
                if wrote >= 2 { Ok(()) } else { Err(clients) }
            })
            .await;
        }
    }
}
