//! `host-sim bench`: what requests cost the plugin, and how fast they are simulated. It must not judge but by the budget.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tidegate_host_sim::{Report, Runner, Scenario};

use crate::args::BenchArgs;
use crate::budget::{self, Budgets};
use crate::find;
use crate::in_process::services;

/// A scenario's costs. All but the times is the same in every run.
struct Row {
    report: Report,
    vms: usize,
    run: Duration,
    start: Duration,
}

/// Prints a table, one scenario a line; exit code 1 for a failed scenario or a budget that is exceeded.
pub(crate) fn bench(args: &BenchArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let runner = Runner::with_cache(Some(args.overrides.cache.clone()))?;
    let mut rows: Vec<Row> = Vec::new();
    let mut problems = Vec::new();
    for file in find::files(&args.scenarios)? {
        let row = measure(&runner, &file, args).map_err(|error| {
            format!("{}: {}", file.display(), find::with_causes(error.as_ref()))
        })?;
        if rows.iter().any(|other| other.report.name == row.report.name) {
            return Err(format!("{}: another scenario has the same name", file.display()).into());
        }
        if !row.report.passed() {
            problems.push(row.report.to_string());
        }
        rows.push(row);
    }
    table(&rows, out)?;
    if let Some(path) = &args.budget {
        if args.write_budget {
            let today = |row: &Row| (row.report.name.clone(), budget::today(&row.report));
            budget::write(path, &rows.iter().map(today).collect())?;
        } else {
            problems.extend(compare(&rows, &budget::read(path)?));
        }
    }
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(runner: &Runner, file: &Path, args: &BenchArgs) -> Result<Row, Box<dyn Error>> {
    let scenario = find::read(file, &args.overrides)?;
    let run = |scenario: &Scenario| -> Result<(Report, Duration), Box<dyn Error>> {
        let services = services(scenario, &args.overrides.gateway_flags)?;
        let started = Instant::now();
        let report = runner.run_with(scenario, services)?;
        Ok((report, started.elapsed()))
    };
    let bare = scenario.clone().without_clients();
    // The first run compiles, or reads the cache on disk.
    let (report, _) = run(&scenario)?;
    let (mut fastest, mut start) = (Duration::MAX, Duration::MAX);
    for _ in 0..args.repeat.get() {
        fastest = fastest.min(run(&scenario)?.1);
        start = start.min(run(&bare)?.1);
    }
    Ok(Row { report, vms: scenario.vm_count(), run: fastest, start })
}

/// What exceeds its budget; a scenario and a budget that do not find each other are said, but are no failure, as one may
/// bench a part.
fn compare(rows: &[Row], budgets: &Budgets) -> Vec<String> {
    let mut problems = Vec::new();
    for row in rows {
        match budgets.get(&row.report.name) {
            Some(budget) => problems.extend(budget::exceeded(&row.report, budget)),
            None => eprintln!("no budget for {:?}; --write-budget adds it", row.report.name),
        }
    }
    for name in budgets.keys().filter(|name| rows.iter().all(|row| row.report.name != **name)) {
        eprintln!("the budget names {name:?}, which did not run");
    }
    problems
}

fn table(rows: &[Row], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>8} {:>10} {:>10} {:>8} {:>11} {:>11} {:>10} {:>10} {:>10} {:>8}  most of any request, by scenario",
        "requests",
        "host_calls",
        "host_bytes",
        "callouts",
        "allocations",
        "grown_bytes",
        "fuel",
        "us/request",
        "requests/s",
        "ms/VM",
    )?;
    for row in rows {
        let requests = row.report.exchanges.len();
        let [calls, bytes, callouts, allocations, grown, fuel] = budget::dearest(&row.report);
        let (each_us, per_s) = speed(row.run.saturating_sub(row.start), requests);
        writeln!(
            out,
            "{requests:>8} {calls:>10} {bytes:>10} {callouts:>8} {allocations:>11} {grown:>11} {fuel:>10} \
             {each_us:>10} {per_s:>10} {:>8.2}  {}",
            divided(row.start, row.vms).as_secs_f64() * 1_000.0,
            row.report.name,
        )?;
    }
    Ok(())
}

/// Microseconds for each request and requests for each second; a few requests take too little to say.
fn speed(time: Duration, requests: usize) -> (String, String) {
    const REQUESTS_MIN: usize = 100;
    if requests < REQUESTS_MIN || time.is_zero() {
        return ("-".to_owned(), "-".to_owned());
    }
    let each = divided(time, requests).as_secs_f64();
    (format!("{:.2}", each * 1e6), format!("{:.0}", 1.0 / each))
}

fn divided(time: Duration, by: usize) -> Duration {
    time.checked_div(u32::try_from(by).unwrap_or(u32::MAX)).unwrap_or(time)
}
