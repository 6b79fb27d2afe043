//! The scope of a key, with two gateways of two regions: records belong to the store that a region's gateways
//! use.

use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::orders::Orders;
use tidegate_tests::redis::Redis;

use crate::idempotency::{CONFIG, lines, replayed, told};

struct Region {
    _gateway: Gateway,
    envoy: Envoy,
}

async fn region(name: &str, redis: &Redis, upstream: &Orders) -> Region {
    let options = gateway::Options::redis(&redis.url()).flags(&ROOMY).flags(&["--region", name]);
    let gateway = Gateway::start(&options).await;
    let options = Options::new(gateway.addr, upstream.addr).config(CONFIG);
    let envoy = Envoy::start(&Options { region: Some(name.to_owned()), ..options }).await;
    Region { _gateway: gateway, envoy }
}

impl Region {
    async fn post(&self, key: &str, body: &str) -> tidegate_tests::client::Answer {
        tidegate_tests::client::post(self.envoy.addr, "/orders", &lines(key, ""), body).await
    }
}

/// The honest line: a retry that another region takes runs there.
#[tokio::test(flavor = "multi_thread")]
async fn regions_with_stores_of_their_own_each_run_a_key() {
    let (north, south) = (Redis::start().await, Redis::start().await);
    let upstream = Orders::start().await;
    let (one, other) =
        (region("north", &north, &upstream).await, region("south", &south, &upstream).await);
    let first = one.post("k", "{}").await;
    let theirs = other.post("k", "{}").await;
    assert_eq!((first.status, theirs.status, upstream.runs()), (201, 201, 2));
    assert!(!replayed(&theirs), "{theirs:?}");
    for (region, answer) in [(&one, &first), (&other, &theirs)] {
        let again = region.post("k", "{}").await;
        assert_eq!((told(&again), replayed(&again)), (told(answer), true), "each has its own");
    }
    // Nor is what is another request here a conflict there.
    let another = other.post("k2", "[]").await;
    let here = one.post("k2", "{}").await;
    assert_eq!((another.status, here.status, upstream.runs()), (201, 201, 4));
}

/// Whoever wants one run over all regions gives them one store: the home of all records.
#[tokio::test(flavor = "multi_thread")]
async fn regions_that_share_a_store_run_a_key_once() {
    let home = Redis::start().await;
    let upstream = Orders::start().await;
    let (one, other) =
        (region("north", &home, &upstream).await, region("south", &home, &upstream).await);
    let first = one.post("k", "{}").await;
    let again = other.post("k", "{}").await;
    assert_eq!((told(&again), replayed(&again)), (told(&first), true));
    let conflict = other.post("k", "[]").await;
    assert_eq!((conflict.status, upstream.runs()), (422, 1), "{conflict:?}");
    let keys = home.command(&["KEYS", "idempotency:*"]).await;
    assert!(keys.starts_with("*1\r\n") && !keys.contains("north"), "{keys}");
}
