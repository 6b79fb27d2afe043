//! Owns the chains of the benchmark: their keys, the events in them, and gateways' ends of them on a real Redis.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use tempfile::TempDir;
use tidegate_gateway::audit::chain_end::{ChainEnd, Parts};
use tidegate_gateway::audit::counters::ChainCounters;
use tidegate_gateway::audit::keys::{Current, SigningKeys};
use tidegate_gateway::audit::mark::Mark;
use tidegate_gateway::audit::ring::Ring;
use tidegate_gateway::audit::spool::Spool;
use tidegate_gateway::audit::writer::shared;
use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::keys::KeyStyle;
use tidegate_gateway::store::redis::place::Place;
use tidegate_gateway::store::redis::tls::RedisTls;
use tidegate_gateway::store::redis::{RedisSettings, RedisStore, Region};
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_gateway::{Cores, Environment};
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::record::{ChainName, Event};
use tidegate_policy::scope;

use crate::eventually;
use crate::redis::Redis;

/// RFC 8410 §10.3: everybody knows it.
pub const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

const SPOOL_BYTES_MAX: u64 = 1 << 30;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTED: Duration = Duration::from_secs(20);

/// One gateway's end of a chain, on a connection and a disk of its own.
pub struct Gateway {
    /// The end.
    pub end: ChainEnd,
    /// What it counts.
    pub counters: ChainCounters,
    _dir: TempDir,
}

/// The chain of that name.
pub fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("a region's name")
}

/// The key that signs.
pub fn signer() -> Current {
    keys().current().expect("a key")
}

/// The public keys, as an auditor has them.
pub fn key_ring(chain: &ChainName) -> KeyRing {
    let key = |(version, public, _)| (version, Key { public, revoked: None });
    let keys = keys().public().map(key).collect();
    KeyRing { chain: chain.clone(), keys, checkpoint_keys: Vec::new() }
}

fn keys() -> SigningKeys {
    let environment = Environment::from([("AUDIT_PRIVATE_KEY_V1", PEM)]);
    SigningKeys::from_environment(&environment).expect("a key")
}

/// A denial as gateways record it, of that time.
pub fn denial(number: u64, ts_ms: u64) -> Event {
    let text = format!(
        r#"{{"action":"deny","actor":"filter","detail":{{"limits":[{{"kind":"ip","limit":"checkout.per-address","subject":"{:032x}"}}],"text":"checkout.per-address"}},"id":"{number:032x}","outcome":"quota-exceeded","region":"eu","tenant":"acme","ts":{ts_ms},"v":1}}"#,
        number % 1_000
    );
    Event::read(text.as_bytes()).expect("a canonical event")
}

/// Gateways that write one chain together.
pub async fn gateways(redis: &Redis, name: &str, count: u32) -> Vec<Gateway> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(gateway(redis, &chain(name)).await);
    }
    all
}

async fn gateway(redis: &Redis, chain: &ChainName) -> Gateway {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let counters = ChainCounters::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let parts = Parts {
        chain: chain.clone(),
        store: Arc::new(store(redis, &clock).await),
        signer: shared(Arc::new(signer())),
        keys: Arc::new(RwLock::new(Arc::new(key_ring(chain)))),
        clock,
        spool: Spool::open(dir.path(), SPOOL_BYTES_MAX).expect("a spool"),
        mark: Mark::in_dir(dir.path()),
        ring: Ring::open(dir.path()).expect("a ring"),
        counters: counters.clone(),
    };
    let mut end = ChainEnd::open(parts).expect("a new chain");
    // While it is new: who first sees a chain with records in it waits for two seconds.
    end.retry().await;
    Gateway { end, counters, _dir: dir }
}

async fn store(redis: &Redis, clock: &Arc<dyn Clock>) -> RedisStore {
    let settings = RedisSettings {
        place: Place::parse(&redis.url()).expect("an address"),
        tls: RedisTls::default(),
        connections: 1,
        response_timeout: RESPONSE_TIMEOUT,
        pipeline_len_max: 2_000,
        region: Region {
            name: scope::Region::fallback(),
            environment: scope::Environment::default(),
            style: KeyStyle::default(),
            cold: None,
        },
    };
    let cores = Arc::new(Cores::here());
    let store = RedisStore::start(&settings, &cores, clock, StoreCounters::default());
    let store = store.expect("an address");
    eventually(CONNECTED, "the store is connected", async || {
        store.probe().await.map_err(|error| error.to_string())
    })
    .await;
    store
}
