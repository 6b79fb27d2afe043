//! Owns HTTP/3 for tests: what a listener of Envoy needs to take it, and a client that speaks it, which is another
//! Envoy in front of the first. Clients talk to that one by HTTP/1 or HTTP/2, and each request goes on by QUIC.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::{Authority, Files};
use crate::envoy_process::{EnvoyProcess, Settings, address};

/// Envoy looks for this very name.
const SOCKET: &str = "envoy.transport_sockets.quic";
const TRANSPORT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport";
const CLIENT_TRANSPORT: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A certificate for a listener, and who signed it.
#[derive(Debug)]
pub struct Certificate {
    dir: TempDir,
    /// The listener's.
    pub own: Files,
}

// === impl Certificate ===

impl Certificate {
    /// One that nobody else knows.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::new();
        authority.write(dir.path(), "ca.crt");
        let own = authority.sign().write(dir.path(), "quic");
        Self { dir, own }
    }

    /// Who signed it.
    fn ca(&self) -> std::path::PathBuf {
        self.dir.path().join("ca.crt")
    }
}

impl Default for Certificate {
    fn default() -> Self {
        Self::new()
    }
}

/// Has a listener of TCP take HTTP/3 instead, on the same address.
pub(crate) fn over_quic(listener: &mut Value, own: &Files) {
    listener["address"]["socket_address"]["protocol"] = json!("UDP");
    listener["udp_listener_config"] = json!({ "quic_options": {} });
    let chain = &mut listener["filter_chains"][0];
    let certificate = json!({
        "certificate_chain": { "filename": own.certificate },
        "private_key": { "filename": own.key },
    });
    chain["transport_socket"] = json!({ "name": SOCKET, "typed_config": {
        "@type": TRANSPORT,
        "downstream_tls_context": { "common_tls_context": { "tls_certificates": [certificate] } },
    } });
    let manager = &mut chain["filters"][0]["typed_config"];
    manager["codec_type"] = json!("HTTP3");
    manager["http3_protocol_options"] = json!({});
}

/// A running client: what is sent here goes on as HTTP/3.
#[derive(Debug)]
pub struct Http3 {
    /// Where HTTP/1 and HTTP/2 are spoken.
    pub addr: SocketAddr,
    process: EnvoyProcess,
}

// === impl Http3 ===

impl Http3 {
    /// Starts one that talks to a listener with that certificate.
    pub async fn start(to: SocketAddr, certificate: &Certificate) -> Self {
        let settings = Settings {
            concurrency: 1,
            dynamic: false,
            environment: Vec::new(),
            arguments: Vec::new(),
        };
        let bootstrap = bootstrap(to, &certificate.ca());
        let process = EnvoyProcess::start(bootstrap, &settings).await.expect("a second Envoy");
        let listeners = process.listeners().await;
        let addr = *listeners.values().next().expect("it has a listener");
        Self { addr, process }
    }

    /// All that it logged.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

fn bootstrap(to: SocketAddr, ca: &Path) -> Value {
    let mut there = address(to);
    there["socket_address"]["protocol"] = json!("UDP");
    let tls = json!({
        "sni": "localhost",
        "common_tls_context": { "validation_context": { "trusted_ca": { "filename": ca } } },
    });
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": "client",
        "http_filters": [{ "name": "router", "typed_config": { "@type": ROUTER } }],
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "route": { "cluster": "http3", "timeout": "0s" } },
        ] }] },
    });
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    json!({
        "admin": { "address": address(local) },
        "static_resources": {
            "listeners": [{ "name": "client", "address": address(local), "filter_chains": [
                { "filters": [{ "name": "manager", "typed_config": manager }] },
            ] }],
            "clusters": [{
                "name": "http3",
                "type": "STATIC",
                "connect_timeout": "5s",
                "load_assignment": { "cluster_name": "http3", "endpoints": [
                    { "lb_endpoints": [{ "endpoint": { "address": there } }] },
                ] },
                "transport_socket": { "name": SOCKET, "typed_config": {
                    "@type": CLIENT_TRANSPORT, "upstream_tls_context": tls,
                } },
                "typed_extension_protocol_options": { OPTIONS: {
                    "@type": format!("type.googleapis.com/{OPTIONS}"),
                    "explicit_http_config": { "http3_protocol_options": {} },
                } },
            }],
        },
    })
}
