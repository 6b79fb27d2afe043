//! What a gateway asks of its Redis, and what it leaves there: one round trip per decision, and for good only its marks.

use http::Method;
use serde_json::json;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::wire::{DecideRequest, DecisionId, SETTLE_PATH, encode};
use tidegate_tests::redis::Redis;

use crate::bench::{
    CALM, Caller, Speaks, TOKEN, decides, question, request, settings, settlement, start,
};
use crate::commands::{of_subject, told};
use crate::{claims, leases};

/// How often a command was called, by a client or by a script.
async fn calls(redis: &Redis, command: &str) -> u64 {
    let said = redis.command(&["INFO", "commandstats"]).await;
    let line = format!("cmdstat_{command}:calls=");
    let count = said.lines().find_map(|said| said.strip_prefix(&line)?.split(',').next());
    count.map_or(0, |count| count.parse().expect("a number"))
}

/// However many limits a subject has, they are decided in one round trip; so are several subjects, on one server.
#[tokio::test]
async fn a_decision_is_one_round_trip() {
    const DECISIONS: u64 = 20;
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} --cold-start 5m", redis.url());
    let gateway = start(settings(&flags)).await;
    let mut asked = question("203.0.113.1");
    let another = question("203.0.113.2").limits[0].subject.clone();
    for (id, algorithm) in [("p.two", Algorithm::Gcra), ("p.three", Algorithm::Window)] {
        let mut more = asked.limits[0].clone();
        (more.id, more.algorithm) = (id.to_owned(), algorithm);
        asked.limits.push(more);
    }
    decides(&gateway, &asked).await;
    for subjects in 1..=2 {
        let before = calls(&redis, "evalsha").await;
        for _ in 0..DECISIONS {
            // Some admit and some deny.
            decides(&gateway, &asked).await;
        }
        assert_eq!(calls(&redis, "evalsha").await - before, DECISIONS, "{subjects}");
        asked.limits[2].subject = another.clone();
    }
    assert_eq!(calls(&redis, "eval").await, 0);
}

/// Limits, what was settled and given back, a reset, a grant, leases, breakers and the list of their changes, keys and
/// their answers. Only what an operator orders may have no end.
#[tokio::test]
async fn of_all_that_a_gateway_leaves_in_redis_only_marks_stay() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM} --cold-start 5m", redis.url());
    let gateway = start(settings(&flags)).await;
    for (number, algorithm) in (1u128..).zip(Algorithm::ALL) {
        let mut asked: DecideRequest = question("203.0.113.7");
        asked.limits[0].algorithm = algorithm;
        decides(&gateway, &asked).await;
        for (nth, by) in (0u128..).zip([-1, 2]) {
            let mut message = settlement(&asked, by);
            message.id = DecisionId::new(number * 10 + nth);
            let (to, body) = (gateway.data_addr, encode(&message));
            let call = request(to, Method::POST, SETTLE_PATH, Some(TOKEN), body);
            let answer = Caller::new(Speaks::Http1).send(call).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let mut grant = of_subject("ip", "203.0.113.8");
        (grant["units"], grant["seconds"]) = (json!(3), json!(60));
        told(&gateway, "/v1/limits/grant", grant.to_string()).await;
        told(&gateway, "/v1/limits/reset", of_subject("ip", "203.0.113.9").to_string()).await;
    }
    leases::take_some(&gateway).await;
    claims::decide(&gateway, &claims::asked(71, "acme", 1, "under way")).await;
    claims::complete_one(&gateway, &claims::asked(72, "acme", 1, "done")).await;
    let trip = json!({"breaker": "users:a", "order": "trip"}).to_string();
    told(&gateway, "/v1/breakers/order", trip).await;

    let mut stay = Vec::new();
    let (mut cursor, mut kinds) = ("0".to_owned(), Vec::new());
    loop {
        let page = redis.command(&["SCAN", &cursor, "COUNT", "1000"]).await;
        // Of a reply: the cursor, then the keys, each behind a line of its length.
        let mut lines = page.lines().filter(|line| !line.starts_with(['*', '$']));
        cursor = lines.next().expect("a cursor").to_owned();
        for key in lines {
            let ttl = redis.command(&["PTTL", key]).await;
            kinds.push(key.split(':').next().unwrap_or_default().to_owned());
            if ttl.trim() == ":-1" {
                stay.push(key.to_owned());
            }
        }
        if cursor == "0" {
            break;
        }
    }
    kinds.sort();
    kinds.dedup();
    for kind in ["breaker", "breakers", "idempotency", "ratelimit", "settled"] {
        assert!(kinds.iter().any(|seen| seen == kind), "{kind} in {kinds:?}");
    }
    let of = |kind: &str| {
        let is_one = |key: &&String| key.starts_with("ratelimit:{default|") && key.ends_with(kind);
        stay.iter().filter(is_one).count()
    };
    // Since when each part of the region is known, and under which run of the server it was last seen.
    assert_eq!((of("}:start"), of("}:run"), stay.len()), (256, 256, 512), "{stay:?}");
}
