//! Owns the facts of an Envoy file as they come in: what stands around the filter. Everything is
//! optional: a file may be a part of a whole. docs/checking.md is their reference.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

/// What stands around one filter in an Envoy file. `at` is always the place in that file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The filter itself.
    pub filter: Option<Filter>,
    /// The listener that it stands behind.
    pub listener: Option<Listener>,
    /// The HTTP connection manager that it is part of.
    pub connection_manager: Option<ConnectionManager>,
    /// The routes behind it, those with an action of their own.
    pub routes: Vec<Route>,
    /// The clusters of the file.
    pub clusters: Vec<Cluster>,
    /// Whether these are all: the file names clusters, and none come from elsewhere.
    pub clusters_complete: bool,
}

/// The filter's own settings in Envoy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Where.
    pub at: String,
    /// `failure_policy`, or the older `fail_open` as `fail_open`.
    pub failure_policy: Option<String>,
    /// `allow_on_headers_stop_iteration`.
    pub allow_on_headers_stop_iteration: Option<bool>,
    /// The names of the environment variables that reach the VM.
    pub env: Vec<String>,
    /// `StringValue` or `Struct`, as the configuration is written.
    pub configuration_type: Option<String>,
}

/// The listener's settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Where.
    pub at: String,
    /// `per_connection_buffer_limit_bytes`, in bytes; absent is Envoy's default of 1 MiB.
    pub per_connection_buffer_limit_bytes: Option<u64>,
}

/// The HTTP connection manager's settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConnectionManager {
    /// Where.
    pub at: String,
    /// `stream_idle_timeout`, in ms; 0 is none.
    pub stream_idle_timeout_ms: Option<u64>,
    /// `use_remote_address`.
    pub use_remote_address: Option<bool>,
    /// Whether `local_reply_config` has `mappers` or a `body_format`.
    pub rewrites_local_replies: bool,
}

/// A route.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Where.
    pub at: String,
    /// `timeout`, in ms; 0 is none, absent is Envoy's default of 15 s.
    pub timeout_ms: Option<u64>,
    /// `retry_on` of its `retry_policy`, or of its virtual host's.
    pub retry_on: Option<String>,
    /// `hedge_on_per_try_timeout` of its `hedge_policy`, or of its virtual host's.
    pub hedges: bool,
}

/// A cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Where.
    pub at: String,
    /// Its name.
    pub name: String,
    /// `connect_timeout`, in ms; absent is Envoy's default of 5 s.
    pub connect_timeout_ms: Option<u64>,
}
