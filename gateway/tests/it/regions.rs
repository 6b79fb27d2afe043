//! Two regions: whatever happens in one leaves the other whole, on one Redis and on two, in both
//! styles of keys. `make test-rate-limit-multi-region` runs these.

use std::time::Duration;

use tidegate_gateway::Running;
use tidegate_policy::wire::{DecideRequest, Verdict};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::bench::{CALM, Caller, Speaks, question, settings, start};

const PATIENCE: Duration = Duration::from_secs(60);

async fn gateway(redis: &Redis, flags: &str) -> Running {
    start(settings(&format!("--redis-url {} {CALM} {flags}", redis.url()))).await
}

/// How many of that many at once are admitted.
async fn admitted(gateway: &Running, client: &str, of: usize) -> usize {
    let asked = DecideRequest { timeout_ms: 5_000, ..question(client) };
    let caller = Caller::new(Speaks::Http2);
    let one = async || {
        eventually(PATIENCE, "a verdict", async || {
            let answer = caller.decide(gateway.data_addr, &asked).await;
            if answer.status == 200 { Ok(answer.verdict()) } else { Err(answer.text()) }
        })
        .await
    };
    let mut admitted = 0;
    for _ in 0..of {
        admitted += usize::from(one().await.verdict == Verdict::Allow);
    }
    admitted
}

async fn limits(redis: &Redis) -> Vec<String> {
    let reply = redis.command(&["KEYS", "ratelimit:*"]).await;
    let mut keys: Vec<String> =
        reply.lines().filter(|line| line.contains(":ip:")).map(str::to_owned).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn a_limit_used_up_in_one_region_is_whole_in_the_other() {
    for style in ["sharded", "plain"] {
        let (shared, own) = (Redis::start().await, Redis::start().await);
        let flags = |region: &str| format!("--region {region} --key-style {style}");
        let here = gateway(&shared, &flags("us-central1")).await;
        let also_here = gateway(&shared, &flags("us-central1")).await;
        let there = gateway(&shared, &flags("eu-west1")).await;
        let elsewhere = gateway(&own, &flags("us-central1")).await;
        // Of two gateways of one region five together; of every other place five of its own.
        assert_eq!(admitted(&here, "203.0.113.1", 3).await, 3, "{style}");
        assert_eq!(admitted(&also_here, "203.0.113.1", 9).await, 2, "{style}");
        assert_eq!(admitted(&here, "203.0.113.1", 1).await, 0, "{style}");
        assert_eq!(admitted(&there, "203.0.113.1", 9).await, 5, "{style}: one Redis");
        assert_eq!(admitted(&elsewhere, "203.0.113.1", 9).await, 5, "{style}: two Redis");
        let name = |region: &str| match style {
            "plain" => format!("ratelimit:{region}:ip:203.0.113.1:p.one"),
            _ => format!("ratelimit:{{{region}|a1}}:ip:203.0.113.1:p.one"),
        };
        assert_eq!(limits(&shared).await, [name("eu-west1"), name("us-central1")]);
        assert_eq!(limits(&own).await, [name("us-central1")]);
    }
}

/// A region that is cold does not make its neighbour on the same Redis cold.
#[tokio::test]
async fn each_region_has_marks_of_its_own() {
    for style in ["sharded", "plain"] {
        let redis = Redis::start().await;
        let flags = |region: &str| format!("--cold-start 5m --region {region} --key-style {style}");
        let old = gateway(&redis, &flags("old")).await;
        assert_eq!(admitted(&old, "a", 5).await, 1, "{style}: cold, a burst of 1 of 2");
        for mark in redis.command(&["KEYS", "*:start"]).await.lines().filter(|l| l.contains("old"))
        {
            redis.command(&["SET", mark, "1"]).await;
        }
        assert_eq!(admitted(&old, "b", 9).await, 5, "{style}: old by now");
        let new = gateway(&redis, &flags("new")).await;
        assert_eq!(admitted(&new, "b", 5).await, 1, "{style}: cold");
        assert_eq!(admitted(&old, "c", 9).await, 5, "{style}: as before");
    }
}
