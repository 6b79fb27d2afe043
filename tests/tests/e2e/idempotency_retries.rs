//! Keys behind Envoy's own retries: what an earlier try came to nobody knows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::idempotency::lines;

const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
  "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
  "policies": [{"name": "p", "match": {"path": "/**"},
    "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "60s", "ephemeral": true}}]
}"#;

/// Takes every request; of those with `x-breaks` the first is cut off. `/leads` leads elsewhere; all others get 429.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            let is_whole = |request: &[u8]| {
                let end: &[u8] =
                    if request.starts_with(b"GET") { b"\r\n\r\n" } else { b"\r\n\r\n{}" };
                request.ends_with(end)
            };
            while !is_whole(&request) {
                if stream.read_buf(&mut request).await.expect("a request") == 0 {
                    break;
                }
            }
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            if nth == 0 && request.windows(8).any(|name| name == b"x-breaks") {
                continue;
            }
            let status = match request.starts_with(b"POST /leads") {
                true => "303 See Other\r\nlocation: http://test/done",
                false => "429 Too Many Requests",
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.expect("an answer");
        }
    });
    (addr, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_whose_first_try_broke_off_is_not_released_by_the_second() {
    for (breaks, tries, again) in [("", 1, 429), ("x-breaks: 1\r\n", 2, 409)] {
        let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
        let (addr, seen) = upstream().await;
        let mut options = Options::new(gateway.addr, addr).config(CONFIG);
        let retries = json!({"retry_on": "reset", "num_retries": 1});
        let route = json!({"cluster": "upstream", "timeout": "60s", "retry_policy": retries});
        options.example = Some(json!({"routes": [{"match": {"prefix": "/"}, "route": route}]}));
        let envoy = Envoy::start(&options).await;
        let post = async || client::post(envoy.addr, "/pay", &lines("k", breaks), "{}").await;
        let first = post().await;
        let taken = seen.load(Ordering::SeqCst);
        assert_eq!((first.status, taken), (429, tries), "{breaks:?}: {first:?}");
        if tries == 1 {
            // Released behind the answer.
            tidegate_tests::eventually(crate::idempotency::WITHIN, "released", async || {
                let answer = post().await;
                if answer.status == again { Ok(()) } else { Err(answer) }
            })
            .await;
            assert!(seen.load(Ordering::SeqCst) > tries, "it ran again");
        } else {
            let second = post().await;
            let reply = second.header("x-tidegate-reply");
            assert_eq!((second.status, reply), (again, Some("idempotency-in-flight")));
            assert_eq!(seen.load(Ordering::SeqCst), tries, "it did not run again");
        }
    }
}

/// Envoy hears callers inside who ask it to try again, of which a route says nothing; not those whose request has a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_inside_has_no_request_with_a_key_sent_twice() {
    let gateway = Gateway::start(&gateway::Options::memory()).await;
    let config = CONFIG.replace("required", "optional");
    let set = |key, value| json!({"append": {"header": {"key": key, "value": value}}});
    // Envoy takes it from those outside, and who is inside an Envoy is told apart by address.
    let inside = json!({
        "name": "inside",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [set("x-envoy-retry-on", "reset")]},
        },
    });
    for (key, sent) in [("x-tenant: acme\r\n".to_owned(), 2), (lines("k", ""), 1)] {
        let (addr, seen) = upstream().await;
        let mut options = Options::new(gateway.addr, addr).config(&config);
        options.example = Some(json!({"http_filters": [inside]}));
        let envoy = Envoy::start(&options).await;
        let answer = client::post(envoy.addr, "/pay", &format!("{key}x-breaks: 1\r\n"), "{}").await;
        let status = if sent == 2 { 429 } else { 503 };
        assert_eq!((answer.status, seen.load(Ordering::SeqCst)), (status, sent), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_envoy_follows_by_itself_leaves_its_key_claimed() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let (addr, seen) = upstream().await;
    let mut options = Options::new(gateway.addr, addr).config(CONFIG);
    let follows = json!({"redirect_response_codes": [303]});
    let route = json!({"cluster": "upstream", "internal_redirect_policy": follows});
    options.example = Some(json!({"routes": [{"match": {"prefix": "/"}, "route": route}]}));
    let envoy = Envoy::start(&options).await;
    let post = async || client::post(envoy.addr, "/leads", &lines("k", ""), "{}").await;
    // What was done may be told by a redirect to its result: nobody may run it again.
    let first = post().await;
    assert_eq!((first.status, seen.load(Ordering::SeqCst)), (429, 2), "led to: {first:?}");
    let again = post().await;
    let reply = again.header("x-tidegate-reply");
    assert_eq!((again.status, reply), (409, Some("idempotency-in-flight")), "{again:?}");
    assert_eq!(seen.load(Ordering::SeqCst), 2, "it did not run again");
}
