//! Leased limits, counted at the upstream: two Envoys with two workers each, one gateway, one Redis, and
//! what happens to them in the middle. Units may be lost with whoever held them; none is ever made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_tests::client;
use tidegate_tests::envoy::{Envoy, Options};
use tidegate_tests::eventually;
use tidegate_tests::gateway::{self, Gateway};
use tidegate_tests::redis::Redis;
use tidegate_tests::upstream::Upstream;

const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: usize = 2_000;
const CLIENTS: usize = 48;
/// `day`: refills so slowly that nothing comes back while the test runs. `second`: refills all the time.
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}, "breaker": {"open": "200ms"}},
  "policies": [
    {"name": "day", "match": {"path": "/day"}, "on_unavailable": ["lease", "deny"],
     "rate_limits": [{"name": "key", "by": {"header": "x-key", "trusted": true}, "limit": 2000, "per": "day", "decide": "lease"}]},
    {"name": "second", "match": {"path": "/second"}, "on_unavailable": ["lease", "deny"],
     "rate_limits": [{"name": "key", "by": {"header": "x-key", "trusted": true}, "limit": 200, "per": "1s", "decide": "lease"}]}
  ]
}"#;

struct Mesh {
    redis: Redis,
    gateway: Gateway,
    upstream: Upstream,
    envoys: Vec<Envoy>,
    options: Options,
}

/// Clients that ask both Envoys until they are told to end.
struct Flood {
    ends: Arc<AtomicBool>,
    answers: Arc<[AtomicUsize; 3]>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

async fn mesh() -> Mesh {
    let redis = Redis::start().await;
    let roomy = ["--deadline", "4s", "--pool-wait", "3s", "--redis-response-timeout", "4s"];
    let options = gateway::Options::redis(&redis.url()).flags(&roomy);
    let gateway = Gateway::start(&options).await;
    let upstream = Upstream::start().await;
    let options = Options {
        concurrency: 2,
        dynamic: true,
        access_log: false,
        ..Options::new(gateway.addr, upstream.addr)
    }
    .config(CONFIG);
    let envoys = vec![Envoy::start(&options).await, Envoy::start(&options).await];
    Mesh { redis, gateway, upstream, envoys, options }
}

async fn ask(to: SocketAddr, path: &str, key: &str) -> Option<u16> {
    let request = client::get_request(path, &format!("x-key: {key}\r\n"));
    let mut stream = client::connect(to, None).await.ok()?;
    Some(client::try_raw(&mut stream, request.as_bytes()).await.ok()?.status)
}

impl Mesh {
    fn flood(&self, path: &'static str, key: &'static str) -> Flood {
        let ends = Arc::new(AtomicBool::new(false));
        let answers = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let addresses: Vec<SocketAddr> = self.envoys.iter().map(|envoy| envoy.addr).collect();
        let client = |number: usize| {
            let (ends, answers) = (Arc::clone(&ends), Arc::clone(&answers));
            let to = addresses[number % addresses.len()];
            tokio::spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    let nth = match ask(to, path, key).await {
                        Some(200) => 0,
                        Some(429) => 1,
                        // Envoy or gateway are away: refused, or nobody there.
                        Some(_) | None => 2,
                    };
                    answers[nth].fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Flood { ends, answers, clients }
    }

    /// What Envoys held of leased units so far, as their holders count it.
    async fn granted(&self) -> u64 {
        let mut sum = 0;
        for envoy in &self.envoys {
            sum += envoy.metric("tidegate_lease_units_granted_total{}").await;
        }
        sum
    }
}

impl Flood {
    fn count(&self, nth: usize) -> usize {
        self.answers[nth].load(Ordering::Relaxed)
    }

    /// So many more answers of a kind: 0 admitted, 1 denied, 2 neither.
    async fn goes_on(&self, nth: usize, by: usize) {
        let until = self.count(nth) + by;
        eventually(PATIENCE, "the flood goes on", async || {
            let count = self.count(nth);
            if count >= until { Ok(()) } else { Err((nth, count, until)) }
        })
        .await;
    }

    /// Goes on until so many in a row are denied: there is nothing left to be had.
    async fn ebbs(self) {
        self.goes_on(1, 2_000).await;
        self.ends.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client that ends");
        }
    }
}

/// As the upstream counts: no more than the limit, and not much less.
fn held(name: &str, seen: usize, least: usize, most: usize) {
    println!("{name}: {seen} of {most} reached the upstream");
    assert!(seen <= most, "{name}: {seen} of {most}: overshoot {}", seen - most);
    assert!(seen >= least, "{name}: {seen} of {most}, at least {least}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_never_admit_more_than_what_is_leased() {
    let mut mesh = mesh().await;

    // Calm: all of it is spent, and most of it was leased.
    let before = mesh.upstream.seen();
    mesh.flood("/day", "calm").ebbs().await;
    held("calm", mesh.upstream.seen() - before, LIMIT * 80 / 100, LIMIT);
    let granted = mesh.granted().await;
    assert!(granted >= 500, "decided inside Envoy: {granted} of {LIMIT}");

    // An Envoy dies with what it holds, and another one comes.
    let before = mesh.upstream.seen();
    let flood = mesh.flood("/day", "killed");
    flood.goes_on(0, 400).await;
    mesh.envoys[1].process().kill();
    flood.goes_on(2, 1).await;
    mesh.envoys[1] = Envoy::start(&mesh.options).await;
    let other = mesh.flood("/day", "killed");
    flood.ebbs().await;
    other.ebbs().await;
    held("an Envoy killed", mesh.upstream.seen() - before, LIMIT / 2, LIMIT);

    // The gateway stands still, and goes on.
    let before = mesh.upstream.seen();
    let flood = mesh.flood("/day", "stopped");
    flood.goes_on(0, 300).await;
    mesh.gateway.signal(libc::SIGSTOP);
    flood.goes_on(2, 50).await;
    mesh.gateway.signal(libc::SIGCONT);
    flood.ebbs().await;
    held("the gateway stopped", mesh.upstream.seen() - before, LIMIT / 2, LIMIT);

    // The same filter with another configuration, again and again: old roots and new ones side by side.
    let before = mesh.upstream.seen();
    let flood = mesh.flood("/day", "updated");
    for turn in 0..3 {
        flood.goes_on(0, 200).await;
        let config = CONFIG.replace("\"open\": \"200ms\"", &format!("\"open\": \"{turn}11ms\""));
        let config = config.replace("\"open\": \"011ms\"", "\"open\": \"311ms\"");
        for envoy in &mesh.envoys {
            envoy.update(&mesh.options.clone().config(&config));
        }
        eventually(PATIENCE, "both took the update", async || {
            for envoy in &mesh.envoys {
                let updates = client::get(envoy.admin, "/stats?filter=lds.update_success").await;
                if !updates.body.contains(&format!("update_success: {}", turn + 2)) {
                    return Err(updates);
                }
            }
            Ok(())
        })
        .await;
    }
    flood.ebbs().await;
    held("the configuration updated", mesh.upstream.seen() - before, LIMIT / 2, LIMIT);

    // Redis loses its memory: what it admits then is a cold region's half.
    let before = mesh.upstream.seen();
    let flood = mesh.flood("/day", "flushed");
    flood.goes_on(0, 400).await;
    let reply = mesh.redis.command(&["FLUSHALL"]).await;
    assert!(reply.starts_with("+OK"), "{reply}");
    flood.ebbs().await;
    held("Redis flushed", mesh.upstream.seen() - before, LIMIT / 4, LIMIT + LIMIT / 2);
    // Who is denied inside Envoy hears why, as from the gateway.
    for envoy in mesh.envoys.iter().cycle().take(8) {
        let denied = client::get_from(envoy.addr, None, "/day", "x-key: flushed\r\n").await;
        let problem = denied.json();
        let kind = problem["type"].as_str().expect("a problem's type").to_owned();
        assert!(kind.ends_with("temporary-reduced-capacity"), "{}", denied.body);
        assert_eq!(denied.header("ratelimit-policy"), Some("\"day.key\";q=1000;w=86400"));
    }
    mesh.gateway.declare("warm").await;

    // What refills while it is spent: never above burst and rate.
    let (before, began) = (mesh.upstream.seen(), Instant::now());
    mesh.flood("/second", "refilled").ebbs().await;
    let most = 200.0 * (1.0 + began.elapsed().as_secs_f64());
    held("refilled", mesh.upstream.seen() - before, 200, most as usize);
    for envoy in &mesh.envoys {
        assert!(!envoy.output().contains("wasm_fail_stream"), "{}", envoy.output());
    }
}
