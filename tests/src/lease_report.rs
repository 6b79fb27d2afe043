//! Owns what leases are worth: the shipped filter in the simulator, the real gateway, patterns of load;
//! what of the limit is admitted, by how much it is exceeded, how many callouts a request costs. Writes
//! docs/leases.md and its plot. Changes no rule.

use std::collections::BTreeMap;
use std::{fs, thread};

use tidegate_host_sim::Runner;

use crate::lab::ideal::{Ideal, Numbers};
use crate::lab::weather::{Odds, Weather};
use crate::lab::{self, Life, Outcome, Requests, SECOND};
use crate::parts;

mod page;
pub mod patterns;
mod plot;

use patterns::{LIMITS, Limit, PATTERNS, Pattern, WORKERS};

/// The gateway's clock shows whole µs; a rounding is no overshoot.
const DUST: f64 = 0.01;

/// Who holds units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holders {
    /// 16 workers without shared data.
    Workers,
    /// 4 processes with 4 workers each.
    Processes,
    /// Nobody: each request is decided by the gateway.
    Nobody,
}

/// What came out under one load.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Of what an ideal bucket admits of the same requests.
    pub admitted: f64,
    /// Units too many at the worst moment.
    pub over: f64,
    /// Callouts per request, waited for or not.
    pub callouts: f64,
    /// The part of requests that waited for a callout.
    pub waited: f64,
}

/// Clients that stick to a connection, each with 100 a minute: what they send, and the name.
pub const STICKY: [(u64, &str); 5] = [
    (20, "20 a minute"),
    (60, "60 a minute"),
    (90, "90 a minute"),
    (200, "2x the limit"),
    (1_000, "10x the limit"),
];

/// A load, a limit, holders.
pub type Place = (usize, usize, Holders);

/// All cells.
#[derive(Debug, Default)]
pub struct Cells {
    /// By pattern and limit.
    pub patterns: BTreeMap<Place, Cell>,
    /// By load, with 100 a minute for each client.
    pub sticky: BTreeMap<(usize, Holders), Cell>,
}

/// Measures all cells, writes the page and the plot, and says which aims are missed.
pub fn run(only: Option<&str>) -> Result<(), String> {
    let cache = parts::root().join("target/host-sim-cache");
    let runner = Runner::with_cache(Some(cache)).map_err(|error| error.to_string())?;
    let cells = measured(&runner, only);
    let missed = missed(&cells);
    if only.is_none() {
        let docs = parts::root().join("docs");
        page::write(&docs.join("leases.md"), &cells)?;
        let svg = plot::svg(&cells);
        fs::write(docs.join("leases.svg"), svg).map_err(|error| error.to_string())?;
    }
    println!("{}", page::tables(&cells));
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n")) }
}

fn measured(runner: &Runner, only: Option<&str>) -> Cells {
    let mut places = Vec::new();
    for limit in 0..LIMITS.len() {
        for pattern in 0..PATTERNS.len() {
            places.extend([Holders::Workers, Holders::Processes].map(|who| (pattern, limit, who)));
        }
    }
    // The same loads decided by the gateway, beside.
    places.extend([0, 1, 2].map(|pattern| (pattern, 0, Holders::Nobody)));
    places.retain(|(pattern, limit, who)| {
        let name = format!("{} {} {who:?}", LIMITS[*limit].name, PATTERNS[*pattern].name());
        only.is_none_or(|only| name.contains(only))
    });
    let mut cells = Cells::default();
    // Runs with one process keep one core busy; two at once are what two cores can do.
    for pair in places.chunks(2) {
        let done = thread::scope(|scope| {
            let runs: Vec<_> =
                pair.iter().map(|place| scope.spawn(move || pattern(runner, *place))).collect();
            runs.into_iter().map(|run| run.join().expect("a run")).collect::<Vec<_>>()
        });
        for (place, cell) in pair.iter().zip(done) {
            let (pattern, limit, who) = place;
            println!("{} {} {who:?}: {cell:?}", LIMITS[*limit].name, PATTERNS[*pattern].name());
            cells.patterns.insert(*place, cell);
        }
    }
    for (load, (_, name)) in STICKY.iter().enumerate() {
        for who in [Holders::Workers, Holders::Processes] {
            if only.is_some_and(|only| !format!("sticky {name} {who:?}").contains(only)) {
                continue;
            }
            let cell = sticky(runner, load, who);
            println!("sticky {name} {who:?}: {cell:?}");
            cells.sticky.insert((load, who), cell);
        }
    }
    cells
}

fn config(numbers: Numbers, who: Holders) -> String {
    let Numbers { limit, period_ns, burst } = numbers;
    let per_s = period_ns / SECOND;
    let decide = if who == Holders::Nobody { "exact" } else { "lease" };
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate", "timeout": "45ms"}}, "identities": {{"key": {{"header": "x-key", "trusted": true}}}}, "policies": [{{"name": "p", "match": {{"path": "/p"}}, "rate_limits": [{{"name": "key", "by": "key", "limit": {limit}, "per": "{per_s}s", "burst": {burst}, "decide": "{decide}"}}]}}]}}"#
    )
}

/// Runs a load through the holders; `requests` gives those of a range of workers.
fn load(
    runner: &Runner,
    numbers: Numbers,
    length_s: u64,
    who: Holders,
    requests: impl Fn(std::ops::Range<usize>, u64) -> Vec<Requests>,
) -> Outcome {
    let (processes, shares) = match who {
        Holders::Workers => (1, false),
        Holders::Processes | Holders::Nobody => (4, true),
    };
    let workers = WORKERS / processes;
    let lives: Vec<Vec<Life>> = (0..processes)
        .map(|process| {
            let seed = process as u64 + 1;
            vec![Life {
                from_ns: 0,
                to_ns: (length_s + 1) * SECOND,
                workers,
                shares,
                seed,
                ahead_s: 0,
                clock_steps: Vec::new(),
                configs: vec![(0, config(numbers, who))],
                requests: requests(process * workers..(process + 1) * workers, seed),
                traps: Vec::new(),
            }]
        })
        .collect();
    lab::run(runner, &lives, Weather::new(Odds::default(), 1, Vec::new()))
}

fn pattern(runner: &Runner, (pattern, limit, who): Place) -> Cell {
    let (pattern, limit): (Pattern, &Limit) = (PATTERNS[pattern], &LIMITS[limit]);
    let outcome = load(runner, limit.numbers, limit.length_s, who, |workers, seed| {
        pattern.requests(limit, workers, seed)
    });
    cell(limit.numbers, &outcome)
}

fn sticky(runner: &Runner, load_at: usize, who: Holders) -> Cell {
    let numbers = LIMITS[2].numbers;
    let (per_min, length_s) = (STICKY[load_at].0, 300);
    let clients = if per_min > 500 { 10 } else { 20 };
    let outcome = load(runner, numbers, length_s, who, |workers, _| {
        patterns::sticky(clients, per_min, length_s, workers, 1)
    });
    cell(numbers, &outcome)
}

/// Held against an ideal bucket for each key.
fn cell(numbers: Numbers, outcome: &Outcome) -> Cell {
    let mut buckets: BTreeMap<u64, (Ideal, Ideal)> = BTreeMap::new();
    let (mut admitted, mut best, mut waited) = (0u64, 0u64, 0u64);
    for sent in &outcome.sent {
        let fresh = || (Ideal::new(numbers), Ideal::new(numbers));
        let (real, ideal) = buckets.entry(sent.key).or_insert_with(fresh);
        if sent.status == 200 {
            real.admit(sent.at_ns, sent.units);
            admitted += 1;
        }
        best += u64::from(ideal.would_admit(sent.at_ns));
        waited += u64::from(sent.waited);
    }
    let over = buckets.values().map(|(real, _)| real.worst).fold(0.0, f64::max);
    let requests = outcome.sent.len().max(1) as f64;
    Cell {
        admitted: admitted as f64 / best.max(1) as f64,
        over: if over < DUST { 0.0 } else { over },
        callouts: (outcome.decides + outcome.syncs) as f64 / requests,
        waited: waited as f64 / requests,
    }
}

/// The aims that are missed, in words.
fn missed(cells: &Cells) -> Vec<String> {
    let mut missed = Vec::new();
    let mut aim = |is_met: bool, text: String| {
        if !is_met {
            missed.push(format!("missed: {text}"));
        }
    };
    for ((pattern, limit, who), cell) in &cells.patterns {
        let name = format!("{} {} {who:?}", LIMITS[*limit].name, PATTERNS[*pattern].name());
        aim(cell.over == 0.0, format!("{name}: {} units too many", cell.over));
        let is_sustained = PATTERNS[*pattern].is_sustained();
        let admitted = cell.admitted;
        aim(!is_sustained || admitted >= 0.94, format!("{name}: {admitted:.3} admitted, 0.94"));
        let is_busy = *limit == 0 && *who == Holders::Processes && *pattern <= 2;
        let callouts = cell.callouts;
        aim(!is_busy || callouts <= 0.05, format!("{name}: {callouts:.3} callouts, 0.05"));
    }
    for ((load, who), cell) in &cells.sticky {
        let name = format!("clients that stick, {} {who:?}", STICKY[*load].1);
        let most = if STICKY[*load].0 >= 1_000 { 0.03 } else { 0.4 };
        let (callouts, admitted) = (cell.callouts, cell.admitted);
        aim(cell.over == 0.0, format!("{name}: {} units too many", cell.over));
        // As Envoys are: a worker is a holder only on a host without shared data.
        let is_envoy = *who == Holders::Processes;
        aim(!is_envoy || callouts <= most, format!("{name}: {callouts:.3} callouts, {most}"));
        aim(admitted >= 0.94, format!("{name}: {admitted:.3} admitted, 0.94"));
    }
    missed
}
