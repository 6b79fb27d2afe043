//! Circuit breakers beside what Envoy does itself, on real parts: retries, outlier detection, answers that
//! are cut off, routes to several clusters, and many requests at once while a test is out.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::puppet::{Does, Puppet};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(breaker: &Value) -> String {
    json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
        "policies": [{"name": "p", "match": {"path": "/**"}, "circuit_breaker": breaker}],
    })
    .to_string()
}

/// A cluster of one host.
fn cluster(name: &str, to: SocketAddr, more: &Value) -> Value {
    let address = json!({ "address": to.ip().to_string(), "port_value": to.port() });
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [
            { "lb_endpoints": [{ "endpoint": { "address": { "socket_address": address } } }] },
        ] },
    });
    let fields = more.as_object().expect("fields").clone();
    cluster.as_object_mut().expect("a table").extend(fields);
    cluster
}

fn is_refused(answer: &Answer) -> bool {
    answer.header("x-tidegate-reply") == Some("circuit-open")
}

async fn event(envoy: &Envoy, event: &str) -> u64 {
    envoy.metric(&format!("tidegate_circuit_total{{breaker=\"p\",event=\"{event}\"}}")).await
}

/// Asks until a request is refused; how many went through before.
async fn until_refused(envoy: &Envoy, path: &str) -> usize {
    for passed in 0..50 {
        if is_refused(&client::get(envoy.addr, path).await) {
            return passed;
        }
    }
    panic!("nothing was refused: {}", envoy.output());
}

/// Asks until a test failed; how many tests there were.
async fn tested_in_vain(envoy: &Envoy) -> usize {
    eventually(PATIENCE, "a test", async || {
        client::get(envoy.addr, "/").await;
        let failed = event(envoy, "test_failed").await;
        if failed > 0 { Ok(()) } else { Err(failed) }
    })
    .await;
    usize::try_from(event(envoy, "test").await).expect("few")
}

async fn until_closed(envoy: &Envoy) {
    eventually(PATIENCE, "it is closed", async || {
        let answer = client::get(envoy.addr, "/").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// Ten requests at once, again and again, over three Envoys whose region is half open: all of them together
/// are one test.
#[tokio::test(flavor = "multi_thread")]
async fn of_ten_at_once_across_three_envoys_one_is_the_test() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Fails).await;
    let breaker = json!({"open": "1s", "successes": 1, "upstream_timeout": "5m"});
    let mut envoys = Vec::new();
    for _ in 0..3 {
        let options = Options { concurrency: 2, ..Options::new(gateway.addr, upstream.addr) };
        let mut options = options.config(&config(&breaker));
        let routes = json!([{ "match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "240s"} }]);
        options.example = Some(json!({ "routes": routes }));
        envoys.push(Envoy::start(&options).await);
    }
    let order = |order: &'static str| {
        let order = format!(r#"{{"breaker": "p", "order": {order}}}"#);
        let gateway = &gateway;
        async move { assert_eq!(gateway.command("/v1/breakers/order", &order).await.status, 200) }
    };
    order(r#""force_open""#).await;
    for envoy in &envoys {
        eventually(PATIENCE, "it is forced open", async || {
            let answer = client::get(envoy.addr, "/").await;
            if is_refused(&answer) { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    upstream.now(Does::Hangs);
    let before = upstream.seen();
    // Open for a second, then half open: who asks first has the one test.
    order(r#""trip", "for_s": 1"#).await;
    let (mut asked, mut refused) = (JoinSet::new(), 0);
    let ten = |asked: &mut JoinSet<Answer>| {
        for nth in 0..10 {
            let addr = envoys[nth % 3].addr;
            asked.spawn(async move { client::get(addr, "/").await });
        }
    };
    let mut rounds_after = 0;
    while rounds_after < 20 {
        ten(&mut asked);
        // Each is refused at once, but for the test, which hangs.
        eventually(PATIENCE, "all but the test are answered", async || {
            while let Some(answer) = asked.try_join_next() {
                let answer = answer.expect("an answer");
                assert!(is_refused(&answer), "{answer:?}");
                refused += 1;
            }
            let tests = upstream.seen() - before;
            assert!(tests <= 1, "{tests} tests at once");
            if asked.len() == tests { Ok(()) } else { Err((asked.len(), tests)) }
        })
        .await;
        rounds_after += upstream.seen() - before;
    }
    assert_eq!(upstream.seen(), before + 1);
    assert!(refused >= 199, "{refused}");
    upstream.now(Does::Works);
    let answer = asked.join_next().await.expect("the test").expect("its answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut tests = 0;
    for envoy in &envoys {
        tests += event(envoy, "test_ok").await;
        until_closed(envoy).await;
    }
    assert_eq!(tests, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_envoy_retries_counts_once_and_is_one_test() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Fails).await;
    let breaker = json!({"open": "1s", "failure_rate": "0%", "successes": 1});
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config(&breaker));
    let retries = json!({
        "retry_on": "5xx", "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
    });
    let route = json!({"cluster": "upstream", "timeout": "60s", "retry_policy": retries});
    options.example = Some(json!({ "routes": [{ "match": {"prefix": "/"}, "route": route }] }));
    let envoy = Envoy::start(&options).await;
    // Twenty tries reach it, which are five failures, not fifteen.
    assert_eq!(until_refused(&envoy, "/").await, 5);
    assert_eq!(upstream.seen(), 20);
    // A test that fails is one request with all its tries, and one that Envoy does not retry elsewhere.
    let tests = tested_in_vain(&envoy).await;
    assert_eq!(upstream.seen(), 20 + 4 * tests, "{tests} tests");
    upstream.now(Does::Works);
    until_closed(&envoy).await;
    assert_eq!(event(&envoy, "tripped").await, 1);
}

/// The first try hangs, and Envoy sends another beside it, again and again: one request, one outcome, one test.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_envoy_hedges_counts_once_and_is_one_test() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Hangs).await;
    let breaker = json!({"open": "1s", "failure_rate": "0%", "successes": 1});
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config(&breaker));
    let retries = json!({
        "retry_on": "5xx", "num_retries": 2, "per_try_timeout": "0.1s",
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"},
    });
    let route = json!({
        "cluster": "upstream", "timeout": "1s", "retry_policy": retries,
        "hedge_policy": {"hedge_on_per_try_timeout": true},
    });
    options.example = Some(json!({ "routes": [{ "match": {"prefix": "/"}, "route": route }] }));
    let envoy = Envoy::start(&options).await;
    assert_eq!(until_refused(&envoy, "/").await, 5);
    let (before, tries) = (upstream.seen(), upstream.seen() / 5);
    // Each was sent more than once at the same time, or nothing is shown here.
    assert!(before > 5 && before.is_multiple_of(5), "{before}");
    let tests = tested_in_vain(&envoy).await;
    assert_eq!(upstream.seen(), before + tries * tests, "{tests} tests");
    upstream.now(Does::Works);
    until_closed(&envoy).await;
    assert_eq!((event(&envoy, "tripped").await, event(&envoy, "test_ok").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlier_detection_leaves_is_what_the_breaker_sees() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Fails).await;
    let breaker = json!({"open": "1h", "failure_rate": "0%"});
    let mut options = Options::new(gateway.addr, upstream.addr).config(&config(&breaker));
    let outliers = json!({
        "outlier_detection": {
            "consecutive_5xx": 3, "enforcing_consecutive_5xx": 100, "max_ejection_percent": 100,
            "base_ejection_time": "3600s", "max_ejection_time": "3600s", "interval": "3600s",
        },
        // Or Envoy would go on sending to hosts that it knows to be ill.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
    });
    options.example = Some(json!({
        "routes": [{ "match": {"prefix": "/"}, "route": {"cluster": "watched"} }],
        "clusters": [cluster("watched", upstream.addr, &outliers)],
    }));
    let envoy = Envoy::start(&options).await;
    // Three failures of its own, and Envoy takes the host out, which its main thread does behind the answers.
    for _ in 0..3 {
        let answer = client::get(envoy.addr, "/").await;
        assert_eq!(answer.status, 500, "{answer:?}");
    }
    eventually(PATIENCE, "the host is taken out", async || {
        let out =
            "envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name=\"watched\"} 1";
        let stats = envoy.stats().await;
        if stats.lines().any(|line| line == out) { Ok(()) } else { Err(stats) }
    })
    .await;
    // Now nobody is left, which is a failure of the upstream, too.
    assert_eq!(until_refused(&envoy, "/").await, 2);
    assert_eq!(upstream.seen(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_off_is_a_failure_and_a_client_that_leaves_is_none() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Pauses).await;
    let breaker = json!({"open": "1h", "failure_rate": "0%"});
    let options = Options::new(gateway.addr, upstream.addr).config(&config(&breaker));
    let envoy = Envoy::start(&options).await;
    for _ in 0..10 {
        let mut stream = client::connect(envoy.addr, None).await.expect("a connection");
        let head = client::head(&mut stream, client::get_request("/", "").as_bytes()).await;
        assert_eq!(head.status, 200, "{head:?}");
        drop(stream);
    }
    upstream.now(Does::Cuts);
    // Envoy sends the headers on, so that the client sees its answer break off.
    let mut passed = 0;
    eventually(PATIENCE, "it is open", async || {
        let mut stream = client::connect(envoy.addr, None).await.expect("a connection");
        let head = client::head(&mut stream, client::get_request("/", "").as_bytes()).await;
        if is_refused(&head) {
            return Ok(());
        }
        assert_eq!(head.status, 200, "{head:?}");
        passed += 1;
        let mut rest = Vec::new();
        let _cut_off: std::io::Result<usize> = stream.read_to_end(&mut rest).await;
        Err(head)
    })
    .await;
    assert_eq!(passed, 5);
    assert_eq!(event(&envoy, "tripped").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cluster_has_a_breaker_of_its_own() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let (good, bad) = (Puppet::start(Does::Works).await, Puppet::start(Does::Fails).await);
    let breaker = json!({"by": "cluster", "open": "1h"});
    let mut options = Options { concurrency: 2, ..Options::new(gateway.addr, good.addr) }
        .config(&config(&breaker));
    options.example = Some(json!({
        "routes": [
            { "match": {"prefix": "/bad"}, "route": {"cluster": "bad|1"} },
            { "match": {"prefix": "/"}, "route": {"cluster": "upstream"} },
        ],
        "clusters": [cluster("bad|1", bad.addr, &json!({}))],
    }));
    let envoy = Envoy::start(&options).await;
    until_refused(&envoy, "/bad").await;
    assert!(bad.seen() <= 10, "at most five in each worker: {}", bad.seen());
    for _ in 0..10 {
        assert_eq!(client::get(envoy.addr, "/").await.status, 200);
        assert!(is_refused(&client::get(envoy.addr, "/bad").await));
    }
    // The region knows both by their names, and an order for one is for one.
    eventually(PATIENCE, "the region knows both", async || {
        let listed = gateway.admin("/v1/breakers").await;
        client::get(envoy.addr, "/").await;
        let known = ["\"p:bad%7C1\"", "\"p:upstream\""];
        if known.iter().all(|name| listed.body.contains(name)) { Ok(()) } else { Err(listed) }
    })
    .await;
    let order = r#"{"breaker": "p:upstream", "order": "force_open"}"#;
    assert_eq!(gateway.command("/v1/breakers/order", order).await.status, 200);
    eventually(PATIENCE, "the other one is forced open", async || {
        let answer = client::get(envoy.addr, "/").await;
        if is_refused(&answer) { Ok(()) } else { Err(answer) }
    })
    .await;
    bad.now(Does::Works);
    for breaker in ["p:upstream", "p:bad%7C1"] {
        let order = format!(r#"{{"breaker": "{breaker}", "order": "reset"}}"#);
        assert_eq!(gateway.command("/v1/breakers/order", &order).await.status, 200);
    }
    for path in ["/", "/bad"] {
        eventually(PATIENCE, "it is let go", async || {
            let answer = client::get(envoy.addr, path).await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    // On the bare name it is for all of them.
    let ordered = async |order: &str| {
        let order = format!(r#"{{"breaker": "p", "order": "{order}"}}"#);
        let told = gateway.command("/v1/breakers/order", &order).await;
        assert_eq!(told.status, 200, "{told:?}");
        told.body
    };
    let all = async |is: &str, expected: &dyn Fn(&Answer) -> bool| {
        for path in ["/", "/bad"] {
            eventually(PATIENCE, is, async || {
                let answer = client::get(envoy.addr, path).await;
                if expected(&answer) { Ok(()) } else { Err(answer) }
            })
            .await;
        }
    };
    ordered("force_open").await;
    all("all are forced open", &is_refused).await;
    ordered("reset").await;
    all("all are let go", &|answer| answer.status == 200).await;
    assert!(ordered("trip").await.contains("\"changed\":2"));
    all("all are open", &is_refused).await;
    // Each is open still, for an hour, and none is asked.
    for free in ["disable", "metrics_only"] {
        ordered(free).await;
        all("all pass", &|answer| answer.status == 200).await;
    }
    eventually(PATIENCE, "what it would have done is told", async || {
        client::get(envoy.addr, "/").await;
        let told = event(&envoy, "would_refuse").await;
        if told > 0 { Ok(()) } else { Err(told) }
    })
    .await;
    ordered("force_open").await;
    all("all are forced open", &is_refused).await;
    assert!(ordered("reset").await.contains("\"changed\":2"));
    all("all are let go", &|answer| answer.status == 200).await;
}
