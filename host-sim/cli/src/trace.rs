//! `host-sim trace`: one run, step by step, for people, programs or diagrams. It must not leave a step out.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use tidegate_host_sim::Runner;

use crate::args::TraceArgs;
use crate::in_process::services;
use crate::{find, mermaid};

/// Prints the trace, and on stderr what was not as expected.
pub(crate) fn trace(args: &TraceArgs, out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let runner = Runner::with_cache(Some(args.overrides.cache.clone()))?;
    let scenario = find::read(&args.scenario, &args.overrides)?.with_trace();
    let services = services(&scenario, &args.overrides.gateway_flags)?;
    let report = runner.run_with(&scenario, services)?;
    if args.mermaid {
        mermaid::write(&report, out)?;
    } else {
        for line in &report.trace {
            if args.json {
                writeln!(out, "{}", line.to_json())?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
    }
    if report.passed() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("FAILED: {}", report.name);
    for check in report.failures() {
        eprintln!("{}: expected {}, seen {}", check.what, check.expected, check.seen);
    }
    Ok(ExitCode::FAILURE)
}
