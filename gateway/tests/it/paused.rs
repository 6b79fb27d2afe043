//! A Redis Cluster one of whose masters stands still: limits of the others stay exact, those of that one have no verdict and
//! are exact again afterwards, and a decision that needs both keeps nothing of the one that answered.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tidegate_gateway::Running;
use tidegate_policy::wire::{DecideRequest, Refusal, Verdict};
use tidegate_tests::eventually;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{CALM_SOON_BACK, Caller, Speaks, decides, question, settings, start};

const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: u32 = 10;
const BEFORE: u32 = 4;
const MEANWHILE: u32 = 3;

/// Nothing comes back while the test runs.
fn daily(client: &str) -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 60_000, ..question(client) };
    let one = &mut question.limits[0];
    (one.limit, one.burst, one.period_us) = (LIMIT, LIMIT, 86_400_000_000);
    question
}

/// Of two subjects, in this order.
fn both(one: &str, two: &str) -> DecideRequest {
    let mut question = daily(one);
    let mut second = daily(two).limits.remove(0);
    second.id = "p.two".to_owned();
    question.limits.push(second);
    question
}

/// The filter goes to its ladder with a reason of the store's.
async fn fails(to: SocketAddr, asked: DecideRequest) {
    let answer = Caller::new(Speaks::Http2).decide(to, &asked).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    let refusal: Refusal = serde_json::from_slice(&answer.body).expect("a marked answer");
    assert!(["store-timeout", "store-unavailable"].contains(&&*refusal.reason), "{refusal:?}");
}

async fn admitted(gateway: &Running, client: &str, of: u32) -> u32 {
    let mut admitted = 0;
    for _ in 0..of {
        admitted += u32::from(decides(gateway, &daily(client)).await.verdict == Verdict::Allow);
    }
    admitted
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_master_that_stands_still_have_no_verdict_and_all_others_stay_exact() {
    let mut cluster = RedisCluster::start().await;
    for node in &cluster.nodes {
        // No replica takes over, however long it lasts.
        let set = node.command(&["CONFIG", "SET", "cluster-node-timeout", "600000"]).await;
        assert!(set.starts_with("+OK"), "{set}");
    }
    cluster.whole().await;
    let gateway = start(settings(&format!("--redis-url {} {CALM_SOON_BACK}", cluster.url()))).await;
    let clients: Vec<String> = (0..24).map(|n| format!("c{n}")).collect();
    for client in &clients {
        assert_eq!(admitted(&gateway, client, BEFORE).await, BEFORE);
    }
    let still = cluster.serving("ratelimit:{default|a1}:ip:203.0.113.1:p.one").await;
    let keys = cluster.nodes[still].command(&["KEYS", "ratelimit:*:ip:c*"]).await;
    let (own, others): (Vec<_>, Vec<_>) =
        clients.iter().partition(|client| keys.contains(&format!(":ip:{client}:p.one")));
    let ([first, more @ ..], [beside, others @ ..]) = (own.as_slice(), others.as_slice()) else {
        panic!("{keys}")
    };

    cluster.nodes[still].process().signal(Signal::STOP.as_raw());
    let asked = own.iter().flat_map(|client| (0..MEANWHILE).map(|_| daily(client)));
    let silent = join_all(asked.map(|asked| fails(gateway.data_addr, asked)));
    let exact = async {
        for client in others {
            let admitted = admitted(&gateway, client, 2 * LIMIT).await;
            assert_eq!(admitted, LIMIT - BEFORE, "{client}: exactly");
        }
    };
    tokio::join!(silent, exact);
    // The limit that answers is nearer to its end, so that it is asked first; the other one says nothing.
    assert_eq!(admitted(&gateway, beside, 4).await, 4);
    fails(gateway.data_addr, both(beside, first)).await;
    let mut look = daily(beside);
    look.limits[0].cost = 0;
    eventually(PATIENCE, "what was reserved is given back", async || {
        match decides(&gateway, &look).await.limits[0].remaining {
            2 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    cluster.nodes[still].process().signal(Signal::CONT.as_raw());

    // What was asked meanwhile may have been charged for nobody, as it does for whoever gives a call up.
    for client in more {
        let admitted = admitted(&gateway, client, 2 * LIMIT).await;
        let most = LIMIT - BEFORE;
        assert!((most - MEANWHILE..=most).contains(&admitted), "{client}: {admitted}");
    }
}
