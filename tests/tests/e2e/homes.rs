//! Home regions of tenants: two regions, each with Envoy, gateway and Redis of its own, and one record for a key
//! whichever of them is asked.

use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::orders::Orders;
use tidegate_tests::redis::Redis;

use crate::idempotency::{replayed, told};

/// `acme` is at home in the north, `beta` nowhere.
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "homes": {"regions": {"north": {"cluster": "tidegate-north", "timeout": "4s"},
                        "south": {"cluster": "tidegate-south", "timeout": "4s"}},
            "tenants": {"acme": "north"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "orders", "match": {"path": "/**"},
     "rate_limits": [{"name": "tenant", "by": "tenant", "limit": 60, "per": "hour"}],
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "60s", "wait": "30s", "store": {"headers": ["x-order"]}}}
  ]
}"#;

struct Region {
    redis: Redis,
    gateway: Gateway,
}

struct World {
    north: Region,
    south: Region,
    upstream: Orders,
    /// In the north, and in the south.
    envoys: [Envoy; 2],
}

async fn region(name: &str) -> Region {
    let redis = Redis::start().await;
    let options = gateway::Options::redis(&redis.url()).flags(&ROOMY).flags(&["--region", name]);
    Region { gateway: Gateway::start(&options).await, redis }
}

async fn envoy(name: &str, own: &Region, homes: [&Region; 2], upstream: &Orders) -> Envoy {
    let names = ["tidegate-north", "tidegate-south"];
    let homes = names.into_iter().zip(homes.map(|home| home.gateway.addr)).collect();
    let options = Options::new(own.gateway.addr, upstream.addr).config(CONFIG);
    Envoy::start(&Options { region: Some(name.to_owned()), homes, ..options }).await
}

async fn world() -> World {
    let (north, south) = (region("north").await, region("south").await);
    let upstream = Orders::start().await;
    let homes = [&north, &south];
    let envoys = [
        envoy("north", &north, homes, &upstream).await,
        envoy("south", &south, homes, &upstream).await,
    ];
    World { north, south, upstream, envoys }
}

async fn post(envoy: &Envoy, tenant: &str, key: &str, body: &str) -> Answer {
    let lines = format!("x-tenant: {tenant}\r\nidempotency-key: {key}\r\n");
    client::post(envoy.addr, "/orders", &lines, body).await
}

async fn keys(redis: &Redis, pattern: &str) -> String {
    redis.command(&["KEYS", pattern]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_a_home_runs_a_key_once_whichever_region_is_asked() {
    let world = world().await;
    let [north, south] = &world.envoys;
    let first = post(south, "acme", "k", "{}").await;
    assert_eq!((first.status, world.upstream.runs()), (201, 1), "{first:?}");
    for envoy in [north, south] {
        let again = post(envoy, "acme", "k", "{}").await;
        assert_eq!((told(&again), replayed(&again)), (told(&first), true), "{again:?}");
        let other = post(envoy, "acme", "k", "[]").await;
        assert_eq!((other.status, world.upstream.runs()), (422, 1), "{other:?}");
    }
    let records = [&world.north, &world.south].map(|region| &region.redis);
    assert!(keys(records[0], "idempotency:*acme*").await.starts_with("*1\r\n"));
    assert!(keys(records[1], "idempotency:*").await.starts_with("*0\r\n"));
    // Limits stay where the request is.
    assert!(!keys(records[1], "ratelimit:*acme*").await.starts_with("*0\r\n"));

    // At once, from both.
    let asks = (0..20).map(|n| {
        let addr = world.envoys[n % 2].addr;
        tokio::spawn(async move {
            let lines = "x-tenant: acme\r\nidempotency-key: race\r\n";
            client::post(addr, "/orders", lines, "{}").await
        })
    });
    let mut answers = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        answers.push(ask.await.expect("an answer"));
    }
    assert_eq!((answers[0].status, world.upstream.runs()), (201, 2));
    assert!(answers.iter().all(|answer| told(answer) == told(&answers[0])), "{answers:?}");

    // Who has no home has a record in each region.
    for (envoy, runs) in [(north, 3), (south, 4)] {
        let own = post(envoy, "beta", "k", "{}").await;
        assert_eq!((own.status, replayed(&own), world.upstream.runs()), (201, false, runs));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_home_cannot_be_reached_nothing_of_its_tenants_runs() {
    let mut world = world().await;
    world.north.gateway.process().kill();
    let south = &world.envoys[1];
    let refused = post(south, "acme", "k", "{}").await;
    assert_eq!(refused.header("x-tidegate-reply"), Some("policy-store-unavailable"));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!((refused.status, world.upstream.runs()), (503, 0), "{refused:?}");
    // The others are not concerned, however often it fails.
    for n in 0..8 {
        assert_eq!(post(south, "acme", "k", "{}").await.status, 503);
        let own = post(south, "beta", &format!("k{n}"), "{}").await;
        assert_eq!((own.status, world.upstream.runs()), (201, n + 1), "{own:?}");
    }
    assert!(keys(&world.south.redis, "idempotency:*acme*").await.starts_with("*0\r\n"));
}

/// A cluster that leads to another region than its name says makes no record there.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_another_region_claims_nothing_for_a_home() {
    let (north, south) = (region("north").await, region("south").await);
    let upstream = Orders::start().await;
    let envoy = envoy("south", &south, [&south, &south], &upstream).await;
    let refused = post(&envoy, "acme", "k", "{}").await;
    assert_eq!((refused.status, upstream.runs()), (503, 0), "{refused:?}");
    for region in [&north, &south] {
        assert!(keys(&region.redis, "idempotency:*").await.starts_with("*0\r\n"));
    }
}
