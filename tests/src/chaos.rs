//! Owns the chaos table: faults of the gateway and of Redis behind a real Envoy with the shipped
//! deadlines, what clients saw meanwhile, when it was over, and what the metrics said. Measures and
//! prints; judges nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::client;
use crate::envoy::{self, Envoy};
use crate::faults::{Fault, Relay, Target};
use crate::gateway::{self, Gateway};
use crate::redis::Redis;
use crate::redis::cluster::RedisCluster;
use crate::redis::sentinel::Watched;
use crate::upstream::Upstream;

/// The three ways down, side by side. All limits are far away: what is refused, the fault refuses.
const CONFIG: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "token": {"env": "TIDEGATE_TOKEN"}},
  "local_share": {"fraction": "50%", "envoys": 1},
  "policies": [
    {"name": "share", "match": {"path": "/share"}, "rate_limits": [{"name": "ip", "by": "ip", "limit": 8, "per": "hour"}]},
    {"name": "deny", "match": {"path": "/deny"}, "on_unavailable": "deny", "rate_limits": [{"name": "ip", "by": "ip", "limit": 100000, "per": "hour"}]},
    {"name": "allow", "match": {"path": "/allow"}, "on_unavailable": "allow", "rate_limits": [{"name": "ip", "by": "ip", "limit": 100000, "per": "hour"}]}
  ]
}"#;
const PATHS: [&str; 3] = ["/share", "/deny", "/allow"];
/// A round is one request to each path.
const ROUND: Duration = Duration::from_millis(20);
/// In that time each client has its turn.
const TURNS: Duration = Duration::from_secs(1);
const FAULT_LASTS: Duration = Duration::from_secs(6);
const CLIENTS: usize = 50;
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// What is done, and what undoes it.
#[derive(Debug, Clone, Copy)]
enum Harm {
    GatewayKilled,
    GatewayStopped,
    GatewaySlow,
    GatewayCut,
    RedisKilled,
    RedisStopped,
    RedisSlow,
    RedisCut,
    RedisReplica,
    RedisFull,
    OneMasterKilled,
    OneMasterStopped,
    WatchedMasterKilled,
}

// === impl Harm ===

impl Harm {
    const ALL: [Self; 13] = [
        Self::GatewayKilled,
        Self::GatewayStopped,
        Self::GatewaySlow,
        Self::GatewayCut,
        Self::RedisKilled,
        Self::RedisStopped,
        Self::RedisSlow,
        Self::RedisCut,
        Self::RedisReplica,
        Self::RedisFull,
        Self::OneMasterKilled,
        Self::OneMasterStopped,
        Self::WatchedMasterKilled,
    ];

    fn text(self) -> &'static str {
        match self {
            Self::GatewayKilled => "gateway killed, started again",
            Self::GatewayStopped => "gateway stands still (SIGSTOP)",
            Self::GatewaySlow => "gateway answers after 200 ms",
            Self::GatewayCut => "connections to the gateway are cut",
            Self::RedisKilled => "Redis killed, started again",
            Self::RedisStopped => "Redis stands still (SIGSTOP)",
            Self::RedisSlow => "Redis answers after 200 ms",
            Self::RedisCut => "connections to Redis are cut",
            Self::RedisReplica => "Redis becomes a replica (read-only)",
            Self::RedisFull => "Redis is out of memory",
            Self::OneMasterKilled => "one of a Cluster's three masters killed",
            Self::OneMasterStopped => "one of a Cluster's three masters stands still (SIGSTOP)",
            Self::WatchedMasterKilled => "the master behind three Sentinels killed",
        }
    }
}

/// What the gateway keeps its state in.
enum Store {
    One { redis: Redis, way: Relay },
    Cluster(RedisCluster),
    Watched(Watched),
}

struct Stack {
    store: Store,
    gateway: Gateway,
    to_gateway: Relay,
    _upstream: Upstream,
    envoy: Envoy,
}

/// What one fault came to.
struct Row {
    harm: Harm,
    /// Statuses of each path while it lasted.
    seen: [BTreeMap<u16, usize>; 3],
    /// Requests that waited longer than half a callout's timeout.
    waited: usize,
    slowest_ms: u128,
    /// How long anybody was refused on the path that denies, where that ended while the fault lasted.
    refused: Option<Duration>,
    back_after: Option<Duration>,
    reasons: Vec<(String, u64)>,
}

// === impl Store ===

impl Store {
    async fn start(harm: Harm) -> Self {
        match harm {
            Harm::OneMasterKilled | Harm::OneMasterStopped => {
                let cluster = RedisCluster::start().await;
                cluster.fails_over_soon().await;
                Self::Cluster(cluster)
            }
            Harm::WatchedMasterKilled => {
                let watched = Watched::start().await;
                watched.fails_over_soon().await;
                Self::Watched(watched)
            }
            _ => {
                let redis = Redis::start().await;
                let way = Relay::start(Target::Unix(redis.socket())).await;
                Self::One { redis, way }
            }
        }
    }

    fn url(&self) -> String {
        match self {
            Self::One { way, .. } => format!("redis://{}", way.addr),
            Self::Cluster(cluster) => cluster.url(),
            Self::Watched(watched) => watched.url(),
        }
    }

    /// The server that faults are about: of a Cluster its first master.
    fn server(&mut self) -> &mut Redis {
        match self {
            Self::One { redis, .. } => redis,
            Self::Cluster(cluster) => &mut cluster.nodes[0],
            Self::Watched(watched) => &mut watched.master,
        }
    }

    fn way(&self, fault: Fault) {
        if let Self::One { way, .. } = self {
            way.set(fault);
        }
    }
}

// === impl Stack ===

impl Stack {
    async fn start(harm: Harm) -> Self {
        let store = Store::start(harm).await;
        let gateway = Gateway::start(&gateway_options(&store, "127.0.0.1:0")).await;
        let to_gateway = Relay::start(Target::Tcp(gateway.addr)).await;
        let upstream = Upstream::start().await;
        let options = envoy::Options::new(to_gateway.addr, upstream.addr);
        let envoy = Envoy::start(&options.config(CONFIG)).await;
        Self { store, gateway, to_gateway, _upstream: upstream, envoy }
    }

    async fn harm(&mut self, harm: Harm) {
        let slow = Fault::Delay(Duration::from_millis(100));
        match harm {
            Harm::GatewayKilled => self.gateway.process().kill(),
            Harm::GatewayStopped => self.gateway.signal(libc::SIGSTOP),
            Harm::GatewaySlow => self.to_gateway.set(slow),
            Harm::GatewayCut => self.to_gateway.set(Fault::Cut),
            Harm::RedisKilled | Harm::OneMasterKilled | Harm::WatchedMasterKilled => {
                self.store.server().process().kill();
            }
            Harm::RedisStopped | Harm::OneMasterStopped => {
                self.store.server().process().signal(libc::SIGSTOP);
            }
            Harm::RedisSlow => self.store.way(slow),
            Harm::RedisCut => self.store.way(Fault::Cut),
            Harm::RedisReplica => self.tell(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Harm::RedisFull => self.tell(&["CONFIG", "SET", "maxmemory", "1"]).await,
        }
    }

    async fn heal(&mut self, harm: Harm) {
        match harm {
            Harm::GatewayKilled => {
                let listen = self.gateway.addr.to_string();
                self.gateway = Gateway::start(&gateway_options(&self.store, &listen)).await;
            }
            Harm::GatewayStopped => self.gateway.signal(libc::SIGCONT),
            Harm::GatewaySlow | Harm::GatewayCut => self.to_gateway.set(Fault::None),
            Harm::RedisKilled => self.store.server().restart().await,
            Harm::RedisStopped | Harm::OneMasterStopped => {
                self.store.server().process().signal(libc::SIGCONT);
            }
            Harm::RedisSlow | Harm::RedisCut => self.store.way(Fault::None),
            // Its replica has taken over.
            Harm::OneMasterKilled | Harm::WatchedMasterKilled => {}
            Harm::RedisReplica => self.tell(&["REPLICAOF", "NO", "ONE"]).await,
            Harm::RedisFull => self.tell(&["CONFIG", "SET", "maxmemory", "0"]).await,
        }
    }

    async fn tell(&mut self, words: &[&str]) {
        let answer = self.store.server().command(words).await;
        assert!(answer.starts_with("+OK"), "{words:?}: {answer}");
    }

    /// One request to each path, from one of fifty clients.
    async fn round(&self, turn: usize) -> [(u16, Duration); 3] {
        let ask = async |path| {
            let start = Instant::now();
            let answer = client::get_from(self.envoy.addr, Some(client_of(turn)), path, "").await;
            (answer.status, start.elapsed())
        };
        let [share, deny, allow] = PATHS;
        [ask(share).await, ask(deny).await, ask(allow).await]
    }

    /// The reasons for which no verdict could be had, so far.
    async fn reasons(&self) -> BTreeMap<String, u64> {
        let all = self.envoy.metrics().await;
        let reason = |line: &str| {
            let rest = line.strip_prefix("tidegate_unavailable_total{reason=\"")?;
            let (reason, count) = rest.split_once("\"} ")?;
            Some((reason.to_owned(), count.trim().parse().ok()?))
        };
        all.lines().filter_map(reason).collect()
    }

    /// How long until the gateway decides again: each client's request of the path that denies is let through.
    async fn back(&self) -> Option<Duration> {
        let start = Instant::now();
        let mut pace = tokio::time::interval(ROUND);
        while start.elapsed() < BACK_WITHIN {
            pace.tick().await;
            if self.decides().await {
                return Some(start.elapsed());
            }
        }
        None
    }

    async fn decides(&self) -> bool {
        for turn in 0..CLIENTS {
            let from = Some(client_of(turn));
            if client::get_from(self.envoy.addr, from, "/deny", "").await.status != 200 {
                return false;
            }
        }
        true
    }

    async fn measure(&mut self, harm: Harm) -> Row {
        self.back().await;
        let before = self.reasons().await;
        let mut row = Row {
            harm,
            seen: [const { BTreeMap::new() }; 3],
            waited: 0,
            slowest_ms: 0,
            refused: None,
            back_after: None,
            reasons: Vec::new(),
        };
        self.harm(harm).await;
        let start = Instant::now();
        let mut turn = 0;
        let mut pace = tokio::time::interval(ROUND);
        let mut last_refused = Duration::ZERO;
        while start.elapsed() < FAULT_LASTS {
            pace.tick().await;
            let round = self.round(turn).await;
            let [_, (denies, _), _] = round;
            if denies != 200 {
                last_refused = start.elapsed();
            }
            for (seen, (status, took)) in row.seen.iter_mut().zip(round) {
                *seen.entry(status).or_default() += 1;
                row.waited += usize::from(took > Duration::from_millis(22));
                row.slowest_ms = row.slowest_ms.max(took.as_millis());
            }
            turn += 1;
        }
        let after = self.reasons().await;
        let grown = |(reason, count): (String, u64)| {
            let more = count - before.get(&reason).copied().unwrap_or(0);
            (more > 0).then_some((reason, more))
        };
        // Every client had two turns since.
        row.refused = (last_refused + 2 * TURNS < FAULT_LASTS).then_some(last_refused);
        row.reasons = after.into_iter().filter_map(grown).collect();
        self.heal(harm).await;
        row.back_after = self.back().await;
        row
    }
}

/// One of the clients.
fn client_of(turn: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 5, u8::try_from(turn % CLIENTS + 1).unwrap_or(1)))
}

fn gateway_options(store: &Store, listen: &str) -> gateway::Options {
    let mut options = gateway::Options::redis(&store.url());
    // As shipped, all of it.
    options.variables.clear();
    options.listen = listen.to_owned();
    options
}

// === impl Row ===

impl Row {
    fn line(&self) -> String {
        let statuses = |seen: &BTreeMap<u16, usize>| {
            let parts: Vec<_> = seen.iter().map(|(status, n)| format!("{status} x {n}")).collect();
            parts.join(", ")
        };
        let mut line = format!("| {} |", self.harm.text());
        for seen in &self.seen {
            write!(line, " {} |", statuses(seen)).expect("a string takes it");
        }
        let reasons: Vec<_> =
            self.reasons.iter().map(|(reason, n)| format!("`{reason}` {n}")).collect();
        let back = match (self.refused, self.back_after) {
            (Some(refused), Some(_)) => format!("{:.1} s of it", refused.as_secs_f64()),
            (None, Some(back)) => format!("{:.1} s", back.as_secs_f64()),
            (_, None) => "never".to_owned(),
        };
        write!(
            line,
            " {}, {} ms | {back} | {} |",
            self.waited,
            self.slowest_ms,
            reasons.join(", ")
        )
        .expect("a string takes it");
        line
    }
}

/// Measures every fault, each on parts of its own, and prints the table.
pub async fn table() {
    println!(
        "each fault lasts {} s; one request to each of three paths every {} ms, from {CLIENTS} clients",
        FAULT_LASTS.as_secs(),
        ROUND.as_millis()
    );
    println!(
        "| fault | local share, then deny | deny | allow | waited > 22 ms, longest | decided again after | why no verdict |"
    );
    println!("|---|---|---|---|---|---|---|");
    for harm in Harm::ALL {
        let mut stack = Stack::start(harm).await;
        println!("{}", stack.measure(harm).await.line());
    }
}
