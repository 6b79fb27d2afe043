//! Every kind of event that a gateway makes, from the request that is its cause to the record in Redis; and that no
//! record says whom it is about.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use tidegate_gateway::Environment;
use tidegate_gateway::store::chains::Chains as _;
use tidegate_policy::audit::record::{ChainName, Record};
use tidegate_policy::breaker::mesh::Batch;
use tidegate_policy::wire::{
    CONFIG_HEADER, ClaimState, DECIDE_PATH, DecideRequest, DecisionId, Verdict, encode,
};
use tidegate_tests::eventually;
use tidegate_tests::redis::Redis;

use crate::audit_sync::PEM;
use crate::bench::{CALM, Caller, Speaks, TOKEN, question, request, settings_with, start};
use crate::breakers::Process;
use crate::{claims, redis_store};

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENT: &str = "203.0.113.7";

/// What each kind of record has to say: its outcome, or a part of its detail, or who did it.
const KINDS: [(&str, &str); 12] = [
    ("admin", "\"actor\":\"bo\""),
    ("breaker", "pay: closed to open"),
    ("claim", "\"outcome\":\"recovered\""),
    ("claim", "\"outcome\":\"taken_over\""),
    ("cold_start", "the region is cold"),
    ("config", "settings: "),
    ("conflict", "\"outcome\":\"conflict\""),
    ("deny", "\"limit\":\"p.one\""),
    ("deny", DECIDED_BY),
    ("lifecycle", "started "),
    ("refuse_caller", "\"outcome\":\"unauthorized\""),
    ("replay", "\"outcome\":\"ok\""),
];

/// By which configuration, and by what of it.
const DECIDED_BY: &str = concat!(
    r#""detail":{"config":"aa99a5ce0c0e9b7f1d2c3b4a5968778695a4b3c2d1e0f1021324354657687980","limits":[{"burst":5,"#,
    r#""kind":"ip","limit":"p.one","period_us":60000000,"subject":""#
);
/// Another client, and the hash of the configuration under which it is denied.
const DENIED: &str = "203.0.113.9";
const CONFIG: &str = "aa99a5ce0c0e9b7f1d2c3b4a5968778695a4b3c2d1e0f1021324354657687980";

/// A path that no configuration names, as a filter spells it.
const OF_ALICE: &str = "POST /users/alice@example.com/pay";

fn of_alice(id: u128, order: u32, key: &str) -> DecideRequest {
    let mut asked = claims::asked(id, "acme", order, key);
    let claim = asked.claim.as_mut().expect("a claim");
    claim.keyed.endpoint = OF_ALICE.to_owned().try_into().expect("an endpoint");
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_becomes_a_record_without_a_subject() {
    let redis = Redis::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let environment = Environment::from([
        ("TIDEGATE_TOKEN", TOKEN),
        ("TIDEGATE_ADMIN_TOKENS", "bo:admin:the-admins-token"),
        ("AUDIT_PRIVATE_KEY_V1", PEM),
        ("TIDEGATE_AUDIT_SUBJECT_KEY", "a secret of some length that nobody knows"),
    ]);
    let (url, folder) = (redis.url(), dir.path().display());
    let flags = format!("--redis-url {url} --audit-dir {folder} {CALM}");
    let gateway = start(settings_with(&flags, &environment)).await;

    // A new Redis is a cold region, whose limits are reduced: a cold start, and soon a denial.
    let mut denied = false;
    for id in 1..=6 {
        let asked =
            DecideRequest { id: DecisionId::new(id), timeout_ms: 5_000, ..question(CLIENT) };
        denied |= claims::decide(&gateway, &asked).await.verdict == Verdict::Deny;
    }
    assert!(denied, "six of five");
    claims::complete_one(&gateway, &of_alice(11, 1, "k-of-a-client")).await;
    let again = of_alice(12, 1, "k-of-a-client");
    assert!(matches!(claims::decide(&gateway, &again).await.claim, Some(ClaimState::Done(_))));
    let other = of_alice(13, 2, "k-of-a-client");
    assert_eq!(claims::decide(&gateway, &other).await.claim, Some(ClaimState::Conflict));
    claims::take_over(&gateway, (14, 15), "another-k-of-a-client").await;
    claims::complete_a_lost_one(&gateway, &of_alice(16, 1, "k-of-a-client-lost")).await;
    let mut process = Process { gateway: &gateway, id: 1, seq: 0, since: 0 };
    let epoch = process.one("pay:tenant-of-somebody", Batch::default()).await.epoch;
    let dead = Batch { epoch, calls: 20, failures: 20, ..Batch::default() };
    process.one("pay:tenant-of-somebody", dead).await;
    let caller = Caller::new(Speaks::Http1);
    for (id, config) in [(21, "no hash"), (31, CONFIG)] {
        // Five are admitted, of both.
        for id in id..id + 6 {
            let asked =
                DecideRequest { id: DecisionId::new(id), timeout_ms: 5_000, ..question(DENIED) };
            let to = gateway.data_addr;
            let mut sent = request(to, Method::POST, DECIDE_PATH, Some(TOKEN), encode(&asked));
            sent.headers_mut().insert(CONFIG_HEADER, config.parse().expect("a value"));
            assert_eq!(caller.send(sent).await.status, 200);
        }
    }
    let stranger = request(gateway.data_addr, Method::POST, "/v1/decide", Some("wrong"), "{}");
    assert_eq!(caller.send(stranger).await.status, 401);
    let order = format!(r#"{{"tenant": "acme", "endpoint": "{OF_ALICE}", "key": "k"}}"#);
    let to = gateway.admin_addr;
    let order = request(to, Method::POST, "/v1/idempotency/look", Some("the-admins-token"), order);
    assert_eq!(caller.send(order).await.status, 200);
    let status = caller.get(gateway.admin_addr, "/v1/status", Some("the-admins-token")).await;
    assert_eq!(status.status, 200);

    let store = redis_store::start(&redis, PATIENCE).await;
    let chain = ChainName::new("default").expect("a name");
    let records = eventually(PATIENCE, "all kinds are on record", async || {
        let records = store.records(&chain, 0, 0, 1_000).await.expect("records");
        let text = |record: Vec<u8>| String::from_utf8(record).expect("text");
        let records: Vec<String> = records.into_iter().map(text).collect();
        let mut kinds: BTreeMap<(&str, &str), bool> = BTreeMap::new();
        for (action, said) in KINDS {
            let action_of = format!("\"action\":\"{action}\"");
            let is_there =
                records.iter().any(|record| record.contains(&action_of) && record.contains(said));
            kinds.insert((action, said), is_there);
        }
        if kinds.values().all(|is_there| *is_there) { Ok(records) } else { Err((kinds, records)) }
    })
    .await;
    for record in &records {
        assert!(Record::read(record.as_bytes()).is_ok());
        for personal in [CLIENT, DENIED, "k-of-a-client", "tenant-of-somebody", "alice"] {
            assert!(!record.contains(personal), "{personal} in {record}");
        }
    }
}
