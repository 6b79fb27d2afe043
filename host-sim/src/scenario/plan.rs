//! A scenario after checking: options, timeline, network, checks. It must not run anything.

use std::path::{Path, PathBuf};

use super::check::Check;
use super::file::{RawPlugin, RawScenario};
use super::interleavings::RUNS_MAX;
use super::network::NetworkPlan;
use super::options::value_bytes;
use super::timeline;
use crate::world::options::HostOptions;
use crate::world::schedule::Interleavings;
use crate::world::timeline::Timeline;

/// A scenario that can run as often as one likes.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(crate) name: String,
    /// By plugin.
    pub(crate) wasm: Vec<Option<PathBuf>>,
    pub(crate) options: HostOptions,
    pub(crate) timeline: Timeline,
    pub(crate) network: NetworkPlan,
    pub(crate) checks: Vec<(u64, Check)>,
}

impl Scenario {
    /// The text of a problem names the field or the line.
    pub(crate) fn plan(raw: &RawScenario, folder: &Path) -> Result<Self, String> {
        let plugins = chain(raw)?;
        let mut configured = Vec::new();
        for plugin in &plugins {
            configured.push((*plugin, plugin_config(plugin, folder)?));
        }
        let options = raw.host.plan(configured)?;
        let names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        let timeline = timeline::plan(&raw.timeline, options.threads.workers.end, &names)
            .map_err(|problem| format!("timeline, {problem}"))?;
        let mut checks = Vec::new();
        for expect in &raw.expect {
            let line = expect.referenced.line();
            let check =
                expect.value.plan().map_err(|problem| format!("expect, line {line}: {problem}"))?;
            checks.push((line, check));
        }
        if let Some(error) = &raw.expect_start_error {
            checks.push((0, Check::StartError { contains: error.contains.clone() }));
        }
        Ok(Self {
            name: raw.name.clone(),
            wasm: plugins
                .iter()
                .map(|plugin| plugin.wasm.as_ref().map(|path| folder.join(path)))
                .collect(),
            options,
            timeline,
            network: NetworkPlan::plan(raw)
                .map_err(|problem| format!("gateway or upstream, {problem}"))?,
            checks,
        })
    }

    /// The scenario's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the file says the first plugin is.
    pub fn wasm(&self) -> Option<&Path> {
        self.wasm.first()?.as_deref()
    }

    /// Another plugin than the file's; in a chain, instead of all of them.
    #[must_use]
    pub fn with_wasm(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.wasm.fill(Some(path));
        self
    }

    /// Another configuration than the file's, of the first plugin.
    #[must_use]
    pub fn with_config(mut self, config: impl Into<Vec<u8>>) -> Self {
        if let Some(plugin) = self.options.plugins.first_mut() {
            plugin.config = config.into();
        }
        self
    }

    /// Another seed than the file's.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        for plugin in &mut self.options.plugins {
            plugin.seed = seed;
        }
        self
    }

    /// Runs every order in which the workers' calls on shared state can come, instead of one.
    #[must_use]
    pub fn with_all_interleavings(mut self) -> Self {
        self.options.interleavings = Some(Interleavings::All { runs_max: RUNS_MAX });
        self
    }

    /// Runs so many orders, drawn from the seed.
    #[must_use]
    pub fn with_seeded_interleavings(mut self, runs: u64) -> Self {
        self.options.interleavings = Some(Interleavings::Seeded { runs });
        self
    }

    /// Runs the one order that a failure printed.
    #[must_use]
    pub fn with_interleaving(mut self, choices: Vec<usize>) -> Self {
        self.options.interleavings = Some(Interleavings::One(choices));
        self
    }

    /// Writes a trace line for every callback and host call, which costs time.
    #[must_use]
    pub fn with_trace(mut self) -> Self {
        self.options.threads.tracing = true;
        self
    }
}

/// The plugins in request order: one, or a list of them with a name each.
fn chain(raw: &RawScenario) -> Result<Vec<&RawPlugin>, String> {
    let plugins: Vec<_> = raw.plugin.iter().chain(&raw.plugins).collect();
    match (&raw.plugin, raw.plugins.as_slice()) {
        (Some(_), []) => {}
        (None, [_, ..]) => {}
        (Some(_), [_, ..]) => return Err("plugin and plugins exclude each other".to_owned()),
        (None, []) => {
            return Err("plugin: missing; `plugin: {}` takes the one you bring".to_owned());
        }
    }
    for (index, plugin) in plugins.iter().enumerate() {
        if plugins.iter().take(index).any(|other| other.name == plugin.name) {
            return Err(format!(
                "plugins[{index}].name: {:?} stands there twice; give each plugin its own name",
                plugin.name
            ));
        }
    }
    Ok(plugins)
}

fn plugin_config(plugin: &RawPlugin, folder: &Path) -> Result<Vec<u8>, String> {
    match (&plugin.config, &plugin.config_file) {
        (Some(_), Some(_)) => Err("plugin: config and config_file exclude each other".to_owned()),
        (Some(value), None) => Ok(value_bytes(value)),
        (None, Some(file)) => {
            let path = folder.join(file);
            std::fs::read(&path).map_err(|error| {
                format!("plugin.config_file: {} cannot be read: {error}", path.display())
            })
        }
        (None, None) => Ok(Vec::new()),
    }
}
