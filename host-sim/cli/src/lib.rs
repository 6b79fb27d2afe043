//! The simulator's command, and the one place that puts the gateway's library behind the simulator's `Service`. It must not
//! know how a run works.

mod args;
mod bench;
mod budget;
mod check;
mod find;
pub mod in_process;
mod json;
mod junit;
mod lints;
mod mermaid;
mod pool;
mod run;
mod trace;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

pub use args::Args;

/// Carries out a command line; what it has to say goes to `out`, timings and errors to stderr.
pub fn execute(args: &Args, out: &mut impl Write) -> ExitCode {
    let done = match &args.command {
        args::Command::Run(options) => run::run(options, out),
        args::Command::Trace(options) => trace::trace(options, out),
        args::Command::Bench(options) => bench::bench(options, out),
        args::Command::Check(options) => check::check(options, out),
        args::Command::Schema => schema(out),
    };
    done.unwrap_or_else(|error| {
        // Who reads no further has seen what he wanted; the run is unfinished all the same.
        let cut = error.downcast_ref::<std::io::Error>();
        if cut.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return ExitCode::FAILURE;
        }
        eprintln!("error: {}", find::with_causes(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn schema(out: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let schema = serde_json::to_string_pretty(&tidegate_host_sim::scenario_schema())?;
    writeln!(out, "{schema}")?;
    Ok(ExitCode::SUCCESS)
}
