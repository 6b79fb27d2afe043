//! `host-sim run`: runs what is asked for and prints what came of it. It must not judge.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use tidegate_host_sim::{Report, Runner, Usage};

use crate::args::RunArgs;
use crate::pool::Case;
use crate::{find, json, junit, lints, pool};

/// Runs every scenario; one that cannot even be read counts as failed, so that the others still run.
pub(crate) fn run(args: &RunArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let started = Instant::now();
    let runner = Runner::with_cache(Some(args.overrides.cache.clone()))?;
    let files = find::files(&args.scenarios)?;
    let cases =
        pool::run(&runner, &files, &args.overrides, args.jobs, |case| print(case, args, out))?;
    if let Some(path) = &args.junit {
        junit::write(path, &cases)?;
    }
    if let Some(path) = &args.json {
        json::write(path, &cases)?;
    }
    let failed = cases.iter().filter(|case| !case.passed()).count();
    eprintln!("in {:.2} s", started.elapsed().as_secs_f64());
    writeln!(out, "{} passed, {failed} failed", cases.len() - failed)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(case: &Case, args: &RunArgs, out: &mut impl Write) -> std::io::Result<()> {
    let report = match &case.outcome {
        Ok(report) => report,
        Err(error) => return writeln!(out, "FAILED: {}\n{error}", case.file.display()),
    };
    if args.log {
        for line in &report.logs {
            writeln!(out, "log {line}")?;
        }
    }
    if report.passed() {
        writeln!(out, "{report} ({})", usage(report))?;
    } else {
        writeln!(out, "{report}\n  in {}", case.file.display())?;
    }
    lints::print(report, out)
}

fn usage(report: &Report) -> String {
    let total = |count: fn(&Usage) -> u64| {
        report.exchanges.iter().map(|exchange| count(&exchange.usage)).sum::<u64>()
    };
    format!(
        "{} checks, {} requests, {} host calls, {} bytes",
        report.checks.len(),
        report.exchanges.len(),
        total(|usage| usage.host_calls),
        total(|usage| usage.host_bytes)
    )
}
