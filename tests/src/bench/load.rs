//! Owns the curve of offered load: requests leave by a timetable, whatever became of the ones before
//! (an open loop), over HTTP/2 as Envoy asks. What was admitted, what was shed, and how long it took
//! from the moment that the timetable names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tidegate_policy::wire::DECIDE_PATH;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::envoy_rows::Effort;
use super::far::Far;
use super::pool::ROUND_TRIP;
use super::stats::{Figures, at_share, shuffle};
use super::{question, summary};
use crate::gateway::{self, Gateway, TOKEN};
use crate::redis::Redis;

const CONNECTIONS: u32 = 4;
/// Of what the gateway can do at most, in percent.
const STEPS: [u64; 7] = [25, 50, 75, 100, 125, 150, 200];
/// Callers that ask without a pause find out what that is; fewer than the bound, so nobody waits.
const EAGER: u32 = 90;
/// An answer that comes later is none. The store's breaker is off: after five answers that came too late it
/// would refuse everything for longer than a round lasts, and so for the steps that come next.
const PATIENCE: Duration = Duration::from_secs(5);

/// A column of the table, as it is called in the file.
const FIGURES: [&str; 7] = [
    "offered_per_s",
    "admitted_per_s",
    "shed_per_s",
    "failed_per_s",
    "admitted_p50_ms",
    "admitted_p99_ms",
    "shed_p99_ms",
];

/// Connections to one gateway.
struct Callers {
    connections: Vec<SendRequest<Bytes>>,
    to: SocketAddr,
    body: Bytes,
}

type Answers = Vec<(u16, Duration)>;

// === impl Callers ===

impl Callers {
    async fn connect(to: SocketAddr) -> Result<Arc<Self>, String> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let opened = h2::client::handshake(stream).await;
            let (connection, driver) = opened.map_err(|error| error.to_string())?;
            tokio::spawn(driver);
            connections.push(connection);
        }
        Ok(Arc::new(Self { connections, to, body: question::body(1).into() }))
    }

    async fn ask(&self, nth: u64) -> Result<u16, h2::Error> {
        let place = nth % u64::from(CONNECTIONS);
        let connection = &self.connections[usize::try_from(place).expect("small")];
        let mut send = connection.clone().ready().await?;
        let request = Request::post(format!("http://{}{DECIDE_PATH}", self.to))
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(())
            .expect("a sound head");
        let (answer, mut body) = send.send_request(request, false)?;
        body.send_data(self.body.clone(), true)?;
        let (head, mut body) = answer.await?.into_parts();
        while let Some(piece) = body.data().await {
            let len = piece?.len();
            body.flow_control().release_capacity(len)?;
        }
        Ok(head.status.as_u16())
    }

    /// The status, 0 without an answer, and how long it took from `due` on.
    async fn answer(self: Arc<Self>, nth: u64, due: Instant) -> (u16, Duration) {
        let status = match timeout(PATIENCE, self.ask(nth)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) | Err(_) => 0,
        };
        (status, due.elapsed())
    }

    /// Answers per second to callers that wait for theirs and ask again.
    async fn eager(self: &Arc<Self>, lasts: Duration) -> u64 {
        let begin = Instant::now();
        let mut callers = JoinSet::new();
        for caller in 0..EAGER {
            let all = Arc::clone(self);
            callers.spawn(async move {
                let mut admitted = 0;
                while begin.elapsed() < lasts {
                    let answer = Arc::clone(&all).answer(caller.into(), Instant::now()).await;
                    admitted += u64::from(answer.0 == 200);
                }
                admitted
            });
        }
        let admitted: u64 = callers.join_all().await.into_iter().sum();
        admitted / lasts.as_secs().max(1)
    }

    /// So many requests per second by the timetable.
    async fn offer(self: &Arc<Self>, per_s: u64, lasts: Duration) -> Answers {
        let begin = Instant::now();
        let mut calls = JoinSet::new();
        let mut sent = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        while begin.elapsed() < lasts {
            tick.tick().await;
            let passed_us = u64::try_from(begin.elapsed().as_micros()).expect("seconds");
            while sent < passed_us * per_s / 1_000_000 {
                let due = begin + Duration::from_micros(sent * 1_000_000 / per_s);
                calls.spawn(Arc::clone(self).answer(sent, due));
                sent += 1;
            }
        }
        calls.join_all().await
    }
}

/// Measures, prints the tables, writes `target/bench/load.json`.
pub async fn measure(effort: Effort) -> Result<(), String> {
    let redis = Redis::start().await;
    let far = Far::start(redis.socket(), ROUND_TRIP).await.map_err(|error| error.to_string())?;
    let mut told = Vec::new();
    for (name, url) in [("near", redis.url()), ("20 ms away", far.url())] {
        let flags = ["--dev", "--store-breaker-failures", "1000000000"];
        let gateway = Gateway::start(&gateway::Options::redis(&url).flags(&flags)).await;
        let callers = Callers::connect(gateway.addr).await?;
        let lasts = Duration::from_secs(effort.seconds.into());
        let most = callers.eager(lasts).await;
        println!(
            "\nRedis {name}; {EAGER} callers that wait for their answers get {most}/s; default bound and deadlines (100 in flight, pool wait 15 ms, deadline 30 ms), no breaker; {} rounds of {} s, shuffled, medians",
            effort.rounds, effort.seconds
        );
        for (step, figures) in curve(effort, gateway.addr, most).await? {
            let mut row: serde_json::Map<_, _> =
                FIGURES.iter().zip(&figures).map(|(k, f)| ((*k).to_owned(), f.json())).collect();
            row.insert("redis".to_owned(), name.into());
            row.insert("offered_percent".to_owned(), step.into());
            told.push(row);
        }
    }
    let path = summary::write("load", &told).map_err(|error| error.to_string())?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

async fn curve(
    effort: Effort,
    to: SocketAddr,
    most: u64,
) -> Result<Vec<(u64, [Figures; FIGURES.len()])>, String> {
    let mut rows: Vec<(u64, [Figures; FIGURES.len()])> =
        STEPS.into_iter().map(|step| (step, Default::default())).collect();
    let lasts = Duration::from_secs(effort.seconds.into());
    let mut seed = effort.seed;
    for round in 1..=effort.rounds {
        shuffle(&mut rows, &mut seed);
        for (step, figures) in &mut rows {
            // New ones each time: a server ends a connection whose client gave up too many requests.
            let callers = Callers::connect(to).await?;
            let answers = callers.offer((most * *step / 100).max(1), lasts).await;
            for (figure, seen) in figures.iter_mut().zip(seen(answers, lasts)) {
                figure.push(seen);
            }
        }
        eprint!("\r  round {round} of {}", effort.rounds);
    }
    eprintln!("\r");
    rows.sort_by_key(|(step, _)| *step);
    println!(
        "  {:>9} {:>10} {:>10} {:>8} {:>8} {:>12} {:>22} {:>10}",
        "offered %",
        "offered/s",
        "admitted/s",
        "shed/s",
        "failed/s",
        "p50 ms",
        "p99 ms",
        "shed p99"
    );
    for (step, [offered, admitted, shed, failed, p50, p99, shed_p99]) in &rows {
        let shed_p99 = match shed_p99.median() {
            nothing if nothing.is_nan() => "-".to_owned(),
            ms => format!("{ms:.1}"),
        };
        println!(
            "  {step:>9} {:>10.0} {:>10.0} {:>8.0} {:>8.0} {:>12.1} {:>22} {shed_p99:>10}",
            offered.median(),
            admitted.median(),
            shed.median(),
            failed.median(),
            p50.median(),
            p99.to_string(),
        );
    }
    Ok(rows)
}

/// In the order of [`FIGURES`].
fn seen(answers: Answers, lasts: Duration) -> [f64; FIGURES.len()] {
    let offered = answers.len();
    let mut took: [Vec<Duration>; 3] = Default::default();
    for (status, after) in answers {
        let place = match status {
            200 => 0,
            429 => 1,
            _ => 2,
        };
        took[place].push(after);
    }
    took.iter_mut().for_each(|took| took.sort_unstable());
    let per_s =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / lasts.as_secs_f64();
    let [admitted, shed, failed] = took;
    [
        per_s(offered),
        per_s(admitted.len()),
        per_s(shed.len()),
        per_s(failed.len()),
        at_share(&admitted, 50),
        at_share(&admitted, 99),
        at_share(&shed, 99),
    ]
}
