//! Owns a real Envoy: `envoy/bootstrap.yaml` with only ports, paths and what a test asks for
//! replaced, so that the file that operators read is the file that is tested.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::certificates::Files;
use crate::envoy_process::{EnvoyProcess, Settings, address};
use crate::process::Process;
use crate::{client, http3, parts};

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
    /// Whether requests go to the upstream over HTTP/2, or over HTTP/1, as shipped.
    pub upstream_http2: bool,
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
    /// More clusters like the gateway's, by their names: those of other regions.
    pub homes: Vec<(&'static str, SocketAddr)>,
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
    /// What one of the examples in `envoy/` says, put where its comments say.
    pub example: Option<Value>,
    /// Keys that the filter finds in its environment.
    pub keys: Vec<(&'static str, String)>,
    /// What the listener shows of itself if it takes HTTP/3 and nothing else.
    pub quic: Option<Files>,
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
            upstream_http2: false,
            upstream: Some(upstream),
            listen: "127.0.0.1:0".to_owned(),
            admin_port: 0,
            gateway_tls: None,
            gateway_connect_timeout: "5s",
            gateway_cluster: "tidegate",
            homes: Vec::new(),
            filter: Some(parts::filter("tidegate")),
            allow_stop_iteration: true,
            concurrency: 1,
            max_headers: None,
            dynamic: false,
            token: Some(crate::gateway::TOKEN.to_owned()),
            environment: None,
            region: None,
            access_log: true,
            example: None,
            keys: Vec::new(),
            quic: None,
        }
    }

    /// The same with another configuration of the filter.
    pub fn config(mut self, config: &str) -> Self {
        self.config = Some(config.to_owned());
        self
    }

    /// The same with an example of `envoy/`, by its name.
    pub fn example(mut self, name: &str) -> Self {
        let path = parts::root().join(format!("envoy/{name}.yaml"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let example: Value = serde_saphyr::from_str(&text).expect("the example is YAML");
        self.config = Some(example["configuration"].to_string());
        self.example = Some(example);
        self
    }

    /// A part of the example, for what a test has to say in another way.
    pub fn part(&mut self, pointer: &str) -> &mut Value {
        let example = self.example.as_mut().expect("an example");
        example.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in the example"))
    }

    fn settings(&self) -> Settings {
        let token = self.token.iter().map(|value| ("TIDEGATE_TOKEN", value));
        let environment = self.environment.iter().map(|value| ("TIDEGATE_ENVIRONMENT", value));
        Settings {
            concurrency: self.concurrency,
            dynamic: self.dynamic,
            environment: token
                .chain(environment)
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .collect(),
            arguments: Vec::new(),
        }
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
        self.example_into(&mut all);
        if !self.access_log {
            set(&mut all, &format!("{HCM}/access_log"), json!([]));
        }
        if let Some(own) = &self.quic {
            http3::over_quic(&mut all["static_resources"]["listeners"][0], own);
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
        if !self.keys.is_empty() {
            let keys: serde_json::Map<String, Value> =
                self.keys.iter().map(|(name, key)| ((*name).to_owned(), json!(key))).collect();
            let variables = format!("{config}/vm_config/environment_variables/key_values");
            set(all, &variables, Value::Object(keys));
        }
    }

    fn example_into(&self, all: &mut Value) {
        let Some(example) = &self.example else { return };
        let listener = "/static_resources/listeners/0";
        for (name, value) in example.as_object().expect("a table") {
            match name.as_str() {
                "http_filters" => {
                    let filters = all.pointer_mut(FILTERS).and_then(Value::as_array_mut);
                    let ahead = value.as_array().expect("a list").iter().cloned();
                    filters.expect("filters").splice(0..0, ahead);
                }
                "routes" => {
                    set(all, &format!("{HCM}/route_config/virtual_hosts/0/routes"), value.clone());
                }
                "transport_socket" => {
                    set(
                        all,
                        &format!("{listener}/filter_chains/0/transport_socket"),
                        value.clone(),
                    );
                }
                "listener_filters" => {
                    set(all, &format!("{listener}/listener_filters"), value.clone());
                }
                "clusters" => {
                    let clusters = all.pointer_mut("/static_resources/clusters");
                    let more = value.as_array().expect("a list").iter().cloned();
                    clusters.and_then(Value::as_array_mut).expect("clusters").extend(more);
                }
                "configuration" => {}
                other => panic!("{other} of an example has no place in the bootstrap"),
            }
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
        if self.upstream_http2 {
            let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            let speaks = json!({ options: {
                "@type": format!("type.googleapis.com/{options}"),
                "explicit_http_config": { "http2_protocol_options": {} },
            } });
            let place = "/static_resources/clusters/0/typed_extension_protocol_options";
            set(all, place, speaks);
        }
        for (name, addr) in &self.homes {
            let mut cluster = all["static_resources"]["clusters"][1].clone();
            let place = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
            set(&mut cluster, place, address(*addr));
            set(&mut cluster, "/name", json!(name));
            set(&mut cluster, "/load_assignment/cluster_name", json!(name));
            let clusters = all["static_resources"]["clusters"].as_array_mut();
            clusters.expect("clusters").push(cluster);
        }
        if !self.gateway_http2 {
            let protocol = "/static_resources/clusters/1/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/explicit_http_config";
            set(all, protocol, json!({ "http_protocol_options": {} }));
        }
    }
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
    process: EnvoyProcess,
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
        let process = EnvoyProcess::start(options.bootstrap(), &options.settings()).await?;
        let listeners = process.listeners().await;
        let addr = *listeners.values().next().expect("the bootstrap has a listener");
        Ok(Self { addr, admin: process.admin, process })
    }

    /// Replaces the listeners of a `dynamic` Envoy.
    pub fn update(&self, options: &Options) {
        let mut bootstrap = options.bootstrap();
        let listener = &mut bootstrap["static_resources"]["listeners"][0];
        // The port that was found stays: an update is not a new listener.
        listener["address"] = address(self.addr);
        self.process.update(vec![listener.take()]);
    }

    /// All that Envoy and the filter logged, access log included.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// The process, for signals and CPU time.
    pub fn process(&mut self) -> &mut Process {
        self.process.process()
    }

    /// Everything in Prometheus's form.
    pub async fn stats(&self) -> String {
        client::get(self.admin, "/stats/prometheus").await.body
    }

    /// The filter's counters and gauges, in Prometheus' format.
    pub async fn metrics(&self) -> String {
        let all = self.stats().await;
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
