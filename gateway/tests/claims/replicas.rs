//! Waiting for real replicas: those that are there, that are stopped, and that are none.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::store::claims::Spread;
use tidegate_gateway::store::redis::RedisStore;
use tidegate_policy::idempotency::record::{Abandoned, Begun, Found, Held};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{TTL_MS, claim, claims, name, owner, store};

const CLAIMED: Begun = Begun::Claimed { fence: 1, taken_over: false };
/// For those who wait for nobody that could answer.
const SOON: Duration = Duration::from_millis(200);
/// Longer than any test takes: whoever waits that long does so until somebody answers.
const LONG: Duration = Duration::from_secs(60);

fn on(replicas: u8, within: Duration) -> Spread {
    Spread { replicas, within }
}

/// Claims a key and waits for replicas, until they answer.
fn waits(store: &Arc<RedisStore>, key: &str, number: u128, on: Spread) -> JoinHandle<u8> {
    let (store, name) = (Arc::clone(store), name("acme", key));
    tokio::spawn(async move {
        let claims = claims(store.as_ref());
        assert_eq!(claims.begin(&name, &claim(number)).await, Ok(CLAIMED));
        claims.replicated(&name, &claim(number), 1, on).await.expect("an answer")
    })
}

/// Until one of Redis's clients is kept waiting, and has sent more than it was answered for if it has to.
async fn blocked(master: &Redis, more: bool) {
    eventually(LONG, "a client that waits", async || {
        let told = master.command(&["CLIENT", "LIST"]).await;
        let is = |line: &&str| line.contains(" flags=b") && line.contains(" qbuf=0 ") != more;
        if told.lines().any(|line| is(&line)) { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_on_as_many_replicas_as_say_so() {
    let master = Redis::start_with_tcp().await;
    let mut replica = Redis::replica_of(&master).await;
    let store = store(&master).await;
    let claims = claims(&store);
    let name = name("acme", "k");
    assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
    let patient = on(1, Duration::from_secs(2));
    assert_eq!(claims.replicated(&name, &claim(1), 1, patient).await, Ok(1));
    let held = replica.command(&["EXISTS", name.as_str()]).await;
    assert!(held.starts_with(":1"), "{held}");
    assert_eq!(
        claims.replicated(&name, &claim(1), 1, on(2, Duration::from_secs(2))).await,
        Ok(1),
        "one of two"
    );

    // Whoever is stopped says nothing, though its connection is open.
    replica.process().pause();
    for replicas in [1, 2] {
        let counted = claims.replicated(&name, &claim(1), 1, on(replicas, SOON)).await;
        assert_eq!(counted, Ok(0), "{replicas}");
    }
    replica.process().resume();
    eventually(Duration::from_secs(60), "it is back", async || {
        match claims.replicated(&name, &claim(1), 1, patient).await {
            Ok(1) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    replica.process().kill();
    assert_eq!(claims.replicated(&name, &claim(1), 1, on(1, SOON)).await, Ok(0));
}

/// A claim that is another by now, given back or done is not waited for: the first word on it was lost,
/// or is over.
#[tokio::test]
async fn only_the_very_claim_is_waited_for() {
    let master = Redis::start_with_tcp().await;
    let _replica = Redis::replica_of(&master).await;
    let store = store(&master).await;
    let claims = claims(&store);
    let name = name("acme", "k");
    let patient = on(1, Duration::from_secs(2));
    assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
    assert_eq!(claims.replicated(&name, &claim(1), 2, patient).await, Ok(0), "of another fence");
    assert_eq!(claims.replicated(&name, &claim(2), 1, patient).await, Ok(0), "of another owner");
    let held = Held { owner: owner(1), fence: 1 };
    claims.abandon(&name, held, TTL_MS).await.expect("given back");
    assert_eq!(claims.replicated(&name, &claim(1), 1, patient).await, Ok(0), "given back");
    assert_eq!(claims.begin(&name, &claim(1)).await, Ok(Begun::Spent), "and it stays so");
}

/// What a claim sent behind somebody else's WAIT runs when that ends, whoever gave up meanwhile: it claims nothing.
#[tokio::test]
async fn who_gave_up_waiting_claims_nothing_later() {
    let master = Redis::start_with_tcp().await;
    let mut replica = Redis::replica_of(&master).await;
    let store = Arc::new(store(&master).await);
    let claims = claims(store.as_ref());
    replica.process().pause();
    let first = waits(&store, "first", 1, on(1, LONG));
    blocked(&master, false).await;

    let late = waits(&store, "k", 2, on(1, LONG));
    blocked(&master, true).await;
    late.abort();
    let name = name("acme", "k");
    let give_back = async |number, fence| {
        let held = Held { owner: owner(number), fence };
        assert_eq!(claims.abandon(&name, held, TTL_MS).await, Ok(Abandoned::Freed));
    };
    give_back(2, 1).await;
    // The next one fared no better.
    let second = Begun::Claimed { fence: 2, taken_over: false };
    assert_eq!(claims.begin(&name, &claim(3)).await, Ok(second));
    give_back(3, 2).await;

    replica.process().resume();
    assert_eq!(first.await.expect("no panic"), 1);
    // Over the same connection, so behind what was left there.
    assert_eq!(waits(&store, "last", 4, on(1, LONG)).await.expect("no panic"), 1);
    let third = Begun::Claimed { fence: 3, taken_over: false };
    assert_eq!(claims.begin(&name, &claim(5)).await, Ok(third), "nobody is at it");
}

#[tokio::test]
async fn who_needs_few_replicas_does_not_stand_behind_who_needs_more() {
    let master = Redis::start_with_tcp().await;
    let (_one, mut other) = (Redis::replica_of(&master).await, Redis::replica_of(&master).await);
    let store = Arc::new(store(&master).await);
    other.process().pause();
    let two = waits(&store, "two", 1, on(2, LONG));
    blocked(&master, false).await;
    assert_eq!(waits(&store, "one", 2, on(1, LONG)).await.expect("no panic"), 1);
    assert!(!two.is_finished(), "the other one waits on");
    other.process().resume();
    assert_eq!(two.await.expect("no panic"), 2);
}

#[tokio::test]
async fn who_waits_keeps_nobody_else_waiting_and_one_wait_serves_many() {
    let master = Redis::start_with_tcp().await;
    let replica = &mut Redis::replica_of(&master).await;
    let store = Arc::new(store(&master).await);
    replica.process().pause();
    let mut waiting = JoinSet::new();
    for number in 1..=100 {
        let store = Arc::clone(&store);
        waiting.spawn(async move {
            let claims = claims(&*store);
            let name = name("acme", &format!("k{number}"));
            assert_eq!(claims.begin(&name, &claim(number)).await, Ok(CLAIMED));
            claims.replicated(&name, &claim(number), 1, on(1, Duration::from_secs(60))).await
        });
    }
    let waits = async || {
        let told = master.command(&["INFO", "commandstats"]).await;
        let calls =
            told.split("cmdstat_wait:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.and_then(|calls| calls.parse::<u32>().ok()).unwrap_or(0)
    };
    eventually(Duration::from_secs(60), "somebody waits", async || {
        let told = master.command(&["INFO", "clients"]).await;
        if told.contains("blocked_clients:1") { Ok(()) } else { Err(told) }
    })
    .await;
    let other = claims(&*store).begin(&name("acme", "other"), &claim(900)).await;
    assert_eq!(other, Ok(CLAIMED));
    assert!(waiting.try_join_next().is_none(), "the call of another came in between");
    replica.process().resume();
    let all = waiting.join_all().await;
    assert!(all.iter().all(|counted| *counted == Ok(1)), "{all:?}");
    let sent = waits().await;
    assert!(sent < 20, "{sent} for a hundred");
    let found = claims(&*store).begin(&name("acme", "k1"), &claim(901)).await;
    assert!(matches!(found, Ok(Begun::Found(Found::InFlight { .. }))), "{found:?}");
}
