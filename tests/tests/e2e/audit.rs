//! What only the filter knows, from a real Envoy with two workers into a chain in a real Redis, as an auditor
//! verifies it: also while the gateway is away, and when it is killed and started again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::redis::Redis;
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{eventually, parts};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(90);
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}, "breaker": {"open": "300ms"}},
  "audit": {},
  "policies": [
    {"name": "who", "match": {"path": "/who/{id}"},
     "rate_limits": [{"name": "key", "by": {"header": "x-key"}, "limit": 100, "per": "day"}],
     "on_unavailable": ["deny"]},
    {"name": "all", "match": {"path": "/all"}, "audit": {"allows": "100%"},
     "rate_limits": [{"name": "key", "by": {"header": "x-key"}, "limit": 3, "per": "day"}]}
  ]
}"#;

/// What a gateway with a chain needs, in one life after the other.
pub struct Site {
    pub redis: Redis,
    dir: TempDir,
    pub options: gateway::Options,
}

impl Site {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let redis = Redis::start_durable().await;
        let path = |name: &str| dir.path().join(name);
        let public = run(&["keys", "generate", "--version", "v1", "--out"], Some(&path("v1.pem")));
        std::fs::write(path("public"), public).expect("written");
        let mut options = gateway::Options::redis(&redis.url()).flags(&ROOMY);
        for (name, value) in
            [("AUDIT_PRIVATE_KEY_V1_FILE", path("v1.pem")), ("TIDEGATE_AUDIT_DIR", path("audit"))]
        {
            options.variables.push((name.to_owned(), value.display().to_string()));
        }
        Self { redis, dir, options }
    }

    /// What waits on the gateway's disk.
    pub fn spool(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit/spool.jsonl")).unwrap_or_default()
    }

    /// The records of the chain.
    pub async fn records(&self) -> Vec<Value> {
        let lines = self.export().await;
        lines.iter().map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    async fn export(&self) -> Vec<String> {
        let all = ["LRANGE", "audit:{default}:seg:0", "0", "-1"];
        let mut lines = Vec::new();
        // In pieces: a reply is read up to 64 KiB.
        for from in (0..).step_by(20) {
            let (from, to) = (from.to_string(), (from + 19).to_string());
            let reply = self.redis.command(&[all[0], all[1], &from, &to]).await;
            let before = lines.len();
            lines.extend(reply.lines().filter(|l| l.starts_with('{')).map(str::to_owned));
            if lines.len() < before + 20 {
                break;
            }
        }
        lines
    }

    /// As an auditor does it: the export, the public key, the tool.
    pub async fn verify(&self) {
        let export = self.dir.path().join("chain.jsonl");
        std::fs::write(&export, self.export().await.join("\n") + "\n").expect("written");
        let public: Value = serde_json::from_str(
            &std::fs::read_to_string(self.dir.path().join("public")).expect("read"),
        )
        .expect("a line of a keys file");
        let keys = json!({"chain": "default", "keys": [public]});
        let file = self.dir.path().join("keys.json");
        std::fs::write(&file, keys.to_string()).expect("written");
        run(&["verify", &export.display().to_string(), "--keys"], Some(&file));
    }
}

fn run(words: &[&str], last: Option<&Path>) -> String {
    let tool: PathBuf = parts::gateway().with_file_name("tidegate-audit");
    let output = Command::new(tool).args(words).args(last).output().expect("make gateway");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn is(record: &Value, action: &str, outcome: &str) -> bool {
    record["actor"] == "filter" && record["action"] == action && record["outcome"] == outcome
}

/// How many events records of a kind tell of.
pub fn events(records: &[Value], action: &str, outcome: &str) -> u64 {
    let of = records.iter().filter(|record| is(record, action, outcome));
    of.map(|record| {
        let text = record["detail"].as_str().or_else(|| record["detail"]["text"].as_str());
        let more =
            text.and_then(|text| text.split("; and ").nth(1)?.split(' ').next()?.parse().ok());
        more.unwrap_or(1)
    })
    .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_inside_the_filter_end_up_in_the_verified_chain() {
    let site = Site::new().await;
    let mut gateway = Gateway::start(&site.options).await;
    let upstream = Upstream::start().await;
    let options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
    let envoy = Envoy::start(&options.config(CONFIG)).await;

    // Without an identity the filter denies by itself; of what the gateway denies it tells nothing.
    for _ in 0..5 {
        let answer = client::get(envoy.addr, "/who/1").await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    for nth in 0..5 {
        let answer = client::get_from(envoy.addr, None, "/all", "x-key: k\r\n").await;
        assert_eq!(answer.status, if nth < 3 { 200 } else { 429 }, "{answer:?}");
    }
    eventually(PATIENCE, "the first of each is on record", async || {
        let records = site.records().await;
        let denied = records.iter().any(|r| is(r, "deny", "client-identity-required"));
        let allowed = events(&records, "allow", "ok") == 3;
        let config = records.iter().filter(|r| is(r, "config", "ok")).count() == 1;
        if denied && allowed && config { Ok(()) } else { Err(records) }
    })
    .await;
    site.verify().await;
    let records = site.records().await;
    let text = serde_json::to_string(&records).expect("text");
    assert!(!text.contains("\"subject\""), "no key to hash by, so no subject: {text}");
    let allow = records.iter().find(|r| is(r, "allow", "ok")).expect("it is there");
    assert_eq!(allow["detail"]["limits"][0]["limit"], "all.key");

    // The gateway is away. What happens now is told when it is back, in another life of it.
    let addr = gateway.addr;
    gateway.process().kill();
    for nth in 0..20 {
        let header = format!("x-key: k{nth}\r\n");
        let answer = client::get_from(envoy.addr, None, "/who/2", &header).await;
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    drop(gateway);
    let again = gateway::Options { listen: addr.to_string(), ..site.options.clone() };
    let _gateway = Gateway::start(&again).await;
    eventually(PATIENCE, "all that was denied meanwhile is on record", async || {
        let records = site.records().await;
        let count = events(&records, "deny", "policy-store-unavailable");
        if count == 20 { Ok(()) } else { Err((count, records)) }
    })
    .await;
    site.verify().await;
    let records = site.records().await;
    let ids: BTreeSet<&str> = records.iter().filter_map(|record| record["id"].as_str()).collect();
    assert_eq!(ids.len(), records.len(), "no event stands twice");
    assert_eq!(envoy.metric("tidegate_audit_events_total{outcome=\"lost\"}").await, 0);
    assert!(envoy.metric("tidegate_audit_events_total{outcome=\"kept\"}").await > 0);
}

/// Each admission an event, faster than a worker ticks: brief ones among them, and messages that a request sends.
#[tokio::test(flavor = "multi_thread")]
async fn each_admission_of_a_busy_filter_is_on_record_once() {
    const CLIENTS: usize = 16;
    const EACH: usize = 150;
    let site = Site::new().await;
    let gateway = Gateway::start(&site.options).await;
    let upstream = Upstream::start().await;
    let envoy = Envoy::start(&Options::new(gateway.addr, upstream.addr).config(&CONFIG.replace(
        r#""limit": 3, "per": "day""#,
        r#""limit": 1000000, "per": "second", "decide": "lease""#,
    )))
    .await;
    let (mut asks, addr) = (JoinSet::new(), envoy.addr);
    for client in 0..CLIENTS {
        asks.spawn(async move {
            let key = format!("x-key: k{}\r\n", client % 3);
            for _ in 0..EACH {
                let answer = client::get_from(addr, None, "/all", &key).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        });
    }
    asks.join_all().await;
    let count = CLIENTS * EACH;
    eventually(PATIENCE, "each is on record", async || {
        let kept = envoy.metric("tidegate_audit_events_total{outcome=\"kept\"}").await;
        if kept > u64::try_from(count).expect("small") { Ok(()) } else { Err(kept) }
    })
    .await;
    let records = site.records().await;
    let allows: Vec<&Value> = records.iter().filter(|r| is(r, "allow", "ok")).collect();
    let decisions: BTreeSet<&str> =
        allows.iter().filter_map(|record| record["detail"]["text"].as_str()).collect();
    assert_eq!((allows.len(), decisions.len()), (count, count), "{:?}", allows.first());
    assert_eq!(envoy.metric("tidegate_audit_events_total{outcome=\"lost\"}").await, 0);
    site.verify().await;
}
