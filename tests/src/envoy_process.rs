//! Owns an Envoy process: a bootstrap goes in, admin's and the listeners' addresses come out. It
//! must not know what the bootstrap is for.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::{client, eventually, parts};

/// The most that Envoy may take to compile its filters and listen.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How to run one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Envoy's workers.
    pub concurrency: u32,
    /// Whether listeners come from a file that can be replaced while Envoy runs.
    pub dynamic: bool,
    /// Its environment, beside this process's own.
    pub environment: Vec<(String, String)>,
    /// More arguments.
    pub arguments: Vec<String>,
}

/// A running Envoy.
#[derive(Debug)]
pub struct EnvoyProcess {
    /// Its admin interface.
    pub admin: SocketAddr,
    dir: TempDir,
    process: Process,
}

// === impl EnvoyProcess ===

impl EnvoyProcess {
    /// Starts one and waits until it is ready; gives its output if it refuses to start.
    pub async fn start(mut bootstrap: Value, settings: &Settings) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        if settings.dynamic {
            make_dynamic(&mut bootstrap, dir.path());
        }
        let file = dir.path().join("bootstrap.json");
        fs::write(&file, bootstrap.to_string()).expect("a writable folder");
        let mut process = launch(settings, &file, dir.path());
        let admin = admin_address(&mut process, dir.path()).await?;
        ready(&mut process, admin).await?;
        Ok(Self { admin, dir, process })
    }

    /// The listeners by name.
    pub async fn listeners(&self) -> BTreeMap<String, SocketAddr> {
        let all = client::get(self.admin, "/listeners?format=json").await.json();
        let all = all["listener_statuses"].as_array().cloned().unwrap_or_default();
        let one = |listener: &Value| {
            let address = &listener["local_address"]["socket_address"];
            let ip = address["address"].as_str()?.parse().ok()?;
            let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
            Some((listener["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
        };
        all.iter().filter_map(one).collect()
    }

    /// Replaces the listeners of a `dynamic` Envoy.
    pub fn update(&self, listeners: Vec<Value>) {
        write_listeners(listeners, self.dir.path());
    }

    /// All that Envoy and its filters logged, access log included.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The process, for signals and CPU time.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// An address as Envoy writes it.
pub fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

fn launch(settings: &Settings, bootstrap: &Path, dir: &Path) -> Process {
    let mut command = Command::new(parts::envoy());
    // Relative paths of the bootstrap start at the checkout.
    command.current_dir(parts::root());
    command.arg("--config-path").arg(bootstrap);
    command.arg("--admin-address-path").arg(dir.join("admin"));
    command.args(["--disable-hot-restart", "--log-level", "warning"]);
    command.args(["--component-log-level", "wasm:info"]);
    command.args(["--concurrency", &settings.concurrency.to_string()]);
    command.args(&settings.arguments);
    command.env_remove("TIDEGATE_TOKEN").env_remove("TIDEGATE_ENVIRONMENT");
    command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
    Process::start(command, &dir.join("envoy.log")).expect("Envoy can be run")
}

async fn admin_address(process: &mut Process, dir: &Path) -> Result<SocketAddr, String> {
    eventually(START_WITHIN, "Envoy's admin listens", async || {
        if let Some(status) = process.ended() {
            return Ok(Err(format!("{status}\n{}", process.output())));
        }
        let text = fs::read_to_string(dir.join("admin")).map_err(|error| error.to_string())?;
        text.trim().parse().map(Ok).map_err(|error| format!("{text:?}: {error}"))
    })
    .await
}

async fn ready(process: &mut Process, admin: SocketAddr) -> Result<(), String> {
    eventually(START_WITHIN, "Envoy is ready", async || {
        if let Some(status) = process.ended() {
            return Ok(Err(format!("{status}\n{}", process.output())));
        }
        match client::try_get(admin, "/ready").await {
            Some(answer) if answer.status == 200 => Ok(Ok(())),
            _ => Err(format!("not ready: {}", process.output())),
        }
    })
    .await
}

fn make_dynamic(bootstrap: &mut Value, dir: &Path) {
    let listeners = bootstrap["static_resources"]["listeners"].take();
    write_listeners(listeners.as_array().cloned().unwrap_or_default(), dir);
    bootstrap["static_resources"]["listeners"] = json!([]);
    bootstrap["dynamic_resources"] = json!({ "lds_config": {
        "path_config_source": { "path": dir.join("listeners.json"), "watched_directory": { "path": dir } },
        "resource_api_version": "V3"
    } });
}

/// Envoy watches for a rename, so that it never reads half a file.
fn write_listeners(mut listeners: Vec<Value>, dir: &Path) {
    for listener in &mut listeners {
        listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    }
    let fresh = dir.join("listeners.fresh");
    fs::write(&fresh, json!({ "resources": listeners }).to_string()).expect("a writable folder");
    fs::rename(&fresh, dir.join("listeners.json")).expect("a writable folder");
}
