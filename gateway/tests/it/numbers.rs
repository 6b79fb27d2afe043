//! Two filters with other numbers for one limit, through a real Redis and in memory; and what was
//! granted while Redis cannot write.

use http::Method;
use tidegate_gateway::Running;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::wire::{DecideRequest, SETTLE_PATH, Verdict, encode};
use tidegate_tests::redis::Redis;

use crate::bench::{
    ADMIN, Answer, CALM_SOON_BACK, Caller, Speaks, TOKEN, decides, question, request, settings,
    settlement, start,
};

const HOUR_US: u64 = 3_600_000_000;

fn asks(client: &str, limit: u32, period_us: u64, algorithm: Algorithm) -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 5_000, ..question(client) };
    let one = &mut question.limits[0];
    (one.limit, one.burst, one.period_us, one.algorithm) = (limit, limit, period_us, algorithm);
    question
}

/// How many requests in a row are admitted.
async fn admitted(gateway: &Running, question: &DecideRequest) -> usize {
    let mut admitted = 0;
    while decides(gateway, question).await.verdict == Verdict::Allow {
        admitted += 1;
    }
    admitted
}

#[tokio::test]
async fn filters_that_disagree_keep_each_to_its_own_numbers() {
    let redis = Redis::start().await;
    for flags in
        [format!("--redis-url {} {CALM_SOON_BACK}", redis.url()), CALM_SOON_BACK.to_owned()]
    {
        let gateway = start(settings(&flags)).await;
        for algorithm in Algorithm::ALL {
            let client = format!("{algorithm:?}").to_lowercase();
            let large = asks(&client, 100, 24 * HOUR_US, algorithm);
            let small = asks(&client, 5, HOUR_US, algorithm);
            assert_eq!(admitted(&gateway, &large).await, 100);
            for _ in 0..3 {
                // A bucket is one for both, and full for a small one sooner; a window is of its period.
                let first = admitted(&gateway, &small).await;
                assert!(first <= if algorithm == Algorithm::Window { 5 } else { 0 }, "{first}");
                assert_eq!(admitted(&gateway, &large).await, 0, "nothing is forgotten");
            }
            let tighter = asks(&client, 50, 24 * HOUR_US, algorithm);
            assert_eq!(admitted(&gateway, &tighter).await, 0, "of the same period: one for both");
        }
        let caller = Caller::new(Speaks::Http1);
        let text = caller.get(gateway.admin_addr, "/metrics", Some(ADMIN)).await.text();
        let count = text.lines().find_map(|line| {
            line.strip_prefix("tidegate_gateway_limit_changes_total ")?.parse::<u32>().ok()
        });
        assert!(count.is_some_and(|count| count >= 14), "operators are told: {text}");
    }
}

async fn admin(gateway: &Running, path: &str, body: &'static str) -> Answer {
    let call = request(gateway.admin_addr, Method::POST, path, Some(ADMIN), body);
    Caller::new(Speaks::Http1).send(call).await
}

#[tokio::test]
async fn a_grant_is_neither_lost_nor_used_while_redis_cannot_write() {
    const GRANT: &str = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "a"}, "units": 5, "seconds": 3600}"#;
    const MORE: &str = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "a"}, "units": 9, "seconds": 3600}"#;
    for (reason, begin, end) in [
        ("store-error", ["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        ("store-unavailable", ["REPLICAOF", "127.0.0.1", "1", ""], ["REPLICAOF", "NO", "ONE", ""]),
    ] {
        let redis = Redis::start().await;
        let words = |words: [&'static str; 4]| -> Vec<&'static str> {
            words.into_iter().filter(|word| !word.is_empty()).collect()
        };
        let gateway =
            start(settings(&format!("--redis-url {} {CALM_SOON_BACK}", redis.url()))).await;
        let asked = asks("a", 3, 24 * HOUR_US, Algorithm::Gcra);
        assert_eq!(admitted(&gateway, &asked).await, 3);
        assert_eq!(admin(&gateway, "/v1/limits/grant", GRANT).await.status, 200);
        assert_eq!(decides(&gateway, &asked).await.limits[0].remaining, 4);

        redis.command(&words(begin)).await;
        let caller = Caller::new(Speaks::Http2);
        let refused = caller.decide(gateway.data_addr, &asked).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (503, reason));
        let body = encode(&settlement(&asked, 2));
        let call = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), body);
        let refused = caller.send(call).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (503, reason));
        let refused = admin(&gateway, "/v1/limits/grant", MORE).await;
        assert_eq!(refused.status, 503, "{refused:?}");

        redis.command(&words(end)).await;
        assert_eq!(admitted(&gateway, &asked).await, 4, "what was left of it");
    }
}
