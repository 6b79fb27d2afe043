//! Many callers at once with one key: exactly one claims it, whichever store is asked.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::store::{Store, StoreCounters, StoreFailure};
use tidegate_policy::idempotency::record::{Begun, Completed, Found, Held};
use tidegate_policy::idempotency::stored::{StoredAnswer, StoredHeaders};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tokio::task::JoinSet;

use tidegate_gateway::store::claims::Completion;

use crate::support::{TTL_MS, claim, claims, hash, name, owner, store};

const PATIENCE: Duration = Duration::from_secs(60);
const CALLERS: [u128; 3] = [10, 50, 1_000];

/// All callers' answers, over all stores in turn.
pub async fn begin_at_once(
    stores: &[Arc<dyn Store>],
    key: &str,
    callers: u128,
) -> Vec<(u128, Begun)> {
    let name = name("acme", key);
    let mut asking = JoinSet::new();
    for (number, store) in (0..callers).zip(stores.iter().cycle()) {
        let (store, name) = (Arc::clone(store), name.clone());
        asking.spawn(async move {
            let begun = claims(store.as_ref()).begin(&name, &claim(number)).await;
            (number, store, begun)
        });
    }
    let mut all = Vec::new();
    for (number, store, begun) in asking.join_all().await {
        // One of many is turned away unasked where a node of a Cluster, or the machine, stood still for 50 ms.
        let mut told = Some(begun);
        let begun = eventually(PATIENCE, "an answer", async || {
            let begun = match told.take() {
                Some(begun) => begun,
                None => claims(store.as_ref()).begin(&name, &claim(number)).await,
            };
            match begun {
                Err(StoreFailure::Timeout) => Err("the node is silent"),
                answered => Ok(answered.expect("an answer")),
            }
        });
        all.push((number, begun.await));
    }
    all
}

/// One claims, the others wait; once it is done, all get its answer; given back, one claims again.
pub async fn one_of_many(stores: &[Arc<dyn Store>]) {
    for callers in CALLERS {
        let key = format!("of-{callers}");
        let begun = begin_at_once(stores, &key, callers).await;
        let mut winner = None;
        for (number, begun) in begun {
            match begun {
                Begun::Claimed { fence: 1, taken_over: false } => {
                    assert_eq!(winner.replace(number), None, "two of {callers} run");
                }
                Begun::Found(Found::InFlight { .. }) => {}
                other => panic!("{callers}: {other:?}"),
            }
        }
        let winner = winner.expect("one runs");
        let name = name("acme", &key);
        let first = claims(stores[0].as_ref());
        let held = Held { owner: owner(winner), fence: 1 };
        first.abandon(&name, held, TTL_MS).await.expect("given back");
        let begun = begin_at_once(stores, &key, callers).await;
        let again: Vec<u128> = begun
            .iter()
            .filter(|(_, begun)| matches!(begun, Begun::Claimed { fence: 2, .. }))
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(again.len(), 1, "{callers}: one runs again");
        assert_ne!(again, [winner], "whoever gave back is done");
        let answer = StoredAnswer {
            status: 201,
            headers: StoredHeaders::default(),
            body: Some(b"\0\xff".to_vec()),
        };
        let held = Held { owner: owner(again[0]), fence: 2 };
        let completion = Completion { held, hash: hash(7), answer: &answer, ttl_ms: TTL_MS };
        assert_eq!(first.complete(&name, &completion).await, Ok(Completed::Stored));
        for (number, begun) in begin_at_once(stores, &key, callers).await {
            assert_eq!(begun, Begun::Found(Found::Done(answer.clone())), "{number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_redis_one_of_many_runs() {
    let redis = Redis::start().await;
    // Two gateways.
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(store(&redis).await), Arc::new(store(&redis).await)];
    one_of_many(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory_one_of_many_runs() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = MemoryStore::new(clock, 1_000, StoreCounters::default());
    one_of_many(&[Arc::new(store)]).await;
}
