//! The list of a region's changes, on a real Redis and in memory: what is noted last stands last, whatever a clock says.
//!
//! The seed is printed; `BREAKER_SEED` repeats a run.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::{Clock, ManualClock};
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::store::redis::breakers::TEXTS;
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_policy::breaker::mesh::{Event, Order};
use tidegate_policy::wire::breaker::BreakerName;
use tidegate_tests::random::Random;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::held::HeldClock;

use crate::races::{breakers, scope};
use crate::redis_store::start;

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

async fn force(store: &dyn Store, name: &str) {
    let name = BreakerName::new(name).expect("a name");
    let event = Event::Order { order: Order::ForceOpen, for_ms: 0, entropy: 0 };
    breakers(store).step(&scope(), &name, &event).await.expect("an answer");
}

async fn listed(store: &dyn Store, since: u64) -> Vec<(String, u64)> {
    let listed = breakers(store).changed(&scope(), since).await.expect("a list");
    listed.into_iter().map(|(name, number)| (name.as_str().to_owned(), number)).collect()
}

/// A clock that goes forth and back by seconds and hours, and a few breakers that are ordered about: both lists hold the
/// same under the same numbers, and what was noted last stands last.
#[tokio::test]
async fn what_is_noted_last_stands_last_whatever_the_clock_says() {
    let seed = std::env::var("BREAKER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| getrandom::u64().expect("randomness"));
    println!("BREAKER_SEED={seed}");
    let mut random = Random::new(seed);
    let redis = Redis::start_with_clock(HeldClock::at(START_MS * 1_000)).await;
    let clock = Arc::new(ManualClock::at(START_MS * 1_000));
    let shared: Arc<dyn Clock> = clock.clone();
    let memory = MemoryStore::new(shared, 1_000, StoreCounters::default());
    let stored = start(&redis, Duration::from_secs(60)).await;
    let (mut now_ms, mut read) = (START_MS, 0);
    for step in 0..300 {
        now_ms = match random.below(12) {
            0 => now_ms - random.below(4 * HOUR_MS),
            1 => now_ms - random.below(3_000),
            2 => now_ms + random.below(4 * HOUR_MS),
            3..=7 => now_ms,
            _ => now_ms + random.below(2_000),
        };
        clock.set(now_ms * 1_000);
        redis.set_clock(now_ms * 1_000);
        let name = format!("b{}", random.below(6));
        for store in [&memory as &dyn Store, &stored] {
            force(store, &name).await;
        }
        let new = listed(&stored, read + 1).await;
        assert!(matches!(new.as_slice(), [(new, _)] if *new == name), "step {step}: {new:?}");
        read = new[0].1;
        assert_eq!(listed(&memory, 0).await, listed(&stored, 0).await, "step {step}");
    }
}

/// The user of a gateway of before may not ask for the last number.
#[tokio::test]
async fn a_user_with_the_rights_of_before_notes_the_same() {
    let redis = Redis::start_with_clock(HeldClock::at(START_MS * 1_000)).await;
    let store = start(&redis, Duration::from_secs(60)).await;
    for name in ["a", "b"] {
        force(&store, name).await;
    }
    redis.set_clock((START_MS - HOUR_MS) * 1_000);
    let refused = redis.command(&["ACL", "SETUSER", "default", "-zrevrange"]).await;
    assert!(refused.starts_with("+OK"), "{refused}");
    for name in ["c", "a"] {
        force(&store, name).await;
    }
    let expected = [("b", START_MS + 1), ("c", START_MS + 2), ("a", START_MS + 3)];
    assert_eq!(listed(&store, 0).await, expected.map(|(name, at)| (name.to_owned(), at)));
}

/// Members of one for each of many come and go by the thousands. What stands under a bare name, as an order for all of them does, stays in
/// the list: who begins later hears of it nowhere else.
#[tokio::test]
async fn no_number_of_members_takes_a_bare_name_out_of_the_list() {
    const KEPT: usize = 20;
    let redis = Redis::start_with_clock(HeldClock::at(START_MS * 1_000)).await;
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
    let script = redis::Script::new(TEXTS[1]);
    let mut last = 0;
    let mut note = async |name: String| {
        let mut call = script.key("list");
        let call = call.arg(name).arg(KEPT).arg(HOUR_MS).arg(0);
        let number: u64 = call.invoke_async(&mut connection).await.expect("a number");
        assert!(number > last, "{number} after {last}");
        last = number;
        let mut range = redis::cmd("ZRANGE");
        let range = range.arg("list").arg(0).arg(-1);
        let names: Vec<String> = range.query_async(&mut connection).await.expect("names");
        names
    };
    for bare in ["p", "q"] {
        note(bare.to_owned()).await;
    }
    for member in 0..500 {
        let name = format!("p:{member}");
        let names = note(name.clone()).await;
        assert!(names.len() <= KEPT, "{names:?}");
        for name in [name.as_str(), "p", "q"] {
            assert!(names.iter().any(|one| one == name), "{name} of {names:?}");
        }
    }
    // Where there is nothing else, they are of a bounded number, too.
    for bare in 0..500 {
        let name = format!("b{bare}");
        let names = note(name.clone()).await;
        assert!(names.len() <= KEPT && names.contains(&name), "{name} of {names:?}");
    }
}
