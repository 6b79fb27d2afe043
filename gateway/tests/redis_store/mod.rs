//! Owns the gateway's own store on a Redis of a test, for tests that need no gateway around it.

#![allow(dead_code, reason = "every test takes the part that it needs")]

pub mod swift;

use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::Cores;
use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::keys::KeyStyle;
use tidegate_gateway::store::redis::place::Place;
use tidegate_gateway::store::redis::tls::RedisTls;
use tidegate_gateway::store::redis::{RedisSettings, RedisStore, Region};
use tidegate_gateway::store::{Store, StoreCounters};
use tidegate_policy::scope;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

const PATIENCE: Duration = Duration::from_secs(60);

/// Connected, without a guard against cold regions.
pub async fn start(redis: &Redis, response_timeout: Duration) -> RedisStore {
    connected(&RedisSettings { response_timeout, ..settings(redis) }).await
}

/// The same for any address.
pub async fn start_at(url: &str) -> RedisStore {
    connected(&settings_at(url)).await
}

async fn connected(settings: &RedisSettings) -> RedisStore {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store =
        RedisStore::start(settings, &Arc::new(Cores::here()), &clock, StoreCounters::default())
            .expect("an address");
    eventually(PATIENCE, "the store is connected", async || {
        store.probe().await.map_err(|error| error.to_string())
    })
    .await;
    store
}

/// How that one is set up.
pub fn settings(redis: &Redis) -> RedisSettings {
    settings_at(&redis.url())
}

/// The same for any address.
pub fn settings_at(url: &str) -> RedisSettings {
    RedisSettings {
        place: Place::parse(url).expect("an address"),
        tls: RedisTls::default(),
        connections: 2,
        response_timeout: PATIENCE,
        pipeline_len_max: 2_000,
        region: Region {
            name: scope::Region::fallback(),
            environment: scope::Environment::default(),
            style: KeyStyle::default(),
            cold: None,
        },
    }
}
