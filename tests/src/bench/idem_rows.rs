//! Owns what idempotency costs: begin and complete against SET of the same size, inside Redis and through the
//! gateway (closed loop), at the gateway by a timetable, and a POST of 1 KiB through Envoy with a key
//! against the same without.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_policy::idempotency::endpoint::Endpoint;
use tidegate_policy::idempotency::fingerprint::{HashRule, Head, RequestHasher};
use tidegate_policy::idempotency::key::IdempotencyKey;
use tidegate_policy::idempotency::stored::{HeaderRule, StoredAnswer};
use tidegate_policy::scope::{CallerScope, Environment, KeyFormat, Tenant, TenantId};
use tidegate_policy::wire::{
    self, AnswerHead, ClaimCall, DECIDE_PATH, DecideRequest, DecisionId, Finish, FinishBy, Keyed,
    SETTLE_PATH, SettleRequest,
};

use super::callers::{Connections, by_timetable, without_a_pause};
use super::envoy_rows::Effort;
use super::stats::{Figures, at_share, shuffle};
use super::summary::Summary;
use super::{question, redis_rows, wrk};
use crate::envoy::{Envoy, Options};
use crate::gateway::{self, Gateway};
use crate::orders::Orders;
use crate::parts;
use crate::redis::Redis;

/// Callers that wait for their answers.
const CALLERS: u32 = 50;
/// Pairs of begin and complete, by the timetable.
const OFFERED_PER_S: u64 = 5_000;
const BODY: usize = 1024;
const PAIRS: usize = 8;
const LIFE_S: u32 = 86_400;
const ROOMY: [&str; 5] = ["--dev", "--deadline", "2s", "--pool-wait", "1s"];

/// Measures, prints, adds to the summary.
pub async fn measure(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    inside_redis(summary).await?;
    at_the_gateway(effort, summary).await?;
    through_envoy(effort, summary).await
}

async fn inside_redis(summary: &mut Summary) -> Result<(), String> {
    let redis = Redis::start_with_tcp().await;
    let text = std::fs::read_to_string(parts::root().join("lua/idem_begin.lua"));
    let reply = redis.command(&["SCRIPT", "LOAD", &text.map_err(|e| e.to_string())?]).await;
    let sha = reply.lines().nth(1).ok_or(format!("SCRIPT LOAD said {reply}"))?.to_owned();
    let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect();
    // A key and an owner of its own each time; a record in flight has 70 octets.
    let key = "idempotency:tenant:bench:ep:POST%20%2Fv1%2Forders:__rand_int__";
    let (hash, record) = ("h".repeat(32), "r".repeat(70));
    let life = "86400000";
    let begin: Vec<Vec<u8>> =
        words(&["EVALSHA", &sha, "1", key, "0", "own-__rand_int__", &hash, "15000000", life, "0"]);
    let set: Vec<Vec<u8>> = words(&["SET", key, &record, "PX", life]);
    println!(
        "\nRedis, redis-benchmark -c 50 over TCP, {PAIRS} interleaved pairs, ratio to SET of 70 octets"
    );
    for (name, words) in [("idem_begin_in_redis_vs_set", &begin), ("set_in_redis_aa", &set)] {
        let mut ratio = Figures::default();
        for _ in 0..PAIRS {
            // Each on an empty store; what SET wrote is no record.
            redis.command(&["FLUSHALL"]).await;
            let base = redis_rows::once(&redis, &set, 1).await?;
            redis.command(&["FLUSHALL"]).await;
            ratio.push(redis_rows::once(&redis, words, 1).await? / base);
        }
        println!("  {name:<32} {ratio}");
        summary.set(name, ratio.median());
    }
    Ok(())
}

/// Connections to one gateway, and claims that nobody else makes.
struct Callers {
    connections: Arc<Connections>,
    next: AtomicU64,
}

// === impl Callers ===

impl Callers {
    async fn connect(to: SocketAddr) -> Result<Arc<Self>, String> {
        let connections = Connections::open(to).await?;
        Ok(Arc::new(Self { connections, next: AtomicU64::new(1) }))
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// If it was answered well, how long that took from `due` on.
    async fn timed(&self, nth: u64, path: &str, sent: Vec<u8>, due: Instant) -> Option<Duration> {
        let (status, body) = self.connections.post(nth, path, sent.into()).await?;
        let took = due.elapsed();
        let text = String::from_utf8_lossy(&body);
        let done = path == DECIDE_PATH || text.contains("\"stored\"");
        let claimed = path == SETTLE_PATH || !text.contains("\"in_flight\"");
        (status == 200 && done && claimed).then_some(took)
    }

    /// Pairs by the timetable: how long the begins took, the completes, and how many failed.
    async fn offer(self: &Arc<Self>, lasts: Duration) -> (Vec<Duration>, Vec<Duration>, usize) {
        let pairs = by_timetable(OFFERED_PER_S, lasts, |_, due| {
            let all = Arc::clone(self);
            async move {
                let nth = all.next();
                let begun = all.timed(nth, DECIDE_PATH, claim(nth), due).await?;
                let ended = all.timed(nth, SETTLE_PATH, complete(nth), Instant::now()).await?;
                Some((begun, ended))
            }
        });
        let all = pairs.await;
        let failed = all.iter().filter(|pair| pair.is_none()).count();
        let (mut begun, mut ended): (Vec<_>, Vec<_>) = all.into_iter().flatten().unzip();
        begun.sort_unstable();
        ended.sort_unstable();
        (begun, ended, failed)
    }

    /// Rounds per second of callers that wait for their answers and ask again.
    async fn eager(self: &Arc<Self>, lasts: Duration, round: Round) -> f64 {
        let all = Arc::clone(self);
        without_a_pause(CALLERS, lasts, move |caller| {
            let all = Arc::clone(&all);
            async move {
                let nth = all.next();
                let sent = match round {
                    Round::Decision => question::body(caller),
                    Round::Begin | Round::Both => claim(nth),
                };
                let now = Instant::now();
                let is_begun = all.timed(nth, DECIDE_PATH, sent, now).await.is_some();
                if !is_begun || !matches!(round, Round::Both) {
                    return is_begun;
                }
                all.timed(nth, SETTLE_PATH, complete(nth), now).await.is_some()
            }
        })
        .await
    }
}

/// What a caller does before it begins again.
#[derive(Clone, Copy)]
enum Round {
    Decision,
    Begin,
    /// Begin and complete.
    Both,
}

/// A gateway with a Redis of its own.
struct Side {
    redis: Redis,
    _gateway: Gateway,
    callers: Arc<Callers>,
}

impl Side {
    async fn start(program: Option<PathBuf>) -> Result<Self, String> {
        let redis = Redis::start_with_tcp().await;
        let url = format!("redis://127.0.0.1:{}", redis.tcp_port());
        let options = gateway::Options::redis(&url).flags(&ROOMY);
        let gateway = Gateway::start(&gateway::Options { program, ..options }).await;
        let callers = Callers::connect(gateway.addr).await?;
        Ok(Self { redis, _gateway: gateway, callers })
    }
}

async fn at_the_gateway(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    // The second one is the same program with SET in place of the scripts of claims.
    let sides = [Side::start(None).await?, Side::start(Some(parts::plain_gateway())).await?];
    let [scripts, plain] = [0, 1];
    let rows = [
        (plain, Round::Begin),
        (plain, Round::Begin),
        (scripts, Round::Begin),
        (plain, Round::Both),
        (scripts, Round::Both),
        (scripts, Round::Decision),
    ];
    let lasts = Duration::from_secs(effort.seconds.into());
    println!(
        "\nclaims at the gateway over HTTP/2, {} rounds of {} s, shuffled: {CALLERS} callers that wait, ÷ the same through the same gateway with SET in place of scripts; {OFFERED_PER_S}/s by a timetable, answers of {BODY} octets",
        effort.rounds, effort.seconds
    );
    let mut rates: [Figures; 6] = Default::default();
    let offered = [scripts, plain];
    let mut p99: [[Figures; 2]; 2] = Default::default();
    let mut failures = 0;
    let mut order: Vec<usize> = (0..rows.len() + offered.len()).collect();
    let mut seed = effort.seed;
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            match rows.get(row) {
                None => {
                    let which = row - rows.len();
                    let callers = &sides[offered[which]].callers;
                    let (begun, ended, failed) = callers.offer(lasts).await;
                    if round > 0 {
                        failures += failed;
                        p99[which][0].push(at_share(&begun, 99));
                        p99[which][1].push(at_share(&ended, 99));
                    }
                }
                Some((side, what)) => {
                    let rate = sides[*side].callers.eager(lasts, *what).await;
                    if round > 0 {
                        rates[row].push(rate);
                    }
                }
            }
            // Records live for a day.
            for side in &sides {
                side.redis.command(&["FLUSHALL"]).await;
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    for (row, base, name) in [
        (1, 0, "set_aa"),
        (2, 0, "idem_begin_vs_set"),
        (4, 3, "idem_begin_and_complete_vs_sets"),
        (2, 5, "idem_begin_vs_decide"),
    ] {
        let ratio = rates[row].over(&rates[base]);
        println!("  {name:<32} {ratio}");
        summary.set(name, ratio.median());
    }
    let names = ["idem_begin_p99_ms", "idem_complete_p99_ms", "set_p99_ms", "second_set_p99_ms"];
    for (figures, name) in p99.iter().flatten().zip(names) {
        println!("  {name:<32} {figures}");
        summary.set(name, figures.median());
    }
    println!("  pairs that failed: {failures}");
    Ok(())
}

async fn through_envoy(effort: Effort, summary: &mut Summary) -> Result<(), String> {
    const CONFIG: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate", "timeout": "5s", "token": {"env": "TIDEGATE_TOKEN"}},
        "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
        "policies": [{"name": "keyed", "match": {"path": "/keyed"},
          "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}}]}"#;
    const WAITING: u32 = 16;
    let redis = Redis::start_with_tcp().await;
    let url = format!("redis://127.0.0.1:{}", redis.tcp_port());
    let gateway = Gateway::start(&gateway::Options::redis(&url).flags(&ROOMY)).await;
    let upstream = Orders::start().await;
    let mut options = Options::new(gateway.addr, upstream.addr).config(CONFIG);
    options.access_log = false;
    let envoy = Envoy::start(&options).await;
    println!(
        "\na POST of {BODY} octets through Envoy to an upstream, wrk -t1 -c{WAITING}, {} rounds of {} s, shuffled: with a key of its own each time, and of no policy",
        effort.rounds, effort.seconds
    );
    let rows = ["/plain", "/plain_again", "/keyed"];
    let mut times: [[Figures; 2]; 3] = Default::default();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut seed = effort.seed;
    for round in 0..=effort.rounds {
        shuffle(&mut order, &mut seed);
        for &row in &order {
            let prefix = format!("{row}-{round}");
            let (load, taken) =
                wrk::keyed(envoy.addr, rows[row], &prefix, BODY, WAITING, effort.seconds).await?;
            load.served(rows[row])?;
            if round > 0 {
                times[row].iter_mut().zip(taken).for_each(|(figures, ms)| figures.push(ms));
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    for (share, name) in ["p50", "p99"].into_iter().enumerate() {
        for (row, key) in [(1, "post_aa"), (2, "idempotent_post")] {
            let ratio = times[row][share].over(&times[0][share]);
            println!("  {key:<18} {name} {ratio} of the plain one, {} ms", times[row][share]);
            summary.set(format!("{key}_{name}_vs_plain"), ratio.median());
            summary.set(format!("{key}_{name}_ms"), times[row][share].median());
        }
    }
    Ok(())
}

fn scope() -> CallerScope {
    CallerScope {
        region: None,
        environment: Environment::default(),
        tenant: Tenant::Named(TenantId::new("bench").expect("a tenant")),
        key_format: KeyFormat::default(),
    }
}

fn keyed(nth: u64) -> Keyed {
    let head = Head { authority: None, method: b"POST", target: b"/v1/orders", content_type: None };
    let hasher = RequestHasher::new(&head, None, HashRule::default()).expect("no body");
    Keyed {
        key: IdempotencyKey::new(&format!("8e03978e-40d5-43e8-bc93-{nth:012}")).expect("a key"),
        endpoint: Endpoint::of(b"POST", b"/v1/orders", None).expect("an endpoint"),
        hash: hasher.finish(),
    }
}

fn claim(nth: u64) -> Vec<u8> {
    wire::encode(&DecideRequest {
        claim: Some(ClaimCall {
            keyed: keyed(nth),
            lock_ms: 15_000,
            life_s: LIFE_S,
            takeover: false,
            look: false,
            older_keys: false,
            ephemeral: false,
            replicas: None,
        }),
        leases: Vec::new(),
        v: wire::VERSION,
        id: DecisionId::new(nth.into()),
        scope: scope(),
        timeout_ms: 5_000,
        traceparent: None,
        request_id: None,
        limits: Vec::new(),
    })
}

fn complete(nth: u64) -> Vec<u8> {
    let headers: [(&[u8], &[u8]); 1] = [(b"content-type", b"application/json")];
    let headers = HeaderRule::default().kept(headers).expect("few");
    let answer = StoredAnswer { status: 201, headers, body: Some(vec![b'x'; BODY]) };
    let (answer, octets) = AnswerHead::of(&answer).expect("short");
    let by = FinishBy::Complete { answer, life_s: LIFE_S };
    let message = SettleRequest {
        v: wire::VERSION,
        id: DecisionId::new(nth.into()),
        scope: scope(),
        timeout_ms: 5_000,
        age_us: 0,
        traceparent: None,
        request_id: None,
        adjustments: Vec::new(),
        finish: Some(Finish { keyed: keyed(nth), fence: 1, by }),
        octets: Vec::new(),
    };
    wire::encode_framed(&message, &octets)
}
