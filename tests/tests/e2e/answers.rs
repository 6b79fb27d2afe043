//! What a client of a real Envoy gets to see: fields, statuses, bodies. The rules are tested in
//! policy; here it is Envoy that must not take away or add to what they say.

use std::time::Duration;

use tidegate_policy::wire::Verdict;
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::http2;
use tidegate_tests::parts;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "policies": [
    {"name": "api", "match": {"path": "/api/**"},
     "rate_limits": [{"name": "per-key", "by": {"header": "x-key"}, "limit": 2, "per": "hour"}]},
    {"name": "dry", "mode": "shadow", "match": {"path": "/dry/**"},
     "rate_limits": [{"name": "limit", "by": {"header": "x-key"}, "limit": 1, "per": "hour"}]}
  ]
}"#;

struct Bench {
    upstream: Upstream,
    envoy: Envoy,
    _gateway: Gateway,
}

async fn bench(config: &str) -> Bench {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Upstream::start().await;
    let options = Options::new(gateway.addr, upstream.addr);
    let envoy = Envoy::start(&options.config(config)).await;
    Bench { upstream, envoy, _gateway: gateway }
}

impl Bench {
    async fn get(&self, path: &str, headers: &str) -> Answer {
        client::get_from(self.envoy.addr, None, path, headers).await
    }
}

fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    let of = answer.headers.iter().filter(|(key, _)| key == name);
    of.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_stand_beside_the_upstreams_and_on_denials() {
    let bench = bench(CONFIG).await;
    let own =
        "x-key: k\r\nx-answer-ratelimit: \"own\";r=7\r\nx-answer-ratelimit-policy: \"own\";q=9\r\n";
    let answer = bench.get("/api/x", own).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(all(&answer, "ratelimit"), ["\"own\";r=7", "\"api.per-key\";r=1;t=1800"]);
    assert_eq!(all(&answer, "ratelimit-policy"), ["\"own\";q=9", "\"api.per-key\";q=2;w=3600"]);

    bench.get("/api/x", "x-key: k\r\n").await;
    let denied = bench.get("/api/x", "x-key: k\r\n").await;
    assert_eq!(denied.status, 429, "{denied:?}");
    let after: u64 = denied.header("retry-after").and_then(|v| v.parse().ok()).expect("seconds");
    let [state] = all(&denied, "ratelimit")[..] else { panic!("one field: {denied:?}") };
    let t: u64 = state.split(";t=").nth(1).and_then(|t| t.parse().ok()).expect("t in {state}");
    assert!(after >= t, "{denied:?}");
    let id = denied.header("x-tidegate-decision").expect("the decision");
    assert_eq!(denied.json()["instance"], format!("urn:uuid:{id}"));

    let none = bench.get("/elsewhere", "").await;
    assert_eq!(all(&none, "ratelimit"), [""; 0]);
    let shadow = bench.get("/dry/x", "x-key: k\r\n").await;
    assert_eq!((shadow.status, all(&shadow, "ratelimit").len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_gets_the_head_of_a_denial_and_no_body() {
    let bench = bench(&CONFIG.replace("\"limit\": 2", "\"limit\": 1")).await;
    bench.get("/api/x", "x-key: k\r\n").await;
    let head = b"HEAD /api/x HTTP/1.1\r\nhost: h\r\nx-key: k\r\n\r\n";
    let next = b"GET /elsewhere HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let mut stream = client::connect(bench.envoy.addr, None).await.expect("a listener");
    let answer = client::head(&mut stream, head).await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let announced: usize =
        answer.header("content-length").and_then(|v| v.parse().ok()).expect("a length");
    assert!(announced > 0, "as GET would have it");
    // If a body had come, it would stand in the way of the next answer.
    let answer = client::raw(&mut stream, next).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_clients_over_http2_get_grpc_statuses() {
    let bench = bench(CONFIG).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers"), ("x-key", "g")];
    for _ in 0..2 {
        let answer = http2::post(bench.envoy.addr, "/api/shop.Orders/Get", &grpc).await;
        assert_eq!((answer.status, answer.header("grpc-status")), (200, None), "{answer:?}");
    }
    let denied = http2::post(bench.envoy.addr, "/api/shop.Orders/Get", &grpc).await;
    assert_eq!(denied.status, 200, "{denied:?}");
    assert_eq!(denied.header("grpc-status"), Some("8"));
    assert_eq!(denied.header("grpc-message"), Some("Request quota exceeded: api.per-key"));
    assert_eq!(all(&denied, "content-type"), ["application/grpc"]);
    assert_eq!(denied.body, "");
    assert!(denied.header("retry-after").is_some() && denied.header("ratelimit").is_some());

    let nobody = http2::post(bench.envoy.addr, "/api/shop.Orders/Get", &grpc[..2]).await;
    assert_eq!(nobody.header("grpc-status"), Some("7"), "{nobody:?}");
    let before = bench.upstream.seen();
    for _ in 0..2 {
        let shadow = http2::post(bench.envoy.addr, "/dry/shop.Carts/Get", &grpc).await;
        assert_eq!((shadow.status, shadow.header("grpc-status")), (200, None), "{shadow:?}");
    }
    assert_eq!(bench.upstream.seen() - before, 2);
}

/// The shipped access-log format and the shipped stats_tags say why, of denials and of what shadow
/// would deny.
#[tokio::test(flavor = "multi_thread")]
async fn log_and_metrics_say_why() {
    let soft = r#""per": "hour"},
                     {"name": "fair", "by": {"header": "x-key"}, "limit": 1, "per": "hour", "soft": true}]"#;
    let config = CONFIG.replacen("\"per\": \"hour\"}]", soft, 1);
    let bench = bench(&config).await;
    let key = "x-key: k\r\nx-tidegate-soft-limit: forged\r\n";
    for status in [200, 200, 429] {
        assert_eq!(bench.get("/api/x", key).await.status, status);
    }
    let denied = bench.get("/api/x", key).await;
    let id = denied.header("x-tidegate-decision").expect("the decision").to_owned();
    for _ in 0..2 {
        assert_eq!(bench.get("/dry/x", key).await.status, 200);
    }
    bench.get("/elsewhere", key).await;
    let lines = [
        "GET /elsewhere 200 via_upstream - ".to_owned(),
        "verdict=soft-limit reason=quota-exceeded limits=api.fair decision=".to_owned(),
        "verdict=would-deny reason=quota-exceeded limits=dry.limit decision=".to_owned(),
        "429 tidegate:quota-exceeded:api.per-key - ".to_owned(),
        format!("verdict=denied reason=quota-exceeded limits=api.per-key decision={id}"),
    ];
    eventually(Duration::from_secs(60), "the access log says why", async || {
        let output = bench.envoy.output();
        let is_there = |line: &String| output.contains(line.as_str());
        if lines.iter().all(is_there) { Ok(()) } else { Err(output) }
    })
    .await;
    assert_eq!(bench.upstream.saw("x-tidegate-soft-limit"), ["api.fair"]);

    for (name, count) in [
        ("tidegate_decisions_total{policy=\"api\",outcome=\"denied\"}", 2),
        ("tidegate_decisions_total{policy=\"dry\",outcome=\"shadow_denied\"}", 1),
        ("tidegate_limits_used_up_total{policy=\"api\",limit=\"per-key\",outcome=\"denied\"}", 2),
        (
            "tidegate_limits_used_up_total{policy=\"api\",limit=\"fair\",outcome=\"soft_exceeded\"}",
            1,
        ),
        (
            "tidegate_limits_used_up_total{policy=\"dry\",limit=\"limit\",outcome=\"shadow_denied\"}",
            1,
        ),
    ] {
        assert_eq!(
            bench.envoy.metric(name).await,
            count,
            "{name} in {}",
            bench.envoy.metrics().await
        );
    }
    // How long callouts take is Envoy's to say: the histogram of the gateway's cluster.
    let count = "envoy_cluster_internal_upstream_rq_time_count{envoy_cluster_name=\"tidegate\"} ";
    eventually(Duration::from_secs(60), "the latency of callouts", async || {
        let stats = bench.envoy.stats().await;
        let told = stats.lines().find_map(|line| line.strip_prefix(count)?.parse::<u32>().ok());
        if told.is_some_and(|told| told >= 6) { Ok(()) } else { Err(stats) }
    })
    .await;
}

/// What an instance of the filter ahead of another tells the upstream is no client's word.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_keeps_what_the_first_one_tells_the_upstream() {
    let config = |policy: &str, limit: u32| {
        serde_json::json!({
            "version": 1,
            "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}},
            "policies": [{"name": policy, "match": {"path": "/**"}, "rate_limits": [
                {"name": "soft", "by": {"header": "x-key"}, "limit": limit, "per": "day", "soft": true}]}],
        })
        .to_string()
    };
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Upstream::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config("second", 2));
    let value = config("first", 1);
    let string = "type.googleapis.com/google.protobuf.StringValue";
    options.example = Some(serde_json::json!({ "http_filters": [{
        "name": "first",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "root_id": "first",
                "vm_config": {
                    "vm_id": "tidegate", "runtime": "envoy.wasm.runtime.v8",
                    "environment_variables": { "host_env_keys": ["TIDEGATE_TOKEN"] },
                    "code": { "local": { "filename": parts::filter("tidegate") } },
                },
                "configuration": { "@type": string, "value": value },
            },
        },
    }] }));
    let envoy = Envoy::start(&options).await;
    for _ in 0..3 {
        let headers = "x-key: k\r\nx-tidegate-soft-limit: forged\r\n";
        let answer = client::get_from(envoy.addr, None, "/x", headers).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let told = upstream.saw("x-tidegate-soft-limit");
    assert_eq!(told, ["first.soft", "first.soft, second.soft"], "{}", envoy.output());
}

/// A response header and, once the response is over, dynamic metadata tell what a request did cost.
/// The client has its answer before either is settled, and may leave early.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_response_tells_is_settled_afterwards() {
    let config = r#"{
      "version": 1,
      "gateway": {"cluster": "tidegate", "timeout": "5s"},
      "policies": [
        {"name": "llm", "match": {"path": "/llm"}, "rate_limits": [
          {"name": "tokens", "by": "ip", "limit": 5000, "per": "minute",
           "cost": {"response_header": "x-tokens", "reserve": 100}},
          {"name": "metered", "by": "ip", "limit": 5000, "per": "minute",
           "cost": {"response_metadata": {"namespace": "llm", "key": "total"}, "reserve": 10}}]}
      ]
    }"#;
    let gateway = Scripted::start(true, Script::Verdict(Verdict::Allow)).await;
    let upstream = Upstream::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(config);
    options.example = Some(serde_json::json!({ "http_filters": [{
        "name": "metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
            "metadata": [{ "metadata_namespace": "llm", "value": { "total": 42 } }],
        },
    }] }));
    let envoy = Envoy::start(&options).await;
    let answer = client::get_from(envoy.addr, None, "/llm", "x-answer-x-tokens: 350\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Whoever leaves once the upstream was asked pays what the end of the stream tells.
    let mut leaving = client::connect(envoy.addr, None).await.expect("a listener");
    let request = b"GET /llm HTTP/1.1\r\nhost: h\r\n\r\n";
    client::send(&mut leaving, request).await;
    eventually(Duration::from_secs(60), "the upstream is asked", async || {
        if upstream.seen() >= 2 { Ok(()) } else { Err(upstream.seen()) }
    })
    .await;
    drop(leaving);
    let settled = eventually(Duration::from_secs(60), "all is settled", async || {
        let settled = gateway.settled();
        if settled.len() >= 3 { Ok(settled) } else { Err(settled) }
    })
    .await;
    let mut said: Vec<_> = settled
        .iter()
        .flat_map(|message| message.adjustments.iter().map(|a| (a.id.as_str(), a.by)))
        .collect();
    said.sort_unstable();
    assert_eq!(said, [("llm.metered", 32), ("llm.metered", 32), ("llm.tokens", 250)]);
    assert!(settled.iter().all(|message| message.age_us < 60_000_000), "{settled:?}");
    eventually(Duration::from_secs(60), "and counted", async || {
        let count = envoy.metric("tidegate_settlements_total{}").await;
        if count == 3 { Ok(()) } else { Err(envoy.metrics().await) }
    })
    .await;
    client::get_from(envoy.addr, None, "/llm", "x-answer-x-tokens: lots\r\n").await;
    let malformed = "tidegate_costs_malformed_total{policy=\"llm\",limit=\"tokens\"}";
    assert_eq!(envoy.metric(malformed).await, 1, "{}", envoy.metrics().await);
    gateway.set(Script::SettlesNothing);
    let failed = "tidegate_settlements_failed_total{reason=\"store-timeout\"}";
    eventually(Duration::from_secs(60), "what is not settled is counted", async || {
        client::get_from(envoy.addr, None, "/llm", "x-answer-x-tokens: 350\r\n").await;
        let count = envoy.metric(failed).await;
        if count > 0 { Ok(()) } else { Err(envoy.metrics().await) }
    })
    .await;
    let output = envoy.output();
    assert!(!output.contains("wasm_fail_stream") && !output.contains("[critical]"), "{output}");
}

/// Early hints are not the response: they settle nothing, and the fields stand on the one that follows.
#[tokio::test(flavor = "multi_thread")]
async fn informational_responses_are_not_taken_for_the_response() {
    const ANSWER: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nx-tokens: 9\r\n\r\n\
        HTTP/1.1 200 OK\r\nx-tokens: 350\r\ncontent-length: 2\r\n\r\nok";
    let config = r#"{"version": 1, "gateway": {"cluster": "tidegate", "timeout": "5s"}, "policies": [
        {"name": "llm", "match": {"path": "/llm"}, "rate_limits": [
          {"name": "tokens", "by": "ip", "limit": 5000, "per": "minute",
           "cost": {"response_header": "x-tokens", "reserve": 100}}]}]}"#;
    let gateway = Scripted::start(true, Script::Verdict(Verdict::Allow)).await;
    let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = upstream.local_addr().expect("a bound listener");
    let serving = tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.expect("Envoy");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.expect("a request"));
        }
        stream.write_all(ANSWER).await.expect("Envoy reads");
        stream
    });
    let envoy = Envoy::start(&Options::new(gateway.addr, addr).config(config)).await;
    let answer = client::get(envoy.addr, "/llm").await;
    let _open = serving.await.expect("it answered");
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{answer:?}");
    assert_eq!(all(&answer, "ratelimit-policy").len(), 1, "{answer:?}");
    let settled = eventually(Duration::from_secs(60), "the response is settled", async || {
        let settled = gateway.settled();
        if settled.is_empty() { Err(settled) } else { Ok(settled) }
    })
    .await;
    let by: Vec<_> = settled.iter().flat_map(|s| s.adjustments.iter().map(|a| a.by)).collect();
    assert_eq!(by, [250]);
}
