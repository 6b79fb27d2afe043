//! Kinds of requests and answers: compressed, streams of events, long bodies, keys of an older system.

use tidegate_tests::eventually::eventually;
use tidegate_tests::{client, http2};
use tokio::io::AsyncReadExt as _;

use crate::idempotency::{CONFIG, WITHIN, bench, bench_of, bench_with, lines, replayed, told};

const OLDER: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "reads", "match": {"path": "/reads/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "legacy_keys": "read"}},
    {"name": "off", "match": {"path": "/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}}
  ]
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_comes_back_as_it_was() {
    let bench = bench(1).await;
    for (path, policy) in [("/orders", "orders"), ("/fast/orders", "fast")] {
        let first = bench.post(path, "k", "x-run: gzip\r\naccept-encoding: gzip\r\n", "{}").await;
        assert_eq!((first.status, first.header("content-encoding")), (201, Some("gzip")));
        bench.reaches(policy, "stored", 1).await;
        // Also to one that does not say that it takes it: it is the same request.
        let again = bench.post(path, "k", "", "{}").await;
        let headers = [("x-tenant", "acme"), ("idempotency-key", "k")];
        let over2 = http2::post_body(bench.envoys[0].addr, path, &headers, b"{}").await;
        for again in [again, over2] {
            assert!(replayed(&again), "{again:?}");
            assert_eq!(again.header("content-encoding"), Some("gzip"));
            assert_eq!((told(&again), &again.bytes), (told(&first), &first.bytes));
        }
    }
    assert_eq!(bench.upstream.runs(), 2);
}

/// During a migration: what an older system ran under a key is nobody's to run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_older_system_used_is_not_run_again() {
    let bench = bench_of(1, OLDER).await;
    bench.redis.command(&["SET", "idempotency:old", r#"{"status": 201}"#]).await;
    bench.redis.command(&["HSET", "idempotency:table", "status", "201"]).await;
    // The older format did not encode: this would be another tenant's.
    bench.redis.command(&["SET", "idempotency:a:b", "x"]).await;
    for key in ["old", "table"] {
        let answer = bench.post("/reads/pay", key, "", "{}").await;
        let reply = answer.header("x-tidegate-reply");
        assert_eq!(
            (answer.status, reply),
            (409, Some("idempotency-unknown-outcome")),
            "{answer:?}"
        );
    }
    assert_eq!(bench.upstream.runs(), 0);
    for (path, key) in [("/reads/pay", "a:b"), ("/reads/pay", "new"), ("/pay", "old")] {
        let answer = bench.post(path, key, "", "{}").await;
        assert_eq!((answer.status, replayed(&answer)), (201, false), "{key}: {answer:?}");
    }
    let again = bench.post("/reads/pay", "new", "", "{}").await;
    assert!(replayed(&again), "{again:?}");
    let left = bench.redis.command(&["GET", "idempotency:old"]).await;
    assert!(left.contains(r#"{"status": 201}"#), "it is never written: {left}");
}

/// A stream passes as it comes and is never gathered; once it ended, that it was is remembered.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_passes_as_it_comes_and_is_not_run_again() {
    let bench = bench(1).await;
    let mut streams = Vec::new();
    for path in ["/orders", "/fast/orders"] {
        let mut stream = client::connect(bench.envoys[0].addr, None).await.expect("a listener");
        let headers = lines("events", "x-run: events\r\n");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\n{{}}"
        );
        client::send(&mut stream, request.as_bytes()).await;
        let mut seen = String::new();
        while !seen.contains("data: first") {
            let mut piece = [0; 1_024];
            let len = stream.read(&mut piece).await.expect("a piece");
            assert!(len > 0, "ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..len]));
        }
        assert!(seen.starts_with("HTTP/1.1 201") && seen.contains("text/event-stream"), "{seen}");
        let again = bench.post(path, "events", "", "{}").await;
        let told = (again.status, again.header("x-tidegate-reply"));
        assert_eq!(told, (409, Some("idempotency-in-flight")), "{again:?}");
        streams.push(stream);
    }
    bench.upstream.open();
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("the rest");
        assert!(rest.contains("data: last"), "{rest}");
    }
    for (path, policy) in [("/orders", "orders"), ("/fast/orders", "fast")] {
        bench.reaches(policy, "stored_without_body", 1).await;
        let after = bench.post(path, "events", "", "{}").await;
        let told = (after.status, after.header("x-tidegate-reply"));
        assert_eq!(told, (409, Some("idempotency-result-not-stored")), "{after:?}");
    }
    assert_eq!(bench.upstream.runs(), 2);
}

/// What came of a gRPC call stands behind its messages, in the trailers. They wait until the record is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_that_says_that_nothing_was_done_is_run_again() {
    let bench = bench_with(1, CONFIG, |options| options.upstream_http2 = true).await;
    let call = async |key: &str, run: &str| {
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("x-tenant", "acme"),
            ("idempotency-key", key),
            ("x-run", run),
        ];
        http2::post_body(bench.envoys[0].addr, "/orders", &headers, b"12345").await
    };
    // What the second call meets, and how often it ran.
    let rows = [
        ("grpc-0", Some("6"), "stored_without_body", 1),
        ("bare-16", None, "released", 2),
        ("grpc-16", Some("10"), "kept", 1),
        ("grpc-14", Some("10"), "kept", 1),
    ];
    let mut runs = 0;
    for (run, again, outcome, times) in rows {
        let before = bench.counted("orders", outcome).await;
        let first = call(run, run).await;
        assert_eq!((first.status, first.header("grpc-status")), (200, None), "{first:?}");
        let came = first.bytes.starts_with(b"run ");
        assert_eq!(came, run.starts_with("grpc"), "the message comes through: {first:?}");
        bench.reaches("orders", outcome, before + 1).await;
        let second = call(run, "grpc-0").await;
        assert_eq!((second.status, second.header("grpc-status")), (200, again), "{second:?}");
        runs += times;
        assert_eq!(bench.upstream.runs(), runs, "{run}");
    }
}

const LONG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "10s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [
    {"name": "beginning", "match": {"path": "/beginning"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "hash": {"max": "1KiB", "over": "beginning"}}},
    {"name": "dry", "match": {"path": "/dry"},
     "rate_limits": [{"name": "all", "by": "ip", "limit": 1000, "per": "1s"}],
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "mode": "shadow", "hash": {"max": "1KiB"}}},
    {"name": "refuse", "match": {"path": "/**"},
     "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s", "hash": {"max": "1KiB"}}}
  ]
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_cap_is_refused_or_its_beginning_counts() {
    let bench = bench_of(1, LONG).await;
    // What Content-Length says is enough: not an octet of the body was sent.
    let announced = format!(
        "POST /pay HTTP/1.1\r\nhost: test\r\ncontent-length: 1025\r\n{}\r\n",
        lines("a", "")
    );
    let piece = "x".repeat(600);
    let chunked = format!(
        "POST /pay HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n{}\r\n258\r\n{piece}\r\n258\r\n{piece}\r\n",
        lines("b", "")
    );
    for request in [announced, chunked] {
        let mut stream = client::connect(bench.envoys[0].addr, None).await.expect("a listener");
        let refused = client::raw(&mut stream, request.as_bytes()).await;
        let reply = refused.header("x-tidegate-reply");
        assert_eq!((refused.status, reply), (413, Some("idempotency-body-too-long")));
    }
    assert_eq!(bench.upstream.runs(), 0);
    let long = "x".repeat(1_500);
    let first = bench.post("/beginning", "k", "", &long).await;
    assert_eq!(first.status, 201, "{first:?}");
    let same = format!("{}{}", "x".repeat(1_024), "y".repeat(476));
    let again = bench.post("/beginning", "k", "", &same).await;
    assert_eq!((&again.bytes, replayed(&again)), (&first.bytes, true), "{again:?}");
    for other in ["x".repeat(1_501), format!("y{}", "x".repeat(1_499)), "x".repeat(1_024)] {
        let conflict = bench.post("/beginning", "k", "", &other).await;
        assert_eq!((conflict.status, bench.upstream.runs()), (422, 1), "{}", other.len());
    }
}

/// Three times what Envoy buffers, while the gateway stands still: the sender is slowed down, and nothing is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_envoys_buffer_is_held_back_and_comes_whole() {
    const LEN: usize = 3 << 20;
    let bench = bench_of(1, LONG).await;
    let envoy = &bench.envoys[0];
    let held_back = async || {
        let stats = envoy.stats().await;
        let name = "envoy_http_downstream_flow_control_paused_reading_total{envoy_http_conn_manager_prefix=\"main\"} ";
        let count = stats.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok());
        count.expect(name)
    };
    for (path, length) in [
        ("/beginning", format!("content-length: {LEN}")),
        ("/beginning", "transfer-encoding: chunked".to_owned()),
        ("/dry", "transfer-encoding: chunked".to_owned()),
    ] {
        let before = held_back().await;
        let key = length.replace(": ", "-");
        let mut request =
            format!("POST {path} HTTP/1.1\r\nhost: test\r\n{length}\r\n{}\r\n", lines(&key, ""));
        let body = "x".repeat(LEN);
        let ends = if length.starts_with("content") {
            [String::new(), String::new()]
        } else {
            [format!("{LEN:x}\r\n"), "\r\n0\r\n\r\n".to_owned()]
        };
        request.extend([&ends[0], &body, &ends[1]].map(String::as_str));
        bench.gateway.signal(libc::SIGSTOP);
        let mut stream = client::connect(envoy.addr, None).await.expect("a listener");
        let answer =
            tokio::spawn(async move { client::raw(&mut stream, request.as_bytes()).await });
        eventually(WITHIN, "the sender is held back", async || {
            let count = held_back().await;
            if count > before { Ok(()) } else { Err(count) }
        })
        .await;
        bench.gateway.signal(libc::SIGCONT);
        let answer = answer.await.expect("an answer");
        let told = (answer.status, answer.header("x-received"));
        assert_eq!(told, (201, Some("3145728")), "{path}, {length}: {answer:?}");
    }
    assert_eq!(bench.upstream.runs(), 3);
    let (key, body) = (format!("content-length-{LEN}"), "x".repeat(LEN));
    let again = bench.post("/beginning", &key, "", &body).await;
    assert!(replayed(&again), "{again:?}");
}
