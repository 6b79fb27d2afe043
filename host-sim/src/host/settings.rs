//! What a VM is told about its plugin and its host. It must not change during a run.

use std::collections::{BTreeMap, BTreeSet};

use crate::abi::codes::LogLevel;

/// The settings every VM of a run shares.
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
    pub(crate) fuel_per_callback: u64,
    pub(crate) memory_bytes_max: usize,
    pub(crate) seed: u64,
    /// Dotted path to the value's bytes, for every stream and root.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    /// The host functions and callbacks the plugin may use; `None` is everything.
    pub(crate) capabilities: Option<BTreeSet<String>>,
}

impl PluginSettings {
    /// Whether a function or callback of this name may be used. An empty list restricts nothing, as in Envoy.
    pub(crate) fn allows(&self, name: &str) -> bool {
        self.capabilities.as_ref().is_none_or(|list| list.is_empty() || list.contains(name))
    }

    /// `NAME=value` lines with their final zero byte, as WASI hands them out.
    pub(crate) fn environ(&self) -> Vec<Vec<u8>> {
        self.env.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
    }
}
