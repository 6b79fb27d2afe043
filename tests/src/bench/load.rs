//! Owns the curve of offered load: requests leave by a timetable, whatever became of the ones before
//! (an open loop), over HTTP/2 as Envoy asks. What was admitted, what was shed, and how long it took
//! from the moment that the timetable names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_policy::reason::Reason;
use tidegate_policy::wire::{DECIDE_PATH, Refusal};

use super::callers::{Connections, by_timetable, without_a_pause};
use super::envoy_rows::Effort;
use super::far::Far;
use super::stats::{Figures, at_share, shuffle};
use super::{question, summary};
use crate::gateway::{self, Gateway};
use crate::redis::Redis;

/// Of what the gateway can do at most, in percent.
const STEPS: [u64; 7] = [25, 50, 75, 100, 125, 150, 200];
/// Callers that ask without a pause find out what that is; fewer than the bound, so nobody waits.
const EAGER: u32 = 90;
/// As long as a filter waits unless told.
const PATIENCE: Duration = Duration::from_millis(45);
/// Far, and well within the deadline.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// A column of the table, as it is called in the file.
const FIGURES: [&str; 9] = [
    "offered_per_s",
    "admitted_per_s",
    "shed_per_s",
    "store_timeout_per_s",
    "failed_per_s",
    "unanswered_per_s",
    "admitted_p50_ms",
    "admitted_p99_ms",
    "shed_p99_ms",
];

/// What became of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted,
    Shed,
    StoreTimeout,
    Failed,
    Unanswered,
}

type Answers = Vec<(Fate, Duration)>;

/// Answers per second to callers that wait for theirs and ask again.
async fn eager(to: &Arc<Connections>, lasts: Duration) -> u64 {
    let to = Arc::clone(to);
    let admitted = without_a_pause(EAGER, lasts, move |caller| {
        let to = Arc::clone(&to);
        async move { ask(to, caller.into(), Instant::now()).await.0 == Fate::Admitted }
    });
    admitted.await as u64
}

/// What became of it, and how long that took from `due` on.
async fn ask(to: Arc<Connections>, nth: u64, due: Instant) -> (Fate, Duration) {
    let answer = to.post(nth, DECIDE_PATH, question::body(1).into()).await;
    let took = due.elapsed();
    let fate = match answer {
        None => Fate::Unanswered,
        Some((200, _)) => Fate::Admitted,
        Some((429, _)) => Fate::Shed,
        Some((_, body)) => match Refusal::decode(&body) {
            Ok(refusal) if refusal.reason == Reason::StoreTimeout.as_str() => Fate::StoreTimeout,
            _ => Fate::Failed,
        },
    };
    (fate, took)
}

/// Measures, prints the tables, writes `target/bench/load.json`.
pub async fn measure(effort: Effort) -> Result<(), String> {
    let redis = Redis::start().await;
    let far = Far::start(redis.socket(), ROUND_TRIP).await.map_err(|error| error.to_string())?;
    let mut told = Vec::new();
    let stores = [
        ("memory", gateway::Options::memory()),
        ("Redis near", gateway::Options::redis(&redis.url())),
        ("Redis 10 ms away", gateway::Options::redis(&far.url())),
    ];
    for (name, options) in stores {
        let gateway = Gateway::start(&options.flags(&["--dev"])).await;
        let connections = Connections::open(gateway.addr).await?;
        let lasts = Duration::from_secs(effort.seconds.into());
        let most = eager(&connections, lasts).await;
        println!(
            "\n{name}; {EAGER} callers that wait for their answers get {most}/s; default bound and deadlines (100 in flight, pool wait 15 ms, deadline 30 ms); {} rounds of {} s, shuffled, medians",
            effort.rounds, effort.seconds
        );
        for (step, figures) in curve(effort, gateway.addr, most).await? {
            let mut row: serde_json::Map<_, _> =
                FIGURES.iter().zip(&figures).map(|(k, f)| ((*k).to_owned(), f.json())).collect();
            row.insert("store".to_owned(), name.into());
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
            let connections = Connections::open_with(to, PATIENCE).await?;
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
        "  {:>9} {:>10} {:>10} {:>8} {:>10} {:>8} {:>10} {:>12} {:>22} {:>10}",
        "offered %",
        "offered/s",
        "admitted/s",
        "shed/s",
        "timeout/s",
        "failed/s",
        "unansw./s",
        "p50 ms",
        "p99 ms",
        "shed p99"
    );
    for (step, [offered, admitted, shed, late, failed, unanswered, p50, p99, shed_p99]) in &rows {
        let shed_p99 = match shed_p99.median() {
            nothing if nothing.is_nan() => "-".to_owned(),
            ms => format!("{ms:.1}"),
        };
        println!(
            "  {step:>9} {:>10.0} {:>10.0} {:>8.0} {:>10.0} {:>8.0} {:>10.0} {:>12.1} {:>22} {shed_p99:>10}",
            offered.median(),
            admitted.median(),
            shed.median(),
            late.median(),
            failed.median(),
            unanswered.median(),
            p50.median(),
            p99.to_string(),
        );
    }
    Ok(rows)
}

/// In the order of [`FIGURES`].
fn seen(answers: Answers, lasts: Duration) -> [f64; FIGURES.len()] {
    let offered = answers.len();
    let mut took: [Vec<Duration>; 5] = Default::default();
    for (fate, after) in answers {
        took[fate as usize].push(after);
    }
    took.iter_mut().for_each(|took| took.sort_unstable());
    let per_s =
        |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / lasts.as_secs_f64();
    let [admitted, shed, late, failed, unanswered] = took;
    [
        per_s(offered),
        per_s(admitted.len()),
        per_s(shed.len()),
        per_s(late.len()),
        per_s(failed.len()),
        per_s(unanswered.len()),
        at_share(&admitted, 50),
        at_share(&admitted, 99),
        at_share(&shed, 99),
    ]
}
