//! The whole stack: real Envoy, the real gateway, a real Redis, and what happens when one of them
//! is not itself. Deadlines are wider than the defaults where a test is not about time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::faults::{Fault, Relay, Target};
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::redis::Redis;
use tidegate_tests::upstream::Upstream;
use tokio::task::JoinSet;

const BACK_WITHIN: Duration = Duration::from_secs(40);

const FIVE: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}, "breaker": {"open": "200ms"}},
  "policies": [
    {"name": "api", "match": {"path": "/api/**"},
     "rate_limits": [{"name": "per-client", "by": "ip", "limit": 5, "per": "hour"},
                     {"name": "per-key", "by": {"header": "x-key"}, "limit": 3, "per": "hour"}],
     "on_unavailable": "deny"}
  ]
}"#;

struct Stack {
    redis: Redis,
    relay: Relay,
    gateway: Gateway,
    upstream: Upstream,
    envoy: Envoy,
}

async fn stack(config: &str, flags: &[&str]) -> Stack {
    let redis = Redis::start().await;
    let relay = Relay::start(Target::Unix(redis.socket())).await;
    let url = format!("redis://{}", relay.addr);
    let gateway = Gateway::start(&gateway::Options::redis(&url).flags(flags)).await;
    let upstream = Upstream::start().await;
    let options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
    let envoy = Envoy::start(&options.config(config)).await;
    Stack { redis, relay, gateway, upstream, envoy }
}

impl Stack {
    fn get(&self, client: u8, key: &str) -> impl Future<Output = Answer> + Send + use<> {
        let (to, from) = (self.envoy.addr, IpAddr::V4(Ipv4Addr::new(127, 0, 1, client)));
        let key = format!("x-key: {key}\r\n");
        async move { client::get_from(to, Some(from), "/api/x", &key).await }
    }

    /// That many at once, each with a key of its own.
    async fn get_at_once(&self, client: u8, count: usize) -> Vec<Answer> {
        let all: JoinSet<Answer> =
            (0..count).map(|nth| self.get(client, &format!("at-once-{nth}"))).collect();
        all.join_all().await
    }

    /// Each client of its own, so that no limit is in the way.
    async fn comes_back(&self, client: u8) {
        let mut turn = 0;
        eventually(BACK_WITHIN, "decisions are back", async || {
            turn += 1;
            let answer = self.get(client, &format!("back-{client}-{turn}")).await;
            if [200, 429].contains(&answer.status) { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    async fn unavailable(&self, reason: &str) -> u64 {
        self.envoy.metric(&format!("tidegate_unavailable_total{{reason=\"{reason}\"}}")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_admits_exactly_what_it_says_and_a_denial_costs_nothing() {
    let stack = stack(FIVE, &ROOMY).await;
    stack.comes_back(200).await;
    let before = stack.upstream.seen();
    // Two workers, many connections at once, one client: five pass, whoever comes first.
    let answers = stack.get_at_once(1, 40).await;
    let admitted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(admitted, 5, "{answers:?}");
    assert_eq!(stack.upstream.seen() - before, 5, "counted where it counts");
    let denied = answers.iter().find(|answer| answer.status == 429).expect("35 of them");
    assert_eq!(denied.json()["violated-policies"], serde_json::json!(["api.per-client"]));
    let seconds: u64 = denied.header("retry-after").and_then(|v| v.parse().ok()).expect("seconds");
    assert!(
        (700..=800).contains(&seconds),
        "one more in 12 minutes, up to a tenth later: {seconds}"
    );

    // The other limit of a denied request was not charged: its key still has all three.
    for _ in 0..3 {
        assert_eq!(stack.get(2, "shared").await.status, 200);
    }
    assert_eq!(stack.get(3, "shared").await.status, 429);
    // And the client that was denied by it was not charged either: all five of its own are left.
    for turn in 0..5 {
        assert_eq!(stack.get(3, &format!("own-{turn}")).await.status, 200);
    }
    eventually(BACK_WITHIN, "the access log names the limit", async || {
        let output = stack.envoy.output();
        let details = "429 tidegate:quota-exceeded:api.per-client";
        if output.contains(details) { Ok(()) } else { Err(output) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_gone_flushed_of_scripts_and_restarted_comes_back_by_itself() {
    let mut stack = stack(FIVE, &ROOMY).await;
    stack.comes_back(1).await;
    let reply = stack.redis.command(&["SCRIPT", "FLUSH"]).await;
    assert!(reply.starts_with("+OK"), "{reply}");
    assert_eq!(stack.get(2, "flushed").await.status, 200, "the script is loaded again at once");

    stack.redis.process().kill();
    let answer = stack.get(3, "gone").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("x-tidegate-reply"), Some("policy-store-unavailable"));
    assert!(!answer.body.contains("redis"), "nothing of the inside: {answer:?}");
    let ready = client::get(stack.gateway.admin, "/readyz").await;
    assert_eq!(ready.status, 200, "a gateway without its store stays in service: {ready:?}");
    eventually(BACK_WITHIN, "readiness says degraded", async || {
        let ready = client::get(stack.gateway.admin, "/readyz").await;
        if ready.body.contains("degraded") { Ok(()) } else { Err(ready) }
    })
    .await;

    stack.redis.restart().await;
    stack.comes_back(4).await;
    eventually(BACK_WITHIN, "readiness says ok", async || {
        let ready = client::get(stack.gateway.admin, "/readyz").await;
        if ready.body.contains("\"ok\"") { Ok(()) } else { Err(ready) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_or_slow_or_cut_is_told_in_time_and_named() {
    // The deadline is behind the response timeout, so that an answer that does not come is the store's.
    let flags = ["--deadline", "2s", "--pool-wait", "1500ms", "--redis-response-timeout", "1s"];
    let mut stack = stack(FIVE, &flags).await;
    stack.comes_back(1).await;

    stack.redis.process().signal(libc::SIGSTOP);
    assert_eq!(stack.get(2, "stopped").await.status, 503);
    assert!(stack.unavailable("store-timeout").await > 0, "{}", stack.envoy.metrics().await);
    stack.redis.process().signal(libc::SIGCONT);
    stack.comes_back(3).await;

    let before = stack.unavailable("store-timeout").await;
    stack.relay.set(Fault::Delay(Duration::from_secs(3)));
    assert_eq!(stack.get(4, "slow").await.status, 503);
    assert!(stack.unavailable("store-timeout").await > before);
    stack.relay.set(Fault::None);
    stack.comes_back(5).await;

    for fault in [Fault::Cut, Fault::Garbage] {
        stack.relay.set(fault);
        eventually(BACK_WITHIN, "the fault is met", async || {
            let answer = stack.get(6, "fault").await;
            if answer.status == 503 { Ok(()) } else { Err(answer) }
        })
        .await;
        stack.relay.set(Fault::None);
        stack.comes_back(7).await;
    }
    let output = stack.gateway.output();
    assert!(!output.contains("panicked"), "{output}");
}

/// Redis answers, but takes no writes: each policy falls to its rung, with the reason, and is back by
/// itself.
#[tokio::test(flavor = "multi_thread")]
async fn redis_read_only_or_out_of_memory_leads_to_the_rung_with_its_reason() {
    let flags = [&ROOMY[..], &["--store-breaker-open", "200ms"]].concat();
    let stack = stack(FIVE, &flags).await;
    stack.comes_back(1).await;
    for (client, reason, begin, end) in [
        (
            2,
            "store-unavailable",
            &["REPLICAOF", "127.0.0.1", "1"][..],
            &["REPLICAOF", "NO", "ONE"][..],
        ),
        (
            4,
            "store-error",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
    ] {
        let rung = format!("tidegate_without_verdict_total{{rung=\"deny\",reason=\"{reason}\"}}");
        stack.redis.command(begin).await;
        assert_eq!(stack.get(client, reason).await.status, 503, "{reason}");
        assert_eq!(stack.envoy.metric(&rung).await, 1, "{}", stack.envoy.metrics().await);
        assert_eq!(stack.unavailable(reason).await, 1);
        stack.redis.command(end).await;
        stack.comes_back(client + 1).await;
    }
}

/// Istio's clusters have names that no HTTP authority may have.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_may_have_a_name_that_is_no_authority() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Upstream::start().await;
    for name in ["outbound|10080||gateway.mesh.svc.cluster.local", "mesh/gateway"] {
        let mut options = Options::new(gateway.addr, upstream.addr);
        options.gateway_cluster = name;
        let config = FIVE.replace("\"cluster\": \"tidegate\"", &format!("\"cluster\": \"{name}\""));
        let envoy = Envoy::start(&options.config(&config)).await;
        let key = format!("x-key: {}\r\n", name.len());
        let answer = client::get_from(envoy.addr, None, "/api/x", &key).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
    }
}

/// The same fixture between Envoy and a real gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_slow_stopped_cut_or_garbled_is_no_verdict() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&["--dev"])).await;
    let relay = Relay::start(Target::Tcp(gateway.addr)).await;
    let upstream = Upstream::start().await;
    for gateway_http2 in [true, false] {
        let config = FIVE.replace("\"4s\"", "\"300ms\"");
        let options = Options { gateway_http2, ..Options::new(relay.addr, upstream.addr) };
        let envoy = Envoy::start(&options.config(&config)).await;
        let ask = async |key: String| {
            client::get_from(envoy.addr, None, "/api/x", &format!("x-key: {key}\r\n")).await
        };
        let faults =
            [Fault::Delay(Duration::from_millis(400)), Fault::Stop, Fault::Cut, Fault::Garbage];
        for fault in faults {
            relay.set(fault);
            let answer = ask(format!("{fault:?}")).await;
            assert_eq!(answer.status, 503, "{fault:?}: {answer:?}");
            assert_eq!(answer.header("x-tidegate-reply"), Some("policy-store-unavailable"));
            relay.set(Fault::None);
            let mut turn = 0;
            eventually(BACK_WITHIN, "decisions are back", async || {
                turn += 1;
                let answer = ask(format!("{fault:?}-{turn}")).await;
                if [200, 429].contains(&answer.status) { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_not_let_in_is_refused_with_its_reason() {
    let upstream = Upstream::start().await;
    let mut options = gateway::Options::memory().flags(&["--region", "eu-west1"]);
    options.flags.extend(ROOMY.map(str::to_owned));
    let gateway = Gateway::start(&options).await;
    let base = Options::new(gateway.addr, upstream.addr).config(FIVE);
    let short = FIVE.replace("\"4s\"", "\"900ms\"");
    let cases = [
        (Options { token: Some("wrong".to_owned()), ..base.clone() }, "unauthorized"),
        (Options { region: Some("us-east1".to_owned()), ..base.clone() }, "region-mismatch"),
        (
            Options { environment: Some("staging".to_owned()), ..base.clone() },
            "environment-mismatch",
        ),
        (base.clone().config(&short), "deadline-order"),
    ];
    for (options, reason) in cases {
        let envoy = Envoy::start(&options).await;
        let answer = client::get_from(envoy.addr, None, "/api/x", "x-key: k\r\n").await;
        assert_eq!(answer.status, 503, "{reason}: {answer:?}");
        let counted =
            envoy.metric(&format!("tidegate_unavailable_total{{reason=\"{reason}\"}}")).await;
        assert_eq!(counted, 1, "{reason}: {}", envoy.metrics().await);
    }
    let output = gateway.output();
    assert!(
        output.contains("us-east1") && output.contains("eu-west1"),
        "both regions are named: {output}"
    );

    let envoy = Envoy::start(&Options { region: Some("eu-west1".to_owned()), ..base }).await;
    let answer = client::get_from(envoy.addr, None, "/api/x", "x-key: k\r\n").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Product row A5, as a client of Envoy sees it: 250 at once against a Redis that stands still. Of them a hundred hold the places,
/// and up to 32 of each worker are asked about only when the first are told; the gateway by itself refuses exactly those
/// beyond a hundred (`faults.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn beyond_a_hundred_in_flight_a_client_is_told_to_come_again_in_five_seconds() {
    // Far apart, so that a slow machine keeps their order.
    let flags = ["--deadline", "10s", "--pool-wait", "4s", "--redis-response-timeout", "60s"];
    let mut stack = stack(&FIVE.replace("\"4s\"", "\"12s\""), &flags).await;
    stack.comes_back(1).await;
    stack.redis.process().signal(libc::SIGSTOP);
    let answers = stack.get_at_once(2, 250).await;
    stack.redis.process().signal(libc::SIGCONT);

    let told = |status| answers.iter().filter(move |answer| answer.status == status);
    let (overloaded, failed) = (told(429).count(), told(503).count());
    assert_eq!(overloaded + failed, 250, "{answers:?}");
    assert!(failed >= 100 && overloaded >= 250 - 100 - 2 * 32, "{overloaded} {answers:?}");
    for answer in told(429) {
        assert_eq!(answer.header("retry-after"), Some("5"), "exactly, without jitter");
        assert_eq!(answer.header("x-tidegate-reply"), Some("service-overloaded"));
        let body = answer.json();
        assert_eq!(body["error"], "service_overloaded");
        assert_eq!(body["message"], "Service temporarily overloaded, please retry");
    }
    let counted = "tidegate_decisions_total{policy=\"api\",outcome=\"overloaded\"}";
    assert_eq!(stack.envoy.metric(counted).await, overloaded as u64);
    let output = stack.gateway.output();
    assert!(output.contains("critical"), "exhaustion is logged as critical: {output}");
    stack.comes_back(3).await;
}

/// A gateway that ends by SIGTERM lets what is under way finish, and the next one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_drains_on_sigterm() {
    let flags = ["--deadline", "9s", "--pool-wait", "5s", "--redis-response-timeout", "20s"];
    let flags = [&flags[..], &["--drain-timeout", "20s"]].concat();
    let mut stack = stack(&FIVE.replace("\"4s\"", "\"10s\""), &flags).await;
    stack.comes_back(1).await;
    // On both ways: time enough to be seen under way, and to be done with it.
    stack.relay.set(Fault::Delay(Duration::from_secs(2)));
    let (answer, ()) = {
        let asking = stack.get(2, "draining");
        let gateway = &stack.gateway;
        let ending = async {
            eventually(BACK_WITHIN, "the decision is under way", async || {
                let metrics = gateway.admin("/metrics").await.body;
                let busy = metrics
                    .lines()
                    .any(|l| l.starts_with("tidegate_gateway_in_flight ") && !l.ends_with(" 0"));
                if busy { Ok(()) } else { Err(metrics) }
            })
            .await;
            gateway.signal(libc::SIGTERM);
        };
        tokio::join!(asking, ending)
    };
    assert_eq!(answer.status, 200, "what was under way is finished: {answer:?}");
    let status = eventually(BACK_WITHIN, "the gateway ends", async || {
        stack.gateway.process().ended().ok_or("still there")
    })
    .await;
    assert_eq!(status.code(), Some(0), "{}", stack.gateway.output());
}
