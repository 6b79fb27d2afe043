//! The demo: `demo show` runs every step and ends; `demo run` leaves the stack running.

use std::env;
use std::process::ExitCode;

use tidegate_tests::demo::{self, Ports, Stack};

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match env::args().nth(1).as_deref() {
        Some("show") => show().await,
        Some("run") => run().await,
        other => Err(format!("{other:?} is no command; write `demo show` or `demo run`")),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// On free ports, so that it never meets anything that runs already.
async fn show() -> Result<bool, String> {
    println!("  filter     {} KiB", demo::filter_kib());
    demo::show(Ports { envoy: 0, envoy_admin: 0, gateway: 0, gateway_admin: 0 }).await
}

async fn run() -> Result<bool, String> {
    let ports = Ports {
        envoy: port("PORT")?,
        envoy_admin: port("ADMIN_PORT")?,
        gateway: port("GATEWAY_PORT")?,
        gateway_admin: port("GATEWAY_ADMIN_PORT")?,
    };
    let stack = Stack::start(ports, true).await?;
    demo::up(&stack, "Redis");
    println!(
        "  admin      Envoy http://{}   gateway http://{}/readyz",
        stack.envoy.admin, stack.gateway.admin
    );
    println!(
        "  try it     curl -i http://{}/api/hello      (5 per minute; Ctrl-C ends it)",
        stack.envoy.addr
    );
    tokio::signal::ctrl_c().await.map_err(|error| error.to_string())?;
    Ok(true)
}

fn port(variable: &str) -> Result<u16, String> {
    let value =
        env::var(variable).map_err(|error| format!("{variable}: {error}; use `make run`"))?;
    value
        .parse()
        .map_err(|error| format!("{variable} is {value:?}: {error}; write a port from 0 to 65535"))
}
