//! Owns a real Envoy: `envoy/bootstrap.yaml` with only ports, paths and what a test asks for
//! replaced, so that the file that operators read is the file that is tested.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::Files;
use crate::client;
use crate::process::Process;
use crate::{eventually, parts};

/// The most that Envoy may take to compile the filter and listen.
const START_WITHIN: Duration = Duration::from_secs(30);
const FILTERS: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
const HCM: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// What a test asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The filter's configuration; the bootstrap's own if `None`.
    pub config: Option<String>,
    /// Where the cluster `tidegate` leads.
    pub gateway: SocketAddr,
    /// Whether callouts go over HTTP/2, as shipped, or over HTTP/1.
    pub gateway_http2: bool,
    /// Where the cluster `upstream` leads; `None` lets Envoy answer itself.
    pub upstream: Option<SocketAddr>,
    /// The listener's address; port 0 is any free one.
    pub listen: String,
    /// Admin's port; 0 is any free one.
    pub admin_port: u16,
    /// TLS to the gateway; plain if `None`.
    pub gateway_tls: Option<GatewayTls>,
    /// How long a connection to the gateway may take to open. A test that is not about time gives
    /// more than the shipped 30 ms, which a busy machine exceeds.
    pub gateway_connect_timeout: &'static str,
    /// The name of the gateway's cluster, in the bootstrap.
    pub gateway_cluster: &'static str,
    /// The filter's module; `None` takes the filter out.
    pub filter: Option<PathBuf>,
    /// `allow_on_headers_stop_iteration`.
    pub allow_stop_iteration: bool,
    /// Envoy's workers.
    pub concurrency: u32,
    /// `max_headers_count`, if not Envoy's default of 100.
    pub max_headers: Option<u32>,
    /// Whether listeners come from a file that can be replaced while Envoy runs.
    pub dynamic: bool,
    /// The token that the filter finds in its environment.
    pub token: Option<String>,
    /// `TIDEGATE_ENVIRONMENT`, as the filter finds it.
    pub environment: Option<String>,
    /// `node.locality.region`.
    pub region: Option<String>,
    /// Whether requests are written to the access log.
    pub access_log: bool,
}

/// How the cluster of the gateway speaks TLS: as `docs/gateway.md` shows it, with these files.
#[derive(Debug, Clone)]
pub struct GatewayTls {
    /// Who signed the gateway's certificate.
    pub ca: PathBuf,
    /// What Envoy shows of itself.
    pub own: Option<Files>,
}

// === impl GatewayTls ===

impl GatewayTls {
    fn transport_socket(&self) -> Value {
        let path = parts::root().join("docs/gateway.md");
        let page = fs::read_to_string(&path).expect("docs/gateway.md");
        let snippet = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
        let mut clusters: Value =
            serde_saphyr::from_str(snippet.expect("a snippet of YAML")).expect("it is YAML");
        let mut socket = clusters[0]["transport_socket"].take();
        let common = "/typed_config/common_tls_context";
        let validation = format!("{common}/validation_context");
        set(&mut socket, "/typed_config/sni", json!("localhost"));
        set(&mut socket, &format!("{validation}/trusted_ca/filename"), json!(self.ca));
        let san = format!("{validation}/match_typed_subject_alt_names/0/matcher/exact");
        set(&mut socket, &san, json!("localhost"));
        let pair = format!("{common}/tls_certificates/0");
        match &self.own {
            Some(own) => {
                let certificate = format!("{pair}/certificate_chain/filename");
                set(&mut socket, &certificate, json!(own.certificate));
                set(&mut socket, &format!("{pair}/private_key/filename"), json!(own.key));
            }
            None => set(&mut socket, &format!("{common}/tls_certificates"), json!([])),
        }
        socket
    }
}

// === impl Options ===

impl Options {
    /// The shipped filter in front of an upstream.
    pub fn new(gateway: SocketAddr, upstream: SocketAddr) -> Self {
        Self {
            config: None,
            gateway,
            gateway_http2: true,
            upstream: Some(upstream),
            listen: "127.0.0.1:0".to_owned(),
            admin_port: 0,
            gateway_tls: None,
            gateway_connect_timeout: "5s",
            gateway_cluster: "tidegate",
            filter: Some(parts::filter("tidegate")),
            allow_stop_iteration: true,
            concurrency: 1,
            max_headers: None,
            dynamic: false,
            token: Some(crate::gateway::TOKEN.to_owned()),
            environment: None,
            region: None,
            access_log: true,
        }
    }

    /// The same with another configuration of the filter.
    pub fn config(mut self, config: &str) -> Self {
        self.config = Some(config.to_owned());
        self
    }

    fn bootstrap(&self) -> Value {
        let path = parts::root().join("envoy/bootstrap.yaml");
        let text = fs::read_to_string(&path).expect("envoy/bootstrap.yaml");
        let mut all: Value = serde_saphyr::from_str(&text).expect("envoy/bootstrap.yaml is YAML");
        let listen: SocketAddr = self.listen.parse().expect("an address and a port");
        set(&mut all, "/admin/address/socket_address/port_value", json!(self.admin_port));
        set(&mut all, "/static_resources/listeners/0/address", address(listen));
        if let Some(region) = &self.region {
            all["node"]["locality"] = json!({ "region": region });
        }
        self.filter_into(&mut all);
        self.clusters_into(&mut all);
        if !self.access_log {
            set(&mut all, &format!("{HCM}/access_log"), json!([]));
        }
        if let Some(max) = self.max_headers {
            set(
                &mut all,
                &format!("{HCM}/common_http_protocol_options/max_headers_count"),
                json!(max),
            );
            // Beyond 60 KiB the size would refuse what the count admits.
            set(&mut all, &format!("{HCM}/max_request_headers_kb"), json!(96));
        }
        all
    }

    fn filter_into(&self, all: &mut Value) {
        let Some(module) = &self.filter else {
            let filters = all.pointer_mut(FILTERS).and_then(Value::as_array_mut).expect("filters");
            filters.remove(0);
            return;
        };
        let config = format!("{FILTERS}/0/typed_config/config");
        set(all, &format!("{config}/vm_config/code/local/filename"), json!(module));
        set(
            all,
            &format!("{config}/allow_on_headers_stop_iteration"),
            json!(self.allow_stop_iteration),
        );
        if let Some(text) = &self.config {
            set(all, &format!("{config}/configuration/value"), json!(text));
        }
    }

    fn clusters_into(&self, all: &mut Value) {
        let endpoint = |cluster: usize| {
            format!(
                "/static_resources/clusters/{cluster}/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address"
            )
        };
        set(all, &endpoint(1), address(self.gateway));
        match self.upstream {
            Some(upstream) => set(all, &endpoint(0), address(upstream)),
            None => {
                let route = format!("{HCM}/route_config/virtual_hosts/0/routes/0");
                let answer =
                    json!({ "match": { "prefix": "/" }, "direct_response": { "status": 200 } });
                set(all, &route, answer);
            }
        }
        set(all, "/static_resources/clusters/1/name", json!(self.gateway_cluster));
        let assignment = "/static_resources/clusters/1/load_assignment/cluster_name";
        set(all, assignment, json!(self.gateway_cluster));
        let connect_timeout = "/static_resources/clusters/1/connect_timeout";
        set(all, connect_timeout, json!(self.gateway_connect_timeout));
        if let Some(tls) = &self.gateway_tls {
            set(all, "/static_resources/clusters/1/transport_socket", tls.transport_socket());
        }
        if !self.gateway_http2 {
            let protocol = "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/explicit_http_config";
            set(all, protocol, json!({ "http_protocol_options": {} }));
        }
    }
}

fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

/// Sets a value; its parent must be there, so that a renamed field fails the test.
fn set(all: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = all.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the bootstrap"));
    match parent {
        Value::Array(items) => items[key.parse::<usize>().expect("an index")] = value,
        _ => parent[key] = value,
    }
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    /// Where clients connect.
    pub addr: SocketAddr,
    /// Its admin interface.
    pub admin: SocketAddr,
    dir: TempDir,
    process: Process,
}

// === impl Envoy ===

impl Envoy {
    /// Starts one and waits until it listens.
    pub async fn start(options: &Options) -> Self {
        match Self::try_start(options).await {
            Ok(envoy) => envoy,
            Err(output) => panic!("Envoy ended at its start:\n{output}"),
        }
    }

    /// Starts one; gives its output if it refuses to start.
    pub async fn try_start(options: &Options) -> Result<Self, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut bootstrap = options.bootstrap();
        if options.dynamic {
            make_dynamic(&mut bootstrap, dir.path());
        }
        let file = dir.path().join("bootstrap.json");
        fs::write(&file, bootstrap.to_string()).expect("a writable folder");
        let mut process = launch(options, &file, dir.path());
        let admin = admin_address(&mut process, dir.path()).await?;
        let addr = listener_address(&mut process, admin).await?;
        Ok(Self { addr, admin, dir, process })
    }

    /// Replaces the listeners of a `dynamic` Envoy.
    pub fn update(&self, options: &Options) {
        let mut bootstrap = options.bootstrap();
        let listener = &mut bootstrap["static_resources"]["listeners"][0];
        // The port that was found stays: an update is not a new listener.
        listener["address"] = address(self.addr);
        write_listeners(listener.take(), self.dir.path());
    }

    /// All that Envoy and the filter logged, access log included.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The process, for signals and CPU time.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The filter's counters and gauges, in Prometheus' format.
    pub async fn metrics(&self) -> String {
        let all = client::get(self.admin, "/stats/prometheus").await.body;
        all.lines()
            .filter(|line| line.starts_with("tidegate_") || line.contains("_vm_reload"))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// One metric's value by its exact name and labels; 0 if it is not there yet.
    pub async fn metric(&self, name: &str) -> u64 {
        let all = self.metrics().await;
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }
}

fn launch(options: &Options, bootstrap: &Path, dir: &Path) -> Process {
    let mut command = Command::new(parts::envoy());
    // Relative paths of the bootstrap start at the checkout.
    command.current_dir(parts::root());
    command.arg("--config-path").arg(bootstrap);
    command.arg("--admin-address-path").arg(dir.join("admin"));
    command.args(["--disable-hot-restart", "--log-level", "warning"]);
    command.args(["--component-log-level", "wasm:info"]);
    command.args(["--concurrency", &options.concurrency.to_string()]);
    command.env_remove("TIDEGATE_TOKEN").env_remove("TIDEGATE_ENVIRONMENT");
    if let Some(token) = &options.token {
        command.env("TIDEGATE_TOKEN", token);
    }
    if let Some(environment) = &options.environment {
        command.env("TIDEGATE_ENVIRONMENT", environment);
    }
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

async fn listener_address(process: &mut Process, admin: SocketAddr) -> Result<SocketAddr, String> {
    eventually(START_WITHIN, "Envoy's listener is up", async || {
        if let Some(status) = process.ended() {
            return Ok(Err(format!("{status}\n{}", process.output())));
        }
        let ready = client::try_get(admin, "/ready").await.filter(|answer| answer.status == 200);
        let listeners = client::try_get(admin, "/listeners?format=json").await;
        let Some((_, listeners)) = ready.zip(listeners) else {
            return Err(format!("not ready: {}", process.output()));
        };
        let listeners = listeners.json();
        let found = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        let text = found["address"].as_str().zip(found["port_value"].as_u64());
        let (ip, port) = text.ok_or_else(|| listeners.to_string())?;
        let ip = ip.parse().map_err(|error| format!("{ip}: {error}"))?;
        Ok(Ok(SocketAddr::new(ip, u16::try_from(port).expect("a port"))))
    })
    .await
}

fn make_dynamic(bootstrap: &mut Value, dir: &Path) {
    let listeners = bootstrap["static_resources"]["listeners"].take();
    write_listeners(listeners[0].clone(), dir);
    bootstrap["static_resources"]["listeners"] = json!([]);
    bootstrap["dynamic_resources"] = json!({ "lds_config": {
        "path_config_source": { "path": dir.join("listeners.json"), "watched_directory": { "path": dir } },
        "resource_api_version": "V3"
    } });
}

/// Envoy watches for a rename, so that it never reads half a file.
fn write_listeners(mut listener: Value, dir: &Path) {
    listener["@type"] = json!("type.googleapis.com/envoy.config.listener.v3.Listener");
    let fresh = dir.join("listeners.fresh");
    fs::write(&fresh, json!({ "resources": [listener] }).to_string()).expect("a writable folder");
    fs::rename(&fresh, dir.join("listeners.json")).expect("a writable folder");
}
