//! Owns what these tests have in common: names, claims, and a store on a real Redis.

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::claims::{Claims, Writer};
use tidegate_gateway::store::keys::KeyStyle;
use tidegate_gateway::store::redis::address::RedisAddress;
use tidegate_gateway::store::redis::place::Place;
use tidegate_gateway::store::redis::tls::RedisTls;
use tidegate_gateway::store::redis::{RedisSettings, RedisStore, Region};
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{Claim, Owner};
use tidegate_policy::scope::{self, Environment, TenantId};
use tidegate_policy::wire::DecisionId;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

/// Longer than any test takes.
pub const LOCK_US: u64 = 600_000_000;
pub const TTL_MS: u64 = 86_400_000;

pub fn name(tenant: &str, key: &str) -> RecordName {
    RecordName::of(
        &Environment::default(),
        &TenantId::new(tenant).expect("a tenant"),
        &Endpoint::of(b"POST", b"/orders/17/refund", None).expect("an endpoint"),
        &IdempotencyKey::new(key).expect("a key"),
    )
}

pub fn owner(number: u128) -> Owner {
    DecisionId::new(number).into()
}

pub fn hash(number: u8) -> RequestHash {
    RequestHash::from_bytes([number; 32])
}

pub fn claim(number: u128) -> Claim {
    Claim { owner: owner(number), hash: hash(7), lock_us: LOCK_US, ttl_ms: TTL_MS, takeover: false }
}

/// The gateway's own store on this Redis, connected.
pub async fn store(redis: &Redis) -> RedisStore {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settings = RedisSettings {
        place: Place::Single(RedisAddress::parse(&redis.url()).expect("an address")),
        tls: RedisTls::default(),
        connections: 2,
        response_timeout: Duration::from_secs(60),
        pipeline_len_max: 2_000,
        region: Region {
            name: scope::Region::fallback(),
            environment: Environment::default(),
            style: KeyStyle::Sharded,
            cold: None,
        },
    };
    let store = RedisStore::start(&settings, &clock, StoreCounters::default()).expect("started");
    eventually(Duration::from_secs(20), "the store is connected", async || {
        let found = claims(&store).lookup(&name("nobody", "k"), None, Writer::Gateway).await;
        found.map(drop).map_err(|error| error.to_string())
    })
    .await;
    store
}

pub fn claims(store: &dyn Store) -> &dyn Claims {
    store.claims().expect("it keeps claims")
}
