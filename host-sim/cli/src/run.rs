//! `host-sim run`: finds scenarios, runs them, prints what came of them. It must not judge.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tidegate_host_sim::{Report, Runner, Scenario};

use crate::args::RunArgs;
use crate::lints;

/// Runs every scenario; one that cannot even be read counts as failed, so that the others still run.
pub(crate) fn run(args: &RunArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let runner = Runner::with_cache(Some(args.cache.clone()))?;
    let files = find(&args.scenarios)?;
    let mut failed = 0;
    for file in &files {
        match run_one(&runner, file, args) {
            Ok(report) => {
                failed += usize::from(!report.passed());
                print(&report, file, args, out)?;
            }
            Err(error) => {
                failed += 1;
                writeln!(out, "FAILED: {}\n{}", file.display(), with_causes(error.as_ref()))?;
            }
        }
    }
    writeln!(out, "{} passed, {failed} failed", files.len() - failed)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_one(runner: &Runner, file: &Path, args: &RunArgs) -> Result<Report, Box<dyn Error>> {
    let mut scenario = Scenario::load(file)?;
    if let Some(wasm) = &args.wasm {
        scenario = scenario.with_wasm(wasm);
    }
    if let Some(seed) = args.seed {
        scenario = scenario.with_seed(seed);
    }
    if args.trace || args.trace_json {
        scenario = scenario.with_trace();
    }
    Ok(runner.run(&scenario)?)
}

fn print(
    report: &Report,
    file: &Path,
    args: &RunArgs,
    out: &mut impl Write,
) -> std::io::Result<()> {
    for line in &report.trace {
        if args.trace_json {
            writeln!(out, "{}", line.to_json())?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    if args.log {
        for line in &report.logs {
            writeln!(out, "log {line}")?;
        }
    }
    if report.passed() {
        writeln!(out, "{report} ({})", usage(report))?;
    } else {
        writeln!(out, "{report}\n  in {}", file.display())?;
    }
    lints::print(report, out)
}

fn usage(report: &Report) -> String {
    let total = |count: fn(&tidegate_host_sim::Usage) -> u64| {
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

/// Files as given; of folders, every scenario in them, by name.
fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            let extension = file.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("yaml" | "yml" | "json")) {
                found.push(file);
            }
        }
        if found.is_empty() {
            return Err(format!(
                "{}: no scenario (*.yaml, *.yml, *.json) in this folder",
                path.display()
            )
            .into());
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = error.source();
    }
    text
}
