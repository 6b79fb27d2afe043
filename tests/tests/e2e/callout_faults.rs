//! The gateway refused, slow, dead, answering garbage or 500, over HTTP/1 and HTTP/2: Envoy turns
//! each into an ordinary-looking answer, and none may be taken for a verdict.

use std::net::SocketAddr;
use std::time::Duration;

use tidegate_policy::wire::Verdict;
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::scripted::{Script, Scripted};
use tidegate_tests::upstream::Upstream;

/// One policy that denies when no verdict can be had, one that allows.
pub const BOTH_RUNGS: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "breaker": {"failures": 1000000}},
  "policies": [
    {"name": "strict", "match": {"path": "/strict/**"}, "on_unavailable": ["deny"],
     "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}]},
    {"name": "lax", "match": {"path": "/lax/**"}, "on_unavailable": ["allow"],
     "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}]}
  ]
}"#;

fn unavailable(reason: &str) -> String {
    format!("tidegate_unavailable_total{{reason=\"{reason}\"}}")
}

/// A strict request is refused, a lax one goes on, both counted under `reason`.
async fn degrades(envoy: &Envoy, upstream: &Upstream, reason: &str, case: &str) {
    let (before, reached) = (envoy.metric(&unavailable(reason)).await, upstream.seen());
    let strict = client::get(envoy.addr, "/strict/x").await;
    assert_eq!(strict.status, 503, "{case}: {strict:?}");
    assert_eq!(strict.header("x-tidegate-reply"), Some("policy-store-unavailable"), "{case}");
    assert_eq!(strict.header("retry-after"), Some("1"), "{case}");
    assert_eq!(upstream.seen(), reached, "{case}: a refused request reached the upstream");
    let lax = client::get(envoy.addr, "/lax/x").await;
    assert_eq!(lax.status, 200, "{case}: {lax:?}");
    assert_eq!(upstream.seen(), reached + 1, "{case}");
    let counted = envoy.metric(&unavailable(reason)).await;
    assert_eq!(counted - before, 2, "{case}: {}", envoy.metrics().await);
    for rung in ["deny", "allow"] {
        let name = format!("tidegate_without_verdict_total{{rung=\"{rung}\",reason=\"{reason}\"}}");
        assert!(envoy.metric(&name).await > 0, "{case} {rung}: {}", envoy.metrics().await);
    }
    // A line a second at the most: the first fault is in it, later ones may be counted only.
    let line = "tidegate: no verdict: verdict=";
    eventually(Duration::from_secs(60), "the log says so", async || {
        let output = envoy.output();
        if output.contains(line) { Ok(()) } else { Err(output) }
    })
    .await;
}

async fn allows(envoy: &Envoy) {
    eventually(Duration::from_secs(60), "a genuine verdict is taken again", async || {
        let answer = client::get(envoy.addr, "/strict/x").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

async fn fault_table(http2: bool) {
    let gateway = Scripted::start(http2, Script::Verdict(Verdict::Allow)).await;
    let upstream = Upstream::start().await;
    let options = Options { gateway_http2: http2, ..Options::new(gateway.addr, upstream.addr) };
    let envoy = Envoy::start(&options.config(BOTH_RUNGS)).await;
    allows(&envoy).await;

    let plain = |status, marked, body| Script::Answer { status, marked, body };
    let late = Script::Late(Duration::from_secs(8));
    let cases = [
        (Script::Unmarked(Verdict::Allow), "callout-unmarked"),
        (Script::OtherDecision, "callout-malformed"),
        (plain(500, false, "oops"), "callout-unmarked"),
        (plain(500, true, "oops"), "callout-malformed"),
        (plain(200, true, "{}"), "callout-malformed"),
        (plain(204, true, ""), "callout-malformed"),
        (plain(401, true, r#"{"v":1,"reason":"unauthorized"}"#), "unauthorized"),
        (plain(503, true, r#"{"v":1,"reason":"store-unavailable"}"#), "store-unavailable"),
        (late, "callout-unmarked"),
        (Script::Hang, "callout-unmarked"),
        (Script::Close, "callout-unmarked"),
        (Script::ResetStream, "callout-unmarked"),
        (Script::GoAway, "callout-unmarked"),
        (Script::Garbage, "callout-unmarked"),
        (Script::ResetAfterHeaders, "callout-reset"),
    ];
    for (script, reason) in cases {
        let case = format!("{} {script:?}", if http2 { "h2" } else { "h1" });
        let asked = gateway.seen();
        gateway.set(script);
        degrades(&envoy, &upstream, reason, &case).await;
        assert!(gateway.seen() > asked, "{case}: the fault was never met");
        // It comes back by itself, and a leftover of the fault is not taken for an answer.
        gateway.set(Script::Verdict(Verdict::Allow));
        allows(&envoy).await;
    }

    gateway.set(Script::Verdict(Verdict::Deny));
    let denied: Answer = eventually(Duration::from_secs(60), "a denial is taken", async || {
        let answer = client::get(envoy.addr, "/lax/x").await;
        if answer.status == 429 { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert_eq!(denied.header("x-tidegate-reply"), Some("quota-exceeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_over_http2_is_taken_for_a_verdict() {
    fault_table(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_fault_over_http1_is_taken_for_a_verdict() {
    fault_table(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_not_there_is_no_verdict() {
    let upstream = Upstream::start().await;
    // Bound and dropped: nobody listens there.
    let nobody: SocketAddr = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    for http2 in [true, false] {
        let options = Options { gateway_http2: http2, ..Options::new(nobody, upstream.addr) };
        let envoy = Envoy::start(&options.config(BOTH_RUNGS)).await;
        degrades(&envoy, &upstream, "callout-unmarked", "refused").await;
    }
    let unknown = BOTH_RUNGS.replace("\"cluster\": \"tidegate\"", "\"cluster\": \"nowhere\"");
    let envoy = Envoy::start(&Options::new(nobody, upstream.addr).config(&unknown)).await;
    degrades(&envoy, &upstream, "callout-not-sent", "unknown cluster").await;
}
