//! Owns what a real Envoy is told so that it stands where the scenarios' host stands: a listener
//! for each scenario, with its filters, its route and its clusters.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::corpus::Case;
use super::envoy_log::ACCESS;
use super::services::Place;
use crate::envoy_process::address;
use crate::parts;

const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";
const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
const ACCESS_LOG: &str =
    "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
const STRING: &str = "type.googleapis.com/google.protobuf.StringValue";

/// A whole bootstrap for many scenarios.
pub(super) fn bootstrap(cases: &[(&Case, &BTreeMap<String, Place>)]) -> Value {
    let listeners: Vec<Value> =
        cases.iter().map(|(case, _)| listener(case, &BTreeMap::new())).collect();
    let clusters: Vec<Value> = cases.iter().flat_map(|(case, at)| clusters(case, at)).collect();
    json!({
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "node": { "id": "conformance", "cluster": "conformance" },
        // Histograms are put together when stats are flushed.
        "stats_flush_interval": "0.050s",
        "static_resources": { "listeners": listeners, "clusters": clusters },
    })
}

/// The listener of one scenario; some plugins may have got another configuration meanwhile.
pub(super) fn listener(case: &Case, updated: &BTreeMap<usize, Vec<u8>>) -> Value {
    let format =
        format!("{ACCESS} {} %DOWNSTREAM_DIRECT_REMOTE_PORT% %RESPONSE_CODE_DETAILS%\n", case.id);
    let plugins = case.plugins();
    let mut filters: Vec<Value> = filter_state(case).into_iter().collect();
    let mut disabled = json!({});
    for (at, plugin) in plugins.iter().enumerate() {
        let config = match updated.get(&at) {
            Some(bytes) => serde_json::from_slice(bytes).unwrap_or(Value::Null),
            None => plugin["config"].clone(),
        };
        filters.push(wasm(case, plugin, config));
        if plugin["disabled"] == json!(true) {
            disabled[name(plugin)] = json!({ "@type": FILTER_CONFIG, "disabled": true });
        }
    }
    filters.push(json!({
        "name": "envoy.filters.http.router", "typed_config": { "@type": ROUTER }
    }));
    let manager = json!({
        "@type": HCM,
        "stat_prefix": case.id,
        "access_log": [{ "name": "stdout", "typed_config": {
            "@type": ACCESS_LOG,
            "log_format": { "text_format_source": { "inline_string": format } },
        } }],
        "http_filters": filters,
        // A connection that Envoy gives up ends at once and not a second later.
        "delayed_close_timeout": "0s",
        "http_protocol_options": { "enable_trailers": true },
        "route_config": { "name": "routes", "virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{
                "name": "route",
                "match": { "prefix": "/" },
                "metadata": case.host("properties")["xds.route_metadata"],
                "route": { "cluster": case.own("upstream") },
                "typed_per_filter_config": disabled,
            }],
        }] },
    });
    json!({
        "name": case.id,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "per_connection_buffer_limit_bytes": case.buffer_bytes_max(),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
        }] }],
    })
}

/// The filter that puts into the stream's state what the scenario's properties say is there.
fn filter_state(case: &Case) -> Option<Value> {
    const SET: &str =
        "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config";
    let properties = case.host("properties").as_object()?;
    let set = |(path, value): (&String, &Value)| {
        let text = json!({ "text_format_source": { "inline_string": value.as_str()? } });
        Some(json!({
            "object_key": path.strip_prefix("filter_state.")?,
            "factory_key": "envoy.string",
            "format_string": text,
        }))
    };
    let all: Vec<Value> = properties.iter().filter_map(set).collect();
    (!all.is_empty()).then(
        || json!({ "name": "state", "typed_config": { "@type": SET, "on_request_headers": all } }),
    )
}

fn name(plugin: &Value) -> &str {
    plugin["name"].as_str().unwrap_or("plugin")
}

fn wasm(case: &Case, plugin: &Value, own_config: Value) -> Value {
    let name = name(plugin);
    let vm_id = plugin["vm_id"].as_str().map_or(case.id.clone(), |vm_id| case.own(vm_id));
    let mut vm_config = json!({
        "vm_id": vm_id,
        "runtime": "envoy.wasm.runtime.v8",
        "code": { "local": { "filename": parts::filter("conformance") } },
    });
    if let Some(text) = text(&plugin["vm_config"]) {
        vm_config["configuration"] = json!({ "@type": STRING, "value": text });
    }
    if plugin["env"].is_object() {
        vm_config["environment_variables"] = json!({ "key_values": plugin["env"] });
    }
    if let Some(allowed) = plugin["capabilities"].as_array() {
        let allowed = allowed.iter().filter_map(Value::as_str);
        let allowed: Value = allowed.map(|name| (name.to_owned(), json!({}))).collect();
        vm_config["capability_restriction_config"] = json!({ "allowed_capabilities": allowed });
    }
    let option = |key: &str| match &plugin[key] {
        Value::Null => case.host(key).clone(),
        own => own.clone(),
    };
    let mut config = json!({
        "name": name,
        "root_id": plugin["root_id"].as_str().unwrap_or_default(),
        "vm_config": vm_config,
        "allow_on_headers_stop_iteration": option("allow_on_headers_stop_iteration") == json!(true),
    });
    if let Some(text) = text(&own_names(case, own_config)) {
        config["configuration"] = json!({ "@type": STRING, "value": text });
    }
    match option("fail_policy").as_str() {
        Some("fail_open") => config["fail_open"] = json!(true),
        Some(policy) => config["failure_policy"] = json!(policy),
        None => {}
    }
    if let Some(interval) = option("reload_base_interval").as_str() {
        config["reload_config"] = json!({ "backoff": { "base_interval": interval } });
    }
    json!({ "name": name, "typed_config": { "@type": WASM, "config": config } })
}

/// The plugin's configuration, with the names that its clusters and VMs have here.
fn own_names(case: &Case, mut config: Value) -> Value {
    if config.is_object() {
        let plugins = case.plugins();
        let vms = plugins.iter().filter_map(|plugin| plugin["vm_id"].as_str());
        let own = |name: &str| (name.to_owned(), json!(case.own(name)));
        config["names"] = case.clusters().into_iter().chain(vms).map(own).collect();
    }
    config
}

/// Text as it is, anything else as JSON; nothing for nothing.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn clusters(case: &Case, at: &BTreeMap<String, Place>) -> Vec<Value> {
    at.iter().map(|(name, place)| cluster(case, &cluster_name(case, name), *place)).collect()
}

fn cluster_name(case: &Case, name: &str) -> String {
    case.own(if name.is_empty() { "upstream" } else { name })
}

fn cluster(case: &Case, name: &str, place: Place) -> Value {
    let endpoints = match place {
        Place::HasNoHosts => json!([]),
        Place::Listens(addr) | Place::Refuses(addr) | Place::IsFull(addr) => {
            json!([{ "lb_endpoints": [{ "endpoint": { "address": address(addr) } }] }])
        }
    };
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "per_connection_buffer_limit_bytes": case.buffer_bytes_max(),
        "load_assignment": { "cluster_name": name, "endpoints": endpoints },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http_protocol_options": { "enable_trailers": true } },
        } },
    });
    if matches!(place, Place::IsFull(_)) {
        cluster["circuit_breakers"] = json!({ "thresholds": [{
            "max_connections": 0, "max_pending_requests": 0, "max_requests": 0,
        }] });
    }
    cluster
}
