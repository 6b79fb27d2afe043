//! What is given back while Redis keeps its writers waiting: no more than has not come back by itself.

use std::time::Duration;

use tidegate_gateway::store::{Adjustment, Charge, Store};
use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{Environment, KeyFormat, Region, Scope, Tenant};
use tidegate_policy::wire::DecisionId;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::redis_store;

const PATIENCE: Duration = Duration::from_secs(60);
/// One unit a second.
const UNIT_US: u64 = 1_000_000;

async fn redis_us(redis: &Redis) -> u64 {
    let reply = redis.command(&["TIME"]).await;
    let number = |line: usize| -> u64 {
        reply.lines().nth(line).and_then(|line| line.parse().ok()).expect("a number")
    };
    number(2) * 1_000_000 + number(4)
}

/// Without a receipt, as from a filter of before, or where leases stand beside the limit.
#[tokio::test]
async fn what_waits_in_redis_is_not_given_back_for_the_time_that_it_waited() {
    const COST: u32 = 20;
    const WAIT_US: u64 = 2_500_000;
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, PATIENCE).await;
    let scope = Scope {
        region: Region::fallback(),
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    };
    let subject = Subject { kind: SubjectKind::Ip, name: SubjectName::from_bytes(b"a") };
    let quota = Quota::new(100, 100 * UNIT_US, 100).expect("sound");
    let charge = Charge {
        subject: &subject,
        limit_id: "p.one",
        quota,
        algorithm: Algorithm::Gcra,
        cost: COST,
        alone: false,
    };
    let debt = Charge { cost: 100 - COST, ..charge };
    store.rate_check(&scope, &[debt]).await.expect("charged");
    let before_us = redis_us(&redis).await;
    let charged = store.rate_check(&scope, &[charge]).await.expect("charged");
    assert!(charged.allowed);
    let reset_us = charged.limits[0].reading.reset_us;
    assert_eq!(redis.command(&["CLIENT", "PAUSE", "600000", "WRITE"]).await.trim(), "+OK");
    let back = Adjustment {
        by: -i64::from(COST),
        age_us: 0,
        ..Adjustment::giving_back(&charge, &charged.limits[0], 0).expect("it was charged")
    };
    let back = Adjustment { receipt: None, ..back };
    let settling = tokio::spawn(store.settle(&scope, DecisionId::new(1), &[back]));
    eventually(PATIENCE, "it waits", async || {
        let waiting = redis.command(&["INFO", "clients"]).await;
        if waiting.contains("blocked_clients:1") { Ok(()) } else { Err(waiting) }
    })
    .await;
    let waits_us = redis_us(&redis).await;
    eventually(PATIENCE, "time passes", async || {
        let passed_us = redis_us(&redis).await - waits_us;
        if passed_us >= WAIT_US { Ok(()) } else { Err(passed_us) }
    })
    .await;
    assert_eq!(redis.command(&["CLIENT", "UNPAUSE"]).await.trim(), "+OK");
    let left = settling.await.expect("no panic").expect("settled")[0].reading.reset_us;
    let now_us = redis_us(&redis).await;
    // Full at some moment: what was given back is how much earlier that is.
    let back_us = (before_us + reset_us).saturating_sub(now_us + left);
    let most_us = u64::from(COST) * UNIT_US - WAIT_US;
    assert!(back_us <= most_us, "{back_us} µs of {most_us} at most");
    assert!(back_us > 0, "some");
}
