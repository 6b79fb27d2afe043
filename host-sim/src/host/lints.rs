//! What Envoy tolerates but bites: the lints of a run and their words. It must not change what a run does.

pub(crate) mod found;
pub(crate) mod hangs;
mod memory;
pub(crate) mod watch;

use std::fmt;

use super::trace::millis;

/// Host calls of one request in one plugin beyond which it is `too-many-host-calls`, unless the scenario says otherwise.
/// A host call costs 0.1 to 1.5 us in Envoy: so many double the cost of a plain proxied request.
pub const HOST_CALLS_MAX: u64 = 100;

/// Keys in shared data that requests may create before it is `shared-keys-grow`. No key is ever removed.
pub const SHARED_KEYS_MAX: usize = 1_000;

/// Metrics that requests may define before it is `metric-names-grow`. No metric is ever removed.
pub const METRIC_NAMES_MAX: usize = 200;

/// What a lint is about. The names are stable.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum LintName {
    /// A header write that came too late and was refused.
    WriteAfterResume,
    /// A pause that nothing can end.
    PauseWithoutCallout,
    /// A message that a callback let go while the stream still waited for a callout.
    ReleasedBeforeVerdict,
    /// `proxy_send_local_response` in `proxy_on_log`.
    LocalReplyInLog,
    /// A callout with a timeout of 0.
    CalloutWithoutTimeout,
    /// `proxy_get_status` for an HTTP callout.
    GetStatus,
    /// Shared keys that requests create without end.
    SharedKeysGrow,
    /// Metrics that requests define without end.
    MetricNamesGrow,
    /// A counter that is counted while the plugin starts.
    CounterInConfigure,
    /// Linear memory that grows with the number of requests.
    MemoryGrows,
    /// More host calls for one request than a request should cost.
    TooManyHostCalls,
}

/// What becomes of lints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LintMode {
    /// They are in the report and fail nothing.
    #[default]
    Report,
    /// Each one fails the scenario.
    Deny,
    Off,
}

/// What a run is told about its lints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LintOptions {
    pub(crate) mode: LintMode,
    pub(crate) host_calls_max: u64,
}

/// Something a plugin did that Envoy tolerates but that bites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// Which lint it is.
    pub name: LintName,
    /// Since the run began.
    pub at_ns: u64,
    /// `canary`, `main`, `w0`, `w1`, ...
    pub vm: String,
    /// The context it is about; 0 for the VM as a whole.
    pub context: u32,
    /// The callback that ran, or that left the stream as it is; empty for none.
    pub callback: &'static str,
    /// The host call that did it, if one did.
    pub host_call: Option<&'static str>,
    /// What exactly was seen.
    pub detail: String,
}

// === impl LintName ===

impl LintName {
    /// Every lint.
    pub const ALL: [Self; 11] = [
        Self::WriteAfterResume,
        Self::PauseWithoutCallout,
        Self::ReleasedBeforeVerdict,
        Self::LocalReplyInLog,
        Self::CalloutWithoutTimeout,
        Self::GetStatus,
        Self::SharedKeysGrow,
        Self::MetricNamesGrow,
        Self::CounterInConfigure,
        Self::MemoryGrows,
        Self::TooManyHostCalls,
    ];

    /// The name as scenario files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WriteAfterResume => "write-after-resume",
            Self::PauseWithoutCallout => "pause-without-callout",
            Self::ReleasedBeforeVerdict => "released-before-verdict",
            Self::LocalReplyInLog => "local-reply-in-log",
            Self::CalloutWithoutTimeout => "callout-without-timeout",
            Self::GetStatus => "get-status",
            Self::SharedKeysGrow => "shared-keys-grow",
            Self::MetricNamesGrow => "metric-names-grow",
            Self::CounterInConfigure => "counter-in-configure",
            Self::MemoryGrows => "memory-grows",
            Self::TooManyHostCalls => "too-many-host-calls",
        }
    }

    /// What happens in Envoy.
    pub fn effect(self) -> &'static str {
        match self {
            Self::WriteAfterResume => {
                "Envoy refuses with BadArgument; setters of the Rust SDK panic on that and the VM is dead for every request"
            }
            Self::PauseWithoutCallout => {
                "only a resume frees the stream and nothing is left that could call it: the client hangs until a stream timeout"
            }
            Self::ReleasedBeforeVerdict => {
                "a body or trailers callback that returns Continue releases the headers, too: the message passes unjudged"
            }
            Self::LocalReplyInLog => {
                "Envoy logs the reply, which calls proxy_on_log again, until the whole process crashes"
            }
            Self::CalloutWithoutTimeout => {
                "0 is no timeout: a peer that never answers holds the stream, and its memory, for ever"
            }
            Self::GetStatus => {
                "after one reset callout the code stays 11 for all later ones that succeed"
            }
            Self::SharedKeysGrow => {
                "shared data is never removed before the last VM of its vm_id goes: the process grows with its traffic"
            }
            Self::MetricNamesGrow => {
                "a metric is never removed: Envoy's stats and every scrape grow with the traffic"
            }
            Self::CounterInConfigure => {
                "it runs once in the canary, in the main thread's VM and in each worker: the count depends on the number of workers"
            }
            Self::MemoryGrows => "a VM never gives memory back: it grows to 1 GiB and traps there",
            Self::TooManyHostCalls => {
                "each costs 0.1 to 1.5 us of the worker, those that return data most of all"
            }
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::WriteAfterResume => {
                "write headers before the resume and before Continue, by calls whose status you look at"
            }
            Self::PauseWithoutCallout => {
                "pause only after a callout was accepted; else decide in the callback, at the latest in the one that is told of the end"
            }
            Self::ReleasedBeforeVerdict => {
                "return a pause from the body and trailers callbacks, too, until the callout is answered"
            }
            Self::LocalReplyInLog => "reply in an earlier callback",
            Self::CalloutWithoutTimeout => "give every callout a timeout",
            Self::GetStatus => {
                "read :status of the answer's headers; no headers at all mean a reset"
            }
            Self::SharedKeysGrow => {
                "hash what requests bring into a fixed number of keys, or keep such state in a service"
            }
            Self::MetricNamesGrow => {
                "make names only of values from the configuration, and count the rest under one name"
            }
            Self::CounterInConfigure => "count in requests or ticks, or set a gauge",
            Self::MemoryGrows => {
                "remove a stream's state in proxy_on_delete and give every cache a bound"
            }
            Self::TooManyHostCalls => {
                "read all headers in one call, keep what was read in the context, and call nothing in loops"
            }
        }
    }
}

impl fmt::Display for LintName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name, what was seen and where, what Envoy makes of it, what to do.
impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, at_ns, vm, context, callback, host_call, detail } = self;
        write!(f, "{name}: {detail} (at {} in {vm}", millis(*at_ns))?;
        if *context > 0 {
            write!(f, ", context {context}")?;
        }
        for place in [*callback, host_call.unwrap_or_default()] {
            if !place.is_empty() {
                write!(f, ", {place}")?;
            }
        }
        write!(f, "). In Envoy {}. Instead, {}.", name.effect(), name.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_spells_every_lint_by_its_name() {
        for name in LintName::ALL {
            let read: LintName = serde_json::from_value(name.as_str().into()).unwrap();
            assert_eq!(read, name);
        }
    }
}
