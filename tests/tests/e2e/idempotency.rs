//! Idempotency on real parts: what the upstream sees, how often it runs, and what everybody is answered.

use std::time::{Duration, Instant};

use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually::{as_told, eventually};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::http2;
use tidegate_tests::orders::Orders;
use tidegate_tests::redis::Redis;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// A wait that is over long after the upstream has answered, and an upstream that answers late.
pub(crate) const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "waits", "match": {"path": "/waits/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "wait": "30s", "store": {"headers": ["x-order"]}}},
    {"name": "fast", "match": {"path": "/fast/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "response": "fast", "store": {"headers": ["x-order"]}}},
    {"name": "again", "match": {"path": "/again/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "100ms", "takeover": true, "store": {"headers": ["x-order"]}}},
    {"name": "orders", "match": {"path": "/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "500ms", "store": {"headers": ["x-order"]}}}
  ]
}"#;

pub(crate) struct Bench {
    pub(crate) redis: Redis,
    pub(crate) gateway: Gateway,
    pub(crate) upstream: Orders,
    pub(crate) envoys: Vec<Envoy>,
}

pub(crate) async fn bench(envoys: usize) -> Bench {
    bench_of(envoys, CONFIG).await
}

pub(crate) async fn bench_of(count: usize, config: &str) -> Bench {
    bench_with(count, config, |_| {}).await
}

pub(crate) async fn bench_with(count: usize, config: &str, change: impl Fn(&mut Options)) -> Bench {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Orders::start().await;
    let mut envoys = Vec::new();
    for _ in 0..count {
        let mut options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
        change(&mut options);
        envoys.push(Envoy::start(&options.config(config)).await);
    }
    Bench { redis, gateway, upstream, envoys }
}

impl Bench {
    pub(crate) async fn post(&self, path: &str, key: &str, more: &str, body: &str) -> Answer {
        client::post(self.envoys[0].addr, path, &lines(key, more), body).await
    }

    pub(crate) async fn counted(&self, policy: &str, outcome: &str) -> u64 {
        let name =
            format!("tidegate_idempotency_total{{policy=\"{policy}\",outcome=\"{outcome}\"}}");
        let mut sum = 0;
        for envoy in &self.envoys {
            sum += envoy.metric(&name).await;
        }
        sum
    }

    pub(crate) async fn reaches(&self, policy: &str, outcome: &str, count: u64) {
        eventually(WITHIN, outcome, async || {
            let counted = self.counted(policy, outcome).await;
            if counted == count { Ok(()) } else { Err(counted) }
        })
        .await;
    }

    pub(crate) async fn runs(&self, count: usize) {
        eventually(WITHIN, "runs", async || {
            let runs = self.upstream.runs();
            if runs == count { Ok(()) } else { Err(runs) }
        })
        .await;
    }
}

pub(crate) fn lines(key: &str, more: &str) -> String {
    format!("x-tenant: acme\r\nidempotency-key: {key}\r\n{more}")
}

/// What has to be the same for everybody.
pub(crate) fn told(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let names = ["content-type", "location", "x-order"];
    let kept = answer.headers.iter().filter(|(name, _)| names.contains(&name.as_str()));
    (answer.status, kept.cloned().collect(), answer.bytes.clone())
}

pub(crate) fn replayed(answer: &Answer) -> bool {
    answer.header("idempotent-replayed") == Some("true")
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_the_upstream_before_the_verdict() {
    let bench = bench(1).await;
    let addr = bench.envoys[0].addr;
    let mut slow = client::connect(addr, None).await.expect("a listener");
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n{}\r\n3\r\none\r\n",
        lines("slow", "")
    );
    client::send(&mut slow, head.as_bytes()).await;
    // Others come and go meanwhile, on both workers.
    for nth in 0..8 {
        let answer = bench.post("/orders", &format!("other-{nth}"), "", "{}").await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    assert_eq!(bench.upstream.runs(), 8, "the slow one has not begun");
    client::send(&mut slow, b"3\r\ntwo\r\n").await;
    let answer = bench.post("/orders", "another", "", "{}").await;
    assert_eq!((answer.status, bench.upstream.runs()), (201, 9));
    client::send(&mut slow, b"0\r\n\r\n").await;
    let answer = client::answer(&mut slow).await;
    assert_eq!((answer.status, bench.upstream.runs()), (201, 10), "{answer:?}");
    // The body was hashed piece by piece: as a whole it is the same.
    let again = bench.post("/orders", "slow", "", "onetwo").await;
    assert!(replayed(&again), "{again:?}");
    assert_eq!(told(&again), told(&answer));
    let other = bench.post("/orders", "slow", "", "onetwoo").await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(bench.upstream.runs(), 10);
}

/// Of HTTP/1 Envoy takes no trailers unless it is told to; of HTTP/2 the end of the body is theirs to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_with_trailers_waits_for_the_verdict_too() {
    let bench = bench_with(1, CONFIG, |options| options.upstream_http2 = true).await;
    let addr = bench.envoys[0].addr;
    let post = |key: &'static str| async move {
        let headers = [("x-tenant", "acme"), ("idempotency-key", key), ("x-run", "wait")];
        http2::post_with_trailer(addr, "/waits/pay", &headers, b"{}", ("x-end", "1")).await
    };
    let first = tokio::spawn(post("one"));
    bench.runs(1).await;
    let again = tokio::spawn(post("one"));
    bench.reaches("waits", "waited", 1).await;
    // The upstream takes one after the other: whatever was let through before comes before this one.
    let other = tokio::spawn(post("other"));
    bench.reaches("waits", "fresh", 2).await;
    bench.upstream.open();
    let (first, again) = (first.await.expect("an answer"), again.await.expect("an answer"));
    assert_eq!((first.status, first.header("x-trailers")), (201, Some("1")), "{first:?}");
    assert!(replayed(&again), "{again:?}");
    assert_eq!(told(&again), told(&first));
    assert_eq!(other.await.expect("an answer").status, 201);
    assert_eq!(bench.upstream.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_hundred_at_once_through_two_envoys_one_runs_and_all_get_its_answer() {
    let bench = bench(2).await;
    let mut all = JoinSet::new();
    for nth in 0..200 {
        let addr = bench.envoys[nth % 2].addr;
        let headers = lines("\"one\"", "x-run: wait\r\n");
        all.spawn(
            async move { client::post(addr, "/waits/pay", &headers, "{\"amount\": 7}").await },
        );
    }
    bench.reaches("waits", "waited", 199).await;
    assert_eq!(bench.upstream.runs(), 1);
    bench.upstream.open();
    let answers = all.join_all().await;
    let first = answers.iter().find(|answer| !replayed(answer)).expect("one ran");
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("set-cookie"), Some("run=1"), "it is told all");
    for answer in &answers {
        assert_eq!(told(answer), told(first), "{answer:?}");
    }
    assert_eq!(answers.iter().filter(|answer| replayed(answer)).count(), 199);
    assert_eq!(answers.iter().filter(|a| a.header("set-cookie").is_some()).count(), 1);
    assert_eq!(bench.upstream.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_after_retry_after_gets_the_first_answer() {
    // A lock that two hundred clients cannot outlast, however slow the machine.
    let config = CONFIG.replace("\"upstream_timeout\": \"500ms\"", "\"upstream_timeout\": \"10s\"");
    let bench = bench_of(2, &config).await;
    let mut all = JoinSet::new();
    for nth in 0..200 {
        let addr = bench.envoys[nth % 2].addr;
        let headers = lines("one", "x-run: wait\r\n");
        all.spawn(async move {
            let answer = client::post(addr, "/orders", &headers, "{}").await;
            if answer.status != 409 {
                return (None, answer);
            }
            let wait_s = answer.header("retry-after").and_then(|text| text.parse().ok());
            as_told(Duration::from_secs(wait_s.expect("seconds"))).await;
            (Some(answer), client::post(addr, "/orders", &headers, "{}").await)
        });
    }
    bench.reaches("orders", "in_flight", 199).await;
    bench.upstream.open();
    let answers = all.join_all().await;
    let (_, first) = answers.iter().find(|(refused, _)| refused.is_none()).expect("one ran");
    for (refused, answer) in &answers {
        assert_eq!(told(answer), told(first), "{answer:?}");
        if let Some(refused) = refused {
            assert_eq!(refused.header("x-tidegate-reply"), Some("idempotency-in-flight"));
            assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        }
    }
    assert_eq!(bench.upstream.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_for_one_request_of_one_tenant_whatever_http_it_speaks() {
    let bench = bench(1).await;
    let first = bench.post("/orders/1/refund", "k", "", "{}").await;
    assert_eq!(first.status, 201, "{first:?}");
    let other = bench.post("/orders/2/refund", "k", "", "{}").await;
    assert_eq!(other.status, 422, "never order 1's answer: {other:?}");
    assert_eq!(other.header("x-tidegate-reply"), Some("idempotency-conflict"));
    let headers = [("x-tenant", "acme"), ("idempotency-key", "k")];
    let again = http2::post_body(bench.envoys[0].addr, "/orders/1/refund", &headers, b"{}").await;
    assert!(replayed(&again), "{again:?}");
    assert_eq!(told(&again), told(&first));
    let bank = [("x-tenant", "bank"), ("idempotency-key", "k")];
    let theirs = http2::post_body(bench.envoys[0].addr, "/orders/1/refund", &bank, b"{}").await;
    assert!(!replayed(&theirs), "{theirs:?}");
    assert_eq!((theirs.status, bench.upstream.runs()), (201, 2));
    let back = client::post(
        bench.envoys[0].addr,
        "/orders/1/refund",
        "x-tenant: bank\r\nidempotency-key: k\r\n",
        "{}",
    )
    .await;
    assert_eq!(told(&back), told(&theirs), "from HTTP/2 to HTTP/1");
    let keyless = client::post(bench.envoys[0].addr, "/orders", "x-tenant: acme\r\n", "{}").await;
    assert_eq!(keyless.status, 400, "{keyless:?}");
}

/// Envoy says that a reply of its own is text where nobody says what it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_no_type_is_given_again_without_one() {
    let bench = bench(1).await;
    let post = async || bench.post("/orders", "k", "x-run: untyped\r\n", "{}").await;
    let (first, again) = (post().await, post().await);
    assert!(replayed(&again), "{again:?}");
    assert_eq!((first.status, first.header("content-type")), (201, None), "{first:?}");
    assert_eq!(told(&again), told(&first));
    // What only the first one has is of its own connection, or not among what is stored.
    let kept = |answer: &Answer| {
        let own = ["date", "server", "x-envoy-upstream-service-time", "x-tidegate-decision"];
        let not_stored = ["set-cookie", "x-received", "x-trailers", "idempotent-replayed"];
        let is_kept = |name: &str| !own.contains(&name) && !not_stored.contains(&name);
        let mut kept = answer.headers.clone();
        kept.retain(|(name, _)| is_kept(name));
        kept.sort();
        kept
    };
    assert_eq!(kept(&again), kept(&first));
    let over2 = [("x-tenant", "acme"), ("idempotency-key", "k"), ("x-run", "untyped")];
    let over2 = http2::post_body(bench.envoys[0].addr, "/orders", &over2, b"{}").await;
    assert!(replayed(&over2), "{over2:?}");
    assert_eq!(told(&over2), told(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_speak_http2() {
    let mut bench = bench(1).await;
    let options = Options::new(bench.gateway.addr, bench.upstream.addr).config(CONFIG);
    bench.envoys = vec![Envoy::start(&Options { upstream_http2: true, ..options }).await];
    for path in ["/orders", "/fast/orders"] {
        let first = bench.post(path, "k", "", "{}").await;
        let policy = if path == "/orders" { "orders" } else { "fast" };
        bench.reaches(policy, "stored", 1).await;
        let headers = [("x-tenant", "acme"), ("idempotency-key", "k")];
        let again = http2::post_body(bench.envoys[0].addr, path, &headers, b"{}").await;
        assert_eq!((first.status, told(&again)), (201, told(&first)), "{again:?}");
        assert!(replayed(&again));
        // What never came whole is never given again.
        let cut = bench.post(path, "drop", "x-run: drop\r\n", "{}").await;
        assert_eq!(cut.status, 503, "{cut:?}");
        let kept = bench.post(path, "drop", "", "{}").await;
        assert_eq!(kept.status, 409, "{kept:?}");
    }
    assert_eq!(bench.upstream.runs(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_answers_decides_what_becomes_of_the_key() {
    let bench = bench(1).await;
    // An error that says it did nothing releases the key.
    let busy = bench.post("/orders", "busy", "x-run: 429\r\n", "{}").await;
    assert_eq!(busy.status, 429, "{busy:?}");
    bench.reaches("orders", "released", 1).await;
    let runs = bench.post("/orders", "busy", "", "{}").await;
    assert_eq!((runs.status, replayed(&runs)), (201, false), "{runs:?}");
    // One that may have done something keeps it.
    for (key, how, status) in [("broke", "500", 500), ("dropped", "drop", 503)] {
        let before = bench.upstream.runs();
        let broke = bench.post("/orders", key, &format!("x-run: {how}\r\n"), "{}").await;
        assert_eq!(broke.status, status, "{broke:?}");
        let again = bench.post("/orders", key, "", "{}").await;
        assert_eq!(again.status, 409, "{again:?}");
        assert_eq!(bench.upstream.runs(), before + 1);
        // Its lock ends, and nobody runs it again by itself.
        let unknown = eventually(WITHIN, "the lock's end", async || {
            let answer = bench.post("/orders", key, "", "{}").await;
            match answer.header("x-tidegate-reply") {
                Some("idempotency-unknown-outcome") => Ok(answer),
                _ => Err(answer),
            }
        })
        .await;
        assert_eq!((unknown.status, unknown.header("retry-after")), (409, None), "{unknown:?}");
        assert_eq!(bench.upstream.runs(), before + 1);
    }
    // An answer that is final is stored, also if it is none of success.
    let before = bench.upstream.runs();
    let missing = bench.post("/orders", "missing", "x-run: 404\r\n", "{}").await;
    let again = bench.post("/orders", "missing", "", "{}").await;
    assert_eq!((missing.status, told(&again)), (404, told(&missing)));
    assert!(replayed(&again));
    // One too long is remembered without its body.
    for path in ["/orders", "/fast/orders"] {
        let long = bench.post(path, "long", "x-run: long\r\n", "{}").await;
        assert_eq!((long.status, long.bytes.len()), (201, 100_000), "{:?}", long.headers);
        let policy = if path == "/orders" { "orders" } else { "fast" };
        bench.reaches(policy, "stored_without_body", 1).await;
        let again = bench.post(path, "long", "", "{}").await;
        assert_eq!(again.header("x-tidegate-reply"), Some("idempotency-result-not-stored"));
        assert_eq!((again.status, again.json()["stored-status"].as_u64()), (409, Some(201)));
    }
    assert_eq!(bench.upstream.runs(), before + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_left_gives_its_key_back() {
    let mut bench = bench(1).await;
    let addr = bench.upstream.addr;
    let gone = std::mem::replace(&mut bench.upstream, Orders::start().await);
    drop(gone);
    let refused = eventually(WITHIN, "nobody listens", async || {
        let key = format!("k-{:?}", Instant::now());
        let key = key.replace([' ', '{', '}', ':', ','], "");
        let answer = bench.post("/orders", &key, "", "{}").await;
        if answer.status == 503 { Ok((key, answer)) } else { Err(answer) }
    })
    .await;
    bench.reaches("orders", "released", 1).await;
    bench.upstream = Orders::bind(&addr.to_string()).await;
    let runs = bench.post("/orders", &refused.0, "", "{}").await;
    assert_eq!((runs.status, replayed(&runs)), (201, false), "{runs:?} after {:?}", refused.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_is_never_given_again() {
    let bench = bench(1).await;
    for path in ["/orders", "/fast/orders"] {
        let headers = lines("cut", "x-run: cut\r\n");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\n{{}}"
        );
        let mut stream = client::connect(bench.envoys[0].addr, None).await.expect("a listener");
        client::send(&mut stream, request.as_bytes()).await;
        let mut seen = Vec::new();
        // A connection that is reset ends it as well.
        let _end = stream.read_to_end(&mut seen).await;
        let seen = String::from_utf8_lossy(&seen);
        // What was held is an error; what had begun ends in the middle.
        let (policy, status) = match path {
            "/orders" => ("orders", "HTTP/1.1 502"),
            _ => ("fast", "HTTP/1.1 201"),
        };
        assert!(seen.starts_with(status), "{path}: {seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "{path}, whole: {seen}");
        bench.reaches(policy, "kept", 1).await;
        let again = bench.post(path, "cut", "", "{}").await;
        assert_eq!(again.status, 409, "{again:?}");
        assert!(!replayed(&again));
    }
    assert_eq!(bench.upstream.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_free_its_key() {
    let bench = bench(1).await;
    let request = format!(
        "POST /waits/pay HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n{}\r\n{{}}",
        lines("left", "x-run: wait\r\n")
    );
    let mut stream = client::connect(bench.envoys[0].addr, None).await.expect("a listener");
    client::send(&mut stream, request.as_bytes()).await;
    bench.runs(1).await;
    drop(stream);
    bench.reaches("waits", "kept", 1).await;
    let record = r#"{"tenant": "acme", "endpoint": "POST /waits/pay", "key": "left"}"#;
    let look = bench.gateway.command("/v1/idempotency/look", record).await;
    assert_eq!(look.json()["state"], "in_flight", "{look:?}");
    let again = bench.post("/orders/x", "other", "", "{}").await;
    assert_eq!(again.status, 201, "{again:?}");
    eventually(WITHIN, "its outcome is unknown", async || {
        let again = bench.post("/waits/pay", "left", "", "{}").await;
        match again.header("x-tidegate-reply") == Some("idempotency-unknown-outcome") {
            true => Ok(()),
            false => Err(again),
        }
    })
    .await;
    assert_eq!(bench.upstream.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_ask_is_refused_where_a_key_is_required() {
    let mut bench = bench(1).await;
    let first = bench.post("/orders", "k", "", "{}").await;
    assert_eq!(first.status, 201, "{first:?}");
    bench.redis.process().kill();
    let refused = bench.post("/orders", "k2", "", "{}").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("x-tidegate-reply"), Some("policy-store-unavailable"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(bench.upstream.runs(), 1);
    // Nothing was recorded: the same request runs once there is a Redis again.
    bench.redis.restart().await;
    eventually(WITHIN, "the store is asked again", async || {
        let runs = bench.post("/orders", "k2", "", "{}").await;
        match (runs.status, replayed(&runs)) {
            (201, false) => Ok(()),
            _ => Err(runs),
        }
    })
    .await;
    assert_eq!(bench.upstream.runs(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_look_up_release_and_delete_a_record() {
    let bench = bench(1).await;
    let record = r#"{"tenant": "acme", "endpoint": "POST /orders/:int/pay", "key": "of-a-client"}"#;
    let order = async |order: &str| {
        let answer = bench.gateway.command(&format!("/v1/idempotency/{order}"), record).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    assert_eq!(order("look").await["state"], "absent");
    let lost = bench.post("/orders/7/pay", "of-a-client", "x-run: drop\r\n", "{}").await;
    assert_eq!(lost.status, 503, "{lost:?}");
    assert_eq!(order("look").await["state"], "in_flight");
    let released = order("release").await;
    assert_eq!((&released["order"], &released["state"]), (&"released".into(), &"absent".into()));
    let runs = bench.post("/orders/7/pay", "of-a-client", "", "{}").await;
    assert_eq!((runs.status, bench.upstream.runs()), (201, 2), "{runs:?}");
    let done = order("release").await;
    assert_eq!((&done["state"], &done["status"]), (&"done".into(), &201.into()), "an answer stays");
    assert_eq!(done["body_bytes"], runs.bytes.len());
    let again = bench.post("/orders/7/pay", "of-a-client", "", "{}").await;
    assert!(replayed(&again), "{again:?}");
    assert_eq!(order("delete").await["order"], "deleted");
    let anew = bench.post("/orders/7/pay", "of-a-client", "", "{}").await;
    assert_eq!((replayed(&anew), bench.upstream.runs()), (false, 3), "{anew:?}");

    let stranger = client::post(bench.gateway.admin, "/v1/idempotency/delete", "", record).await;
    assert_eq!(stranger.status, 401, "{stranger:?}");
    let malformed = bench.gateway.command("/v1/idempotency/look", "{}").await;
    assert_eq!(malformed.status, 400, "{malformed:?}");
    let log = bench.gateway.output();
    assert!(log.contains("delete a record of tenant acme at POST"), "{log}");
    assert!(!log.contains("of-a-client"), "a key is its client's: {log}");
}
