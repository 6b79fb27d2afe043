//! The simulator's command: arguments in, exit code out. It must not know how a run works.

mod args;
mod lints;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let mut out = std::io::stdout().lock();
    match args.command {
        args::Command::Run(options) => run::run(&options, &mut out),
    }
    .unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
