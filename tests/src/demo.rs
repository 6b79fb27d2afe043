//! Owns what the demo shows: a list of steps, each a real request with what it has to answer. A
//! step that answers otherwise is said so, and the demo fails.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::client::{self, Answer};
use crate::envoy::{self, Envoy};
use crate::gateway::{self, Gateway};
use crate::redis::Redis;
use crate::upstream::Upstream;
use crate::{eventually, parts};

/// Recovery after a fault; each takes a second or two.
const BACK_WITHIN: Duration = Duration::from_secs(40);
const PATH: &str = "/api/hello";

/// The addresses of the demo's parts; port 0 is any free one.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Envoy's listener.
    pub envoy: u16,
    /// Envoy's admin.
    pub envoy_admin: u16,
    /// The gateway's listener.
    pub gateway: u16,
    /// The gateway's admin listener.
    pub gateway_admin: u16,
}

/// The demo's parts, running.
#[derive(Debug)]
pub struct Stack {
    /// Redis, if the gateway's state lies there.
    pub redis: Option<Redis>,
    /// The gateway.
    pub gateway: Gateway,
    /// The upstream.
    pub upstream: Upstream,
    /// Envoy with the filter.
    pub envoy: Envoy,
    ports: Ports,
}

// === impl Stack ===

impl Stack {
    /// Starts every part; `Err` says which one would not start.
    pub async fn start(ports: Ports, with_redis: bool) -> Result<Self, String> {
        let redis = if with_redis { Some(Redis::start().await) } else { None };
        let gateway = Gateway::try_start(&gateway_options(ports, redis.as_ref())).await?;
        let upstream = Upstream::start().await;
        let mut options = envoy::Options::new(gateway.addr, upstream.addr);
        options.listen = local(ports.envoy);
        options.admin_port = ports.envoy_admin;
        // As shipped.
        options.gateway_connect_timeout = "0.030s";
        let envoy = Envoy::try_start(&options).await?;
        Ok(Self { redis, gateway, upstream, envoy, ports })
    }

    async fn get(&self, from: Option<IpAddr>, path: &str) -> Answer {
        client::get_from(self.envoy.addr, from, path, "").await
    }
}

fn gateway_options(ports: Ports, redis: Option<&Redis>) -> gateway::Options {
    let mut options = gateway::Options::memory();
    // As shipped, all of it.
    options.variables.clear();
    options.redis_url = redis.map(Redis::url);
    options.listen = local(ports.gateway);
    options.admin_listen = local(ports.gateway_admin);
    options.flags(&["--dev"])
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// What was shown and what of it went as expected.
#[derive(Debug, Default)]
struct Tally {
    shown: usize,
    expected: usize,
}

// === impl Tally ===

impl Tally {
    fn line(&mut self, what: &str, answer: &Answer, expected: bool) {
        self.shown += 1;
        self.expected += usize::from(expected);
        let mut line = format!("    {:<4} GET {what:<38} {}", self.shown, answer.status);
        if let Some(reason) = answer.header("x-tidegate-reply") {
            write!(line, "  {reason}").expect("a string takes it");
        }
        if let Some(seconds) = answer.header("retry-after") {
            write!(line, ", Retry-After {seconds}").expect("a string takes it");
        }
        if !expected {
            write!(line, "   NOT AS EXPECTED: {answer:?}").expect("a string takes it");
        }
        println!("{line}");
    }
}

/// Shows the main job with Redis and with the store in memory; tells whether all went as expected.
pub async fn show(ports: Ports) -> Result<bool, String> {
    let mut tally = Tally::default();
    let mut stack = Stack::start(ports, true).await?;
    up(&stack, "Redis");
    limit(&stack, &mut tally).await;
    redis_stopped(&mut stack, &mut tally).await;
    gateway_gone(&mut stack, &mut tally).await?;
    drop(stack);

    let stack = Stack::start(ports, false).await?;
    up(&stack, "memory");
    limit(&stack, &mut tally).await;
    println!(
        "\n  {} of {} as expected.   make run keeps it up; then: curl -i http://127.0.0.1:{}{PATH}",
        tally.expected,
        tally.shown,
        run_port()
    );
    Ok(tally.expected == tally.shown)
}

/// Where `make run` listens.
fn run_port() -> String {
    std::env::var("PORT").unwrap_or_else(|_| "10000".to_owned())
}

/// Says where everything is.
pub fn up(stack: &Stack, store: &str) {
    println!(
        "\n  up         Envoy {} → tidegate.wasm → gateway {} → {store};  upstream {}",
        stack.envoy.addr, stack.gateway.addr, stack.upstream.addr
    );
    if stack.redis.is_some() {
        println!(
            "             its region was declared warm: a new one admits half of each limit for five minutes"
        );
    }
}

/// Five a minute for each client: five pass, the sixth is told when to come again.
async fn limit(stack: &Stack, tally: &mut Tally) {
    println!("\n  limit api.per-client: 5 per minute");
    // The first callout of a fresh Envoy opens its connection, which may take longer than the 30 ms
    // that an operator's cluster allows: it is refused then, and must not count as the first of five.
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    eventually(BACK_WITHIN, "the first decision", async || {
        let answer = stack.get(Some(other), PATH).await;
        if answer.status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    for _ in 0..5 {
        let answer = stack.get(None, PATH).await;
        tally.line(PATH, &answer, answer.status == 200);
    }
    let answer = stack.get(None, PATH).await;
    let told = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    let refused = answer.status == 429 && told.is_some_and(|seconds| (1..=14).contains(&seconds));
    tally.line(PATH, &answer, refused);
    println!("         {}", answer.body);
    let another = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let answer = stack.get(Some(another), PATH).await;
    tally.line("/api/hello  (another client)", &answer, answer.status == 200);
    let answer = stack.get(None, "/elsewhere").await;
    tally.line("/elsewhere  (no policy)", &answer, answer.status == 200);
}

/// A store that hangs costs nobody more than the callout's timeout, and comes back by itself.
async fn redis_stopped(stack: &mut Stack, tally: &mut Tally) {
    let Some(redis) = stack.redis.as_mut() else { return };
    println!("\n  Redis stopped (SIGSTOP); the policy says: on_unavailable deny");
    redis.process().signal(libc::SIGSTOP);
    let answer = stack.get(None, PATH).await;
    tally.line(PATH, &answer, answer.status == 503);
    if let Some(redis) = stack.redis.as_mut() {
        println!("  Redis goes on");
        redis.process().signal(libc::SIGCONT);
    }
    back(stack, tally).await;
}

/// The limit is used up or not; what counts is that it is decided again.
async fn back(stack: &Stack, tally: &mut Tally) {
    let answer = eventually(BACK_WITHIN, "decisions are back", async || {
        let answer = stack.get(None, PATH).await;
        if answer.status == 503 { Err(answer) } else { Ok(answer) }
    })
    .await;
    tally.line(PATH, &answer, [200, 429].contains(&answer.status));
}

async fn gateway_gone(stack: &mut Stack, tally: &mut Tally) -> Result<(), String> {
    println!("\n  gateway killed");
    let at = stack.gateway.addr.port();
    stack.gateway.process().kill();
    let answer = stack.get(None, PATH).await;
    tally.line(PATH, &answer, answer.status == 503);
    println!("  gateway started again");
    let ports = Ports { gateway: at, ..stack.ports };
    stack.gateway = Gateway::try_start(&gateway_options(ports, stack.redis.as_ref())).await?;
    back(stack, tally).await;
    Ok(())
}

/// The size of the shipped filter, in KiB.
pub fn filter_kib() -> u64 {
    let file = parts::filter("tidegate");
    std::fs::metadata(file).map(|data| data.len() / 1024).unwrap_or_default()
}
