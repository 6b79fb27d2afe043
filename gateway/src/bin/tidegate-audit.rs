//! The auditor's program: reads the process's arguments and environment, verifies exports, makes keys.

use std::process::ExitCode;

use tidegate_gateway::Environment;
use tidegate_gateway::audit::command;

fn main() -> ExitCode {
    let environment = Environment::new(std::env::vars_os());
    ExitCode::from(command::run(std::env::args_os(), &environment))
}
