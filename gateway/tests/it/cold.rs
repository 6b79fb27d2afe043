//! The guard against cold regions on a real Redis: a new region, a flushed Redis, an empty replica,
//! and what an operator says. Other tests have no guard, or declare their region warm.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use redis::aio::MultiplexedConnection;
use tidegate_gateway::clock::Clock;
use tidegate_gateway::store::StoreCounters;
use tidegate_gateway::store::redis::{RedisSettings, RedisStore, Region};
use tidegate_gateway::{Cores, Running};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::limit::refund::Receipt;
use tidegate_policy::wire::{
    Adjustment, DecideRequest, LimitCall, SETTLE_PATH, SettleReply, SettleRequest, VERSION,
    Verdict, encode,
};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tokio::sync::Semaphore;

use crate::bench::{
    ADMIN, Answer, CALM, Caller, Speaks, TOKEN, decides, question, request, settings, start,
};
use crate::proxy::Proxy;
use crate::redis_store;
use crate::redis_store::swift::Held;

const PATIENCE: Duration = Duration::from_secs(60);

async fn gateway(url: &str, flags: &str) -> Running {
    start(settings(&format!("--redis-url {url} {CALM} {flags}"))).await
}

async fn connection(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

/// Ten an hour, in one of both ways.
fn ten(client: &str, algorithm: Algorithm) -> DecideRequest {
    let mut question = DecideRequest { timeout_ms: 5_000, ..question(client) };
    let limit = &mut question.limits[0];
    (limit.limit, limit.burst, limit.period_us) = (10, 10, 3_600_000_000);
    limit.algorithm = algorithm;
    question
}

fn look(client: &str, algorithm: Algorithm) -> DecideRequest {
    let mut question = ten(client, algorithm);
    question.limits[0].cost = 0;
    question
}

/// How many of that many requests at once are admitted, and what is told of the limit.
async fn admitted(gateway: &Running, question: &DecideRequest, of: usize) -> (usize, Option<u32>) {
    let (mut admitted, mut reduced) = (0, None);
    for _ in 0..of {
        let reply = decides(gateway, question).await;
        admitted += usize::from(reply.verdict == Verdict::Allow);
        reduced = reply.limits[0].limit;
    }
    (admitted, reduced)
}

async fn declare(gateway: &Running, token: &str, body: &'static str) -> Answer {
    let caller = Caller::new(Speaks::Http1);
    caller.send(request(gateway.admin_addr, Method::POST, "/v1/region", Some(token), body)).await
}

#[tokio::test]
async fn a_new_region_admits_half_until_somebody_declares_it_warm() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis.url(), "--cold-start 5m").await;
    // A bucket of 10 that is cold holds 3 and gets 3 an hour; a window has all its 5 at once.
    assert_eq!(admitted(&gateway, &ten("a", Algorithm::Gcra), 12).await, (3, Some(5)));
    assert_eq!(admitted(&gateway, &ten("a", Algorithm::Window), 12).await, (5, Some(5)));
    let viewer = declare(&gateway, crate::bench::VIEWER, r#"{"temperature": "warm"}"#).await;
    assert_eq!(viewer.status, 403, "{viewer:?}");
    let wrong = declare(&gateway, ADMIN, r#"{"temperature": "tepid"}"#).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("unknown variant `tepid`"), "{}", wrong.text());
    let warm = declare(&gateway, ADMIN, r#"{"temperature": "warm"}"#).await;
    assert_eq!(warm.status, 200, "{warm:?}");
    assert_eq!(admitted(&gateway, &ten("b", Algorithm::Gcra), 12).await, (10, None));
    assert_eq!(admitted(&gateway, &ten("a", Algorithm::Window), 12).await, (5, None), "the rest");
    declare(&gateway, ADMIN, r#"{"temperature": "cold"}"#).await;
    assert_eq!(admitted(&gateway, &ten("c", Algorithm::Gcra), 12).await, (3, Some(5)));
}

#[tokio::test]
async fn a_region_becomes_warm_by_itself() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis.url(), "--cold-start 5s").await;
    assert_eq!(decides(&gateway, &ten("a", Algorithm::Gcra)).await.limits[0].limit, Some(5));
    let mut turn = 0;
    eventually(PATIENCE, "whole limits", async || {
        turn += 1;
        let reply = decides(&gateway, &ten(&format!("later-{turn}"), Algorithm::Gcra)).await;
        if reply.limits[0].limit.is_none() { Ok(()) } else { Err(reply) }
    })
    .await;
    assert_eq!(admitted(&gateway, &ten("b", Algorithm::Gcra), 12).await, (10, None));
}

/// Product row A2, literally, by the script's own virtual time: 500 requests over the first minute.
#[tokio::test]
async fn five_hundred_requests_over_the_first_minute_get_half_the_limit() {
    let redis = Redis::start().await;
    let mut connection = connection(&redis).await;
    let script = redis::Script::new(include_str!("../../../lua/rl_check.lua"));
    let start_us: u64 = 1_800_000_000_000_000;
    for (place, (limit, half)) in [(100, 50), (7, 3), (2, 1), (1, 1)].into_iter().enumerate() {
        let quota = tidegate_policy::gcra::Quota::new(limit, 60_000_000, limit).expect("sound");
        let (warm, cold) = (quota.pace(), quota.cold_pace());
        let numbers = [1.0, warm.interval, warm.span, cold.interval, cold.span];
        let packed = [b"g\x01".as_slice(), numbers.map(f64::to_le_bytes).as_flattened()].concat();
        let mut admitted = 0;
        for n in 0..500u64 {
            let now_us = start_us + n * 60_000_000 / 499;
            let mut call = script.prepare_invoke();
            call.key(format!("limit-{place}")).key(format!("mark-{place}"));
            call.arg(now_us).arg(300_000_000).arg(packed.as_slice());
            let reply: Vec<i64> = call.invoke_async(&mut connection).await.expect("a reply");
            admitted += reply[0];
            assert_eq!(reply[6], 1, "cold");
        }
        assert_eq!(admitted, half, "of {limit} a minute");
        let mut call = script.prepare_invoke();
        call.key(format!("other-{place}")).key(format!("mark-{place}"));
        call.arg(start_us + 300_000_000).arg(300_000_000).arg(packed.as_slice());
        let reply: Vec<i64> = call.invoke_async(&mut connection).await.expect("a reply");
        assert_eq!((reply[2], reply[6]), (i64::from(limit) - 1, 0), "whole after five minutes");
    }
}

/// A mark that was set while the clock was an hour ahead: whichever script meets it first says that the region begins then.
#[tokio::test]
async fn a_mark_ahead_of_the_clock_keeps_a_region_cold_no_longer_than_a_new_one() {
    let redis = Redis::start().await;
    let mut connection = connection(&redis).await;
    let check = redis::Script::new(include_str!("../../../lua/rl_check.lua"));
    let settle = redis::Script::new(include_str!("../../../lua/rl_settle.lua"));
    let lease = redis::Script::new(include_str!("../../../lua/rl_lease.lua"));
    let start_us: u64 = 1_800_000_000_000_000;
    let quota = tidegate_policy::gcra::Quota::new(100, 60_000_000, 100).expect("sound");
    let (warm, cold) = (quota.pace(), quota.cold_pace());
    let terms = [warm.interval, warm.span, cold.interval, cold.span];
    let packed = |head: &[u8], numbers: &[f64]| {
        let numbers = numbers.iter().chain(&terms).flat_map(|number| number.to_le_bytes());
        head.iter().copied().chain(numbers).collect::<Vec<u8>>()
    };
    for (place, script) in [&check, &settle, &lease].into_iter().enumerate() {
        let (limit, mark) = (format!("limit-{place}"), format!("mark-{place}"));
        let ahead_us = start_us - tidegate_policy::gcra::EPOCH_US + 3_600_000_000;
        redis::cmd("SET").arg(&mark).arg(ahead_us).exec_async(&mut connection).await.expect("set");
        let mut call = script.prepare_invoke();
        call.key(&limit);
        match place {
            1 => {
                call.key("settled").key("back").key(&mark).arg(start_us).arg(300_000_000);
                call.arg(60_000).arg(packed(b"g\x01\x00", &[1.0, 0.0, 0.0, 0.0]));
            }
            2 => {
                let said: Vec<u8> =
                    [7u32, 0, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
                let times: Vec<u8> =
                    [1_000_000u32, 1_000, 1_000].iter().flat_map(|us| us.to_le_bytes()).collect();
                call.key(&mark).arg(start_us).arg(300_000_000);
                call.arg([packed(&[&said[..], &[0]].concat(), &[]), times].concat());
            }
            _ => _ = call.key(&mark).arg(start_us).arg(300_000_000).arg(packed(b"g\x01", &[0.0])),
        }
        let _: Vec<i64> = call.invoke_async(&mut connection).await.expect("a reply");
        for (after_us, expected) in [(299_999_999, 1), (300_000_000, 0)] {
            let mut look = check.prepare_invoke();
            look.key("other").key(&mark).arg(start_us + after_us).arg(300_000_000);
            look.arg(packed(b"g\x01", &[0.0]));
            let reply: Vec<i64> = look.invoke_async(&mut connection).await.expect("a reply");
            assert_eq!(reply[6], expected, "{place}: {after_us}");
        }
    }
}

#[tokio::test]
async fn every_shard_is_marked_at_connect_so_that_a_quiet_one_is_not_new() {
    let redis = Redis::start().await;
    let mut connection = connection(&redis).await;
    let gateway = gateway(&redis.url(), "--cold-start 5m --region here").await;
    decides(&gateway, &ten("a", Algorithm::Gcra)).await;
    let marks: Vec<String> = redis::cmd("KEYS")
        .arg("ratelimit:{here|*}:start")
        .query_async(&mut connection)
        .await
        .expect("keys");
    assert_eq!(marks.len(), 256);
    for mark in &marks {
        let ttl: i64 =
            redis::cmd("PTTL").arg(mark).query_async(&mut connection).await.expect("a number");
        assert_eq!(ttl, -1, "a mark stays");
        // As if the region had begun long ago.
        redis::cmd("SET").arg(mark).arg(1).exec_async(&mut connection).await.expect("set");
    }
    let quiet = decides(&gateway, &ten("a-shard-that-nobody-touched", Algorithm::Gcra)).await;
    assert_eq!((quiet.limits[0].limit, quiet.limits[0].remaining), (None, 9));
}

/// Every 30 s, without a decision and without a new connection.
#[tokio::test]
async fn a_mark_that_is_lost_is_set_again_before_anybody_touches_its_shard() {
    let redis = Redis::start().await;
    let before = redis_store::settings(&redis);
    let region = Region { cold: Some(Duration::from_secs(300)), ..before.region };
    let settings = RedisSettings { region, ..before };
    let goes_on = Arc::new(Semaphore::new(0));
    let clock: Arc<dyn Clock> = Arc::new(Held::new(Duration::from_secs(30), &goes_on));
    let _store =
        RedisStore::start(&settings, &Arc::new(Cores::here()), &clock, StoreCounters::default())
            .expect("started");
    for round in ["at connect", "after a flush", "and another"] {
        eventually(PATIENCE, round, async || {
            let size = redis.command(&["DBSIZE"]).await;
            // Each with the run under which it is seen.
            if size.trim() == ":512" { Ok(()) } else { Err(size) }
        })
        .await;
        redis.command(&["FLUSHALL"]).await;
        goes_on.add_permits(1);
    }
    eventually(PATIENCE, "it was that long", async || match goes_on.available_permits() {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
}

#[tokio::test]
async fn a_flush_under_load_makes_the_region_cold_with_the_very_next_decision() {
    let redis = Redis::start().await;
    let gateway = gateway(&redis.url(), "--cold-start 5m").await;
    eventually(PATIENCE, "warm", async || {
        let answer = declare(&gateway, ADMIN, r#"{"temperature": "warm"}"#).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(admitted(&gateway, &ten("a", Algorithm::Window), 4).await, (4, None));
    let caller = Caller::new(Speaks::Http2);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (caller, to) = (caller.clone(), gateway.data_addr);
            let question = ten("load", Algorithm::Window);
            tokio::spawn(async move { caller.decide(to, &question).await.verdict() })
        })
        .collect();
    redis.command(&["FLUSHALL"]).await;
    let mut admissions = 0;
    for call in calls {
        admissions += usize::from(call.await.expect("no panic").verdict == Verdict::Allow);
    }
    // At most all of before the flush, and half of after it.
    assert!(admissions <= 15, "{admissions}");
    assert_eq!(admitted(&gateway, &ten("b", Algorithm::Window), 12).await, (5, Some(5)));
}

#[tokio::test]
async fn a_failover_to_an_empty_replica_makes_the_region_cold() {
    let (old, empty) = (Redis::start().await, Redis::start().await);
    let proxy = Proxy::start(old.socket()).await;
    let gateway = gateway(&proxy.url(), "--cold-start 5m").await;
    eventually(PATIENCE, "warm", async || {
        let answer = declare(&gateway, ADMIN, r#"{"temperature": "warm"}"#).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(admitted(&gateway, &ten("a", Algorithm::Gcra), 2).await, (2, None));
    proxy.lead_to(empty.socket());
    old.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let caller = Caller::new(Speaks::Http2);
    let reduced = eventually(PATIENCE, "the other one decides", async || {
        let answer = caller.decide(gateway.data_addr, &ten("z", Algorithm::Gcra)).await;
        if answer.status == 200 { Ok(answer.verdict().limits[0].limit) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(reduced, Some(5), "empty, so cold");
}

/// Settles under that id what was asked of one limit, and says what remains.
async fn settle(
    gateway: &Running,
    asked: &DecideRequest,
    (id, by): (u128, i64),
    (age_us, receipt): (u64, Option<Receipt>),
) -> u64 {
    let limit = &asked.limits[0];
    let message = SettleRequest {
        finish: None,
        octets: Vec::new(),
        v: VERSION,
        id: tidegate_policy::wire::DecisionId::new(id),
        scope: asked.scope.clone(),
        timeout_ms: 5_000,
        age_us,
        traceparent: None,
        request_id: None,
        adjustments: vec![Adjustment {
            id: limit.id.clone(),
            subject: limit.subject.clone(),
            limit: limit.limit,
            period_us: limit.period_us,
            burst: limit.burst,
            algorithm: limit.algorithm,
            by,
            receipt,
        }],
    };
    let call = request(gateway.data_addr, Method::POST, SETTLE_PATH, Some(TOKEN), encode(&message));
    let answer = Caller::new(Speaks::Http2).send(call).await;
    assert!(answer.marked() && answer.status == 200, "{answer:?}");
    SettleReply::decode(&answer.body, message.id).expect("a reply").limits[0].remaining
}

/// On Redis and in memory: a message that took an hour gives all back, since the store knows better.
#[tokio::test]
async fn what_was_told_of_a_charge_gives_it_back_whole() {
    const HOUR_US: u64 = 3_600_000_000;
    let redis = Redis::start().await;
    for flags in [format!("--redis-url {} {CALM}", redis.url()), CALM.to_owned()] {
        let gateway = start(settings(&flags)).await;
        for algorithm in Algorithm::ALL {
            let asked = ten(&format!("{algorithm:?}").to_lowercase(), algorithm);
            decides(&gateway, &asked).await;
            let told = decides(&gateway, &asked).await.limits[0].clone();
            assert_eq!((told.remaining, told.charged_us.is_some()), (8, true), "{flags}");
            assert_eq!(settle(&gateway, &asked, (1, -1), (HOUR_US, None)).await, 8, "{flags}");
            for _ in 0..2 {
                let said = (HOUR_US, told.receipt());
                assert_eq!(settle(&gateway, &asked, (2, -1), said).await, 9, "{flags}");
            }
        }
        let looks = DecideRequest {
            limits: Vec::from([LimitCall {
                cost: 0,
                ..ten("l", Algorithm::Gcra).limits[0].clone()
            }]),
            ..ten("l", Algorithm::Gcra)
        };
        assert_eq!(decides(&gateway, &looks).await.limits[0].charged_us, None, "{flags}");
    }
}

/// Redis is flushed, or the limit reset, while half of a limit is reserved for an answer that is on its way. Others use
/// what there is then, and that is not the reserve's to give back.
#[tokio::test]
async fn what_was_forgotten_gives_nothing_of_others_back() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM} --cold-start 5m", redis.url());
    for (flags, flushed) in [(flags.as_str(), true), (flags.as_str(), false), (CALM, false)] {
        let gateway = start(settings(flags)).await;
        let (told, asked): (Vec<_>, Vec<_>) = {
            if flags != CALM {
                eventually(PATIENCE, "warm", async || {
                    let answer = declare(&gateway, ADMIN, r#"{"temperature": "warm"}"#).await;
                    if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
                })
                .await;
            }
            let mut reserves = Vec::new();
            for algorithm in Algorithm::ALL {
                let name = format!("{flushed}{algorithm:?}").to_lowercase();
                let mut asked = ten(&name, algorithm);
                asked.limits[0].cost = 5;
                let told = decides(&gateway, &asked).await.limits[0].clone();
                assert_eq!((told.remaining, told.charged_us.is_some()), (5, true), "{flags}");
                reserves.push((told, asked));
            }
            reserves.into_iter().unzip()
        };
        if flushed {
            redis.command(&["FLUSHALL"]).await;
        }
        for ((told, asked), cold) in told.into_iter().zip(asked).zip([3, 5]) {
            let (name, algorithm) =
                (asked.limits[0].subject.name.as_str(), asked.limits[0].algorithm);
            if !flushed {
                // It knows a limit's numbers by the last question.
                decides(&gateway, &look("z", algorithm)).await;
                let one = format!(
                    r#"{{"limit": "p.one", "subject": {{"kind": "ip", "name": "{name}"}}}}"#
                );
                let (to, path) = (gateway.admin_addr, "/v1/limits/reset");
                let reset = request(to, Method::POST, path, Some(ADMIN), one);
                assert_eq!(Caller::new(Speaks::Http1).send(reset).await.status, 200);
            }
            let others = ten(name, algorithm);
            let whole = if flushed { (cold, Some(5)) } else { (10, None) };
            assert_eq!(admitted(&gateway, &others, 12).await, whole, "{flags} {algorithm:?}");
            for (id, receipt) in [(1, told.receipt()), (2, None)] {
                let left = settle(&gateway, &asked, (id, -5), (0, receipt)).await;
                assert_eq!(left, 0, "{flags} {algorithm:?} {receipt:?}");
            }
        }
    }
}

/// `POST /v1/settle`, on Redis and in memory: charged more, given back, and each only once.
#[tokio::test]
async fn what_a_decision_reserved_is_settled_once() {
    let redis = Redis::start().await;
    for flags in [format!("--redis-url {} {CALM}", redis.url()), CALM.to_owned()] {
        let gateway = start(settings(&flags)).await;
        for algorithm in Algorithm::ALL {
            let asked = ten(&format!("{algorithm:?}").to_lowercase(), algorithm);
            assert_eq!(decides(&gateway, &asked).await.limits[0].remaining, 9);
            let settle = async |by, id| settle(&gateway, &asked, (id, by), (0, None)).await;
            for _ in 0..3 {
                assert_eq!(settle(6, 1).await, 3, "{flags} {algorithm:?}: once");
            }
            // A bucket got a little by itself within the message's own time.
            assert_eq!(settle(-3, 2).await, if algorithm == Algorithm::Gcra { 5 } else { 6 });
            assert_eq!(settle(-3, 2).await, if algorithm == Algorithm::Gcra { 5 } else { 6 });
            assert_eq!(settle(50, 3).await, 0, "into debt");
            assert_eq!(decides(&gateway, &asked).await.verdict, Verdict::Deny);
        }
    }
}

/// Operators look at one key, forget it, and see who asks most; nobody else does.
#[tokio::test]
async fn operators_inspect_reset_and_find_the_hottest_keys() {
    let redis = Redis::start().await;
    for flags in [format!("--redis-url {} {CALM}", redis.url()), CALM.to_owned()] {
        let gateway = start(settings(&flags)).await;
        let caller = Caller::new(Speaks::Http1);
        let command = async |method: Method, path: &str, token: &str, body: &'static str| {
            caller.send(request(gateway.admin_addr, method, path, Some(token), body)).await
        };
        let one = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "a"}}"#;
        let early = command(Method::POST, "/v1/limits/inspect", ADMIN, one).await;
        assert_eq!(early.status, 400, "{early:?}");
        assert_eq!(admitted(&gateway, &ten("a", Algorithm::Gcra), 12).await, (10, None));
        decides(&gateway, &ten("b", Algorithm::Gcra)).await;
        let viewer = command(Method::POST, "/v1/limits/reset", crate::bench::VIEWER, one).await;
        assert_eq!(viewer.status, 403);
        let wrong = command(Method::POST, "/v1/limits/reset", ADMIN, "{}").await;
        assert!(wrong.text().contains("missing field `limit`"), "{}", wrong.text());
        let json = |answer: Answer| -> serde_json::Value {
            assert_eq!(answer.status, 200, "{answer:?}");
            serde_json::from_slice(&answer.body).expect("JSON")
        };
        let seen = json(command(Method::POST, "/v1/limits/inspect", ADMIN, one).await);
        assert_eq!((&seen["remaining"], &seen["configured"]), (&0.into(), &10.into()), "{seen}");
        let seen = json(command(Method::POST, "/v1/limits/reset", ADMIN, one).await);
        assert_eq!(seen["remaining"], 10, "{seen}");
        let hot = json(command(Method::GET, "/v1/limits/hot", ADMIN, "").await);
        assert_eq!((&hot[0]["subject"], &hot[0]["asked"]), (&"a".into(), &12.into()), "{hot}");
        assert_eq!(hot[0]["denied"], 2, "{hot}");
        let metrics = caller.get(gateway.admin_addr, "/metrics", Some(ADMIN)).await.text();
        for line in [
            "tidegate_gateway_limits_total{limit=\"p.one\",outcome=\"denied\"} 2\n",
            "tidegate_gateway_limits_total{limit=\"p.one\",outcome=\"near\"} 2\n",
            "tidegate_gateway_limits_total{limit=\"p.one\",outcome=\"allowed\"} 9\n",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
    }
}

/// Five beyond the ten, and then none; what is granted anew takes the place of what was granted before.
#[tokio::test]
async fn operators_grant_more_than_a_limit_admits_until_a_moment() {
    let redis = Redis::start().await;
    for flags in [format!("--redis-url {} {CALM}", redis.url()), CALM.to_owned()] {
        let gateway = start(settings(&flags)).await;
        let caller = Caller::new(Speaks::Http1);
        let left = |answer: Answer| {
            assert_eq!(answer.status, 200, "{answer:?}");
            let shown: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            shown["remaining"].as_u64().expect("a number")
        };
        let grant = |units: u32, seconds: u32| {
            let subject = r#"{"kind": "ip", "name": "c"}"#;
            format!(
                r#"{{"limit": "p.one", "subject": {subject}, "units": {units}, "seconds": {seconds}}}"#
            )
        };
        let extra = async |token: &str, body: String| {
            let to = gateway.admin_addr;
            caller.send(request(to, Method::POST, "/v1/limits/grant", Some(token), body)).await
        };
        decides(&gateway, &ten("z", Algorithm::Gcra)).await;
        let with = |more: &str| {
            format!(r#"{{"limit": "p.one", "subject": {{"kind": "ip", "name": "c"}}{more}}}"#)
        };
        let named = |kind: &str, name: &str| {
            format!(
                r#"{{"limit": "p.one", "subject": {{"kind": "{kind}", "name": "{name}"}}, "units": 1, "seconds": 1}}"#
            )
        };
        let units = "send a whole number from 0 to 100, 10 times the limit; 0 takes a grant back";
        let seconds = "send a whole number from 1 to 604800, a week";
        let rows = [
            (grant(101, 60), format!("units is 101: {units}")),
            (grant(1, 604_801), format!("seconds is 604801: {seconds}")),
            (grant(1, 0), format!("seconds is 0: {seconds}")),
            (with(""), format!("units is missing: {units}")),
            (with(r#", "units": 1"#), format!("seconds is missing: {seconds}")),
            (with(r#", "units": -1, "seconds": 1"#), format!("units is -1: {units}")),
            (with(r#", "units": 1.5, "seconds": 1"#), format!("units is 1.5: {units}")),
            (with(r#", "units": 1e99, "seconds": 1"#), format!("units is 1e+99: {units}")),
            (
                with(r#", "units": 4294967297, "seconds": 1"#),
                format!("units is 4294967297: {units}"),
            ),
            (with(r#", "unit": 1"#), "unknown field `unit`".to_owned()),
            (grant(1, 1).replace("p.one", "p.two"), r#"limit is "p.two": this gateway"#.to_owned()),
            (
                named("ip", "2001:db8::1/129"),
                r#"{"kind":"ip","name":"2001:db8::1/129"}: a subject is"#.to_owned(),
            ),
            (named("header", "2001:db8::1"), "a subject is spelled in".to_owned()),
            (named("ip", ""), "a subject is spelled in".to_owned()),
            (named("ip", "%zz"), "a subject is spelled in".to_owned()),
            (named("ip", "a\\u0000b"), "a subject is spelled in".to_owned()),
            (named("ip", "{default|a1}"), "a subject is spelled in".to_owned()),
            (named("ip", &"x".repeat(4_096)), "a subject is spelled in".to_owned()),
            (named("planet", "c"), "unknown variant `planet`".to_owned()),
            (grant(1, 1).replace("p.one", &"p".repeat(9_000)), "pppp…\": this gateway".to_owned()),
            (
                with(r#", "tenant": "a/b", "units": 1, "seconds": 1"#),
                r#"tenant is "a/b": "#.to_owned(),
            ),
        ];
        let refused = rows.len() + 1;
        for (body, what) in rows {
            let answer = extra(ADMIN, body).await;
            let text = answer.text().replace("\\\"", "\"");
            assert!(answer.status == 400 && text.contains(&what), "{what}: {text}");
            assert!(text.len() < 1_000, "{text}");
        }
        assert_eq!(extra(crate::bench::VIEWER, grant(5, 60)).await.status, 403);
        for algorithm in Algorithm::ALL {
            decides(&gateway, &ten("z", algorithm)).await;
            for _ in 0..2 {
                assert_eq!(left(extra(ADMIN, grant(5, 3_600)).await), 15);
            }
            assert_eq!(admitted(&gateway, &ten("c", algorithm), 17).await, (15, None));
            assert_eq!(left(extra(ADMIN, grant(3, 3_600)).await), 3);
            assert_eq!(left(extra(ADMIN, grant(0, 1)).await), 0);
            assert_eq!(admitted(&gateway, &ten("c", algorithm), 2).await, (0, None));
            // It ends by itself, and with a reset.
            assert_eq!(left(extra(ADMIN, grant(7, 3)).await), 7);
            eventually(PATIENCE, "the end of the grant", async || {
                let left = decides(&gateway, &look("c", algorithm)).await.limits[0].remaining;
                if left == 0 { Ok(()) } else { Err(left) }
            })
            .await;
            assert_eq!(left(extra(ADMIN, grant(7, 3_600)).await), 7);
            let reset = r#"{"limit": "p.one", "subject": {"kind": "ip", "name": "c"}}"#;
            let to = gateway.admin_addr;
            let call = request(to, Method::POST, "/v1/limits/reset", Some(ADMIN), reset);
            assert_eq!(left(caller.send(call).await), 10, "the limit alone");
            assert_eq!(admitted(&gateway, &ten("c", algorithm), 12).await, (10, None));
        }
        let metrics = caller.get(gateway.admin_addr, "/metrics", Some(ADMIN)).await.text();
        let audited = format!(
            "tidegate_gateway_audit_events_total{{action=\"admin\"}} {}\n",
            // Each before it is carried out and when it has ended, for both algorithms.
            refused + 2 * 2 * 7
        );
        assert!(metrics.contains(&audited), "{metrics}");
    }
}
