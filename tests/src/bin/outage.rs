//! What three Envoys let through to an upstream that fails, as a table and a plot. `make outage` runs it; three minutes.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match tidegate_tests::outage::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("docs/outage.md could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}
