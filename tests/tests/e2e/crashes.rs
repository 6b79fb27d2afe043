//! Idempotency while parts die: the table of docs/idempotency.md, a test for each line. What the client saw,
//! how often the upstream ran, what the record says.

use tidegate_tests::client::{self, Answer};
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway, ROOMY};
use tidegate_tests::parts;
use tokio::task::JoinHandle;

use crate::idempotency::{Bench, CONFIG, WITHIN, bench, bench_of, lines, replayed, told};

/// A request whose run waits for the gate.
fn sent(bench: &Bench, path: &str, key: &str) -> JoinHandle<Option<Answer>> {
    let headers = lines(key, "x-run: wait\r\n");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 2\r\n{headers}\r\n{{}}"
    );
    let addr = bench.envoys[0].addr;
    tokio::spawn(async move {
        let mut stream = client::connect(addr, None).await.ok()?;
        client::try_raw(&mut stream, request.as_bytes()).await.ok()
    })
}

/// The same, once it is with the upstream.
async fn running(bench: &Bench, path: &str, key: &str) -> JoinHandle<Option<Answer>> {
    let before = bench.upstream.runs();
    let waiting = sent(bench, path, key);
    bench.runs(before + 1).await;
    waiting
}

/// Asks by one Envoy until the answer has this reason.
async fn until(bench: &Bench, envoy: usize, path: &str, key: &str, reason: &str) {
    eventually(WITHIN, reason, async || {
        let answer = client::post(bench.envoys[envoy].addr, path, &lines(key, ""), "{}").await;
        match answer.header("x-tidegate-reply") == Some(reason) {
            true => Ok(()),
            false => Err(answer),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_is_killed_after_the_upstream_began() {
    let mut bench = bench(2).await;
    let waiting = running(&bench, "/orders", "k").await;
    bench.envoys[0].process().kill();
    bench.upstream.open();
    assert!(waiting.await.expect("a task").is_none(), "the client's connection ended");
    until(&bench, 1, "/orders", "k", "idempotency-in-flight").await;
    until(&bench, 1, "/orders", "k", "idempotency-unknown-outcome").await;
    assert_eq!(bench.upstream.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_traps_when_the_answer_is_there() {
    let mut bench = bench(2).await;
    let options = Options::new(bench.gateway.addr, bench.upstream.addr).config(CONFIG);
    let options = Options { filter: Some(parts::trapping_filter()), ..options };
    bench.envoys[0] = Envoy::start(&options).await;
    let trapped = bench.post("/orders", "k", "x-run: trap\r\n", "{}").await;
    assert_eq!((trapped.status, bench.upstream.runs()), (503, 1), "{trapped:?}");
    until(&bench, 1, "/orders", "k", "idempotency-in-flight").await;
    until(&bench, 1, "/orders", "k", "idempotency-unknown-outcome").await;
    // Its own worker has a new VM by then, which knows nothing and asks.
    until(&bench, 0, "/orders", "k", "idempotency-unknown-outcome").await;
    assert_eq!(bench.upstream.runs(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_is_killed_between_claim_and_answer() {
    let mut bench = bench(1).await;
    let waiting = running(&bench, "/orders", "k").await;
    let listen = bench.gateway.addr.to_string();
    bench.gateway.process().kill();
    bench.upstream.open();
    let answer = waiting.await.expect("a task").expect("an answer");
    assert_eq!((answer.status, replayed(&answer)), (201, false), "it is not kept back: {answer:?}");
    bench.reaches("orders", "postponed", 1).await;
    let options = gateway::Options::redis(&bench.redis.url()).flags(&ROOMY);
    bench.gateway = Gateway::start(&gateway::Options { listen, ..options }).await;
    // Told again as soon as somebody listens.
    let retry = eventually(WITHIN, "a retry gets the answer", async || {
        let retry = bench.post("/orders", "k", "", "{}").await;
        if replayed(&retry) { Ok(retry) } else { Err(retry) }
    })
    .await;
    assert_eq!(told(&retry), told(&answer));
    assert_eq!(bench.upstream.runs(), 1);
}

/// With the deadlines that are shipped: five calls without an answer open breakers on both ways, and claims are made that
/// nobody hears of.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_for_a_moment_locks_no_key_and_loses_no_answer() {
    let config = CONFIG.replace("\"timeout\": \"4s\"", "\"timeout\": \"45ms\"");
    let config = config.replace("\"upstream_timeout\": \"500ms\"", "\"upstream_timeout\": \"10m\"");
    let mut bench = bench_of(1, &config).await;
    bench.gateway = Gateway::start(&gateway::Options::redis(&bench.redis.url())).await;
    let options = Options::new(bench.gateway.addr, bench.upstream.addr).config(&config);
    bench.envoys = vec![Envoy::start(&options).await];
    let keys = ["a", "b", "c", "d", "e", "f"];
    // Its answer comes while nobody can be told of it.
    let runs = eventually(WITHIN, "one runs", async || {
        let waiting = sent(&bench, "/orders", "first");
        let is_settled = async || {
            let settled = bench.upstream.runs() == 1 || waiting.is_finished();
            if settled { Ok(()) } else { Err("neither with the upstream nor refused") }
        };
        eventually(WITHIN, "with the upstream, or refused", is_settled).await;
        if bench.upstream.runs() == 1 { Ok(waiting) } else { Err(waiting.await) }
    })
    .await;
    bench.redis.process().pause();
    for key in keys {
        let refused = bench.post("/orders", key, "", "{}").await;
        // 429 where the machine itself is late, which counts as overload.
        assert!([503, 429].contains(&refused.status), "{refused:?}");
    }
    bench.upstream.open();
    let first = runs.await.expect("a task").expect("an answer");
    assert_eq!((first.status, bench.upstream.runs()), (201, 1), "{first:?}");
    bench.redis.process().resume();
    for (key, replays) in keys.map(|key| (key, false)).into_iter().chain([("first", true)]) {
        eventually(WITHIN, key, async || {
            let answer = bench.post("/orders", key, "", "{}").await;
            let is_right = answer.status == 201 && (replayed(&answer) || !replays);
            if is_right { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    assert_eq!(bench.upstream.runs(), 1 + keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_loses_the_record_while_the_upstream_runs() {
    let bench = bench(1).await;
    let waiting = running(&bench, "/orders", "k").await;
    bench.redis.command(&["FLUSHALL"]).await;
    bench.upstream.open();
    let first = waiting.await.expect("a task").expect("an answer");
    bench.reaches("orders", "recovered", 1).await;
    let again = bench.post("/orders", "k", "", "{}").await;
    assert!(replayed(&again), "{again:?}");
    assert_eq!(told(&again).2, told(&first).2);
    assert_eq!(bench.upstream.runs(), 1);
}

/// The honest line: between the loss and the answer nobody is kept from running.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_between_the_loss_and_the_answer_runs_again() {
    let bench = bench(1).await;
    let waiting = running(&bench, "/orders", "k").await;
    bench.redis.command(&["FLUSHALL"]).await;
    let second = bench.post("/orders", "k", "", "{}").await;
    assert_eq!((second.status, bench.upstream.runs()), (201, 2), "{second:?}");
    bench.upstream.open();
    let first = waiting.await.expect("a task").expect("an answer");
    assert_eq!(first.status, 201);
    let again = bench.post("/orders", "k", "", "{}").await;
    assert_eq!((told(&again).2, replayed(&again)), (told(&second).2, true), "who stored first");
    assert_eq!(bench.upstream.runs(), 2);
}

/// Slow is who stands still: as long as an owner is alive it locks its claim for longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_owner_ends_after_another_took_over() {
    let mut bench = bench(2).await;
    let waiting = running(&bench, "/again/pay", "k").await;
    bench.envoys[0].process().pause();
    // The claim's lock ends, and the policy lets a retry run.
    let second = eventually(WITHIN, "the lock's end", async || {
        let answer = client::post(bench.envoys[1].addr, "/again/pay", &lines("k", ""), "{}").await;
        if answer.status == 201 { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert_eq!((replayed(&second), bench.upstream.runs()), (false, 2));
    bench.upstream.open();
    bench.envoys[0].process().resume();
    let first = waiting.await.expect("a task").expect("an answer");
    assert_ne!(first.bytes, second.bytes, "each has what its own run made");
    bench.reaches("again", "fenced", 1).await;
    let again = bench.post("/again/pay", "k", "", "{}").await;
    assert_eq!((told(&again), replayed(&again)), (told(&second), true));
    assert_eq!(bench.upstream.runs(), 2);
}

/// The upstream takes longer than its policy says. Its key stays in flight, and nobody takes it over.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_takes_long_keeps_its_claim() {
    let bench = bench(2).await;
    let waiting = running(&bench, "/again/pay", "k").await;
    let other =
        async || client::post(bench.envoys[1].addr, "/again/pay", &lines("k", ""), "{}").await;
    // A lock of 5.1 s, longer by a third of it each time.
    for extended in 1..=4 {
        eventually(WITHIN, "it is locked for longer", async || {
            let counted = bench.counted("again", "extended").await;
            if counted >= extended { Ok(()) } else { Err(counted) }
        })
        .await;
        let answer = other().await;
        let reply = answer.header("x-tidegate-reply");
        assert_eq!((answer.status, reply), (409, Some("idempotency-in-flight")), "{answer:?}");
    }
    assert_eq!(bench.upstream.runs(), 1);
    bench.upstream.open();
    let first = waiting.await.expect("a task").expect("an answer");
    let again = other().await;
    assert_eq!((told(&again), replayed(&again)), (told(&first), true));
    assert_eq!((bench.upstream.runs(), bench.counted("again", "fenced").await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_started_again_at_once() {
    let mut bench = bench(1).await;
    let done = bench.post("/orders", "done", "", "{}").await;
    assert_eq!(done.status, 201, "{done:?}");
    let waiting = running(&bench, "/orders", "half").await;
    bench.redis.command(&["SAVE"]).await;
    bench.envoys[0].process().kill();
    bench.gateway.process().kill();
    bench.redis.restart().await;
    assert!(waiting.await.expect("a task").is_none());
    bench.upstream.open();
    let options = gateway::Options::redis(&bench.redis.url()).flags(&ROOMY);
    bench.gateway = Gateway::start(&options).await;
    let options =
        Options { concurrency: 2, ..Options::new(bench.gateway.addr, bench.upstream.addr) };
    bench.envoys = vec![Envoy::start(&options.config(CONFIG)).await];
    let again = bench.post("/orders", "done", "", "{}").await;
    assert_eq!((told(&again), replayed(&again)), (told(&done), true));
    until(&bench, 0, "/orders", "half", "idempotency-unknown-outcome").await;
    assert_eq!(bench.upstream.runs(), 2);
}
