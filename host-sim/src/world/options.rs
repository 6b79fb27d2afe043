//! What a run is told about its host. It must not know how a scenario file spells it.

use super::schedule::Interleavings;
use crate::host::settings::PluginSettings;
use crate::host::threads::ThreadOptions;

/// The host of a run.
#[derive(Debug, Clone)]
pub(crate) struct HostOptions {
    /// The chain, in request order.
    pub(crate) plugins: Vec<PluginSettings>,
    pub(crate) threads: ThreadOptions,
    pub(crate) start_unix_ns: u64,
    /// Timers run until here; without it the run ends when nothing but timers is left.
    pub(crate) until_ns: Option<u64>,
    /// Which orders of the threads are run; without it, one thread runs all.
    pub(crate) interleavings: Option<Interleavings>,
    /// What a direction may buffer before 413 or 500; 0 for no limit.
    pub(crate) buffer_bytes_max: usize,
}
