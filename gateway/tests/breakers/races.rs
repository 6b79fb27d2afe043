//! Many processes at once on one breaker: it opens once, and one of them may test.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::breakers::Breakers;
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_policy::breaker::mesh::{Batch, Ended, Event, Said, Settled, State, Terms, Window};
use tidegate_policy::scope::{self, Environment, KeyFormat, Scope, Tenant};
use tidegate_policy::wire::breaker::BreakerName;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::redis_store::start;
use tokio::task::JoinSet;

/// Open no longer than a test waits for it gladly, and a test's life longer than any test takes.
const TERMS: Terms = Terms {
    window: Window::Ms(60_000),
    min_calls: 20,
    failure_permille: 500,
    slow_permille: 0,
    adaptive: None,
    open_ms: 5,
    backoff: 0,
    successes: 3,
    probe_ms: 3_600_000,
    trip_reporters: 2,
};

pub(crate) fn scope() -> Scope {
    Scope {
        region: scope::Region::fallback(),
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::default(),
    }
}

pub(crate) fn breakers(store: &dyn Store) -> &dyn Breakers {
    store.breakers().expect("it keeps breakers")
}

async fn say(store: &dyn Store, name: &str, number: u64, seq: u64, batch: Batch) -> Said {
    let holder = number.to_be_bytes();
    let event = Event::Sync { terms: &TERMS, holder, seq, batch, entropy: 0 };
    let name = BreakerName::new(name).expect("a name");
    breakers(store).step(&scope(), &name, &event).await.expect("an answer")
}

/// What so many processes are told that say the same at once, over all stores in turn.
async fn at_once(stores: &[Arc<dyn Store>], processes: u64, seq: u64, batch: Batch) -> Vec<Said> {
    let mut saying = JoinSet::new();
    for (number, store) in (0..processes).zip(stores.iter().cycle()) {
        let store = Arc::clone(store);
        saying.spawn(async move { say(store.as_ref(), "b", number, seq, batch).await });
    }
    saying.join_all().await
}

async fn one_of_many(stores: &[Arc<dyn Store>]) {
    let first = stores[0].as_ref();
    let epoch = say(first, "b", 99, 1, Batch::default()).await.epoch;
    let failing = Batch { epoch, calls: 20, failures: 20, ..Batch::default() };
    let told = at_once(stores, 50, 1, failing).await;
    let flips: usize = told.iter().map(|said| said.transitions.len()).sum();
    assert_eq!(flips, 1, "50 report a dead upstream, and it opens once");
    assert!(told.iter().all(|said| said.state == State::Open));
    // An open time of 5 ms is over by the time a new connection could have asked.
    let ask = Batch { ask: true, ..Batch::default() };
    let probe = eventually(Duration::from_secs(60), "the open time is over", async || {
        let told = at_once(stores, 10, 2, ask).await;
        let permits: Vec<_> = told.iter().filter_map(|said| said.permit).collect();
        assert!(permits.len() <= 1, "10 ask at once: {permits:?}");
        let waits = |said: &Said| matches!(said.state, State::Open | State::HalfOpen);
        assert!(told.iter().all(waits), "{told:?}");
        permits.first().copied().ok_or("nobody may test yet")
    })
    .await;
    // Another gateway's process, later: the test is out.
    assert_eq!(say(stores[stores.len() - 1].as_ref(), "b", 77, 3, ask).await.permit, None);
    // Three good tests close it, whoever makes them.
    let mut id = probe.0;
    for n in 1..=3 {
        let settled = Some(Settled { id, ended: Ended::Ok });
        let said =
            say(first, "b", 200 + n, n, Batch { probe: settled, ask: true, ..Batch::default() });
        let said = said.await;
        assert!(said.settled, "{said:?}");
        assert_eq!(said.state == State::Closed, n == 3, "{said:?}");
        if let Some((next, _)) = said.permit {
            assert!(next > id);
            id = next;
        }
    }
    let changed = breakers(first).changed(&scope(), 0).await.expect("a list");
    let names: Vec<&str> = changed.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert!(changed[0].1 > epoch);
    let later = breakers(first).changed(&scope(), changed[0].1 + 1).await.expect("a list");
    assert_eq!(later, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_redis_it_opens_once_and_one_of_many_tests() {
    let redis = Redis::start().await;
    // Two gateways.
    let stores: [Arc<dyn Store>; 2] = [
        Arc::new(start(&redis, Duration::from_secs(60)).await),
        Arc::new(start(&redis, Duration::from_secs(60)).await),
    ];
    one_of_many(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory_it_opens_once_and_one_of_many_tests() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = MemoryStore::new(clock, 1_000, StoreCounters::default());
    one_of_many(&[Arc::new(store)]).await;
}
