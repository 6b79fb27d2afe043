//! The VMs of a run: canary, main and one per worker, and what replaces a dead one. It must not know streams.

use std::cell::RefCell;
use std::rc::Rc;

use super::options::{FailPolicy, HostOptions};
use crate::host::clock::VmId;
use crate::host::compile::{Compiled, Compiler};
use crate::host::load::{StartError, load};
use crate::host::settings::PluginSettings;
use crate::host::shared::Shared;
use crate::host::vm::Vm;
use crate::host::vm_state::VmState;

/// Every VM that was ever loaded, by number, and which one each worker uses.
pub(crate) struct Workers {
    compiler: Compiler,
    compiled: Compiled,
    settings: Rc<PluginSettings>,
    shared: Rc<RefCell<Shared>>,
    tracing: bool,
    vms: Vec<Option<Vm>>,
    workers: Vec<Worker>,
}

struct Worker {
    vm: VmId,
    root: u32,
    loaded_at_ns: u64,
}

impl Workers {
    /// Loads all VMs in Envoy's order; the first that refuses ends the start.
    pub(crate) fn start(
        compiler: &Compiler,
        compiled: Compiled,
        options: &HostOptions,
        shared: Rc<RefCell<Shared>>,
    ) -> Result<Self, StartError> {
        let mut this = Self {
            compiler: compiler.clone(),
            compiled,
            settings: Rc::new(options.plugin.clone()),
            shared,
            tracing: options.tracing,
            vms: Vec::new(),
            workers: Vec::new(),
        };
        if options.has_canary {
            let (canary, _) = this.load("canary")?;
            // Its answers and timers find nobody.
            if let Some(slot) = this.vms.get_mut(canary.0) {
                *slot = None;
            }
        }
        if options.has_main {
            this.load("main")?;
        }
        for index in 0..options.workers {
            let (vm, root) = this.load(&format!("w{index}"))?;
            this.workers.push(Worker { vm, root, loaded_at_ns: 0 });
        }
        Ok(this)
    }

    fn load(&mut self, label: &str) -> Result<(VmId, u32), StartError> {
        let id = VmId(self.vms.len());
        let state = VmState::new(
            id,
            label,
            Rc::clone(&self.settings),
            Rc::clone(&self.shared),
            self.tracing,
        );
        let mut vm = load(self.compiler.engine(), &self.compiled, state)?;
        let root = vm.start_root()?;
        self.vms.push(Some(vm));
        Ok((id, root))
    }

    pub(crate) fn vm(&mut self, id: VmId) -> Option<&mut Vm> {
        self.vms.get_mut(id.0)?.as_mut()
    }

    /// The VM and root for a new stream; none when the policy lets nobody in.
    pub(crate) fn admit(
        &mut self,
        worker: usize,
        options: &HostOptions,
        now_ns: u64,
    ) -> Option<(VmId, u32)> {
        let Worker { vm, root, loaded_at_ns } = *self.workers.get(worker)?;
        if self.vm(vm)?.dead.is_none() {
            return Some((vm, root));
        }
        let is_too_early = now_ns.saturating_sub(loaded_at_ns) < options.reload_base_interval_ns;
        if options.fail_policy == FailPolicy::Closed || is_too_early {
            return None;
        }
        // A load that fails counts too, or every request would try again.
        self.workers.get_mut(worker)?.loaded_at_ns = now_ns;
        let (vm, root) = self.load(&format!("w{worker}")).ok()?;
        *self.workers.get_mut(worker)? = Worker { vm, root, loaded_at_ns: now_ns };
        Some((vm, root))
    }
}
