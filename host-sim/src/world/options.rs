//! What a run is told about its host. It must not know how a scenario file spells it.

use super::schedule::Interleavings;
use crate::host::lints::LintOptions;
use crate::host::settings::{ListenerSettings, PluginSettings};
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
    pub(crate) listener: ListenerSettings,
    pub(crate) lints: LintOptions,
}
