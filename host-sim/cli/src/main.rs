//! The simulator's command: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    host_sim::execute(&host_sim::Args::parse(), &mut std::io::stdout().lock())
}
