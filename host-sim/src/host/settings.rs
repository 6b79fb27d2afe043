//! What a VM is told about its plugin and its host. It must not change during a run.

use std::collections::BTreeMap;

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
}

impl PluginSettings {
    /// `NAME=value` lines with their final zero byte, as WASI hands them out.
    pub(crate) fn environ(&self) -> Vec<Vec<u8>> {
        self.env.iter().map(|(name, value)| format!("{name}={value}\0").into_bytes()).collect()
    }
}
