//! What operators are told of commands that the store carried out in part, or of which it does not say.

use std::time::Duration;

use serde_json::json;
use tidegate_gateway::Running;
use tidegate_policy::audit::Action;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::bench::{ADMIN, Caller, Speaks, decides, question, settings};
use crate::commands::{of_subject, send, told, watched};

const PATIENCE: Duration = Duration::from_secs(60);

async fn command(redis: &Redis, words: &[&str]) {
    let reply = redis.command(words).await;
    assert!(!reply.starts_with('-'), "{words:?}: {reply}");
}

/// Redis as it answers a user that may write, but no longer read.
#[tokio::test]
async fn an_order_that_was_carried_out_is_told_so_although_nothing_can_be_read_behind_it() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {}", redis.url());
    let (gateway, events) = watched(settings(&flags), None).await;
    decides(&gateway, &question("203.0.113.7")).await;
    command(&redis, &["ACL", "SETUSER", "default", "-getrange", "-mget"]).await;
    let mut grant = of_subject("ip", "203.0.113.7");
    (grant["units"], grant["seconds"]) = (json!(3), json!(60));
    for (path, body) in
        [("/v1/limits/grant", grant), ("/v1/limits/reset", of_subject("ip", "203.0.113.7"))]
    {
        let said = told(&gateway, path, body.to_string()).await;
        assert_eq!((&said["known"], said.get("remaining")), (&json!(true), None), "{path}: {said}");
    }
    let record = json!({"tenant": "acme", "endpoint": "POST /orders", "key": "k"}).to_string();
    let said = told(&gateway, "/v1/idempotency/delete", record.clone()).await;
    let expected = (json!("nothing: there was none"), json!("not_read"));
    assert_eq!((&said["order"], &said["state"]), (&expected.0, &expected.1));
    let outcomes: Vec<_> = events.of(Action::Admin).into_iter().map(|(_, said, _)| said).collect();
    assert_eq!(outcomes, ["begun", "ok", "begun", "ok", "begun", "ok"]);
    // What only reads, and what has to read first, was not carried out.
    for (path, body) in [
        ("/v1/limits/inspect", of_subject("ip", "203.0.113.7").to_string()),
        ("/v1/idempotency/look", record.clone()),
        ("/v1/idempotency/release", record),
    ] {
        let answer = send(&gateway, path, body).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.text().contains("the store did not carry it out"), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_order_that_the_store_does_not_answer_may_have_been_carried_out() {
    let mut redis = Redis::start().await;
    // Each order is waited for until then: a redis that stands still answers none.
    let flags =
        format!("--redis-url {} --cold-start 5m --redis-response-timeout 250ms", redis.url());
    let (gateway, events) = watched(settings(&flags), None).await;
    decides(&gateway, &question("203.0.113.7")).await;
    redis.process().pause();
    let record = json!({"tenant": "acme", "endpoint": "POST /orders", "key": "k"}).to_string();
    for (path, body, certain) in [
        ("/v1/idempotency/delete", record.clone(), false),
        ("/v1/region", r#"{"temperature": "cold"}"#.to_owned(), false),
        ("/v1/idempotency/release", record, true),
    ] {
        let answer = send(&gateway, path, body).await;
        assert_eq!(answer.status, 503, "{path}");
        let what = match certain {
            true => "the store did not carry it out",
            false => {
                "no answer of the store, which may have carried it out: look, and give the order again"
            }
        };
        assert!(answer.text().contains(what), "{path}: {}", answer.text());
        let (_, outcome, detail) = events.of(Action::Admin).pop().expect("on record");
        assert!(outcome != "ok" && detail.contains(what), "{path}: {outcome} {detail}");
    }
}

fn order(breaker: &str, order: &str) -> String {
    json!({"breaker": breaker, "order": order}).to_string()
}

/// An order to one breaker, as soon as the store is there.
async fn trips(gateway: &Running, breaker: &str) {
    eventually(PATIENCE, "an order", async || {
        let answer = send(gateway, "/v1/breakers/order", order(breaker, "trip")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
}

/// The name of one of them is held by something else.
#[tokio::test]
async fn an_order_to_many_breakers_says_on_how_many_it_was_carried_out() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {}", redis.url());
    let (gateway, events) = watched(settings(&flags), None).await;
    trips(&gateway, "users:a").await;
    for name in ["users:b", "users:c"] {
        told(&gateway, "/v1/breakers/order", order(name, "trip")).await;
    }
    let keys = redis.command(&["KEYS", "*users*b*"]).await;
    let key = keys.lines().last().expect("its key").to_owned();
    command(&redis, &["DEL", &key]).await;
    command(&redis, &["SADD", &key, "another"]).await;
    for word in ["reset", "trip"] {
        let answer = send(&gateway, "/v1/breakers/order", order("users", word)).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let what = "carried out on 2 of 3: give the order again";
        assert!(answer.text().contains(what), "{}", answer.text());
        let (_, outcome, detail) = events.of(Action::Admin).pop().expect("on record");
        assert_eq!(outcome, "store-error");
        assert!(detail.ends_with(what), "{detail}");
    }
    // Of a list it is told that it cannot be read.
    let caller = Caller::new(Speaks::Http1);
    let listed = caller.get(gateway.admin_addr, "/v1/breakers", Some(ADMIN)).await.text();
    for row in [
        r#"{"breaker":"users:a","state":"open""#,
        r#"{"breaker":"users:b","unread":"store-error"}"#,
        r#"{"breaker":"users:c","state":"open""#,
    ] {
        assert!(listed.contains(row), "{row} in {listed}");
    }
    // The bare name's own record comes behind all of them.
    command(&redis, &["DEL", &key]).await;
    let bare = key.replace("users:b", "users").replace("users%3Ab", "users");
    assert_ne!(bare, key);
    command(&redis, &["SADD", &bare, "another"]).await;
    let answer = send(&gateway, "/v1/breakers/order", order("users", "reset")).await;
    assert!(answer.text().contains("carried out on 2 of"), "{}", answer.text());
}

/// Redis as it answers a user that may write a breaker's record, but not note it among those that changed.
#[tokio::test]
async fn an_order_that_nobody_hears_of_is_told_so() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {}", redis.url());
    let (gateway, events) = watched(settings(&flags), None).await;
    trips(&gateway, "users:a").await;
    command(&redis, &["ACL", "SETUSER", "default", "-zadd"]).await;
    let unlisted = "the list of changes, from which Envoys that do not report on the breaker hear of it; by all others it was: give the order again";
    for (breaker, word, what) in [
        ("users", "force_open", unlisted),
        ("users:a", "disable", unlisted),
        ("users", "trip", "carried out on 0 of 1: give the order again"),
    ] {
        let answer = send(&gateway, "/v1/breakers/order", order(breaker, word)).await;
        assert_eq!(answer.status, 503, "{breaker} {word}: {}", answer.text());
        assert!(answer.text().contains(what), "{breaker} {word}: {}", answer.text());
        let (_, outcome, detail) = events.of(Action::Admin).pop().expect("on record");
        assert!(outcome != "ok" && detail.ends_with(what), "{outcome}: {detail}");
    }
    // Given again it is heard of.
    command(&redis, &["ACL", "SETUSER", "default", "+zadd"]).await;
    told(&gateway, "/v1/breakers/order", order("users", "force_open")).await;
    let listed = redis.command(&["ZRANGE", "breakers:{default}", "0", "-1"]).await;
    assert!(listed.lines().any(|line| line == "users"), "{listed}");
}

#[tokio::test]
async fn no_region_is_declared_where_none_is_ever_cold() {
    let redis = Redis::start().await;
    for flags in [String::new(), format!("--redis-url {}", redis.url())] {
        let (gateway, events) = watched(settings(&flags), None).await;
        decides(&gateway, &question("203.0.113.7")).await;
        for (order, remedy) in [
            (r#"{"temperature": "cold"}"#, "start all its gateways with --cold-start"),
            (r#"{"temperature": "warm"}"#, "give the order to one of them"),
        ] {
            let answer = send(&gateway, "/v1/region", order).await;
            assert_eq!(answer.status, 400, "{flags} {order}: {}", answer.text());
            assert!(answer.text().contains(remedy), "{}", answer.text());
            assert_eq!(events.of(Action::Admin).pop().expect("on record").1, "bad-message");
        }
    }
}
