//! HTTP/3 on real parts. Envoy logs a whole answer over QUIC once the client has acknowledged it, to its own access logs
//! alone: a filter is not told. What the filter owes at the end of a request it must do without.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_policy::wire::Verdict;
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::http2;
use tidegate_tests::http3::{Certificate, Http3};
use tidegate_tests::orders::Orders;
use tidegate_tests::puppet::{Does, Puppet};
use tidegate_tests::scripted::{Script, Scripted};
use tokio::io::AsyncReadExt;

use crate::idempotency::{CONFIG, bench_with, lines, replayed, told};

const PATIENCE: Duration = Duration::from_secs(60);

/// An Envoy that takes HTTP/3, and a client of it.
async fn over_http3(mut options: Options) -> (Envoy, Http3) {
    let certificate = Certificate::new();
    options.quic = Some(certificate.own.clone());
    let envoy = Envoy::start(&options).await;
    let client = Http3::start(envoy.addr, &certificate).await;
    (envoy, client)
}

fn is_refused(answer: &Answer) -> bool {
    answer.header("x-tidegate-reply") == Some("circuit-open")
}

fn breaker(breaker: &Value) -> String {
    json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
        "policies": [
            {"name": "q", "match": {"path": "/q/**"}, "circuit_breaker": breaker},
            {"name": "p", "match": {"path": "/**"}, "circuit_breaker": breaker},
        ],
    })
    .to_string()
}

async fn event(envoy: &Envoy, breaker: &str, event: &str) -> u64 {
    let name = format!("tidegate_circuit_total{{breaker=\"{breaker}\",event=\"{event}\"}}");
    envoy.metric(&name).await
}

/// Envoy's log says it: without, a test of HTTP/3 may be one of something else.
async fn spoke_http3(envoy: &Envoy) {
    let stats = envoy.stats().await;
    let name = "envoy_http_downstream_rq_http3_total{envoy_http_conn_manager_prefix=\"main\"} ";
    let count = stats.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count > 0), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_end_of_an_answer_tells_is_settled_over_http3() {
    let config = json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "timeout": "5s"},
        "policies": [{"name": "llm", "match": {"path": "/llm"}, "rate_limits": [
            {"name": "told", "by": "ip", "limit": 5000, "per": "minute",
             "cost": {"response_trailer": "x-cost", "reserve": 5}},
            {"name": "metered", "by": "ip", "limit": 5000, "per": "minute",
             "cost": {"response_metadata": {"namespace": "llm", "key": "total"}, "reserve": 10}},
        ]}],
    });
    let gateway = Scripted::start(true, Script::Verdict(Verdict::Allow)).await;
    let upstream = Orders::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config.to_string());
    options.upstream_http2 = true;
    options.example = Some(json!({ "http_filters": [{
        "name": "metadata",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config",
            "metadata": [{ "metadata_namespace": "llm", "value": { "total": 42 } }],
        },
    }] }));
    let (envoy, client) = over_http3(options).await;
    let settled = async |count: usize| {
        eventually(PATIENCE, "it is settled", async || {
            let settled = gateway.settled();
            let mut said: Vec<_> =
                settled.iter().flat_map(|message| &message.adjustments).collect();
            said.sort_unstable_by_key(|adjustment| adjustment.by);
            let said: Vec<_> = said.iter().map(|of| (of.id.clone(), of.by)).collect();
            if said.len() >= count { Ok(said) } else { Err((said, envoy.output())) }
        })
        .await
    };
    let answer = http2::post(client.addr, "/llm", &[("x-run", "cost-42")]).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let (told, metered) = (("llm.told".to_owned(), 37), ("llm.metered".to_owned(), 32));
    assert_eq!(settled(2).await, [metered.clone(), told.clone()]);
    // Whoever leaves is logged at once, as over HTTP/2.
    let mut leaving = client::connect(client.addr, None).await.expect("a listener");
    client::send(&mut leaving, b"GET /llm HTTP/1.1\r\nhost: h\r\nx-run: wait\r\n\r\n").await;
    eventually(PATIENCE, "the upstream is asked", async || {
        if upstream.runs() >= 2 { Ok(()) } else { Err(upstream.runs()) }
    })
    .await;
    drop(leaving);
    assert_eq!(settled(3).await, [metered.clone(), metered.clone(), told.clone()]);
    spoke_http3(&envoy).await;
    let answer = http2::post(client.addr, "/llm", &[("x-run", "cost-42")]).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let all = [metered.clone(), metered.clone(), metered, told.clone(), told];
    assert_eq!(settled(5).await, all, "each once");
    let output = envoy.output();
    assert!(!output.contains("wasm_fail_stream") && !output.contains("[critical]"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_completed_kept_and_given_again_over_http3() {
    let certificate = Certificate::new();
    let own = certificate.own.clone();
    let bench = bench_with(1, CONFIG, |options| {
        options.quic = Some(own.clone());
        options.concurrency = 1;
        options.upstream_http2 = true;
    })
    .await;
    let client = Http3::start(bench.envoys[0].addr, &certificate).await;
    for path in ["/orders", "/fast/orders"] {
        let first = client::post(client.addr, path, &lines("done", ""), "{}").await;
        assert_eq!((first.status, replayed(&first)), (201, false), "{first:?}");
        let policy = if path == "/orders" { "orders" } else { "fast" };
        bench.reaches(policy, "stored", 1).await;
        let again = client::post(client.addr, path, &lines("done", ""), "{}").await;
        assert!(replayed(&again), "{again:?}");
        assert_eq!(told(&again), told(&first));
        assert_eq!(bench.counted(policy, "replayed").await, 1);
    }
    // An answer that breaks off is never given again, and whoever leaves does not free his key.
    for path in ["/orders", "/fast/orders"] {
        let mut stream = client::connect(client.addr, None).await.expect("a listener");
        let headers = lines("cut", "x-run: cut\r\n");
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n{headers}\r\n{{}}");
        client::send(&mut stream, request.as_bytes()).await;
        let policy = if path == "/orders" { "orders" } else { "fast" };
        bench.reaches(policy, "kept", 1).await;
    }
    let runs = bench.upstream.runs();
    let request = format!(
        "POST /waits/pay HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n{}\r\n{{}}",
        lines("left", "x-run: wait\r\n")
    );
    let mut stream = client::connect(client.addr, None).await.expect("a listener");
    client::send(&mut stream, request.as_bytes()).await;
    bench.runs(runs + 1).await;
    drop(stream);
    bench.reaches("waits", "kept", 1).await;
    spoke_http3(&bench.envoys[0]).await;
}

/// What was cut off only the end of its stream tells, and of a test of the circuit, whether it went well.
#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_opens_by_answers_that_are_cut_off_over_http3_and_closes_again() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Pauses).await;
    let config = breaker(&json!({"open": "1s", "successes": 1, "failure_rate": "0%"}));
    let (envoy, client) =
        over_http3(Options::new(gateway.addr, upstream.addr).config(&config)).await;
    let head = async || {
        let mut stream = client::connect(client.addr, None).await.expect("a connection");
        let head = client::head(&mut stream, client::get_request("/", "").as_bytes()).await;
        (head, stream)
    };
    // Whoever leaves is no failure.
    for _ in 0..10 {
        let (head, stream) = head().await;
        assert_eq!(head.status, 200, "{head:?}");
        drop(stream);
    }
    upstream.now(Does::Cuts);
    let mut passed = 0;
    eventually(PATIENCE, "it is open", async || {
        let (head, mut stream) = head().await;
        if is_refused(&head) {
            return Ok(());
        }
        passed += 1;
        let mut rest = Vec::new();
        let _cut_off: std::io::Result<usize> = stream.read_to_end(&mut rest).await;
        Err((head, passed))
    })
    .await;
    assert_eq!((passed, event(&envoy, "p", "tripped").await), (5, 1));
    upstream.now(Does::Works);
    eventually(PATIENCE, "it is closed", async || {
        let answer = client::get(client.addr, "/").await;
        let is_closed = event(&envoy, "p", "test_ok").await >= 1 && !is_refused(&answer);
        if is_closed { Ok(()) } else { Err(answer) }
    })
    .await;
    spoke_http3(&envoy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_calls_open_and_close_a_circuit_over_http3() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Orders::start().await;
    let config =
        breaker(&json!({"open": "1s", "successes": 1, "consecutive": 5, "failure_rate": "0%"}));
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config);
    options.upstream_http2 = true;
    let (envoy, client) = over_http3(options).await;
    let call = async |path: &str, run: &str| {
        let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("x-run", run)];
        http2::post(client.addr, path, &headers).await
    };
    let path = "/shop.Orders/Make";
    for _ in 0..3 {
        assert!(!is_refused(&call(path, "grpc-14").await));
    }
    // One that went well ends the row.
    assert!(!is_refused(&call(path, "grpc-0").await));
    let mut passed = 0;
    eventually(PATIENCE, "it is open", async || {
        let answer = call(path, "bare-14").await;
        passed += usize::from(!is_refused(&answer));
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!((passed, event(&envoy, "p", "tripped").await), (5, 1));
    eventually(PATIENCE, "it is closed", async || {
        let answer = call(path, "grpc-0").await;
        let is_closed = event(&envoy, "p", "test_ok").await >= 1 && !is_refused(&answer);
        if is_closed { Ok(()) } else { Err(answer) }
    })
    .await;
    // Calls that end without a status: Envoy's details, which say whose fault that is, are read in the very last moment.
    let mut passed = 0;
    eventually(PATIENCE, "the other is open", async || {
        let answer = call("/q/Make", "mute").await;
        passed += usize::from(!is_refused(&answer));
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    assert_eq!((passed, event(&envoy, "q", "tripped").await), (5, 1));
    spoke_http3(&envoy).await;
    let output = envoy.output();
    assert!(!output.contains("[error]") && !output.contains("[critical]"), "{output}");
}
