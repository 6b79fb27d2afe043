//! The threads of a process and their VMs: start, sharing, failure, reload, new configurations. It must not know streams.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::clock::{Event, VmId};
use super::compile::{Compiled, Compiler};
use super::load::{StartError, load};
use super::metrics::MetricKind;
use super::settings::{FailPolicy, PluginSettings};
use super::shared::SharedCell;
use super::turnstile::Turnstile;
use super::vm::Vm;
use super::vm_state::VmState;

/// What a run is told about its threads.
#[derive(Debug, Clone)]
pub(crate) struct ThreadOptions {
    /// The numbers of the workers.
    pub(crate) workers: Range<usize>,
    /// The seat of the crew that these threads share.
    pub(crate) seat: usize,
    /// The main thread's VM, which ticks and never sees a request.
    pub(crate) has_main: bool,
    /// The VM that tries a configuration and is thrown away.
    pub(crate) has_canary: bool,
    /// How long the roots of a replaced configuration live on.
    pub(crate) drain_ns: u64,
    pub(crate) tracing: bool,
}

/// A plugin of the chain with its code.
#[derive(Clone)]
pub(crate) struct Plugin {
    pub(crate) settings: Arc<PluginSettings>,
    pub(crate) compiled: Compiled,
    /// Plugins of one code file share VMs where `vm_id` and `vm_config` are equal, too.
    pub(crate) code: usize,
}

/// Whether a request meets a plugin.
pub(crate) enum Admission {
    /// The VM and the root, and whether a failure bypasses the filter at once.
    Home((VmId, u32), bool),
    /// Not there for this request.
    Bypass,
    /// There, dead, and closed.
    Closed,
}

/// Every VM that was ever loaded, by number, and which ones each thread uses.
pub(crate) struct Threads {
    compiler: Compiler,
    options: ThreadOptions,
    shared: SharedCell,
    /// Where host calls on shared state wait for their turn, when interleavings are explored.
    turnstile: Option<Turnstile>,
    plugins: Vec<Plugin>,
    vms: Vec<Option<Vm>>,
    /// How many VMs were loaded under a label.
    loaded: BTreeMap<String, u64>,
    /// The main thread first, if it has VMs, then the workers.
    threads: Vec<Thread>,
}

struct Thread {
    label: String,
    by_key: BTreeMap<VmKey, VmId>,
    /// By plugin.
    handles: Vec<Handle>,
}

#[derive(Clone, Copy)]
struct Handle {
    vm: VmId,
    root: u32,
    loaded_at_ns: u64,
}

/// `vm_id`, VM configuration and code.
type VmKey = (String, Vec<u8>, usize);

impl Threads {
    /// Threads without VMs; [`Threads::start_plugin`] loads them.
    pub(crate) fn new(
        compiler: &Compiler,
        plugins: Vec<Plugin>,
        options: ThreadOptions,
        shared: SharedCell,
        turnstile: Option<Turnstile>,
    ) -> Self {
        let main = options.has_main.then(|| "main".to_owned());
        let workers = options.workers.clone().map(|index| format!("w{index}"));
        let threads = main
            .into_iter()
            .chain(workers)
            .map(|label| Thread { label, by_key: BTreeMap::new(), handles: Vec::new() })
            .collect();
        Self {
            compiler: compiler.clone(),
            options,
            shared,
            turnstile,
            plugins,
            vms: Vec::new(),
            loaded: BTreeMap::new(),
            threads,
        }
    }

    /// Loads the VMs of the next plugin in Envoy's order: canary, main, workers. The first that refuses ends the start.
    pub(crate) fn start_plugin(&mut self, plugin: usize) -> Result<(), StartError> {
        let settings = self.settings_of(plugin);
        if self.options.has_canary {
            self.try_on_canary(plugin, &settings)?;
        }
        for thread in 0..self.threads.len() {
            let (vm, root) = self.start_on_thread(thread, plugin, &settings)?;
            if let Some(thread) = self.threads.get_mut(thread) {
                thread.handles.push(Handle { vm, root, loaded_at_ns: 0 });
            }
        }
        Ok(())
    }

    /// Its answers and timers find nobody.
    fn try_on_canary(
        &mut self,
        plugin: usize,
        settings: &Arc<PluginSettings>,
    ) -> Result<(), StartError> {
        let id = self.load("canary", plugin, settings)?;
        let started = self.start_root(id, settings);
        if let Some(slot) = self.vms.get_mut(id.index) {
            *slot = None;
        }
        started.map(drop)
    }

    /// The plugin's root on a thread, in the VM that shares its key.
    fn start_on_thread(
        &mut self,
        thread: usize,
        plugin: usize,
        settings: &Arc<PluginSettings>,
    ) -> Result<(VmId, u32), StartError> {
        let key = self.key_of(plugin, settings);
        let known = self.threads.get(thread).and_then(|thread| thread.by_key.get(&key)).copied();
        let living = known.filter(|id| self.vm(*id).is_some_and(|vm| vm.dead.is_none()));
        let id = match living {
            Some(id) => id,
            None => {
                let label = self.threads.get(thread).map(|t| t.label.clone()).unwrap_or_default();
                let id = self.load(&label, plugin, settings)?;
                if let Some(thread) = self.threads.get_mut(thread) {
                    thread.by_key.insert(key, id);
                }
                id
            }
        };
        Ok((id, self.start_root(id, settings)?))
    }

    fn load(
        &mut self,
        label: &str,
        plugin: usize,
        settings: &Arc<PluginSettings>,
    ) -> Result<VmId, StartError> {
        let id = VmId { seat: self.options.seat, index: self.vms.len() };
        let nth = self.loaded.entry(label.to_owned()).or_default();
        *nth += 1;
        let state = VmState::new(
            id,
            label,
            Arc::clone(settings),
            self.shared.clone(),
            self.options.tracing,
        )
        .with_turnstile(self.turnstile.clone())
        .nth_of_its_label(*nth);
        let vm = match self.plugins.get(plugin) {
            Some(plugin) => load(self.compiler.engine(), &plugin.compiled, state)?,
            None => return Err(StartError::NotWasm),
        };
        self.vms.push(Some(vm));
        Ok(id)
    }

    fn start_root(&mut self, id: VmId, settings: &Arc<PluginSettings>) -> Result<u32, StartError> {
        match self.vm(id) {
            Some(vm) => vm.start_root(Arc::clone(settings)),
            None => Err(StartError::NotWasm),
        }
    }

    fn key_of(&self, plugin: usize, settings: &PluginSettings) -> VmKey {
        let code = self.plugins.get(plugin).map_or(0, |plugin| plugin.code);
        (settings.vm_id.clone(), settings.vm_config.clone(), code)
    }

    fn settings_of(&self, plugin: usize) -> Arc<PluginSettings> {
        Arc::clone(&self.plugins[plugin].settings)
    }

    pub(crate) fn plugin_count(&self) -> usize {
        self.plugins.len()
    }

    pub(crate) fn vm(&mut self, id: VmId) -> Option<&mut Vm> {
        self.vms.get_mut(id.index)?.as_mut()
    }

    /// The settings that rule a context.
    pub(crate) fn settings(&mut self, id: VmId, context: u32) -> Option<Arc<PluginSettings>> {
        let state = self.vm(id)?.state();
        state.roots.get(&state.root_of(context)).map(|root| Arc::clone(&root.settings))
    }

    /// How a new request on a worker meets a plugin. A dead VM may be replaced here.
    pub(crate) fn admit(&mut self, worker: usize, plugin: usize) -> Admission {
        let Some(spec) = self.plugins.get(plugin) else {
            return Admission::Bypass;
        };
        if spec.settings.is_disabled {
            return Admission::Bypass;
        }
        let settings = Arc::clone(&spec.settings);
        let first = self.options.workers.start;
        let thread = worker.saturating_sub(first) + usize::from(self.options.has_main);
        let Some(handle) = self.threads.get(thread).and_then(|t| t.handles.get(plugin)).copied()
        else {
            return Admission::Closed;
        };
        let is_open_at_once = settings.fail_policy == FailPolicy::OpenAtOnce;
        if self.vm(handle.vm).is_some_and(|vm| vm.dead.is_none()) {
            return Admission::Home((handle.vm, handle.root), is_open_at_once);
        }
        match settings.fail_policy {
            FailPolicy::Closed => Admission::Closed,
            FailPolicy::Open | FailPolicy::OpenAtOnce => Admission::Bypass,
            FailPolicy::Reload => self.reload(thread, plugin, handle, &settings),
        }
    }

    fn reload(
        &mut self,
        thread: usize,
        plugin: usize,
        handle: Handle,
        settings: &Arc<PluginSettings>,
    ) -> Admission {
        let now_ns = self.shared.borrow().now_ns;
        if now_ns.saturating_sub(handle.loaded_at_ns) < settings.reload_base_interval_ns {
            self.count(settings, "vm_reload_backoff");
            return Admission::Closed;
        }
        let started = self.start_on_thread(thread, plugin, settings);
        // A load that fails counts too, or every request would try again.
        let (vm, root) = *started.as_ref().unwrap_or(&(handle.vm, handle.root));
        if let Some(slot) =
            self.threads.get_mut(thread).and_then(|thread| thread.handles.get_mut(plugin))
        {
            *slot = Handle { vm, root, loaded_at_ns: now_ns };
        }
        match started {
            Ok(home) => {
                self.count(settings, "vm_reload_success");
                Admission::Home(home, false)
            }
            Err(_logged) => {
                self.count(settings, "vm_reload_failure");
                Admission::Closed
            }
        }
    }

    /// Envoy's own counters of a plugin's VMs.
    fn count(&self, settings: &PluginSettings, what: &str) {
        let name = format!("wasm.{}.{what}", settings.name);
        self.shared.borrow_mut().metrics.increment(MetricKind::Counter, &name, 1);
    }

    /// A listener update with another configuration of a plugin is tried on a canary; the same one is no update.
    pub(crate) fn accepts_update(&mut self, plugin: usize, config: &[u8]) -> bool {
        let Some(spec) = self.plugins.get(plugin) else {
            return false;
        };
        if spec.settings.config == config {
            return false;
        }
        let settings = Arc::new(with_config(&spec.settings, config));
        let is_accepted = !self.options.has_canary || self.try_on_canary(plugin, &settings).is_ok();
        self.count_update(if is_accepted { "success" } else { "rejected" });
        is_accepted
    }

    /// New roots beside the old ones, which live on until the drain ends.
    pub(crate) fn update(&mut self, plugin: usize, config: &[u8]) {
        let Some(spec) = self.plugins.get_mut(plugin) else {
            return;
        };
        let settings = Arc::new(with_config(&spec.settings, config));
        spec.settings = Arc::clone(&settings);
        let (now_ns, drain_ns) = (self.shared.borrow().now_ns, self.options.drain_ns);
        for thread in 0..self.threads.len() {
            let started = self.start_on_thread(thread, plugin, &settings);
            let slot = self.threads.get_mut(thread).and_then(|t| t.handles.get_mut(plugin));
            let (Some(slot), Ok((vm, root))) = (slot, started) else {
                continue;
            };
            let old = std::mem::replace(slot, Handle { vm, root, loaded_at_ns: now_ns });
            let drained = Event::Drained { vm: old.vm, root: old.root };
            self.shared.borrow_mut().after(drain_ns, drained);
        }
    }

    fn count_update(&self, how: &str) {
        let name = format!("lds.update_{how}");
        self.shared.borrow_mut().metrics.increment(MetricKind::Counter, &name, 1);
    }

    /// The drain of a replaced configuration ended.
    pub(crate) fn end_root(&mut self, id: VmId, root: u32) {
        if let Some(vm) = self.vm(id) {
            vm.end_root(root);
            vm.state_mut().after.clear();
        }
    }
}

fn with_config(settings: &PluginSettings, config: &[u8]) -> PluginSettings {
    PluginSettings { config: config.to_vec(), ..settings.clone() }
}
