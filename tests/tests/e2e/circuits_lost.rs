//! Circuit breakers on real parts where something is lost: an upstream that fails or hangs, clients that give up on one, an
//! Envoy that dies with the one test. What reached the upstream is counted where it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::puppet::{Does, Puppet};
use tidegate_tests::redis::Redis;
use tidegate_tests::redis::held::HeldClock;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(60);
const WORKERS: usize = 2;
/// Failures in a row in one worker that shut its Envoy; the default.
const CONSECUTIVE: usize = 5;

/// So many Envoys of two workers each, whose routes give up after `timeout`.
pub(crate) async fn envoys(
    count: usize,
    gateway: &Gateway,
    upstream: &Puppet,
    breaker: &Value,
    timeout: &str,
) -> Vec<Envoy> {
    let config = json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "timeout": "4s", "token": {"env": "TIDEGATE_TOKEN"}},
        "policies": [{"name": "p", "match": {"path": "/**"}, "circuit_breaker": breaker}],
    });
    let mut envoys = Vec::new();
    for _ in 0..count {
        let concurrency = u32::try_from(WORKERS).expect("few");
        let options = Options { concurrency, ..Options::new(gateway.addr, upstream.addr) };
        let mut options = options.config(&config.to_string());
        let route = json!({"cluster": "upstream", "timeout": timeout});
        options.example = Some(json!({ "routes": [{ "match": {"prefix": "/"}, "route": route }] }));
        envoys.push(Envoy::start(&options).await);
    }
    envoys
}

pub(crate) fn is_refused(answer: &Answer) -> bool {
    answer.header("x-tidegate-reply") == Some("circuit-open")
}

/// Asks so many times at once, again and again, until all of them are refused; how many were not.
async fn leaked(envoy: &Envoy, at_once: usize) -> usize {
    let mut leaked = 0;
    loop {
        let mut asked = JoinSet::new();
        for _ in 0..at_once {
            let addr = envoy.addr;
            asked.spawn(async move { client::get(addr, "/").await });
        }
        let answers = asked.join_all().await;
        let passed = answers.iter().filter(|answer| !is_refused(answer)).count();
        leaked += passed;
        assert!(leaked <= 500, "nothing is refused: {}", envoy.output());
        if passed == 0 {
            return leaked;
        }
    }
}

pub(crate) async fn state(gateway: &Gateway) -> String {
    let listed = gateway.admin("/v1/breakers").await.json();
    listed[0]["state"].as_str().unwrap_or_default().to_owned()
}

async fn order(gateway: &Gateway, order: &str) {
    let order = format!(r#"{{"breaker": "p", "order": "{order}"}}"#);
    let told = gateway.command("/v1/breakers/order", &order).await;
    assert_eq!(told.status, 200, "{told:?}");
}

/// The bound of docs/breakers.md: of each Envoy that finds out by itself, less than `consecutive` failures in each worker and
/// what was on its way by then; of those that are told, nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_three_envoys_let_through_is_bounded_where_it_fails_and_where_it_hangs() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Works).await;
    // Only who trips by itself opens it for all: two of three.
    let breaker = json!({"open": "1h", "failure_rate": "0%"});
    let envoys = envoys(3, &gateway, &upstream, &breaker, "1s").await;
    let changes = async |envoy: &Envoy| envoy.metric("tidegate_circuit_changes{}").await;
    for does in [Does::Fails, Does::Dies, Does::Hangs] {
        for envoy in &envoys {
            eventually(PATIENCE, "it passes, and its region knows it", async || {
                let answer = client::get(envoy.addr, "/").await;
                let state = state(&gateway).await;
                if answer.status == 200 && state == "closed" {
                    Ok(())
                } else {
                    Err((answer, state))
                }
            })
            .await;
        }
        let (before, changed) = (upstream.seen(), changes(&envoys[2]).await);
        upstream.now(does);
        for (envoy, at_once) in envoys.iter().zip([3, 30]) {
            let seen = upstream.seen();
            let leaked = leaked(envoy, at_once).await;
            let bound = WORKERS * (CONSECUTIVE - 1) + at_once;
            println!("{does:?}, {at_once} at once: {leaked} leaked of at most {bound}");
            assert!((CONSECUTIVE..=bound).contains(&leaked), "{does:?}: {leaked} of {bound}");
            assert!(upstream.seen() - seen <= leaked, "{does:?}");
        }
        eventually(PATIENCE, "the third is told", async || {
            let (state, now) = (state(&gateway).await, changes(&envoys[2]).await);
            if state == "open" && now > changed { Ok(()) } else { Err((state, now)) }
        })
        .await;
        let seen = upstream.seen();
        // Who dies may end a connection before it has read what was asked on it.
        assert!(seen > before || does == Does::Dies, "{does:?}: it was not asked");
        for _ in 0..10 {
            assert!(is_refused(&client::get(envoys[2].addr, "/").await), "{does:?}");
        }
        assert_eq!(upstream.seen(), seen, "{does:?}: of those that are told nothing reaches it");
        upstream.now(Does::Works);
        order(&gateway, "reset").await;
    }
}

/// One Envoy of three cannot reach what the others reach: it shuts its own way and tests it by itself, and shuts nobody
/// else's.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_alone_sees_failures_shuts_the_upstream_for_itself_and_for_nobody_else() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let (upstream, broken) = (Puppet::start(Does::Works).await, Puppet::start(Does::Works).await);
    let breaker = json!({"open": "1s", "window": "1m"});
    let well = envoys(2, &gateway, &upstream, &breaker, "60s").await;
    let sick = envoys(1, &gateway, &broken, &breaker, "60s").await;
    let passes = async |envoy: &Envoy| {
        let answer = client::get(envoy.addr, "/").await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    };
    for envoy in well.iter().chain(&sick) {
        for _ in 0..30 {
            eventually(PATIENCE, "it passes", async || passes(envoy).await).await;
        }
    }
    let is_known = async || {
        let state = state(&gateway).await;
        if state == "closed" { Ok(()) } else { Err(state) }
    };
    eventually(PATIENCE, "the region knows it", is_known).await;
    broken.now(Does::Fails);
    for round in 0..3 {
        // Its tests fail, and it is shut anew.
        let leaked = leaked(&sick[0], 3).await;
        println!("round {round}: {leaked} leaked");
        for envoy in &well {
            for _ in 0..10 {
                passes(envoy).await.expect("nobody else is shut");
            }
        }
        assert_eq!(state(&gateway).await, "closed");
        eventually(PATIENCE, "it tests", async || {
            let seen = broken.seen();
            client::get(sick[0].addr, "/").await;
            if broken.seen() > seen { Ok(()) } else { Err(seen) }
        })
        .await;
    }
    broken.now(Does::Works);
    eventually(PATIENCE, "it is let in again", async || {
        for _ in 0..10 {
            passes(&sick[0]).await?;
        }
        Ok::<_, Answer>(())
    })
    .await;
    assert_eq!(state(&gateway).await, "closed");
}

/// Every second answer fails, so that no worker sees two in a row: the region's window shuts it for all three, and none of
/// the tests in a row that would open it is reached until it works.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_half_fails_is_shut_for_three_envoys_until_it_works() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::HalfFails).await;
    let breaker = json!({"open": "1s", "window": "1m", "min_calls": 12, "consecutive": 1_000});
    let envoys = envoys(3, &gateway, &upstream, &breaker, "60s").await;
    let (mut failed, mut passed) = (0, 0);
    eventually(PATIENCE, "all three are shut", async || {
        let mut refused = 0;
        for envoy in &envoys {
            let answer = client::get(envoy.addr, "/").await;
            refused += usize::from(is_refused(&answer));
            passed += usize::from(answer.status == 200);
            failed += usize::from(answer.status == 500);
        }
        if refused == 3 { Ok(()) } else { Err((passed, failed)) }
    })
    .await;
    assert!(passed + failed >= 12, "{passed} + {failed}");
    // Tests go well and fail in turn: never three in a row.
    let tests = async |event: &str| {
        let mut sum = 0;
        for envoy in &envoys {
            let name = format!("tidegate_circuit_total{{breaker=\"p\",event=\"{event}\"}}");
            sum += envoy.metric(&name).await;
        }
        sum
    };
    eventually(PATIENCE, "two tests failed", async || {
        for envoy in &envoys {
            client::get(envoy.addr, "/").await;
        }
        let failed = tests("test_failed").await;
        if failed >= 2 { Ok(()) } else { Err(failed) }
    })
    .await;
    let (ok, failed) = (tests("test_ok").await, tests("test_failed").await);
    assert!(ok <= failed + 1, "{ok} went well, {failed} failed");
    assert_ne!(state(&gateway).await, "closed");
    upstream.now(Does::Works);
    for envoy in &envoys {
        eventually(PATIENCE, "it passes again", async || {
            let answer = client::get(envoy.addr, "/").await;
            if answer.status == 200 && state(&gateway).await == "closed" {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
    }
}

/// Nobody waits for the answer, so that none ever comes: clients leave before the route's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_noticed_though_every_client_gives_up() {
    let gateway = Gateway::start(&gateway::Options::memory().flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Hangs).await;
    let breaker = json!({"open": "1h", "min_calls": 5, "slow": {"after": "1ms"}});
    let envoys = envoys(1, &gateway, &upstream, &breaker, "600s").await;
    let mut given_up = 0;
    eventually(PATIENCE, "it is open", async || {
        let before = upstream.seen();
        let mut stream = client::connect(envoys[0].addr, None).await.expect("a connection");
        client::send(&mut stream, client::get_request("/", "").as_bytes()).await;
        let mut answer = tokio::spawn(async move { client::answer(&mut stream).await });
        tokio::select! {
            answer = &mut answer => {
                let answer = answer.expect("an answer");
                assert!(is_refused(&answer), "{answer:?}");
                return Ok(());
            }
            () = eventually(PATIENCE, "it is with the upstream", async || {
                if upstream.seen() > before { Ok(()) } else { Err(before) }
            }) => {}
        }
        answer.abort();
        given_up += 1;
        Err(given_up)
    })
    .await;
    assert!(given_up >= 5, "{given_up}");
    assert_eq!(state(&gateway).await, "open");
}

/// Its lease ends, and another Envoy makes the next test.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_dies_with_the_one_test_leaves_it_to_another() {
    let redis = Redis::start().await;
    let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
    let upstream = Puppet::start(Does::Fails).await;
    let breaker = json!({"open": "1s", "successes": 1, "upstream_timeout": "5s"});
    let mut envoys = envoys(2, &gateway, &upstream, &breaker, "600s").await;
    for envoy in &envoys {
        leaked(envoy, 1).await;
    }
    // Only the first asks, until it has the test, which hangs.
    upstream.now(Does::Hangs);
    let before = upstream.seen();
    let mut asked = JoinSet::new();
    eventually(PATIENCE, "its test is out", async || {
        let addr = envoys[0].addr;
        asked.spawn(async move { client::try_get(addr, "/").await });
        let seen = upstream.seen() - before;
        if seen == 1 { Ok(()) } else { Err(seen) }
    })
    .await;
    assert_eq!(state(&gateway).await, "half_open");
    envoys[0].process().kill();
    while asked.join_next().await.is_some() {}
    assert_eq!(upstream.seen(), before + 1);
    // The other is refused for as long as the dead one's lease lasts, and then it is its turn.
    upstream.now(Does::Works);
    let mut refused = 0;
    eventually(PATIENCE, "the other one tests it", async || {
        let answer = client::get(envoys[1].addr, "/").await;
        if answer.status == 200 {
            return Ok(());
        }
        assert!(is_refused(&answer), "{answer:?}");
        refused += 1;
        Err(answer)
    })
    .await;
    assert!(refused > 0);
    eventually(PATIENCE, "it is closed", async || {
        let state = state(&gateway).await;
        if state == "closed" { Ok(()) } else { Err(state) }
    })
    .await;
    let name = "tidegate_circuit_total{breaker=\"p\",event=\"test_ok\"}";
    assert_eq!(envoys[1].metric(name).await, 1);
}

fn now_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
    u64::try_from(now.as_micros()).expect("not that late")
}

/// The store's clock is days ahead, is set right, and its records are there or lost: what Envoys know is of days that are still to
/// come. Open, they find out that the upstream works; shut by order, they hear that it is taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_clock_was_days_ahead_holds_no_envoy() {
    const AHEAD_US: u64 = 3 * 86_400_000_000;
    for (forgets, ordered) in [(false, false), (true, false), (true, true)] {
        let redis = Redis::start_with_clock(HeldClock::at(now_us() + AHEAD_US)).await;
        let gateway = Gateway::start(&gateway::Options::redis(&redis.url()).flags(&ROOMY)).await;
        let upstream = Puppet::start(Does::Works).await;
        let breaker = json!({"open": "1s", "successes": 1, "upstream_timeout": "5s"});
        let envoys = envoys(2, &gateway, &upstream, &breaker, "60s").await;
        let all = async |what: &str, expected: &dyn Fn(&Answer) -> bool| {
            for envoy in &envoys {
                eventually(PATIENCE, what, async || {
                    let answer = client::get(envoy.addr, "/").await;
                    let state = state(&gateway).await;
                    if expected(&answer) { Ok(()) } else { Err((answer, state)) }
                })
                .await;
            }
        };
        all("it passes", &|answer| answer.status == 200).await;
        if ordered {
            order(&gateway, "force_open").await;
        } else {
            upstream.now(Does::Fails);
        }
        all("it is shut", &is_refused).await;
        upstream.now(Does::Works);
        // Nothing is asked meanwhile, and its time stands.
        if forgets {
            assert!(redis.command(&["FLUSHALL"]).await.starts_with("+OK"));
        }
        redis.set_clock(now_us());
        if ordered {
            order(&gateway, "reset").await;
        }
        let passes = |answer: &Answer| {
            redis.set_clock(now_us());
            answer.status == 200
        };
        all("it passes again", &passes).await;
        order(&gateway, "force_open").await;
        all("it hears of an order", &is_refused).await;
        order(&gateway, "reset").await;
        all("and of the next", &passes).await;
    }
}
