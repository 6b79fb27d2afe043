//! Owns the curve of offered load: requests leave by a timetable, whatever became of the ones before
//! (an open loop), over HTTP/2 as Envoy asks. What was admitted, what was shed, and how long it took
//! from the moment that the timetable names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_policy::wire::DECIDE_PATH;

use super::callers::{Connections, by_timetable, without_a_pause};
use super::envoy_rows::Effort;
use super::far::Far;
use super::pool::ROUND_TRIP;
use super::stats::{Figures, at_share, shuffle};
use super::{question, summary};
use crate::gateway::{self, Gateway};
use crate::redis::Redis;

/// Of what the gateway can do at most, in percent.
const STEPS: [u64; 7] = [25, 50, 75, 100, 125, 150, 200];
/// Callers that ask without a pause find out what that is; fewer than the bound, so nobody waits.
const EAGER: u32 = 90;
/// The store's breaker is off: after five answers that came too late it would refuse everything for longer than
/// a round lasts, and so for the steps that come next.
const NO_BREAKER: [&str; 3] = ["--dev", "--store-breaker-failures", "1000000000"];

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

type Answers = Vec<(u16, Duration)>;

/// Answers per second to callers that wait for theirs and ask again.
async fn eager(to: &Arc<Connections>, lasts: Duration) -> u64 {
    let to = Arc::clone(to);
    let admitted = without_a_pause(EAGER, lasts, move |caller| {
        let to = Arc::clone(&to);
        async move { ask(to, caller.into(), Instant::now()).await.0 == 200 }
    });
    admitted.await as u64
}

/// The status, 0 without an answer, and how long it took from `due` on.
async fn ask(to: Arc<Connections>, nth: u64, due: Instant) -> (u16, Duration) {
    let answer = to.post(nth, DECIDE_PATH, question::body(1).into()).await;
    (answer.map_or(0, |(status, _)| status), due.elapsed())
}

/// Measures, prints the tables, writes `target/bench/load.json`.
pub async fn measure(effort: Effort) -> Result<(), String> {
    let redis = Redis::start().await;
    let far = Far::start(redis.socket(), ROUND_TRIP).await.map_err(|error| error.to_string())?;
    let mut told = Vec::new();
    for (name, url) in [("near", redis.url()), ("20 ms away", far.url())] {
        let gateway = Gateway::start(&gateway::Options::redis(&url).flags(&NO_BREAKER)).await;
        let connections = Connections::open(gateway.addr).await?;
        let lasts = Duration::from_secs(effort.seconds.into());
        let most = eager(&connections, lasts).await;
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
            let connections = Connections::open(to).await?;
            let call = |nth, due| ask(Arc::clone(&connections), nth, due);
            let answers = by_timetable((most * *step / 100).max(1), lasts, call).await;
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
