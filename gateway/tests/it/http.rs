//! What a filter sees, over HTTP/1 and HTTP/2 with prior knowledge.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use tidegate_policy::wire::{DECIDE_PATH, MESSAGE_BYTES_MAX, Verdict, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{
    BOTH, Caller, GatedStore, Speaks, TOKEN, VIEWER, question, request, settings, start,
    start_around,
};
use tidegate_tests::eventually;

#[tokio::test]
async fn five_are_admitted_and_the_sixth_is_denied_over_both_protocols() {
    let gateway = start(settings("")).await;
    for speaks in BOTH {
        let caller = Caller::new(speaks);
        let client = question(&format!("{speaks:?}"));
        for left in (0..5).rev() {
            let answer = caller.decide(gateway.data_addr, &client).await;
            assert!(answer.marked(), "{speaks:?}");
            assert_eq!(answer.headers["content-type"], "application/json");
            let reply = answer.verdict();
            assert_eq!((reply.verdict, reply.limits[0].remaining), (Verdict::Allow, left));
        }
        let denied = caller.decide(gateway.data_addr, &client).await;
        assert_eq!(denied.status, 200, "a denial is a verdict");
        assert!(denied.marked());
        let reply = denied.verdict();
        assert_eq!(reply.verdict, Verdict::Deny);
        assert!(reply.limits[0].retry_us.is_some_and(|wait_us| wait_us > 0));
    }
}

#[tokio::test]
async fn every_refusal_is_marked_and_has_its_status_and_reason() {
    let gateway = start(settings("--region here")).await;
    let to = gateway.data_addr;
    let sound = encode(&question("a"));
    let mut elsewhere = question("a");
    elsewhere.scope.region = tidegate_policy::scope::Region::new("there").ok();
    let mut hasty = question("a");
    hasty.timeout_ms = 30;
    let mut newer = question("a");
    newer.v = 2;
    let post = |token, path, body| request(to, Method::POST, path, token, body);
    for speaks in BOTH {
        let caller = Caller::new(speaks);
        let token = Some(TOKEN);
        let rows = [
            (post(None, DECIDE_PATH, sound.clone()), 401, "unauthorized"),
            (post(Some("wrong"), DECIDE_PATH, sound.clone()), 401, "unauthorized"),
            (post(Some(VIEWER), DECIDE_PATH, sound.clone()), 401, "unauthorized"),
            (post(None, "/nothing", sound.clone()), 401, "unauthorized"),
            (post(token, "/nothing", sound.clone()), 404, "not-found"),
            (post(token, "/v1/decide/", sound.clone()), 404, "not-found"),
            (request(to, Method::GET, DECIDE_PATH, token, ""), 405, "not-found"),
            (post(token, DECIDE_PATH, b"{".to_vec()), 400, "bad-message"),
            (post(token, DECIDE_PATH, vec![]), 400, "bad-message"),
            (post(token, DECIDE_PATH, vec![b' '; MESSAGE_BYTES_MAX + 1]), 413, "bad-message"),
            (post(token, DECIDE_PATH, encode(&newer)), 400, "unsupported-version"),
            (post(token, DECIDE_PATH, encode(&hasty)), 400, "deadline-order"),
            (post(token, DECIDE_PATH, encode(&elsewhere)), 409, "region-mismatch"),
        ];
        for (request, status, reason) in rows {
            let what = format!("{speaks:?} {} {}", request.method(), request.uri());
            let answer = caller.send(request).await;
            assert_eq!(
                (answer.status.as_u16(), answer.reason().as_str()),
                (status, reason),
                "{what}"
            );
            assert!(answer.marked(), "{what}");
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{what}");
        }
        let after = caller.decide(to, &question(&format!("{speaks:?}"))).await;
        assert_eq!(after.status, 200, "the gateway goes on");
    }
}

#[tokio::test]
async fn a_message_that_grows_too_long_without_saying_so_is_refused() {
    let gateway = start(settings("")).await;
    let mut stream = TcpStream::connect(gateway.data_addr).await.expect("connected");
    let head = format!(
        "POST {DECIDE_PATH} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
    for _ in 0..5 {
        // The gateway may have answered and closed by now.
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_body_that_never_comes_holds_nothing() {
    let gateway = start(settings("--max-in-flight 1")).await;
    let mut stalled = TcpStream::connect(gateway.data_addr).await.expect("connected");
    let head = format!(
        "POST {DECIDE_PATH} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 9\r\n\r\n{{"
    );
    stalled.write_all(head.as_bytes()).await.expect("sent");
    let other = Caller::new(Speaks::Http1).decide(gateway.data_addr, &question("a")).await;
    assert_eq!(other.status, 200, "the only place is free");
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(10), stalled.read_exact(&mut answer)).await;
    read.expect("the gateway's patience ends").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn what_is_no_http_is_no_verdict() {
    let gateway = start(settings("")).await;
    let mut stream = TcpStream::connect(gateway.data_addr).await.expect("connected");
    stream.write_all(b"\x00\x01\x02 nonsense\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    // The connection may be reset rather than closed.
    if let Err(error) = stream.read_to_end(&mut answer).await {
        println!("{error}");
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains(" 200 "), "{text}");
    assert!(!text.contains("x-tidegate-gateway"), "{text}");
}

#[tokio::test]
async fn a_panic_is_an_unmarked_500_and_the_gateway_goes_on() {
    let store = GatedStore::new(true);
    let gateway = start_around(settings(""), store).await;
    for speaks in BOTH {
        let caller = Caller::new(speaks);
        for _ in 0..2 {
            let answer = caller.decide(gateway.data_addr, &question("a")).await;
            assert_eq!(answer.status, 500, "{speaks:?}");
            assert!(!answer.marked(), "a panic is nobody's verdict");
        }
    }
    let metrics =
        Caller::new(Speaks::Http1).get(gateway.admin_addr, "/metrics", Some(VIEWER)).await;
    assert!(metrics.text().contains("tidegate_gateway_panics_total 4"), "{}", metrics.text());
    assert!(metrics.text().contains("tidegate_gateway_in_flight 0"), "places come back");
}

#[tokio::test]
async fn a_caller_that_leaves_is_counted_and_its_call_keeps_its_place() {
    let store = GatedStore::new(false);
    let gateway = start_around(settings("--deadline 20s --max-in-flight 1"), store.clone()).await;
    let mut question = question("a");
    question.timeout_ms = 30_000;
    for (speaks, leavers) in BOTH.into_iter().zip(1..) {
        let caller = Caller::new(speaks);
        let left = tokio::spawn({
            let (to, question) = (gateway.data_addr, question.clone());
            async move { caller.decide(to, &question).await }
        });
        eventually(Duration::from_secs(60), "the call is out", async || {
            match store.calls.load(Ordering::SeqCst) {
                calls if calls == leavers => Ok(()),
                calls => Err(calls),
            }
        })
        .await;
        left.abort();
        assert!(left.await.expect_err("aborted").is_cancelled());
        let admin = Caller::new(Speaks::Http1);
        let gone = format!("tidegate_gateway_callers_gone_total {leavers}\n");
        eventually(Duration::from_secs(60), "the leaver is noticed", async || {
            let text = admin.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
            let held = text.contains("tidegate_gateway_in_flight 1\n");
            if text.contains(&gone) && held { Ok(()) } else { Err(text) }
        })
        .await;
        store.gate.send_replace(true);
        eventually(Duration::from_secs(60), "the place is free", async || {
            let text = admin.get(gateway.admin_addr, "/metrics", Some(VIEWER)).await.text();
            if text.contains("tidegate_gateway_in_flight 0\n") { Ok(()) } else { Err(text) }
        })
        .await;
        store.gate.send_replace(false);
    }
}

/// Shadow and soft limits: whoever is used up stops no other from counting.
#[tokio::test]
async fn each_limit_that_denies_nobody_counts_for_itself() {
    let gateway = start(settings("")).await;
    let caller = Caller::new(Speaks::Http2);
    let mut question = question("a");
    let enforced = question.limits[0].clone();
    for (id, limit) in [("p.tight", 1), ("p.wide", 5)] {
        let one = tidegate_policy::wire::LimitCall { shadow: true, limit, ..enforced.clone() };
        question.limits.push(tidegate_policy::wire::LimitCall {
            id: id.to_owned(),
            burst: limit,
            ..one
        });
    }
    for left in (0..5).rev() {
        let reply = caller.decide(gateway.data_addr, &question).await.verdict();
        assert_eq!(reply.verdict, Verdict::Allow);
        let seen: Vec<_> = reply.limits.iter().map(|one| (one.allowed, one.remaining)).collect();
        assert_eq!(seen, [(true, left), (left == 4, 0), (true, left)]);
    }
    let reply = caller.decide(gateway.data_addr, &question).await.verdict();
    assert_eq!(reply.verdict, Verdict::Deny);
}
