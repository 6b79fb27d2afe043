//! Claims on a real Redis Cluster of three masters: races, slots that move under a claim, and replicas that are
//! waited for where the key lies by then.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::store::Store;
use tidegate_gateway::store::claims::{Completion, Spread};
use tidegate_gateway::store::redis::RedisStore;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{Begun, Completed, Extended, Found, Held};
use tidegate_policy::idempotency::stored::StoredAnswer;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::races::{begin_at_once, one_of_many};
use crate::redis_store::start_at;
use crate::support::{LOCK_US, TTL_MS, claim, claims, hash, name, owner};

const CLAIMED: Begun = Begun::Claimed { fence: 1, taken_over: false };
const PATIENT: Spread = Spread { replicas: 1, within: Duration::from_secs(2) };

/// Two gateways.
async fn stores(cluster: &RedisCluster) -> [Arc<RedisStore>; 2] {
    let url = cluster.url();
    [Arc::new(start_at(&url).await), Arc::new(start_at(&url).await)]
}

fn completion(held: Held, answer: &StoredAnswer) -> Completion<'_> {
    Completion { held, hash: hash(7), answer, ttl_ms: TTL_MS }
}

async fn moved(cluster: &RedisCluster, name: &RecordName) {
    let from = cluster.serving(name.as_str()).await;
    cluster.move_slot(name.as_str(), (from + 1) % 3).await;
    assert_eq!(cluster.serving(name.as_str()).await, (from + 1) % 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_a_cluster_one_of_many_runs() {
    let cluster = RedisCluster::start().await;
    let stores = stores(&cluster).await.map(|store| -> Arc<dyn Store> { store });
    one_of_many(&stores).await;
    let mut masters = Vec::new();
    for key in ["of-10", "of-50", "of-1000"] {
        masters.push(cluster.serving(name("acme", key).as_str()).await);
    }
    assert!(masters.iter().any(|master| *master != masters[0]), "{masters:?}: of several masters");
}

/// The record goes with its slot, and each step finds it: a claim, those who ask meanwhile, a lock that is made
/// longer, the answer, whoever gets it, and what is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_is_found_wherever_its_slot_is() {
    let cluster = RedisCluster::start().await;
    let stores = stores(&cluster).await;
    let [one, other] = [0, 1].map(|at: usize| claims(stores[at].as_ref()));
    let name = name("acme", "moves");
    let held = Held { owner: owner(1), fence: 1 };
    assert_eq!(one.begin(&name, &claim(1)).await, Ok(CLAIMED));
    moved(&cluster, &name).await;
    let found = other.begin(&name, &claim(2)).await;
    assert!(matches!(found, Ok(Begun::Found(Found::InFlight { .. }))), "{found:?}");
    assert_eq!(one.extend(&name, held, LOCK_US, TTL_MS).await, Ok(Extended::Extended));
    moved(&cluster, &name).await;
    let answer = StoredAnswer { status: 201, body: Some(vec![0, 255]), ..Default::default() };
    assert_eq!(one.complete(&name, &completion(held, &answer)).await, Ok(Completed::Stored));
    moved(&cluster, &name).await;
    let done = Ok(Begun::Found(Found::Done(answer)));
    assert_eq!(other.begin(&name, &claim(2)).await, done);
}

/// While many ask for one key its slot goes round.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slot_that_moves_lets_nobody_run_twice() {
    let cluster = RedisCluster::start().await;
    let stores = stores(&cluster).await;
    let asked: [Arc<dyn Store>; 2] = stores.clone().map(|store| -> Arc<dyn Store> { store });
    let first = claims(stores[0].as_ref());
    let name = name("acme", "round");
    for round in 1_000..1_003 {
        // Given back, and wanted by many while it is on its way.
        assert_eq!(first.begin(&name, &claim(round)).await, Ok(CLAIMED));
        let held = Held { owner: owner(round), fence: 1 };
        first.abandon(&name, held, TTL_MS).await.expect("given back");
        let (begun, ()) = tokio::join!(begin_at_once(&asked, "round", 200), moved(&cluster, &name));
        let mut winners = 0;
        for (number, begun) in begun {
            match begun {
                Begun::Claimed { fence: 2, taken_over: false } => winners += 1,
                Begun::Found(Found::InFlight { .. }) => {}
                other => panic!("{number}: {other:?}"),
            }
        }
        assert_eq!(winners, 1, "{round}");
        assert_eq!(first.delete(&name).await, Ok(true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_are_waited_for_where_the_key_lies() {
    let cluster = RedisCluster::start().await;
    let [store, _] = stores(&cluster).await;
    let claims = claims(store.as_ref());
    let name = name("acme", "spread");
    assert_eq!(claims.begin(&name, &claim(1)).await, Ok(CLAIMED));
    assert_eq!(claims.replicated(&name, &claim(1), 1, PATIENT).await, Ok(1));
    // The gateway's map is of before.
    moved(&cluster, &name).await;
    assert_eq!(claims.replicated(&name, &claim(1), 1, PATIENT).await, Ok(1));
    let from = cluster.serving(name.as_str()).await;
    // On its way: the key is there already, and the slot is not.
    cluster.begin_move(name.as_str(), (from + 1) % 3).await;
    assert_eq!(claims.replicated(&name, &claim(1), 1, PATIENT).await, Ok(1));
}
