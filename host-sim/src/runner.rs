//! Joins a scenario, a plugin's bytes and services into a run. It must not know what any of them says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::check::{self, CheckError};
use crate::explore::explore;
use crate::host::compile::{CacheError, Compiled, Compiler};
use crate::host::load::StartError;
use crate::host::service::Service;
use crate::host::threads::Plugin;
use crate::report::Report;
use crate::scenario::judge::judge;
use crate::scenario::plan::Scenario;
use crate::world;

/// Where compiled modules are kept unless a caller says otherwise.
pub const CACHE_DIRECTORY: &str = "target/host-sim-cache";

/// Runs scenarios and keeps what it compiled.
pub struct Runner {
    compiler: Compiler,
    compiled: Mutex<BTreeMap<Vec<u8>, Compiled>>,
}

/// A scenario could not run at all; a plugin that does not start is a result, not this.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The machine's fault.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The scenario names no plugin.
    #[error(
        "the scenario has no plugin.wasm; name one there, or bring one (--wasm PATH, Scenario::with_wasm)"
    )]
    NoPlugin,
    /// The plugin's file.
    #[error("the plugin {} cannot be read: {source}; is it built, and is plugin.wasm relative to the scenario's folder?", path.display())]
    ReadPlugin {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The scenario says `gateway: in-process`.
    #[error("the scenario wants its gateway in process; bind one with Services::bind")]
    NoService,
    /// Interleavings need the same beginning for each run.
    #[error(
        "the scenario runs many interleavings, and a service is bound for one run; bind it with Services::bind_fresh"
    )]
    ServiceOnce,
}

/// Services that a caller puts behind clusters.
#[derive(Default)]
pub struct Services {
    bound: Vec<(Option<String>, Maker)>,
}

/// Makes a service for a run; a service that was bound as it is can be made once.
type Maker = Box<dyn FnMut() -> Option<Box<dyn Service + Send>>>;

impl Services {
    /// A service behind one cluster.
    #[must_use]
    pub fn bind(mut self, cluster: &str, service: impl Service + Send + 'static) -> Self {
        self.bound.push((Some(cluster.to_owned()), once(service)));
        self
    }

    /// A service behind every cluster that has none yet.
    #[must_use]
    pub fn bind_any(mut self, service: impl Service + Send + 'static) -> Self {
        self.bound.push((None, once(service)));
        self
    }

    /// A service behind every cluster that has none yet, made anew for each run: what interleavings need.
    #[must_use]
    pub fn bind_fresh<S: Service + Send + 'static>(
        mut self,
        mut make: impl FnMut() -> S + 'static,
    ) -> Self {
        self.bound.push((None, Box::new(move || Some(Box::new(make())))));
        self
    }
}

fn once(service: impl Service + Send + 'static) -> Maker {
    let mut service: Option<Box<dyn Service + Send>> = Some(Box::new(service));
    Box::new(move || service.take())
}

impl Runner {
    /// A runner with its cache in [`CACHE_DIRECTORY`].
    pub fn new() -> Result<Self, CacheError> {
        Self::with_cache(Some(CACHE_DIRECTORY.into()))
    }

    /// A runner with its cache elsewhere, or with none.
    pub fn with_cache(directory: Option<PathBuf>) -> Result<Self, CacheError> {
        Ok(Self { compiler: Compiler::new(directory.as_deref())?, compiled: Mutex::default() })
    }

    /// Runs a scenario with the plugin it names. Where an expectation fails, the report holds the trace around it.
    pub fn run(&self, scenario: &Scenario) -> Result<Report, RunError> {
        self.run_explained(scenario, Services::default)
    }

    /// Runs a scenario, and if an expectation fails runs it once more with the trace on: a run is the same each time, and
    /// one that passes pays for no trace. `services` is asked again for services that have seen nothing yet.
    pub fn run_explained(
        &self,
        scenario: &Scenario,
        services: impl Fn() -> Services,
    ) -> Result<Report, RunError> {
        let report = self.run_with(scenario, services())?;
        if report.passed() || scenario.options.threads.tracing {
            return Ok(report);
        }
        let mut again = scenario.clone().with_trace();
        if report.interleavings > 0 {
            again = again.with_interleaving(report.choices.clone());
        }
        let traced = self.run_with(&again, services())?;
        if traced.passed() {
            // What failed was the search for an order, not this order.
            return Ok(report);
        }
        let Report { interleavings, choices, .. } = report;
        Ok(Report { trace: Vec::new(), interleavings, choices, ..traced })
    }

    /// Runs a scenario with services behind its clusters; they come before its script.
    pub fn run_with(&self, scenario: &Scenario, services: Services) -> Result<Report, RunError> {
        let mut codes: Vec<(&PathBuf, Vec<u8>)> = Vec::new();
        let mut by_plugin = Vec::new();
        for path in &scenario.wasm {
            let path = path.as_ref().ok_or(RunError::NoPlugin)?;
            let known = codes.iter().position(|(other, _)| *other == path);
            let code = match known {
                Some(code) => code,
                None => {
                    let wasm = std::fs::read(path)
                        .map_err(|source| RunError::ReadPlugin { path: path.clone(), source })?;
                    codes.push((path, wasm));
                    codes.len() - 1
                }
            };
            by_plugin.push(code);
        }
        let codes: Vec<_> = codes.iter().map(|(_, wasm)| wasm.as_slice()).collect();
        self.run_codes(scenario, &codes, &by_plugin, services)
    }

    /// Runs a scenario with these bytes as its plugin, or as every plugin of its chain.
    pub fn run_bytes(
        &self,
        scenario: &Scenario,
        wasm: &[u8],
        services: Services,
    ) -> Result<Report, RunError> {
        let by_plugin = vec![0; scenario.options.plugins.len()];
        self.run_codes(scenario, &[wasm], &by_plugin, services)
    }

    fn run_codes(
        &self,
        scenario: &Scenario,
        codes: &[&[u8]],
        by_plugin: &[usize],
        mut services: Services,
    ) -> Result<Report, RunError> {
        if scenario.network.needs_service() && services.bound.is_empty() {
            return Err(RunError::NoService);
        }
        let compiled: Vec<_> = codes.iter().map(|wasm| self.compile(wasm)).collect();
        let plugins = scenario.options.plugins.iter().zip(by_plugin).map(|(settings, code)| {
            let compiled = compiled.get(*code).cloned().unwrap_or(Err(StartError::NotWasm))?;
            Ok(Plugin { settings: Arc::new(settings.clone()), compiled, code: *code })
        });
        let plugins: Result<Vec<_>, StartError> = plugins.collect();
        explore(scenario.options.interleavings.as_ref(), seed_of(scenario), |schedule| {
            let mut network = scenario.network.build();
            for (cluster, make) in &mut services.bound {
                network.bind(cluster.clone(), make().ok_or(RunError::ServiceOnce)?);
            }
            scenario.network.bind_gateway(&mut network);
            let mut outcome = world::run::run(
                &self.compiler,
                plugins.clone(),
                &scenario.options,
                &scenario.timeline,
                network,
                schedule,
            );
            let schedule = outcome.schedule.take();
            let checks = judge(&scenario.checks, &outcome);
            Ok((Report::new(&scenario.name, checks, outcome), schedule))
        })
    }

    /// What a plugin itself says about a configuration, in view of facts about the Envoy file it stands in (JSON, or
    /// empty); `None` if it has no [`crate::CHECK_EXPORT`].
    pub fn check(
        &self,
        wasm: &[u8],
        config: &[u8],
        facts: &[u8],
    ) -> Result<Option<Vec<u8>>, CheckError> {
        check::check(&self.compiler, &self.compile(wasm)?, config, facts)
    }

    fn compile(&self, wasm: &[u8]) -> Result<Compiled, StartError> {
        // A thread that panicked while it held the lock left the map whole: entries are only added.
        let mut known = self.compiled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(compiled) = known.get(wasm) {
            return Ok(compiled.clone());
        }
        let compiled = self.compiler.compile(wasm)?;
        known.insert(wasm.to_vec(), compiled.clone());
        Ok(compiled)
    }
}

/// Runs one scenario with the plugin it names and the default cache.
pub fn run(scenario: &Scenario) -> Result<Report, RunError> {
    Runner::new()?.run(scenario)
}

fn seed_of(scenario: &Scenario) -> u64 {
    scenario.options.plugins.first().map_or(0, |plugin| plugin.seed)
}
