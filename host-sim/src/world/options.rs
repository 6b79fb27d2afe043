//! What a run is told about its host. It must not know how a scenario file spells it.

use crate::host::settings::PluginSettings;

/// What happens to a worker after its VM died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub(crate) enum FailPolicy {
    /// Every further request gets 503 until the process restarts.
    #[serde(rename = "FAIL_CLOSED")]
    Closed,
    /// The next request loads a new VM, unless the last load is too recent.
    #[serde(rename = "FAIL_RELOAD")]
    Reload,
}

/// The host of a run.
#[derive(Debug, Clone)]
pub(crate) struct HostOptions {
    pub(crate) plugin: PluginSettings,
    pub(crate) workers: usize,
    /// The main thread's VM, which ticks and never sees a request.
    pub(crate) has_main: bool,
    /// The VM that tries a configuration and is thrown away.
    pub(crate) has_canary: bool,
    pub(crate) fail_policy: FailPolicy,
    pub(crate) reload_base_interval_ns: u64,
    pub(crate) start_unix_ns: u64,
    /// Timers run until here; without it the run ends when nothing but timers is left.
    pub(crate) until_ns: Option<u64>,
    pub(crate) tracing: bool,
}
