//! Owns what only a process has: its log, its signals, its exit code. Knows no part of the gateway.

use std::error::Error;
use std::process::ExitCode;

use tidegate_gateway::settings::SettingsError;
use tidegate_gateway::{Cores, Gateway, Settings, StartError, World, logging};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Serves until a signal; a second signal ends the drain.
pub fn run(settings: Settings) -> ExitCode {
    let served = prepare(&settings).and_then(|runtime| runtime.block_on(serve(settings)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says why there are no settings.
pub fn refuse(error: &SettingsError) -> ExitCode {
    match error {
        SettingsError::Usage(usage) => {
            if let Err(unprinted) = usage.print() {
                complain(&unprinted);
            }
        }
        SettingsError::Values(_) => complain(error),
    }
    ExitCode::from(error.exit_code())
}

fn prepare(settings: &Settings) -> Result<tokio::runtime::Runtime, StartError> {
    let system = |what, source: Box<dyn Error + Send + Sync>| StartError::System { what, source };
    let filter = logging::filter(&settings.log_filter)
        .map_err(|error| system("RUST_LOG cannot be used", error.into()))?;
    logging::install(settings.log_format, filter)
        .map_err(|error| system("the log cannot be set up", error.into()))?;
    // For operators and the background: decisions have threads of their own.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| system("the runtime cannot be started", error.into()))
}

async fn serve(settings: Settings) -> Result<(), StartError> {
    let system = |error: std::io::Error| StartError::System {
        what: "signals cannot be received",
        source: error.into(),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let cores = Cores::start(settings.cores).map_err(|error| StartError::System {
        what: "the threads that answer cannot be started",
        source: error.into(),
    })?;
    let world = World::from_settings(&settings, cores)?;
    let running = Gateway::start(settings, world).await?;
    either(&mut terminate, &mut interrupt).await;
    tokio::select! {
        _drained = running.shutdown() => {}
        () = either(&mut terminate, &mut interrupt) => tracing::warn!("a second signal: not waiting"),
    }
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The whole chain of causes on standard error: the log may not exist yet.
fn complain(error: &(dyn Error + 'static)) {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    eprintln!("{text}");
}
