//! Owns what these tests have in common: names, claims, and a store on a real Redis.

use std::time::Duration;

use tidegate_gateway::store::Store;
use tidegate_gateway::store::claims::Claims;
use tidegate_gateway::store::redis::RedisStore;
use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{Claim, Owner};
use tidegate_policy::scope::{Environment, TenantId};
use tidegate_policy::wire::DecisionId;
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
    crate::redis_store::start(redis, Duration::from_secs(60)).await
}

pub fn claims(store: &dyn Store) -> &dyn Claims {
    store.claims().expect("it keeps claims")
}
