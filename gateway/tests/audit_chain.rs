//! Many writers on one chain in a real Redis, each with its own head and its own connection; and a Redis
//! that is stopped under them. What they leave behind is verified as an auditor would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tidegate_gateway::Environment;
use tidegate_gateway::audit::chain_end::{Accepted, ChainEnd, Parts};
use tidegate_gateway::audit::counters::ChainCounters;
use tidegate_gateway::audit::keys::{Ed25519, SigningKeys};
use tidegate_gateway::audit::mark::Mark;
use tidegate_gateway::audit::ring::Ring;
use tidegate_gateway::audit::spool::Spool;
use tidegate_gateway::audit::writer::{Writer, shared};
use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::Store;
use tidegate_gateway::store::chains::Chains;
use tidegate_gateway::store::redis::RedisStore;
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::record::{ChainName, Event, Record};
use tidegate_policy::audit::verify::{HeadClaim, Report, Verdict, Verifier};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

/// RFC 8410 §10.3: everybody knows it.
mod redis_store;

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
const WAIT: Duration = Duration::from_secs(60);

fn chain() -> ChainName {
    ChainName::new("eu").expect("a name")
}

fn keys() -> SigningKeys {
    let environment = Environment::from([("AUDIT_PRIVATE_KEY_V1", PEM)]);
    SigningKeys::from_environment(&environment).expect("a key")
}

fn ring() -> KeyRing {
    let key = |(version, public, _)| (version, Key { public, revoked: None });
    KeyRing { chain: chain(), keys: keys().public().map(key).collect(), checkpoint_keys: vec![] }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

async fn store(redis: &Redis, response_timeout: Duration) -> Arc<RedisStore> {
    Arc::new(redis_store::start(redis, response_timeout).await)
}

fn end(store: Arc<dyn Store>, dir: &Path, counters: &ChainCounters) -> ChainEnd {
    let parts = Parts {
        chain: chain(),
        store,
        signer: shared(Arc::new(keys().current().expect("a key"))),
        keys: Arc::new(RwLock::new(Arc::new(ring()))),
        clock: clock(),
        spool: Spool::open(dir, 10_000_000).expect("a spool"),
        mark: Mark::in_dir(dir),
        ring: Ring::open(dir).expect("a ring"),
        counters: counters.clone(),
    };
    ChainEnd::open(parts).expect("opened")
}

fn event(id: &str) -> Event {
    let text = format!(
        r#"{{"action":"admin","actor":"a","detail":"","id":"{id}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
    );
    Event::read(text.as_bytes()).expect("an event")
}

/// The whole chain with its head, as an auditor reads it, and how often each event is in it.
async fn verify(store: &RedisStore) -> (Report, BTreeMap<String, usize>, Vec<String>) {
    let ring = ring();
    let place = store.place(&chain()).await.expect("a place");
    let mut verifier = Verifier::new(&ring, &Ed25519);
    let (mut counts, mut order) = (BTreeMap::new(), Vec::new());
    for segment in 0..=place.segment {
        for record in store.records(&chain(), segment, 0, 1_000_000).await.expect("records") {
            let id = Record::read(&record).expect("a record").id;
            *counts.entry(id.clone()).or_default() += 1;
            order.push(id);
            verifier.push(&record);
        }
    }
    let claim = HeadClaim { chain: chain().to_string(), head: place.head };
    (verifier.finish(Some(&claim)), counts, order)
}

/// Each writer commits ten events one by one, at the same time as all others.
async fn race(writers: usize) {
    let redis = Redis::start().await;
    let counters = ChainCounters::default();
    let dirs: Vec<_> = (0..writers).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let mut ends = Vec::new();
    for dir in &dirs {
        ends.push(end(store(&redis, WAIT).await, dir.path(), &counters));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (writer, mut end) in ends.into_iter().enumerate() {
        tasks.spawn(async move {
            for number in 0..10 {
                end.commit(vec![event(&format!("e-{writer}-{number}"))]).await.expect("not lost");
            }
            end
        });
    }
    let mut ends = tasks.join_all().await;
    println!(
        "{writers} writers: {} races lost, {} spooled",
        counters.races_lost.get(),
        counters.spooled.get()
    );
    for end in &mut ends {
        eventually(WAIT, "the spool is empty", async || {
            end.retry().await;
            if end.has_spooled() { Err("events wait".to_owned()) } else { Ok(()) }
        })
        .await;
    }
    let reader = store(&redis, WAIT).await;
    let (report, counts, order) = verify(&reader).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!((counts.len(), report.records), (writers * 10, writers as u64 * 10));
    assert!(counts.values().all(|count| *count == 1));
    for writer in 0..writers {
        let prefix = format!("e-{writer}-");
        let own: Vec<&String> = order.iter().filter(|id| id.starts_with(&prefix)).collect();
        let mut sorted = own.clone();
        sorted.sort();
        assert_eq!(own, sorted, "each writer's events are in order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_writers_leave_an_unbroken_chain() {
    race(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_writers_leave_an_unbroken_chain() {
    race(50).await;
}

/// Stopped, Redis answers nothing, and what it was sent it does later all the same.
#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_stopped_events_wait_on_the_disk_and_none_is_doubled() {
    let mut redis = Redis::start().await;
    let counters = ChainCounters::default();
    let dir = tempfile::tempdir().expect("a folder");
    let store = store(&redis, Duration::from_millis(300)).await;
    let mut end = end(Arc::<RedisStore>::clone(&store), dir.path(), &counters);
    assert_eq!(end.commit(vec![event("e-0")]).await.ok(), Some(Accepted::Chained));
    redis.process().signal(rustix::process::Signal::STOP.as_raw());
    for number in 1..4 {
        let accepted = end.commit(vec![event(&format!("e-{number}"))]).await;
        assert_eq!(accepted.ok(), Some(Accepted::Spooled));
    }
    redis.process().signal(rustix::process::Signal::CONT.as_raw());
    eventually(WAIT, "the spool is empty", async || {
        end.retry().await;
        if end.has_spooled() { Err("events wait".to_owned()) } else { Ok(()) }
    })
    .await;
    eventually(WAIT, "Redis takes events again", async || {
        match end.commit(vec![event("e-4")]).await {
            Ok(Accepted::Chained) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let (report, _, order) = verify(&store).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!(order, ["e-0", "e-1", "e-2", "e-3", "e-4"]);
    assert_eq!(counters.rollback.get(), 0);
}

/// Four gateways with a queue and a tick each; every acknowledged event is in the chain once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_in_the_chain_once() {
    let redis = Redis::start().await;
    let counters = ChainCounters::default();
    let mut tasks = tokio::task::JoinSet::new();
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().expect("a folder")).collect();
    for (gateway, dir) in dirs.iter().enumerate() {
        let end = end(store(&redis, WAIT).await, dir.path(), &counters);
        let tick = Duration::from_millis(5);
        let (writer, writing) = Writer::start(end, clock(), counters.clone(), tick);
        tasks.spawn(async move {
            let mut acks = Vec::new();
            for number in 0..200 {
                // Every tenth is handed over twice, as by a filter that lost its acknowledgement.
                for _ in 0..=usize::from(number % 10 == 0) {
                    let event = event(&format!("e-{gateway}-{number}"));
                    acks.push(writer.submit(event, number % 50 == 0).expect("room"));
                }
            }
            drop(writer);
            for ack in acks {
                ack.await.expect("not lost");
            }
            writing.await.expect("ended by itself");
        });
    }
    tasks.join_all().await;
    let reader = store(&redis, WAIT).await;
    let (report, counts, _) = verify(&reader).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!((counts.len(), report.records), (800, 800));
    println!("{} signatures, {} races lost", report.signatures["v1"], counters.races_lost.get());
    assert!(report.signatures["v1"] < 400, "events are committed in groups");
}
