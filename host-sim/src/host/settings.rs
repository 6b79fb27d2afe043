//! What a VM and a root are told about their plugin and their host. It must not change during a run.

use super::properties::Properties;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::abi::codes::LogLevel;

/// What happens to a worker after its VM died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
pub(crate) enum FailPolicy {
    /// Every further request gets 503 until the process restarts.
    #[serde(rename = "FAIL_CLOSED")]
    Closed,
    /// Further requests pass as if the filter were not there; the one that trapped gets 503.
    #[serde(rename = "FAIL_OPEN")]
    Open,
    /// The deprecated flag of the same name: the request that trapped passes, too.
    #[serde(rename = "fail_open")]
    OpenAtOnce,
    /// The next request loads a new VM, unless the last load is too recent.
    #[serde(rename = "FAIL_RELOAD")]
    Reload,
}

/// The settings of the listener that all requests come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListenerSettings {
    /// What a direction may buffer before 413 or 500; 0 for no limit.
    pub(crate) buffer_bytes_max: usize,
    /// Whether clients speak HTTP/3, over which filters are not told of the log of an answer that went out whole.
    pub(crate) is_http3: bool,
}

/// The settings of one plugin configuration.
#[derive(Debug, Clone)]
pub(crate) struct PluginSettings {
    pub(crate) name: String,
    pub(crate) root_id: String,
    pub(crate) vm_id: String,
    pub(crate) config: Vec<u8>,
    pub(crate) vm_config: Vec<u8>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) log_level: LogLevel,
    pub(crate) allow_on_headers_stop_iteration: bool,
    pub(crate) fail_policy: FailPolicy,
    pub(crate) reload_base_interval_ns: u64,
    /// `FilterConfig.disabled` on the route: requests pass by.
    pub(crate) is_disabled: bool,
    /// The functions and callbacks that are allowed; without it, all.
    pub(crate) capabilities: Option<BTreeSet<String>>,
    pub(crate) fuel_per_callback: u64,
    pub(crate) memory_bytes_max: usize,
    pub(crate) seed: u64,
    /// When the plugin's clock is set, and by how many ns.
    pub(crate) clock_steps: Vec<(u64, i64)>,
    pub(crate) contended: Vec<Contended>,
    /// Dotted path to the value's bytes, for every stream and root.
    pub(crate) properties: Properties,
}

/// When somebody else is faster with each write of shared data.
#[derive(Debug, Clone)]
pub(crate) struct Contended {
    pub(crate) within_ns: Range<u64>,
    /// How the keys begin.
    pub(crate) keys: String,
}

impl PluginSettings {
    /// Whether somebody else is faster now with that key.
    pub(crate) fn is_contended(&self, now_ns: u64, key: &[u8]) -> bool {
        self.contended
            .iter()
            .any(|one| one.within_ns.contains(&now_ns) && key.starts_with(one.keys.as_bytes()))
    }

    /// Whether a function or callback of this name may be used. An empty list restricts nothing, as in Envoy.
    pub(crate) fn allows(&self, name: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|list| list.is_empty() || list.contains(name))
    }

    /// `NAME=value` lines with their final zero byte, as WASI hands them out.
    pub(crate) fn environ(&self) -> Vec<Vec<u8>> {
        self.env.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
    }
}
