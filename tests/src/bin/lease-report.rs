//! What leases are worth, as a table and a plot. `make lease-report` runs it; a word of its only argument
//! picks cells, whose table is then printed and not written.

use std::process::ExitCode;

fn main() -> ExitCode {
    let only = std::env::args().nth(1);
    match tidegate_tests::lease_report::run(only.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(missed) => {
            eprintln!("{missed}");
            ExitCode::FAILURE
        }
    }
}
