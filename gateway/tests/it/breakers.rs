//! Breakers over HTTP: reports, what other processes hear of them through another gateway, and what
//! operators order.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use tidegate_gateway::Running;
use tidegate_policy::breaker::mesh::{Batch, Ended, Settled, State, Terms, Window};
use tidegate_policy::wire::breaker::{
    BREAKERS_PATH, BreakerName, BreakerReport, BreakerState, BreakersPart, BreakersReply,
    BreakersRequest, BreakersSaid, ProcessId, REPORTS_MAX,
};
use tidegate_policy::wire::{DecisionId, VERSION, encode};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::cluster::RedisCluster;

use crate::bench::{
    Answer, CALM, Caller, Speaks, TOKEN, VIEWER, question, request, settings, start,
};

const ADMIN: &str = "the-admins-token";
const PATIENCE: Duration = Duration::from_secs(60);
const TERMS: Terms = Terms {
    window: Window::Ms(60_000),
    min_calls: 20,
    failure_permille: 500,
    slow_permille: 0,
    adaptive: None,
    open_ms: 50,
    backoff: 0,
    successes: 1,
    probe_ms: 600_000,
    trip_reporters: 2,
};

/// A process that talks to one gateway.
pub struct Process<'g> {
    pub gateway: &'g Running,
    pub id: u8,
    pub seq: u64,
    pub since: u64,
}

impl Process<'_> {
    async fn say(&mut self, reports: &[(&str, Batch)]) -> Vec<BreakerState> {
        self.say_under(TERMS, reports).await
    }

    async fn say_under(&mut self, terms: Terms, reports: &[(&str, Batch)]) -> Vec<BreakerState> {
        self.seq += 1;
        let reports = reports.iter().map(|(name, batch)| BreakerReport {
            name: BreakerName::new(name).expect("a name"),
            terms,
            batch: *batch,
        });
        let id = DecisionId::new(u128::from(self.seq));
        let message = BreakersRequest {
            v: VERSION,
            id,
            scope: question("192.0.2.1").scope,
            timeout_ms: 5_000,
            breakers: BreakersPart {
                process: ProcessId([self.id; 8]),
                seq: self.seq,
                since: self.since,
                reports: reports.collect(),
            },
        };
        let caller = Caller::new(Speaks::Http2);
        // Whose master is not there yet is left out.
        let reply = eventually(PATIENCE, "an answer on all of them", async || {
            let to = self.gateway.data_addr;
            let sent = request(to, Method::POST, BREAKERS_PATH, Some(TOKEN), encode(&message));
            let answer = caller.send(sent).await;
            let reply = BreakersReply::decode(&answer.body, id)
                .map_err(|error| format!("{error}: {}", answer.text()))?;
            let states = &reply.breakers.states;
            let is_told = |name: &BreakerName| states.iter().any(|state| state.name == *name);
            let whole = message.breakers.reports.iter().all(|report| is_told(&report.name));
            if whole { Ok(reply) } else { Err(answer.text()) }
        });
        let BreakersSaid { cursor, states } = reply.await.breakers;
        self.since = cursor;
        states
    }

    /// What it is told of a breaker on which it does not report. On a Cluster each lies in a slot of its own, and whose
    /// master is not there yet is left out: the same is asked again.
    async fn hears(&mut self, name: &str) -> BreakerState {
        let since = self.since;
        eventually(PATIENCE, "heard of", async || {
            self.since = since;
            let states = self.say(&[]).await;
            let found = states.iter().find(|state| state.name.as_str() == name).cloned();
            found.ok_or(states)
        })
        .await
    }

    pub async fn one(&mut self, name: &str, batch: Batch) -> BreakerState {
        let states = self.say(&[(name, batch)]).await;
        states.into_iter().find(|state| state.name.as_str() == name).expect("reported on")
    }
}

async fn order(gateway: &Running, token: &str, body: &'static str) -> Answer {
    let path = "/v1/breakers/order";
    let sent = request(gateway.admin_addr, Method::POST, path, Some(token), body);
    Caller::new(Speaks::Http1).send(sent).await
}

/// Reported through one gateway, heard of through the other; a test, and its end.
async fn across(one: &Running, other: &Running) {
    let mut a = Process { gateway: one, id: 1, seq: 0, since: 0 };
    let mut b = Process { gateway: other, id: 2, seq: 0, since: 0 };
    assert_eq!(b.say(&[]).await, []);
    let epoch = a.one("pay:acme", Batch::default()).await.epoch;
    let dead = Batch { epoch, calls: 20, failures: 20, ..Batch::default() };
    let states = a.say(&[("pay:acme", dead), ("search", Batch::default())]).await;
    let states: Vec<_> = states.iter().map(|state| (state.name.as_str(), state.state)).collect();
    assert_eq!(states, [("pay:acme", State::Open), ("search", State::Closed)]);
    assert_eq!(b.hears("pay:acme").await.state, State::Open);
    let ask = Batch { ask: true, ..Batch::default() };
    let permit = eventually(PATIENCE, "it is due", async || {
        b.one("pay:acme", ask).await.permit.ok_or("not yet")
    })
    .await;
    assert_eq!(a.one("pay:acme", ask).await.permit, None, "one test in the mesh");
    let ended = Some(Settled { id: permit.id, ended: Ended::Ok });
    let closed = b.one("pay:acme", Batch { probe: ended, ..Batch::default() }).await;
    assert_eq!(closed.state, State::Closed);
    assert!(closed.healed_ms.is_some());
    assert_eq!(a.hears("pay:acme").await.state, State::Closed);
}

/// An operator's word reaches every process with its next message, ends as said, and is counted.
async fn ordered(one: &Running, other: &Running) {
    let mut b = Process { gateway: other, id: 3, seq: 0, since: 0 };
    b.one("pay:acme", Batch::default()).await;
    let forced = r#"{"breaker": "pay:acme", "order": "force_open", "for_s": 600}"#;
    assert_eq!(order(one, VIEWER, forced).await.status, 403);
    assert_eq!(order(one, TOKEN, forced).await.status, 401);
    let answer = order(one, ADMIN, forced).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains("\"state\":\"forced_open\""), "{}", answer.text());
    let state = b.hears("pay:acme").await;
    assert_eq!(state.state, State::ForcedOpen);
    assert!(state.wait_ms.is_some_and(|ms| (500_000..=600_000).contains(&ms)), "{state:?}");
    for (body, expected) in [
        ("{}", "missing field `breaker`"),
        (r#"{"breaker": "pay", "order": "explode"}"#, "unknown variant `explode`"),
        (r#"{"breaker": "pay/x", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "pay", "order": "trip", "for_s": 2592001}"#, "for_s is 2592001"),
        (r#"{"breaker": "pay", "order": "reset", "for_s": 1}"#, "leave for_s out"),
        (r#"{"breaker": "", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "zahl\u00fcng", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "pay\n", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "pay\u0000", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "pay}|{x", "order": "trip"}"#, "a breaker is 1 to 200"),
        (r#"{"breaker": "pay", "order": "trip", "for_s": -1}"#, "expected u64"),
        (r#"{"breaker": "pay", "order": "trip", "for_s": 1.5}"#, "expected u64"),
        (r#"{"breaker": "pay", "order": "trip", "for_s": "60"}"#, "expected u64"),
        (
            r#"{"breaker": "pay", "order": "trip", "for_s": 18446744073709551615}"#,
            "for_s is 184467",
        ),
        (r#"{"breaker": "pay", "order": "trip", "for_s": 18446744073709551616}"#, "expected u64"),
        (r#"{"breaker": "pay", "order": "trip", "why": "?"}"#, "unknown field `why`"),
        (r#"{"breaker": "pay", "breaker": "x", "order": "trip"}"#, "duplicate field `breaker`"),
        (r#"{"breaker": "pay", "order": "Trip"}"#, "unknown variant `Trip`"),
        (r#"[["pay", "trip"]]"#, "invalid type: sequence"),
    ] {
        let answer = order(one, ADMIN, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(expected), "{body}: {}", answer.text());
    }
    let caller = Caller::new(Speaks::Http1);
    let list = caller.get(other.admin_addr, "/v1/breakers", Some(ADMIN)).await.text();
    assert!(list.contains(r#"{"breaker":"pay:acme","state":"forced_open""#), "{list}");
    let reset = r#"{"breaker": "pay:acme", "order": "reset"}"#;
    assert_eq!(order(other, ADMIN, reset).await.status, 200);
    assert_eq!(b.one("pay:acme", Batch::default()).await.state, State::Closed);
    let metrics = caller.get(one.admin_addr, "/metrics", Some(ADMIN)).await.text();
    for line in [
        "breaker_changes_total{breaker=\"pay\",from=\"closed\",to=\"open\",cause=\"failures\"} 1\n",
        "to=\"forced_open\",cause=\"operator\"} 1\n",
        "tidegate_gateway_breakers{breaker=\"search\",state=\"closed\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    let metrics = caller.get(other.admin_addr, "/metrics", Some(ADMIN)).await.text();
    for outcome in ["granted", "ok"] {
        let line = format!("breaker_tests_total{{breaker=\"pay\",outcome=\"{outcome}\"}} 1\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

/// Names as odd as names may be are carried out, each on its own, to the longest time there is; nobody's order is another's.
async fn ordered_oddly(gateway: &Running) {
    let longest = "odd:".to_owned() + &"z".repeat(196);
    let names =
        ["odd:", "odd::", "odd:~others", "odd:%00", "odd:!+.-_~", ":", "::x", longest.as_str()];
    let mut one = Process { gateway, id: 8, seq: 0, since: 0 };
    for name in names {
        let forced = format!(r#"{{"breaker": "{name}", "order": "force_open", "for_s": 2592000}}"#);
        let answer = order(gateway, ADMIN, forced.leak()).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let state = one.one(name, Batch::default()).await;
        assert_eq!(state.state, State::ForcedOpen, "{name}");
        let left_ms = 2_592_000_000 - state.wait_ms.expect("it has an end");
        assert!(left_ms < 600_000, "{name}: {left_ms}");
        assert_eq!(one.one("odd:other", Batch::default()).await.state, State::Closed, "{name}");
        let reset = format!(r#"{{"breaker": "{name}", "order": "reset"}}"#);
        assert_eq!(order(gateway, ADMIN, reset.leak()).await.status, 200, "{name}");
        assert_eq!(one.one(name, Batch::default()).await.state, State::Closed, "{name}");
    }
}

/// On the bare name of one for each of many an order is for all of them: for those that the region knows at once, and
/// as long as it is in force for those who come later.
async fn ordered_for_all(one: &Running, other: &Running) {
    let mut a = Process { gateway: one, id: 4, seq: 0, since: 0 };
    for name in ["each:acme", "each:globex", "each-other:acme", "alone"] {
        assert_eq!(a.one(name, Batch::default()).await.state, State::Closed);
    }
    let state_of =
        async |a: &mut Process<'_>, name: &str| a.one(name, Batch::default()).await.state;
    let trip = r#"{"breaker": "each", "order": "trip", "for_s": 600}"#;
    let answer = order(other, ADMIN, trip).await;
    let expected = r#"{"breaker":"each","known":true,"order":"trip","changed":2}"#;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, expected));
    for (name, state) in [
        ("each:acme", State::Open),
        ("each:globex", State::Open),
        ("each-other:acme", State::Closed),
        ("alone", State::Closed),
    ] {
        assert_eq!(state_of(&mut a, name).await, state, "{name}");
    }
    // Disabled all together: filters are told by the bare name, and each goes on as it is.
    let mut b = Process { gateway: one, id: 5, seq: 0, since: a.since };
    let disable = r#"{"breaker": "each", "order": "disable", "for_s": 600}"#;
    let answer = order(one, ADMIN, disable).await;
    assert!(answer.text().contains(r#""state":"disabled""#), "{}", answer.text());
    assert_eq!(b.hears("each").await.state, State::Disabled);
    assert_eq!(state_of(&mut a, "each:acme").await, State::Open);
    assert_eq!(state_of(&mut a, "each:new").await, State::Closed);
    let answer = order(one, ADMIN, r#"{"breaker": "each", "order": "reset"}"#).await;
    let expected = r#"{"breaker":"each","known":true,"order":"reset","changed":2}"#;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, expected));
    for name in ["each:acme", "each:globex", "each:new", "each"] {
        assert_eq!(state_of(&mut a, name).await, State::Closed, "{name}");
    }
    // One alone of that name is as it ever was.
    let answer = order(one, ADMIN, r#"{"breaker": "alone", "order": "trip"}"#).await;
    assert!(answer.text().contains(r#""state":"open""#), "{}", answer.text());
}

/// What opens at once is not tested at once: each draws its own time, 0.8 to 1.2 times what is configured.
async fn spread(gateway: &Running) {
    const OPEN_MS: u64 = 600_000;
    let terms = Terms { open_ms: 600_000, ..TERMS };
    let names: Vec<String> = (0..24).map(|nth| format!("spread-{nth}")).collect();
    let mut one = Process { gateway, id: 9, seq: 0, since: 0 };
    let fresh: Vec<_> = names.iter().map(|name| (name.as_str(), Batch::default())).collect();
    let states = one.say_under(terms, &fresh).await;
    let epoch = |name: &str| {
        let state = states.iter().find(|state| state.name.as_str() == name);
        state.expect("reported on").epoch
    };
    let dead = |name| Batch { epoch: epoch(name), calls: 20, failures: 20, ..Batch::default() };
    let reports: Vec<_> = names.iter().map(|name| (name.as_str(), dead(name))).collect();
    let states = one.say_under(terms, &reports).await;
    let opened = states.iter().filter(|state| state.name.as_str().starts_with("spread-"));
    let waits_ms: Vec<u64> = opened.map(|state| state.wait_ms.expect("open")).collect();
    assert_eq!(waits_ms.len(), names.len());
    let (least, most) = (waits_ms.iter().min(), waits_ms.iter().max());
    let (least, most) = (*least.expect("some"), *most.expect("some"));
    // What has gone by since it opened is not said.
    assert!(least > OPEN_MS * 7 / 10 && most <= OPEN_MS * 6 / 5, "{waits_ms:?}");
    assert!(most - least > OPEN_MS / 10, "{waits_ms:?}");
}

#[tokio::test]
async fn what_one_gateway_is_told_the_other_tells() {
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM}", redis.url());
    let (one, other) = (start(settings(&flags)).await, start(settings(&flags)).await);
    across(&one, &other).await;
    ordered(&one, &other).await;
    ordered_for_all(&one, &other).await;
    ordered_oddly(&one).await;
    spread(&one).await;
}

#[tokio::test]
async fn one_gateway_alone_keeps_them_in_memory() {
    let gateway = start(settings(CALM)).await;
    across(&gateway, &gateway).await;
    ordered(&gateway, &gateway).await;
    ordered_for_all(&gateway, &gateway).await;
    ordered_oddly(&gateway).await;
    spread(&gateway).await;
}

/// Many more calls of one message than places for one master: what a process reports, what it hears when it begins, and
/// what an operator orders.
#[tokio::test]
async fn a_cluster_hears_and_tells_of_many_more_than_may_wait_for_one_master() {
    let cluster = RedisCluster::start().await;
    // Five may wait for one.
    let flags = format!("--redis-url {} --max-in-flight 10 {CALM}", cluster.url());
    let gateway = start(settings(&flags)).await;
    let names: Vec<String> = (0..300).map(|number| format!("each:t{number}")).collect();
    let mut a = Process { gateway: &gateway, id: 1, seq: 0, since: 0 };
    for names in names.chunks(REPORTS_MAX) {
        let reports: Vec<_> = names.iter().map(|name| (name.as_str(), Batch::default())).collect();
        a.say(&reports).await;
    }
    let mut b = Process { gateway: &gateway, id: 2, seq: 0, since: 0 };
    let mut told = BTreeSet::new();
    eventually(PATIENCE, "all are told", async || {
        told.extend(b.say(&[]).await.into_iter().map(|state| state.name.as_str().to_owned()));
        if told.len() == names.len() { Ok(()) } else { Err(told.len()) }
    })
    .await;
    eventually(PATIENCE, "all are tripped", async || {
        let answer = order(&gateway, ADMIN, r#"{"breaker": "each", "order": "trip"}"#).await.text();
        if answer.contains(r#""changed":300"#) { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// The list of what changed goes if nobody writes or reads it for a month. Whoever knows where it ended hears of what comes
/// after it all the same.
#[tokio::test]
async fn the_list_of_changes_expires_is_kept_while_it_is_used_and_begins_anew() {
    const LIST: &str = "breakers:{default}";
    let redis = Redis::start().await;
    let flags = format!("--redis-url {} {CALM}", redis.url());
    let (one, other) = (start(settings(&flags)).await, start(settings(&flags)).await);
    // For a month, or not any more.
    let is_kept = async || {
        let reply = redis.command(&["PTTL", LIST]).await;
        let left_ms: i64 = reply.trim().trim_start_matches(':').parse().expect("a number");
        assert!(left_ms > 0, "{left_ms}");
        left_ms > 30 * 86_400_000
    };
    let age = async || {
        redis.command(&["PEXPIRE", LIST, "864000000"]).await;
        assert!(!is_kept().await);
    };
    let mut a = Process { gateway: &one, id: 6, seq: 0, since: 0 };
    let epoch = a.one("pay", Batch::default()).await.epoch;
    assert!(is_kept().await, "by what was written");
    age().await;
    let mut b = Process { gateway: &other, id: 7, seq: 0, since: 0 };
    assert_eq!(b.hears("pay").await.state, State::Closed);
    assert!(is_kept().await, "by another gateway that reads it");
    age().await;
    a.one("search", Batch::default()).await;
    assert!(is_kept().await, "by what was written since");

    redis.command(&["DEL", LIST]).await;
    let since = b.since;
    assert_eq!((b.say(&[]).await, b.since), (Vec::new(), since), "nothing, and no step back");
    let dead = Batch { epoch, calls: 20, failures: 20, ..Batch::default() };
    assert_eq!(a.one("pay", dead).await.state, State::Open);
    assert_eq!(b.hears("pay").await.state, State::Open);
}

/// Each breaker lies in one slot, their list in another.
#[tokio::test]
async fn a_cluster_keeps_them_too() {
    let cluster = RedisCluster::start().await;
    let flags = format!("--redis-url {} {CALM}", cluster.url());
    let (one, other) = (start(settings(&flags)).await, start(settings(&flags)).await);
    across(&one, &other).await;
    ordered(&one, &other).await;
    ordered_for_all(&one, &other).await;
    ordered_oddly(&one).await;
    spread(&one).await;
}
