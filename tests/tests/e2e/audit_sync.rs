//! Decisions inside a real Envoy that wait for their audit event: whether it is in the chain, or on the gateway's disk,
//! when the client has its answer; and what clients get while there is nobody to record it.

use std::time::Duration;

use serde_json::Value;
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway};
use tidegate_tests::upstream::Upstream;

use crate::audit::{Site, is};

mod load;

const PATIENCE: Duration = Duration::from_secs(30);
/// Events that nobody waits for are gathered for so long, and in no test become records by themselves.
const TICK: [&str; 2] = ["--audit-tick", "600s"];

/// The filter denies at `/who` by itself, goes on at `/rung` where nobody decides, and lets go on at `/allow` without
/// asking anybody.
fn config(audit: &str) -> String {
    format!(
        r#"{{
  "version": 1,
  "gateway": {{"cluster": "tidegate", "timeout": "5s", "token": {{"env": "TIDEGATE_TOKEN"}}, "breaker": {{"open": "300ms"}}}},
  "audit": {audit},
  "policies": [
    {{"name": "ready", "match": {{"path": "/ready"}},
     "rate_limits": [{{"name": "ip", "by": "ip", "limit": 1000, "per": "day"}}], "on_unavailable": ["deny"]}},
    {{"name": "who", "match": {{"path": "/who"}},
     "rate_limits": [{{"name": "key", "by": {{"header": "x-key"}}, "limit": 100, "per": "day"}}]}},
    {{"name": "rung", "match": {{"path": "/rung"}},
     "rate_limits": [{{"name": "ip", "by": "ip", "limit": 100, "per": "day"}}], "on_unavailable": ["allow"]}},
    {{"name": "allow", "match": {{"path": "/allow"}}, "audit": {{"allows": "100%"}}, "circuit_breaker": {{"open": "1s"}}}}
  ]
}}"#
    )
}

struct Bench {
    site: Site,
    gateway: Gateway,
    upstream: Upstream,
    envoy: Envoy,
}

impl Bench {
    async fn start(audit: &str, flags: &[&str]) -> Self {
        Self::of(&config(audit), flags).await
    }

    async fn of(config: &str, flags: &[&str]) -> Self {
        let mut site = Site::new().await;
        site.options = site.options.flags(flags);
        let gateway = Gateway::start(&site.options).await;
        let upstream = Upstream::start().await;
        // One worker, since each tells the first of a kind.
        let options = Options { concurrency: 1, ..Options::new(gateway.addr, upstream.addr) };
        let envoy = Envoy::start(&options.config(config)).await;
        let bench = Self { site, gateway, upstream, envoy };
        bench.reach().await;
        bench
    }

    /// Until decisions come: that is a moment after the start. The chain takes events by then, that of a command first.
    async fn reach(&self) {
        eventually(PATIENCE, "decisions come", async || {
            let answer = self.get("/ready").await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    async fn get(&self, path: &str) -> Answer {
        client::get(self.envoy.addr, path).await
    }

    async fn unrecorded(&self, outcome: &str) -> u64 {
        let name = format!("tidegate_audit_unrecorded_total{{outcome=\"{outcome}\"}}");
        self.envoy.metric(&name).await
    }

    /// The gateway is gone.
    async fn lose_gateway(&mut self) {
        self.gateway.process().kill();
    }

    /// And there again, where it was; it takes what is handed over at once.
    async fn bring_gateway(&mut self) {
        let mut options =
            gateway::Options { listen: self.gateway.addr.to_string(), ..self.site.options.clone() };
        options.flags.retain(|flag| !TICK.contains(&flag.as_str()));
        self.gateway = Gateway::start(&options).await;
    }

    /// The chain once it holds so many records of a kind.
    async fn holds(&self, (action, outcome): (&str, &str), count: usize) -> Vec<Value> {
        eventually(PATIENCE, "it is on record", async || {
            let records = self.site.records().await;
            let found = of(&records, action, outcome);
            let told = |record: &&Value| record["actor"] == "filter";
            let all = records
                .iter()
                .filter(told)
                .map(|r| format!("{} {} {}", r["action"], r["outcome"], text(r)));
            if found.len() == count { Ok(found) } else { Err(all.collect::<Vec<_>>()) }
        })
        .await
    }
}

fn of(records: &[Value], action: &str, outcome: &str) -> Vec<Value> {
    records.iter().filter(|record| is(record, action, outcome)).cloned().collect()
}

fn text(record: &Value) -> &str {
    let detail = &record["detail"];
    detail.as_str().or_else(|| detail["text"].as_str()).unwrap_or_default()
}

fn says(record: &Value, words: &[&str]) {
    for word in words {
        assert!(text(record).contains(word), "{word}: {record}");
    }
}

/// The chain is read from Redis as soon as the client has read its answer.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_client_has_its_answer_the_event_of_a_sync_decision_is_in_the_chain() {
    let audit = r#"{"sync": ["deny", "allow"], "timeout": "5s"}"#;
    let bench = Bench::start(audit, &TICK).await;

    let denied = bench.get("/who").await;
    let records = bench.site.records().await;
    assert_eq!(denied.status, 403, "{denied:?}");
    let found = of(&records, "deny", "client-identity-required");
    assert_eq!(found.len(), 1, "{records:?}");
    says(&found[0], &["names=who.key", "class=sync"]);

    let seen = bench.upstream.seen();
    let admitted = bench.get("/allow").await;
    let records = bench.site.records().await;
    assert_eq!((admitted.status, bench.upstream.seen() - seen), (200, 1), "{admitted:?}");
    let found = of(&records, "allow", "ok");
    assert_eq!(found.len(), 1, "{records:?}");
    says(&found[0], &["names=allow", "share_bp=10000", "class=sync"]);

    assert_eq!((bench.unrecorded("late").await, bench.unrecorded("refused").await), (0, 0));
    bench.site.verify().await;
}

/// Otherwise the test above would say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_decision_waits_its_event_comes_after_the_answer() {
    let bench = Bench::start("{}", &TICK).await;
    assert_eq!(bench.get("/who").await.status, 403);
    assert_eq!(bench.get("/allow").await.status, 200);
    let records = bench.site.records().await;
    assert!(!records.iter().any(|record| record["actor"] == "filter"), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_stands_still_the_answer_comes_with_its_event_on_the_disk() {
    let audit = r#"{"sync": ["deny", "allow"], "timeout": "5s", "unrecorded": "refuse"}"#;
    let mut bench = Bench::start(audit, &TICK).await;
    bench.site.redis.process().pause();
    for (path, status, words) in
        [("/who", 403, "client-identity-required"), ("/allow", 200, "names=allow")]
    {
        let answer = bench.get(path).await;
        let spool = bench.site.spool();
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(spool.contains(words), "answered, and not on the disk: {spool}");
    }
    bench.site.redis.process().resume();
    bench.holds(("deny", "client-identity-required"), 1).await;
    bench.holds(("allow", "ok"), 1).await;
    assert_eq!((bench.unrecorded("late").await, bench.unrecorded("refused").await), (0, 0));
    bench.site.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_admissions_are_refused_where_that_is_said_and_are_told_of_later() {
    let audit = r#"{"sync": ["deny", "rung", "allow"], "timeout": "2s", "unrecorded": "refuse"}"#;
    let mut bench = Bench::start(audit, &TICK).await;
    bench.lose_gateway().await;
    let seen = bench.upstream.seen();
    for path in ["/rung", "/allow"] {
        let refused = bench.get(path).await;
        assert_eq!(refused.status, 503, "{path}: {refused:?}");
        assert_eq!(refused.header("x-tidegate-reply"), Some("policy-store-unavailable"));
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    assert_eq!(bench.upstream.seen(), seen, "nothing goes on unrecorded");
    let denied = bench.get("/who").await;
    assert_eq!(denied.status, 403, "a denial stays what it is: {denied:?}");
    assert_eq!((bench.unrecorded("refused").await, bench.unrecorded("late").await), (2, 1));

    bench.bring_gateway().await;
    let refused = bench.holds(("deny", "policy-store-unavailable"), 2).await;
    for record in &refused {
        says(record, &["cause=event-not-recorded"]);
    }
    let denied = bench.holds(("deny", "client-identity-required"), 1).await;
    says(&denied[0], &["names=who.key", "class=sync"]);
    eventually(PATIENCE, "admissions go on again", async || {
        let (rung, allow) = (bench.get("/rung").await, bench.get("/allow").await);
        if (rung.status, allow.status) == (200, 200) { Ok(()) } else { Err((rung, allow)) }
    })
    .await;
    bench.site.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_admissions_go_on_where_nothing_else_is_said_and_are_told_of_later() {
    let audit = r#"{"sync": ["rung", "allow"], "timeout": "2s"}"#;
    let mut bench = Bench::start(audit, &TICK).await;
    bench.lose_gateway().await;
    let seen = bench.upstream.seen();
    for path in ["/rung", "/allow"] {
        let answer = bench.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    assert_eq!(bench.upstream.seen() - seen, 2);
    assert_eq!((bench.unrecorded("refused").await, bench.unrecorded("late").await), (0, 2));
    bench.bring_gateway().await;
    let rungs = bench.holds(("rung", "callout-unmarked"), 1).await;
    says(&rungs[0], &["rungs=allow", "class=sync"]);
    bench.holds(("allow", "ok"), 1).await;
    bench.site.verify().await;
}

/// Its event was on its way, and is on record: that the request goes on, and that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_admission_waits_is_on_record_as_gone() {
    let audit = r#"{"sync": ["allow"], "timeout": "5s"}"#;
    let mut bench = Bench::start(audit, &[]).await;
    let held = async |count: u64| {
        eventually(PATIENCE, "so many requests are in Envoy", async || {
            let stats = bench.envoy.stats().await;
            let of_clients = |line: &&str| {
                line.starts_with("envoy_http_downstream_rq_active{") && !line.contains("\"admin\"")
            };
            let active = stats.lines().filter(of_clients).filter_map(|l| l.split(' ').next_back());
            let active: u64 = active.filter_map(|value| value.parse::<u64>().ok()).sum();
            if active == count { Ok(()) } else { Err(stats) }
        })
        .await;
    };
    bench.gateway.process().pause();
    let seen = bench.upstream.seen();
    let mut client = client::connect(bench.envoy.addr, None).await.expect("it listens");
    client::send(&mut client, client::get_request("/allow", "").as_bytes()).await;
    held(1).await;
    drop(client);
    held(0).await;
    bench.gateway.process().resume();
    let decision = |record: &Value| {
        text(record)
            .split("decision=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned)
    };
    let admitted = bench.holds(("allow", "ok"), 1).await;
    let gone = bench.holds(("deny", "client-left"), 1).await;
    assert!(
        decision(&gone[0]).is_some() && decision(&gone[0]) == decision(&admitted[0]),
        "{gone:?}"
    );
    says(&gone[0], &["names=allow"]);
    assert_eq!(bench.upstream.seen(), seen, "it went nowhere");
    assert_eq!((bench.unrecorded("late").await, bench.unrecorded("refused").await), (0, 0));
    assert_eq!(bench.get("/allow").await.status, 200);
    bench.site.verify().await;
}

/// It takes messages and answers none.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stands_still_holds_a_decision_for_the_timeout_and_no_longer() {
    for (unrecorded, status) in [("refuse", 503), ("proceed", 200)] {
        let audit =
            format!(r#"{{"sync": ["allow"], "timeout": "500ms", "unrecorded": "{unrecorded}"}}"#);
        let mut bench = Bench::start(&audit, &[]).await;
        bench.gateway.process().pause();
        let answer = bench.get("/allow").await;
        assert_eq!(answer.status, status, "{unrecorded}: {answer:?}");
        bench.gateway.process().resume();
        // Heard as well, or handed over again under the same id.
        let records = bench.holds(("allow", "ok"), 1).await;
        says(&records[0], &["class=sync"]);
        let outcome = if status == 503 { "refused" } else { "late" };
        assert_eq!(bench.unrecorded(outcome).await, 1);
    }
}
