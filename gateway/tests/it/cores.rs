//! A gateway of several threads: one limit among them, connections on each, and the end of all.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::{Cores, Gateway, Running, Settings, World};
use tidegate_policy::wire::Verdict;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tokio::task::JoinSet;

use crate::bench::{BOTH, CALM_SOON_BACK, Caller, VIEWER, decides, question, settings};

const CALLERS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(settings: Settings) -> Running {
    let cores = Cores::start(settings.cores).expect("threads");
    let world = World::from_settings(&settings, cores).expect("a world");
    Gateway::start(settings, world).await.expect("a gateway")
}

#[tokio::test]
async fn threads_share_each_limit_and_all_have_a_connection_to_redis() {
    let redis = Redis::start().await;
    let at_redis = format!("--redis-url {} {CALM_SOON_BACK} --cores 3", redis.url());
    for flags in [at_redis, format!("{CALM_SOON_BACK} --cores 3")] {
        let gateway = Arc::new(start(settings(&flags)).await);
        decides(&gateway, &question("first")).await;
        for speaks in BOTH {
            let question = question(&format!("{speaks:?}"));
            let mut callers = JoinSet::new();
            for _ in 0..CALLERS {
                let (gateway, question) = (Arc::clone(&gateway), question.clone());
                callers.spawn(async move {
                    let caller = Caller::new(speaks);
                    let mut admitted = 0;
                    for _ in 0..4 {
                        let answer = caller.decide(gateway.data_addr, &question).await;
                        admitted += usize::from(answer.verdict().verdict == Verdict::Allow);
                    }
                    admitted
                });
            }
            let admitted: usize = callers.join_all().await.into_iter().sum();
            assert_eq!(admitted, 5, "{speaks:?}, whichever thread is asked");
        }
        if flags.contains("--redis-url") {
            all_connected(&gateway).await;
        }
        let gateway = Arc::into_inner(gateway).expect("nobody else holds it");
        assert!(gateway.shutdown().await, "all threads have finished what they had");
    }
}

async fn all_connected(gateway: &Running) {
    let caller = Caller::new(BOTH[0]);
    eventually(PATIENCE, "each thread has its connection", async || {
        let text = caller.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
        let up = "tidegate_gateway_store_connections_up{role=\"regional\"} 3\n";
        text.contains(up).then_some(()).ok_or(text)
    })
    .await;
}
