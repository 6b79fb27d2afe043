//! The shape of a scenario file, as written. It must not check what serde does not; that is the plan's work.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::expect::RawExpect;
use super::options::RawHost;
use super::rules::RawRule;
use super::timeline::RawStep;
use super::units::Span;
use crate::host::settings::FailPolicy;

/// A whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawScenario {
    pub(crate) name: String,
    pub(crate) plugin: Option<RawPlugin>,
    /// A chain in request order, instead of `plugin`.
    #[serde(default)]
    pub(crate) plugins: Vec<RawPlugin>,
    #[serde(default)]
    pub(crate) host: RawHost,
    /// The clusters that exist; without this list every name does.
    pub(crate) clusters: Option<Vec<String>>,
    /// What callouts are answered.
    #[serde(default, alias = "services")]
    pub(crate) gateway: RawGateway,
    /// What requests that pass the filter are answered; without rules, 200 and `ok`.
    #[serde(default)]
    pub(crate) upstream: Vec<Spanned<RawRule>>,
    #[serde(default)]
    pub(crate) timeline: Vec<Spanned<RawStep>>,
    #[serde(default)]
    pub(crate) expect: Vec<Spanned<RawExpect>>,
    pub(crate) expect_start_error: Option<RawStartError>,
}

/// The plugin and what it is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPlugin {
    /// A path, from the scenario file's folder. A caller may bring bytes instead.
    pub(crate) wasm: Option<String>,
    #[serde(default = "plugin_name")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) root_id: String,
    #[serde(default)]
    pub(crate) vm_id: String,
    /// Text as it is, or a value that becomes JSON.
    pub(crate) config: Option<serde_json::Value>,
    /// A path, from the scenario file's folder.
    pub(crate) config_file: Option<String>,
    pub(crate) vm_config: Option<serde_json::Value>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The next three are the host's where they are not given.
    pub(crate) allow_on_headers_stop_iteration: Option<bool>,
    pub(crate) fail_policy: Option<FailPolicy>,
    pub(crate) reload_base_interval: Option<Span>,
    /// `FilterConfig.disabled` on the route.
    #[serde(default)]
    pub(crate) disabled: bool,
    /// The only functions and callbacks that are allowed.
    pub(crate) capabilities: Option<BTreeSet<String>>,
}

/// Rules, or the word for a service that the caller binds.
#[derive(Debug, Clone)]
pub(crate) enum RawGateway {
    Rules(Vec<Spanned<RawRule>>),
    InProcess,
}

/// What a start must fail with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawStartError {
    pub(crate) contains: String,
}

fn plugin_name() -> String {
    "plugin".to_owned()
}

impl Default for RawGateway {
    fn default() -> Self {
        Self::Rules(Vec::new())
    }
}
