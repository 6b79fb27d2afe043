//! Answers that wait for their audit event: which events those are is a setting, and what callers see when the
//! chain's Redis stands still. Limits and claims are in memory, the chain is in a real Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tidegate_gateway::clock::{Clock, SystemClock};
use tidegate_gateway::store::StoreCounters;
use tidegate_gateway::store::chains::Chains as _;
use tidegate_gateway::store::memory::MemoryStore;
use tidegate_gateway::{Environment, Running};
use tidegate_policy::audit::Action;
use tidegate_policy::audit::record::{ChainName, Record};
use tidegate_policy::scope::Tenant;
use tidegate_policy::wire::audit::{
    AUDIT_PATH, AuditNote, AuditReply, AuditRequest, BRIEFS_MAX, Brief, Halves, Kept,
};
use tidegate_policy::wire::{ClaimState, DecideRequest, DecisionId, VERSION, Verdict, encode};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::bench::{
    ADMIN, Caller, Speaks, TOKEN, VIEWER, question, request, settings_with, start_around,
};
use crate::claims;
use crate::redis_store;

/// RFC 8410 §10.3: everybody knows it.
pub const PEM: &str = "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\\n-----END PRIVATE KEY-----";
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    redis: Redis,
    dir: TempDir,
    gateway: Running,
}

impl Bench {
    /// Who does not wait waits while events are gathered for ten minutes.
    async fn start(flags: &str) -> Self {
        let redis = Redis::start().await;
        let dir = tempfile::tempdir().expect("a folder");
        let environment = Environment::from([
            ("TIDEGATE_TOKEN", TOKEN),
            ("TIDEGATE_ADMIN_TOKENS", "ann:viewer:the-viewers-token\nbo:admin:the-admins-token"),
            ("AUDIT_PRIVATE_KEY_V1", PEM),
        ]);
        let (url, folder) = (redis.url(), dir.path().display());
        let flags = format!(
            "--redis-url {url} --cold-start off --audit-dir {folder} --audit-tick 600s --deadline 2s --pool-wait 1s {flags}"
        );
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let memory = MemoryStore::new(clock, 1_000, StoreCounters::default());
        let settings = settings_with(&flags, &environment);
        let gateway = start_around(settings, Arc::new(memory)).await;
        let bench = Self { redis, dir, gateway };
        bench.reach().await;
        bench
    }

    /// Until the chain's Redis takes events: that is a moment after the start.
    async fn reach(&self) {
        let message = handed_over(&[1]);
        eventually(PATIENCE, "the first event is in the chain", async || {
            self.hand_over(&message, encode(&message)).await;
            let ids = self.chained().await;
            if ids.contains(&message.events[0].id) { Ok(()) } else { Err(ids) }
        })
        .await;
    }

    /// What the gateway says of the message's events, or of what was made of it.
    async fn hand_over(&self, message: &AuditRequest, body: Vec<u8>) -> Vec<Kept> {
        let sent = request(self.gateway.data_addr, Method::POST, AUDIT_PATH, Some(TOKEN), body);
        let answer = Caller::new(Speaks::Http1).send(sent).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let events = (message.events.len(), message.briefs.len());
        let reply = AuditReply::decode(&answer.body, message.id, events);
        reply.expect("a reply").events
    }

    /// The ids of the chain's events.
    async fn chained(&self) -> Vec<String> {
        let records = self.records().await;
        records.iter().map(|record| Record::read(record).expect("a record").id).collect()
    }

    async fn records(&self) -> Vec<Vec<u8>> {
        let store = redis_store::start(&self.redis, PATIENCE).await;
        let chain = ChainName::new("default").expect("a name");
        store.records(&chain, 0, 0, 1_000).await.expect("records")
    }

    async fn decide(&self, asked: &DecideRequest) -> tidegate_policy::wire::DecideReply {
        claims::decide(&self.gateway, asked).await
    }

    /// Whether the chain holds exactly one event with that id.
    async fn is_on_record(&self, id: u128) -> bool {
        let id = DecisionId::new(id).to_string();
        let count = self.chained().await.into_iter().filter(|other| *other == id).count();
        assert!(count <= 1, "{count} times");
        count == 1
    }

    fn is_on_disk(&self, id: u128) -> bool {
        let spool: &Path = &self.dir.path().join("spool.jsonl");
        let text = std::fs::read_to_string(spool).expect("a spool");
        text.contains(&DecisionId::new(id).to_string())
    }

    async fn metric(&self, name: &str) -> u64 {
        let caller = Caller::new(Speaks::Http1);
        let text = caller.get(self.gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// Asks until it is denied; the id of the denial.
    async fn denied(&self, timeout_ms: u32) -> u128 {
        for id in 1..=6 {
            let asked = question_of(id, timeout_ms);
            if self.decide(&asked).await.verdict == Verdict::Deny {
                return id;
            }
        }
        panic!("five are admitted");
    }
}

/// What a filter hands over, one event for each number.
fn handed_over(numbers: &[u64]) -> AuditRequest {
    let note = |number: &u64| AuditNote {
        id: format!("{:032x}-{number}", 7),
        age_ms: 0,
        action: Action::Config,
        outcome: "ok".to_owned(),
        tenant: Tenant::None,
        more: 0,
        detail: String::new(),
        decision: None,
        config: None,
        durability: tidegate_policy::audit::Durability::Async,
        about: Vec::new(),
    };
    AuditRequest {
        v: VERSION,
        id: DecisionId::new(7),
        scope: question("203.0.113.7").scope,
        timeout_ms: 60_000,
        urgent: true,
        config: None,
        events: numbers.iter().map(note).collect(),
        briefs: Vec::new(),
    }
}

fn question_of(id: u128, timeout_ms: u32) -> DecideRequest {
    DecideRequest { id: DecisionId::new(id), timeout_ms, ..question("203.0.113.7") }
}

/// A claim that memory takes.
fn claiming(id: u128, order: u32) -> DecideRequest {
    let mut asked = claims::asked(id, "acme", order, "k");
    asked.claim.as_mut().expect("a claim").ephemeral = true;
    asked
}

/// A denial, a replay and a conflict; each is on record at its answer if the setting names it.
#[tokio::test(flavor = "multi_thread")]
async fn the_events_that_the_setting_names_are_on_record_when_the_answer_comes() {
    for (sync, expected) in [
        ("none", [false, false, false]),
        ("deny", [true, false, false]),
        ("replay,conflict", [false, true, true]),
        ("admin,deny,replay,conflict", [true, true, true]),
    ] {
        // Each alone: whoever waits takes along what was gathered.
        for (kind, expected) in expected.into_iter().enumerate() {
            let bench = Bench::start(&format!("--audit-sync {sync}")).await;
            let id = match kind {
                0 => bench.denied(5_000).await,
                kind => {
                    claims::complete_one(&bench.gateway, &claiming(1, 1)).await;
                    let order = if kind == 1 { 1 } else { 2 };
                    let reply = bench.decide(&claiming(2, order)).await;
                    let is_replay = matches!(reply.claim, Some(ClaimState::Done(_)));
                    let is_conflict = reply.claim == Some(ClaimState::Conflict);
                    assert_eq!((is_replay, is_conflict), (kind == 1, kind == 2), "{reply:?}");
                    2
                }
            };
            assert_eq!(bench.is_on_record(id).await, expected, "--audit-sync {sync}, {kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_stands_still_the_answer_waits_until_its_event_is_on_the_disk() {
    let mut bench = Bench::start("--audit-sync deny --redis-response-timeout 50ms").await;
    bench.redis.process().pause();
    let id = bench.denied(60_000).await;
    assert!(bench.is_on_disk(id), "answered, and neither in the chain nor on the disk");
    bench.redis.process().resume();
    eventually(PATIENCE, "the event is in the chain", async || {
        if bench.is_on_record(id).await { Ok(()) } else { Err("not yet") }
    })
    .await;
    assert_eq!(bench.metric("tidegate_gateway_audit_late_total").await, 0);
}

/// Without an answer the filter would decide by itself: a denial could become an admission.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_no_longer_than_the_filter_and_stands_when_its_event_is_late() {
    let mut bench = Bench::start("--audit-sync deny --redis-response-timeout 60s").await;
    bench.redis.process().pause();
    let id = bench.denied(2_100).await;
    assert_eq!(bench.metric("tidegate_gateway_audit_late_total").await, 1);
    assert!(!bench.is_on_disk(id));
    bench.redis.process().resume();
    eventually(PATIENCE, "the event is in the chain all the same", async || {
        if bench.is_on_record(id).await { Ok(()) } else { Err("not yet") }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_stands_although_neither_redis_nor_the_disk_take_its_event() {
    let flags = "--audit-sync deny --redis-response-timeout 50ms --audit-spool-max 1";
    let mut bench = Bench::start(flags).await;
    bench.redis.process().pause();
    let id = bench.denied(60_000).await;
    assert!(!bench.is_on_disk(id));
    assert!(bench.metric("tidegate_gateway_audit_dropped_total").await > 0, "and it is counted");
}

/// The setting says which answers wait; that a command is on record before it is carried out is another rule.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_its_record_whatever_the_setting_names() {
    for sync in ["none", "deny"] {
        let flags =
            format!("--audit-sync {sync} --redis-response-timeout 50ms --audit-spool-max 1");
        let mut bench = Bench::start(&flags).await;
        let to = bench.gateway.admin_addr;
        let order = async || {
            let body = r#"{"tenant": "acme", "endpoint": "POST /orders", "key": "k"}"#;
            let call = request(to, Method::POST, "/v1/idempotency/delete", Some(ADMIN), body);
            Caller::new(Speaks::Http1).send(call).await
        };
        let answer = order().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        bench.redis.process().pause();
        let answer = order().await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("not carried out"), "{answer:?}");
        bench.redis.process().resume();
    }
}

/// The other rule for a full spool: commands run, and the chain tells how many events are missing.
#[tokio::test(flavor = "multi_thread")]
async fn where_events_are_dropped_a_command_runs_without_its_record_and_the_loss_is_told() {
    let flags = "--audit-sync admin --audit-when-full drop --redis-response-timeout 50ms --audit-spool-max 1";
    let mut bench = Bench::start(flags).await;
    let to = bench.gateway.admin_addr;
    bench.redis.process().pause();
    let body = r#"{"tenant": "acme", "endpoint": "POST /orders", "key": "k"}"#;
    let call = request(to, Method::POST, "/v1/idempotency/delete", Some(ADMIN), body);
    let answer = Caller::new(Speaks::Http1).send(call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // That it began and how it ended; and what else happens meanwhile, such as that the way to Redis is shut.
    let dropped = bench.metric("tidegate_gateway_audit_dropped_total").await;
    assert!(dropped >= 2, "{dropped}");
    assert_eq!(bench.metric("tidegate_gateway_audit_spool_full").await, 1);
    bench.redis.process().resume();
    let mut numbers = 2..;
    eventually(PATIENCE, "the chain takes events, and tells of those", async || {
        let message = handed_over(&[numbers.next().expect("numbers")]);
        bench.hand_over(&message, encode(&message)).await;
        let ids = bench.chained().await;
        if ids.iter().any(|id| id.starts_with("loss-")) { Ok(()) } else { Err(ids) }
    })
    .await;
}

/// Its own time is what bounds the wait: a decision may take longer than a filter waits for a record.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_taken_from_a_filter_that_waits_less_than_a_decision_may_take() {
    let bench = Bench::start("").await;
    let mut numbers = 2..;
    eventually(PATIENCE, "an event is on record within its time", async || {
        let number = numbers.next().expect("numbers");
        let message = AuditRequest { timeout_ms: 1_000, ..handed_over(&[number]) };
        let kept = bench.hand_over(&message, encode(&message)).await;
        let ids = bench.chained().await;
        let is_there = ids.contains(&message.events[0].id);
        if kept == [Kept::Kept] && is_there { Ok(()) } else { Err((kept, ids)) }
    })
    .await;
}

/// A filter that is newer than its gateway may know of what that does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_keeps_no_other_from_being_taken_and_is_counted() {
    let bench = Bench::start("").await;
    let message = handed_over(&[2, 3]);
    let body = String::from_utf8(encode(&message)).expect("text");
    let broken = body.replacen("\"config\"", "\"fly\"", 1);
    let kept = bench.hand_over(&message, broken.into_bytes()).await;
    assert_eq!(kept, [Kept::Refused, Kept::Kept]);
    assert_eq!(bench.metric("tidegate_gateway_audit_dropped_total").await, 1);
    eventually(PATIENCE, "the chain has the one and tells of the other", async || {
        let ids = bench.chained().await;
        let has_loss = ids.iter().any(|id| id.starts_with("loss-"));
        if has_loss && ids.contains(&message.events[1].id) { Ok(()) } else { Err(ids) }
    })
    .await;
}

/// What is alike is told behind the rest of a message; in the chain it stands where it came about.
#[tokio::test(flavor = "multi_thread")]
async fn brief_events_are_on_record_as_a_whole_and_in_their_order() {
    let bench = Bench::start("").await;
    let mut message = handed_over(&[2, 5]);
    let decision = |number: u64| Some(DecisionId::new(number.into()));
    message.events[0].detail = "names=p.ip".to_owned();
    message.events[0].decision = decision(2);
    message.events[0].durability = tidegate_policy::audit::Durability::Sampled;
    let brief = |like: usize, number: u64| Brief {
        like,
        number,
        age_ms: 0,
        decision: decision(number).filter(|_| like == 0).map(|id| Halves::between(decision(2), id)),
        names: Vec::new(),
    };
    message.briefs = vec![brief(0, 3), brief(9, 8), brief(1, 6), brief(0, 4)];
    let kept = bench.hand_over(&message, encode(&message)).await;
    let expected = [Kept::Kept, Kept::Kept, Kept::Kept, Kept::Refused, Kept::Kept, Kept::Kept];
    assert_eq!(kept, expected);
    let records = bench.records().await;
    let told = records.iter().filter_map(|record| {
        let record: Value = serde_json::from_slice(record).expect("JSON");
        let number = record["id"].as_str()?.strip_prefix(&format!("{:032x}-", 7))?;
        let number: u64 = number.parse().expect("a number");
        (number > 1).then(|| (number, record["detail"].as_str().unwrap_or_default().to_owned()))
    });
    let detail = |number: u64| {
        let decision = DecisionId::new(number.into());
        (number, format!("names=p.ip decision={decision} class=sampled"))
    };
    let expected = [detail(2), detail(3), detail(4), (5, String::new()), (6, String::new())];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    // More than the chain takes at once, and the rest of them waits for no others: none come until they are answered.
    let mut message = AuditRequest { urgent: false, ..handed_over(&[1_000]) };
    message.briefs = (1_001..).take(BRIEFS_MAX - 2).map(|number| brief(1, number)).collect();
    message.briefs.iter_mut().for_each(|brief| brief.like = 0);
    let kept = bench.hand_over(&message, encode(&message)).await;
    assert_eq!(kept, [Kept::Kept; BRIEFS_MAX - 1]);
    let ids = bench.chained().await;
    assert_eq!(ids.iter().filter(|id| id.contains("0007-1")).count(), BRIEFS_MAX);
}
