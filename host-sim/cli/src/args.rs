//! The command line. It must not do anything.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Runs proxy-wasm plugins without Envoy, in virtual time, with Envoy's rules.
#[derive(Debug, Parser)]
#[command(name = "host-sim", version)]
pub struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run scenarios and compare what happens with what they expect; exit code 1 when one fails.
    Run(RunArgs),
    /// Show every callback and host call of one scenario; exit code 1 when an expectation fails.
    Trace(TraceArgs),
    /// Show what each request costs the plugin; exit code 1 when a budget is exceeded.
    Bench(BenchArgs),
    /// Say what a plugin finds wrong with a configuration, or with an Envoy file that holds one; exit code 1 for errors, 2 if
    /// the file cannot be checked.
    Check(CheckArgs),
    /// Print the JSON Schema of scenario files.
    Schema,
}

/// What is said instead of a scenario file.
#[derive(Debug, clap::Args)]
pub(crate) struct Overrides {
    /// Run this plugin instead of the one a scenario names.
    #[arg(long, value_name = "PATH")]
    pub(crate) wasm: Option<PathBuf>,
    /// Use this seed instead of the scenario's.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A flag for the gateway behind `gateway: in-process`, e.g. --gateway-flag=--environment=staging.
    #[arg(long = "gateway-flag", value_name = "FLAG", allow_hyphen_values = true)]
    pub(crate) gateway_flags: Vec<String>,
    /// Keep compiled modules here.
    #[arg(long, value_name = "PATH", default_value = tidegate_host_sim::CACHE_DIRECTORY)]
    pub(crate) cache: PathBuf,
}

/// What to run and where to report.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Scenario files, or folders of them (*.yaml, *.yml, *.json, also in folders below).
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// How many scenarios run at once; as many as there are cores if it is not said.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Write a JUnit report here.
    #[arg(long, value_name = "PATH")]
    pub(crate) junit: Option<PathBuf>,
    /// Write a report as JSON here.
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
    /// Print the plugins' log.
    #[arg(long)]
    pub(crate) log: bool,
}

/// What to trace and how.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// The scenario file.
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: PathBuf,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// One JSON object a line.
    #[arg(long, conflicts_with = "mermaid")]
    pub(crate) json: bool,
    /// A Mermaid sequence diagram.
    #[arg(long)]
    pub(crate) mermaid: bool,
}

/// What to measure and against what.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Scenario files, or folders of them.
    #[arg(required = true, value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) overrides: Overrides,
    /// What one request of each scenario may cost at most.
    #[arg(long, value_name = "FILE")]
    pub(crate) budget: Option<PathBuf>,
    /// Write what requests cost now into the budget, instead of comparing.
    #[arg(long, requires = "budget")]
    pub(crate) write_budget: bool,
    /// How often each scenario runs; times are those of the fastest run, all else is the same each time.
    #[arg(long, value_name = "N", default_value = "3")]
    pub(crate) repeat: NonZeroUsize,
}

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// A configuration (YAML or JSON), or an Envoy file with a wasm filter in it.
    #[arg(value_name = "CONFIG|ENVOY-FILE")]
    pub(crate) file: PathBuf,
    /// Ask this plugin; of an Envoy file it is the one that the file names, unless it is said.
    #[arg(long, value_name = "PATH", env = "HOST_SIM_WASM")]
    pub(crate) wasm: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 1 for warnings, too.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
    /// Keep compiled modules here.
    #[arg(long, value_name = "PATH", default_value = tidegate_host_sim::CACHE_DIRECTORY)]
    pub(crate) cache: PathBuf,
}
