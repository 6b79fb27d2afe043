//! Owns the report of outages: a real upstream dies, hangs, half fails and comes back behind three real Envoys, and
//! what each let through is counted where it was asked. Writes docs/outage.md and its plot; judges nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{interval, timeout_at};

use crate::client;
use crate::envoy::{Envoy, Options};
use crate::eventually;
use crate::gateway::{self, Gateway};
use crate::parts;
use crate::puppet::{Does, Puppet};
use crate::redis::Redis;

mod page;
mod plot;

/// Envoys, of two workers each.
const ENVOYS: usize = 3;
/// Requests per second to each of them, by a timetable.
const RATE: u32 = 40;
/// How often the region is asked where the breaker stands.
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of the report: what the upstream does, or what an operator ordered.
#[derive(Debug, Clone, Copy)]
struct Phase {
    text: &'static str,
    does: Does,
    order: Option<&'static str>,
    lasts: Duration,
}

const fn phase(text: &'static str, does: Does, lasts_s: u64) -> Phase {
    Phase { text, does, order: None, lasts: Duration::from_secs(lasts_s) }
}

const fn ordered(text: &'static str, order: &'static str, lasts_s: u64) -> Phase {
    Phase { text, does: Does::Works, order: Some(order), lasts: Duration::from_secs(lasts_s) }
}

/// The shipped numbers: open for 8 to 12 s.
const PHASES: [Phase; 9] = [
    phase("works", Does::Works, 10),
    phase("dies", Does::Dies, 20),
    phase("works again", Does::Works, 20),
    phase("hangs", Does::Hangs, 20),
    phase("works again", Does::Works, 20),
    phase("half fails", Does::HalfFails, 30),
    phase("works again", Does::Works, 20),
    ordered("forced open", "force_open", 5),
    ordered("reset", "reset", 5),
];

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It was let through and answered well.
    Well,
    /// It was let through, and failed.
    Failed,
    /// The breaker refused it.
    Refused,
}

/// One request; times since the beginning.
#[derive(Debug, Clone, Copy)]
struct Request {
    envoy: usize,
    sent: Duration,
    fate: Fate,
}

/// All that was seen.
#[derive(Debug, Default)]
struct Report {
    requests: Vec<Request>,
    /// When each phase began.
    began: Vec<Duration>,
    /// Where the region's breaker stood.
    states: Vec<(Duration, String)>,
    /// How many reached the upstream in each phase.
    reached: Vec<usize>,
}

// === impl Report ===

impl Report {
    fn ends(&self, phase: usize) -> Duration {
        self.began[phase] + PHASES[phase].lasts
    }

    /// The requests of an Envoy that were sent in a phase.
    fn of(&self, envoy: usize, phase: usize) -> impl Iterator<Item = &Request> {
        let within = self.began[phase]..self.ends(phase);
        self.requests.iter().filter(move |one| one.envoy == envoy && within.contains(&one.sent))
    }
}

/// Runs it and writes the page and the plot.
pub async fn run() -> io::Result<()> {
    let report = seen().await;
    let docs = parts::root().join("docs");
    fs::write(docs.join("outage.md"), page::page(&report))?;
    fs::write(docs.join("outage.svg"), plot::svg(&report))?;
    println!("{}", page::page(&report));
    Ok(())
}

fn options(gateway: SocketAddr, upstream: SocketAddr) -> Options {
    let config = json!({
        "version": 1,
        "gateway": {"cluster": "tidegate", "token": {"env": "TIDEGATE_TOKEN"}},
        "policies": [{"name": "p", "match": {"path": "/**"}, "circuit_breaker": {"upstream_timeout": "1s"}}],
    });
    let mut options = Options { concurrency: 2, ..Options::new(gateway, upstream) };
    let route = json!({"cluster": "upstream", "timeout": "1s"});
    options.example = Some(json!({"routes": [{"match": {"prefix": "/"}, "route": route}]}));
    options.config(&config.to_string())
}

async fn seen() -> Report {
    let redis = Redis::start().await;
    let gateway = Arc::new(Gateway::start(&gateway::Options::redis(&redis.url())).await);
    let upstream = Puppet::start(Does::Works).await;
    let mut envoys = Vec::new();
    for _ in 0..ENVOYS {
        envoys.push(Envoy::start(&options(gateway.addr, upstream.addr)).await);
    }
    for envoy in &envoys {
        eventually(PATIENCE, "it serves", async || {
            let answer = client::get(envoy.addr, "/").await;
            if answer.status == 200 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    let began = Instant::now();
    let (sender, mut fates) = unbounded_channel();
    let callers: Vec<_> = (0..ENVOYS)
        .map(|nth| tokio::spawn(ask(nth, envoys[nth].addr, began, sender.clone())))
        .collect();
    let looking = tokio::spawn(look(Arc::clone(&gateway), began));
    let mut report = Report::default();
    for phase in PHASES {
        upstream.now(phase.does);
        let before = upstream.seen();
        report.began.push(began.elapsed());
        if let Some(order) = phase.order {
            let order = format!(r#"{{"breaker": "p", "order": "{order}"}}"#);
            let told = gateway.command("/v1/breakers/order", &order).await;
            assert_eq!(told.status, 200, "{told:?}");
        }
        eprintln!("  {:>4.0} s  {}", began.elapsed().as_secs_f64(), phase.text);
        let end = *report.began.last().expect("just pushed") + phase.lasts;
        let over = timeout_at((began + end).into(), std::future::pending::<()>()).await;
        over.expect_err("nothing else ends a phase");
        report.reached.push(upstream.seen() - before);
    }
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    drop(sender);
    report.requests = drained(&mut fates).await;
    report.states = looking.await.expect("it ends with the last phase");
    report
}

async fn drained(fates: &mut UnboundedReceiver<Request>) -> Vec<Request> {
    let mut requests = Vec::new();
    while let Some(request) = fates.recv().await {
        requests.push(request);
    }
    requests.sort_by_key(|one| one.sent);
    requests
}

/// Requests by a timetable, whatever became of the ones before.
async fn ask(envoy: usize, addr: SocketAddr, began: Instant, fates: UnboundedSender<Request>) {
    let mut tick = interval(Duration::from_secs(1) / RATE);
    loop {
        tick.tick().await;
        let fates = fates.clone();
        tokio::spawn(async move {
            let sent = began.elapsed();
            let Some(answer) = client::try_get(addr, "/").await else { return };
            let fate = match answer.status {
                200 => Fate::Well,
                _ if answer.header("x-tidegate-reply") == Some("circuit-open") => Fate::Refused,
                _ => Fate::Failed,
            };
            // Nobody listens any more once the last phase is over.
            let _heard: Result<_, _> = fates.send(Request { envoy, sent, fate });
        });
    }
}

/// Where the region says that the breaker stands, each time that it is another state.
async fn look(gateway: Arc<Gateway>, began: Instant) -> Vec<(Duration, String)> {
    let all: Duration = PHASES.iter().map(|phase| phase.lasts).sum();
    let mut states: Vec<(Duration, String)> = Vec::new();
    let mut tick = interval(LOOK);
    while began.elapsed() < all {
        tick.tick().await;
        let at = began.elapsed();
        let listed = gateway.admin("/v1/breakers").await.json();
        let state = listed[0]["state"].as_str().unwrap_or("closed").to_owned();
        if states.last().is_none_or(|(_, last)| *last != state) {
            states.push((at, state));
        }
    }
    states
}
