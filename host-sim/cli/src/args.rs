//! The command line. It must not do anything.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Runs proxy-wasm plugins without Envoy, in virtual time, with Envoy's rules.
#[derive(Debug, Parser)]
#[command(name = "host-sim", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenarios and compare what happens with what they expect; exit code 1 when one fails.
    Run(RunArgs),
}

/// What to run and what to show.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Scenario files, or folders of them (*.yaml, *.yml, *.json).
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<PathBuf>,
    /// Run this plugin instead of the one a scenario names.
    #[arg(long, value_name = "PATH")]
    pub(crate) wasm: Option<PathBuf>,
    /// Use this seed instead of the scenario's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Print every callback and host call.
    #[arg(long)]
    pub(crate) trace: bool,
    /// Print every callback and host call as one JSON object a line.
    #[arg(long, conflicts_with = "trace")]
    pub(crate) trace_json: bool,
    /// Print the plugins' log.
    #[arg(long)]
    pub(crate) log: bool,
    /// Keep compiled modules here.
    #[arg(long, value_name = "PATH", default_value = tidegate_host_sim::CACHE_DIRECTORY)]
    pub(crate) cache: PathBuf,
}
