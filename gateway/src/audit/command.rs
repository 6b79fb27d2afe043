//! Owns the auditor's command: its flags, its exit codes, what it prints. Knows no store: it works on
//! exports alone, so that it can run where nobody trusts the gateway.

mod export;
mod keys;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::settings::Environment;

/// Nothing is wrong.
pub const VALID: u8 = 0;
/// The chain was tampered with.
pub const TAMPERED: u8 = 1;
/// What was given is not readable as a chain; also any mistake in calling.
pub const UNREADABLE: u8 = 2;

/// Verifies exports of Tidegate's audit chain, and makes the keys that sign it.
#[derive(Debug, Parser)]
#[command(name = "tidegate-audit", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify an export: exit 0 if it is valid, 1 if it was tampered with, 2 if it is not readable as a
    /// chain.
    Verify(Verify),
    /// Make and list keys.
    #[command(subcommand)]
    Keys(Keys),
}

/// What is verified, and by what.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The records, one a line; several files in the order of the chain. `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The public keys that are trusted; keep the file apart from the chain.
    #[arg(long, value_name = "FILE", env = "TIDEGATE_AUDIT_KEYS")]
    keys: PathBuf,
    /// Where the store says that the chain ends.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// A checkpoint from outside the store; may be given several times.
    #[arg(long = "checkpoint", value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// The number of a record by which the gateways say that the store had lost records: somebody
    /// looked into it, so it is no finding. May be given several times.
    #[arg(long = "accept-rollback", value_name = "SEQ")]
    accepted_rollbacks: Vec<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Keys {
    /// Make an Ed25519 key: the private one into a file that nobody else can read, the public one on
    /// standard output, as it stands in a keys file.
    Generate(Generate),
    /// List the keys that the environment gives: AUDIT_PRIVATE_KEY_V1, … and REVOKED_KEY_VERSIONS.
    List,
}

/// Which key is made.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// The key's version: v1, v2, …
    #[arg(long, value_name = "vN", required_unless_present = "checkpoint_name")]
    version: Option<String>,
    /// Makes a key for checkpoints instead, under this name: a URL without its scheme.
    #[arg(long, value_name = "NAME", conflicts_with = "version")]
    checkpoint_name: Option<String>,
    /// Where the private key goes; a file that exists is never written over.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command; the program's name is the first of the arguments.
pub fn run<I, A>(arguments: I, environment: &Environment) -> u8
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(usage) => {
            if let Err(unprinted) = usage.print() {
                eprintln!("error: {unprinted}");
            }
            return if usage.exit_code() == 0 { VALID } else { UNREADABLE };
        }
    };
    let done = match &cli.command {
        Command::Verify(verify) => export::verify(verify),
        Command::Keys(Keys::Generate(generate)) => keys::generate(generate).map(|()| VALID),
        Command::Keys(Keys::List) => keys::list(environment).map(|()| VALID),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("error: {problem}");
        UNREADABLE
    })
}
