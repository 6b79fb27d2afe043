//! Kinds of requests and answers: compressed, keys of an older system.

use tidegate_tests::http2;

use crate::idempotency::{bench, bench_of, replayed, told};

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
