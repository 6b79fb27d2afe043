//! The gateway's program: reads the process's arguments and environment, runs until a signal.

mod process;

use std::process::ExitCode;

use tidegate_gateway::{Environment, Settings};

/// Record 0071: a fifth of a decision was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    match Settings::parse(std::env::args_os(), &environment) {
        Ok(settings) => process::run(settings),
        Err(error) => process::refuse(&error),
    }
}
