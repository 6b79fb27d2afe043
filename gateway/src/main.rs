//! The gateway's program: reads the process's arguments and environment, runs until a signal.

mod process;

use std::process::ExitCode;

use tidegate_gateway::{Environment, Settings};

fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    match Settings::parse(std::env::args_os(), &environment) {
        Ok(settings) => process::run(settings),
        Err(error) => process::refuse(&error),
    }
}
