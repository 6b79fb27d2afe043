//! Redis that is away, comes back, forgets its scripts, stands still, or holds something else.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use tidegate_gateway::Running;
use tidegate_gateway::store::{Adjustment, Charge, Standing, Store};
use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::{Subject, SubjectKind, SubjectName};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::{Environment, KeyFormat, Region, Scope, Tenant};
use tidegate_policy::wire::{DecideRequest, DecisionId, Verdict};

use crate::bench::{Answer, CALM, Caller, Speaks, VIEWER, metric, question, settings, start};
use crate::proxy::{Mode, Proxy};
use crate::redis_store;
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

/// Generous for a machine that is busy elsewhere; the deadlines proper are the service's tests.
const PATIENCE: Duration = Duration::from_secs(60);

fn patient(client: &str) -> DecideRequest {
    DecideRequest { timeout_ms: 5_000, ..question(client) }
}

async fn start_on(redis: &Redis, flags: &str) -> Running {
    start(settings(&format!("--redis-url {} {flags}", redis.url()))).await
}

async fn readyz(gateway: &Running, expected: &str) {
    let caller = Caller::new(Speaks::Http1);
    eventually(PATIENCE, expected, async || {
        let text = caller.get(gateway.admin_addr, "/readyz", None).await.text();
        if text.contains(expected) { Ok(()) } else { Err(text) }
    })
    .await;
}

/// A verdict, within the time that a recovery may take.
async fn decides(gateway: &Running, caller: &Caller, client: &str) -> Answer {
    eventually(PATIENCE, "a verdict", async || {
        let answer = caller.decide(gateway.data_addr, &patient(client)).await;
        if answer.status == 200 { Ok(answer) } else { Err(answer.text()) }
    })
    .await
}

async fn both_up(gateway: &Running) {
    eventually(PATIENCE, "both connections are up", async || {
        match metric(gateway, "tidegate_gateway_store_connections_up{role=\"regional\"}").await {
            2.0 => Ok(()),
            up => Err(up),
        }
    })
    .await;
}

/// A connection of the test's own.
async fn connection(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).expect("a sound URL");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

#[tokio::test]
async fn two_gateways_share_what_lies_in_redis_and_regions_do_not() {
    let redis = Redis::start().await;
    let one = start_on(&redis, &format!("{CALM} --region here")).await;
    let other = start_on(&redis, &format!("{CALM} --region here")).await;
    let elsewhere = start_on(&redis, &format!("{CALM} --region there")).await;
    let caller = Caller::new(Speaks::Http2);
    for gateway in [&one, &other, &one, &other, &one] {
        let reply = decides(gateway, &caller, "203.0.113.1").await.verdict();
        assert_eq!(reply.verdict, Verdict::Allow);
    }
    assert_eq!(decides(&other, &caller, "203.0.113.1").await.verdict().verdict, Verdict::Deny);
    assert_eq!(decides(&elsewhere, &caller, "203.0.113.1").await.verdict().limits[0].remaining, 4);

    let mut connection = connection(&redis).await;
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg("ratelimit:*").query_async(&mut connection).await.expect("keys");
    keys.sort();
    let expected =
        ["ratelimit:{here|a1}:ip:203.0.113.1:p.one", "ratelimit:{there|a1}:ip:203.0.113.1:p.one"];
    assert_eq!(keys, expected);
    let left_ms: i64 =
        redis::cmd("PTTL").arg(expected[0]).query_async(&mut connection).await.expect("a number");
    assert!((1..=60_001).contains(&left_ms), "an idle key vanishes: {left_ms}");
}

#[tokio::test]
async fn a_script_that_was_flushed_is_loaded_again() {
    let redis = Redis::start().await;
    let gateway = start_on(&redis, &format!("--redis-connections 2 {CALM}")).await;
    let caller = Caller::new(Speaks::Http2);
    assert_eq!(decides(&gateway, &caller, "a").await.verdict().limits[0].remaining, 4);
    both_up(&gateway).await;
    let before = metric(&gateway, "tidegate_gateway_store_script_loads_total").await;
    assert!(before > 0.0, "all are preloaded on both connections");
    let mut connection = connection(&redis).await;
    let flushed = redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut connection).await;
    flushed.expect("flushed");
    let answer = caller.decide(gateway.data_addr, &patient("a")).await;
    assert_eq!(answer.verdict().limits[0].remaining, 3, "charged once");
    let after = metric(&gateway, "tidegate_gateway_store_script_loads_total").await;
    assert_eq!(after, 1.5 * before, "and now again on the one that was asked");
}

#[tokio::test]
async fn a_gateway_starts_without_redis_and_is_whole_once_it_comes() {
    let mut redis = Redis::start().await;
    redis.process().kill();
    // A deadline of 20 s, of which no part is waited for.
    let gateway = start_on(&redis, "").await;
    readyz(&gateway, "degraded").await;
    let caller = Caller::new(Speaks::Http1);
    let asked = Instant::now();
    let answer = caller.decide(gateway.data_addr, &question("a")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "store-unavailable"));
    assert!(asked.elapsed() < Duration::from_secs(5), "told at once: {:?}", asked.elapsed());
    assert!(!answer.text().contains("redis.sock"), "nothing of the inside: {}", answer.text());
    redis.restart().await;
    readyz(&gateway, "ok").await;
    let reply = crate::bench::decides(&gateway, &question("a")).await;
    assert_eq!(reply.verdict, Verdict::Allow);
}

#[tokio::test]
async fn redis_killed_and_restarted_is_found_again() {
    let mut redis = Redis::start().await;
    let gateway = start_on(&redis, &format!("--redis-connections 2 {CALM}")).await;
    let caller = Caller::new(Speaks::Http2);
    readyz(&gateway, "ok").await;
    decides(&gateway, &caller, "a").await;
    // One that was never up would come back unnoticed.
    both_up(&gateway).await;
    redis.process().kill();
    eventually(PATIENCE, "the loss is told", async || {
        let answer = caller.decide(gateway.data_addr, &patient("a")).await;
        if answer.status == 503 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    readyz(&gateway, "degraded").await;
    assert_eq!(metric(&gateway, "tidegate_gateway_store_up{role=\"regional\"}").await, 0.0);
    redis.restart().await;
    let back = Instant::now();
    let reply = decides(&gateway, &caller, "a").await.verdict();
    assert_eq!(reply.limits[0].remaining, 4, "the new Redis is empty");
    assert!(back.elapsed() < Duration::from_secs(10), "by itself, soon: {:?}", back.elapsed());
    readyz(&gateway, "ok").await;
    let reconnects =
        async || match metric(&gateway, "tidegate_gateway_store_reconnects_total").await {
            2.0 => Ok(()),
            other => Err(other),
        };
    eventually(PATIENCE, "both connections are back", reconnects).await;
}

/// product row A5, on a real Redis: 150 at once against one that stands still.
#[tokio::test]
async fn a_redis_that_stands_still_holds_a_hundred_and_turns_the_rest_away() {
    let mut redis = Redis::start().await;
    // Far apart, so that a slow machine keeps the order of the deadlines; and what waits for the processor for half a
    // second is shed. The calls go on behind the deadline, since Redis does at the end.
    let flags = "--pool-wait 2s --deadline 4s --redis-response-timeout 60s";
    let gateway = start_on(&redis, flags).await;
    let caller = Caller::new(Speaks::Http2);
    readyz(&gateway, "ok").await;
    decides(&gateway, &caller, "a").await;
    redis.process().signal(Signal::STOP.as_raw());
    let calls: Vec<_> = (0..150)
        .map(|nth| {
            let (caller, to) = (caller.clone(), gateway.data_addr);
            let asked = DecideRequest { id: DecisionId::new(100 + nth), ..patient("a") };
            tokio::spawn(async move { caller.decide(to, &asked).await })
        })
        .collect();
    let (mut timeouts, mut overloads) = (0, 0);
    for call in calls {
        let answer = call.await.expect("no panic");
        assert!(answer.marked());
        match (answer.status.as_u16(), answer.reason().as_str()) {
            (503, "store-timeout") => timeouts += 1,
            (429, "service-overloaded") => {
                overloads += 1;
                assert_eq!(answer.headers["retry-after"], "5");
                let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
                assert_eq!(body["error"], "service_overloaded");
                assert_eq!(body["message"], "Service temporarily overloaded, please retry");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((timeouts, overloads), (100, 50));
    redis.process().signal(Signal::CONT.as_raw());
    decides(&gateway, &caller, "b").await;
    eventually(PATIENCE, "all places are free", async || {
        match metric(&gateway, "tidegate_gateway_in_flight").await {
            0.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    readyz(&gateway, "ok").await;
    // Of the hundred, four fitted once Redis went on. Their callers had long been told of a timeout.
    assert_eq!(metric(&gateway, "tidegate_gateway_charges_given_back_total").await, 4.0);
    let again = decides(&gateway, &caller, "a").await;
    let again: serde_json::Value = serde_json::from_slice(&again.body).expect("JSON");
    assert_eq!(again["verdict"], "allow", "{again}");
}

/// Whoever reads the log has to find the key, and learns nobody's address.
#[tokio::test]
async fn a_key_of_another_type_is_told_as_a_pattern_that_finds_it() {
    let redis = Redis::start().await;
    let store = redis_store::start(&redis, PATIENCE).await;
    let name = SubjectName::from_bytes(b"203.0.113.1");
    let subject = Subject { kind: SubjectKind::Ip, name };
    let quota = Quota::new(5, 60_000_000, 5).expect("a quota");
    let (limit_id, algorithm) = ("p.one", Algorithm::Gcra);
    let charge = Charge { subject: &subject, limit_id, quota, algorithm, cost: 1, alone: false };
    let back =
        Adjustment::giving_back(&charge, &Standing { unread: false, ..Standing::unread(quota) }, 0)
            .expect("charged");
    let scope = Scope {
        region: Region::new("here").expect("a region"),
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    };
    let key = "ratelimit:{here|a1}:ip:203.0.113.1:p.one";
    redis.command(&["RPUSH", key, "x"]).await;
    let checked = store.rate_check(&scope, &[charge]).await.map(drop);
    let settled = store.settle(&scope, DecisionId::new(1), &[back]).await.map(drop);
    for failure in [checked, settled] {
        let told = failure.expect_err("another type").to_string();
        assert!(told.contains("WRONGTYPE") && !told.contains("203.0.113"), "{told}");
        let (_, pattern) = told.split_once("of keys like ").expect("a pattern");
        let scan = ["SCAN", "0", "MATCH", pattern, "COUNT", "1000", "TYPE", "list"];
        assert!(redis.command(&scan).await.contains(key), "{pattern}");
    }
}

#[tokio::test]
async fn a_key_of_another_type_is_an_error_and_is_left_alone() {
    let redis = Redis::start().await;
    let gateway = start_on(&redis, CALM).await;
    let caller = Caller::new(Speaks::Http2);
    decides(&gateway, &caller, "a").await;
    let mut connection = connection(&redis).await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("ratelimit:*").query_async(&mut connection).await.expect("keys");
    let key = keys.first().expect("one key");
    for (command, value) in [("LPUSH", "x"), ("SET", "no number")] {
        redis::cmd("DEL").arg(key).exec_async(&mut connection).await.expect("deleted");
        redis::cmd(command).arg(key).arg(value).exec_async(&mut connection).await.expect("set");
        let answer = caller.decide(gateway.data_addr, &patient("a")).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "store-error"));
        assert!(!answer.text().contains("ratelimit"), "no keys outside: {}", answer.text());
        let kind: String =
            redis::cmd("TYPE").arg(key).query_async(&mut connection).await.expect("a type");
        assert_eq!(kind == "list", command == "LPUSH", "left alone");
    }
    assert_eq!(decides(&gateway, &caller, "b").await.verdict().verdict, Verdict::Allow);
}

/// A black hole on the way: the connection stays open and says nothing any more. A new one works.
#[tokio::test]
async fn a_connection_that_fell_silent_is_replaced() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.socket()).await;
    // The deadline is behind the response timeout, so that an answer that does not come is the store's.
    let flags = "--redis-connections 2 --deadline 4s --pool-wait 2s --redis-response-timeout 500ms";
    let gateway = start(settings(&format!("--redis-url {} {flags}", proxy.url()))).await;
    let caller = Caller::new(Speaks::Http2);
    decides(&gateway, &caller, "a").await;
    // One that is opened later would be well.
    both_up(&gateway).await;
    proxy.set(Mode::SwallowOld);
    let silent = caller.decide(gateway.data_addr, &patient("a")).await;
    assert_eq!((silent.status.as_u16(), silent.reason().as_str()), (503, "store-timeout"));
    readyz(&gateway, "degraded").await;
    decides(&gateway, &caller, "a").await;
    readyz(&gateway, "ok").await;
    assert!(metric(&gateway, "tidegate_gateway_store_reconnects_total").await >= 1.0);
}

async fn command(redis: &Redis, words: &str) {
    let mut connection = connection(redis).await;
    let mut words = words.split_whitespace();
    let mut command = redis::cmd(words.next().expect("a command"));
    words.for_each(|word| _ = command.arg(word));
    command.exec_async(&mut connection).await.expect("done");
}

/// What the status says of the store once it is down.
async fn down(gateway: &Running, expected: &str) {
    readyz(gateway, "degraded").await;
    let caller = Caller::new(Speaks::Http1);
    // Any look may have failed in another way before.
    eventually(PATIENCE, expected, async || {
        let text = caller.get(gateway.admin_addr, "/v1/status", Some(VIEWER)).await.text();
        if text.contains(expected) { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_became_a_replica_is_down_until_it_is_a_master_again() {
    let redis = Redis::start().await;
    let gateway = start_on(&redis, CALM).await;
    let caller = Caller::new(Speaks::Http2);
    readyz(&gateway, "ok").await;
    decides(&gateway, &caller, "a").await;
    // Nobody is there, so it stays what it is told to be and keeps its data.
    command(&redis, "REPLICAOF 127.0.0.1 1").await;
    let answer = caller.decide(gateway.data_addr, &patient("a")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "store-unavailable"));
    down(&gateway, "read only replica").await;
    command(&redis, "REPLICAOF NO ONE").await;
    readyz(&gateway, "ok").await;
    let reply = decides(&gateway, &caller, "a").await.verdict();
    assert_eq!(reply.limits[0].remaining, 3, "the refused call charged nothing");
}

/// What a replica says that has no master and is not to give what it has: MASTERDOWN, to the script
/// as well as to the probe, which it would take.
#[tokio::test]
async fn a_replica_whose_master_is_gone_is_down_until_it_is_a_master_again() {
    let redis = Redis::start().await;
    let gateway = start_on(&redis, CALM).await;
    let caller = Caller::new(Speaks::Http2);
    readyz(&gateway, "ok").await;
    decides(&gateway, &caller, "a").await;
    command(&redis, "CONFIG SET replica-serve-stale-data no replica-read-only no").await;
    command(&redis, "REPLICAOF 127.0.0.1 1").await;
    let answer = caller.decide(gateway.data_addr, &patient("a")).await;
    assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (503, "store-unavailable"));
    down(&gateway, "replica-serve-stale-data").await;
    command(&redis, "REPLICAOF NO ONE").await;
    readyz(&gateway, "ok").await;
    let reply = decides(&gateway, &caller, "a").await.verdict();
    assert_eq!(reply.limits[0].remaining, 3, "the refused call charged nothing");
}

/// A name or a virtual address that moved to the new master: open connections stay behind.
#[tokio::test]
async fn a_connection_to_a_replica_is_replaced_once_the_address_leads_to_a_master() {
    let (old, new) = (Redis::start().await, Redis::start().await);
    let proxy = Proxy::start(old.socket()).await;
    let flags = format!("--redis-url {} --redis-connections 2 {CALM}", proxy.url());
    let gateway = start(settings(&flags)).await;
    let caller = Caller::new(Speaks::Http2);
    readyz(&gateway, "ok").await;
    decides(&gateway, &caller, "a").await;
    both_up(&gateway).await;
    command(&old, "REPLICAOF 127.0.0.1 1").await;
    down(&gateway, "read only replica").await;
    proxy.lead_to(new.socket());
    readyz(&gateway, "ok").await;
    let reply = decides(&gateway, &caller, "a").await.verdict();
    assert_eq!(reply.limits[0].remaining, 4, "the new Redis is empty");
    eventually(PATIENCE, "both connections were replaced", async || {
        // Calls as well as probes find out; the calls take the connections in turn.
        caller.decide(gateway.data_addr, &patient("b")).await;
        match metric(&gateway, "tidegate_gateway_store_reconnects_total").await {
            2.0 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    for client in ["c", "d", "e", "f"] {
        assert_eq!(caller.decide(gateway.data_addr, &patient(client)).await.status, 200);
    }
}

#[tokio::test]
async fn a_full_redis_is_down_until_it_has_room() {
    let redis = Redis::start().await;
    let gateway = start_on(&redis, CALM).await;
    readyz(&gateway, "ok").await;
    command(&redis, "CONFIG SET maxmemory 1").await;
    down(&gateway, "OOM").await;
    command(&redis, "CONFIG SET maxmemory 0").await;
    readyz(&gateway, "ok").await;
    decides(&gateway, &Caller::new(Speaks::Http2), "a").await;
    let left_ms = {
        let mut connection = connection(&redis).await;
        let asked = redis::cmd("PTTL").arg("tidegate:probe").query_async(&mut connection).await;
        asked.unwrap_or(-3_i64)
    };
    assert!((1..=5_000).contains(&left_ms), "the probe's key vanishes: {left_ms}");
}

/// A limit that is thrown away while its region's mark stays would be a full one.
#[tokio::test]
async fn a_redis_that_throws_keys_away_is_told_of() {
    let redis = Redis::start().await;
    let sound = start_on(&redis, CALM).await;
    readyz(&sound, "ok").await;
    assert_eq!(metric(&sound, "tidegate_gateway_store_evicting_total").await, 0.0);
    command(&redis, "CONFIG SET maxmemory 100mb").await;
    command(&redis, "CONFIG SET maxmemory-policy volatile-lru").await;
    let gateway = start_on(&redis, CALM).await;
    readyz(&gateway, "ok").await;
    let looks = metric(&gateway, "tidegate_gateway_store_evicting_total").await;
    assert!(looks >= 1.0, "{looks}");
}

#[tokio::test]
async fn garbage_from_redis_is_no_verdict_and_is_overcome() {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.socket()).await;
    let gateway = start(settings(&format!("--redis-url {} {CALM}", proxy.url()))).await;
    let caller = Caller::new(Speaks::Http2);
    decides(&gateway, &caller, "a").await;
    proxy.set(Mode::Garbage);
    for _ in 0..4 {
        let answer = caller.decide(gateway.data_addr, &patient("a")).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.reason().starts_with("store-"), "{}", answer.text());
    }
    proxy.set(Mode::Forward);
    decides(&gateway, &caller, "a").await;
    readyz(&gateway, "ok").await;
}
