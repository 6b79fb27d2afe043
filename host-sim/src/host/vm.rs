//! One VM: a store, its callbacks, and whether it still lives. It must not know what a callback means.

use wasmtime::{Store, Trap};

use super::trace::TraceKind;
use super::vm_state::{Stage, VmState};
use crate::abi::codes::LogLevel;
use crate::abi::exports::{Callback, Exports};

/// A loaded plugin.
pub(crate) struct Vm {
    pub(crate) store: Store<VmState>,
    pub(crate) exports: Exports,
    /// Why the VM is dead, once it is.
    pub(crate) dead: Option<String>,
}

/// What came of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Called<R> {
    /// The plugin has no such callback.
    Absent,
    Returned(R),
    /// The VM was dead, or died in it.
    Dead,
}

impl Vm {
    pub(crate) fn state(&self) -> &VmState {
        self.store.data()
    }

    pub(crate) fn state_mut(&mut self) -> &mut VmState {
        self.store.data_mut()
    }

    /// Calls the plugin on behalf of a context, with fresh fuel; a trap kills the VM and is logged.
    pub(crate) fn call<P, R>(
        &mut self,
        name: &'static str,
        context: u32,
        function: Option<impl Callback<P, R>>,
        params: P,
        args: impl FnOnce() -> String,
    ) -> Called<R>
    where
        R: std::fmt::Debug,
    {
        if self.dead.is_some() {
            return Called::Dead;
        }
        let Some(function) = function else {
            return Called::Absent;
        };
        let line = self.begin(name, context, args);
        let fuel = self.state().base.fuel_per_callback;
        let memory_bytes = self.memory_bytes();
        let result = self.store.set_fuel(fuel).and_then(|()| function.run(&mut self.store, params));
        let used = fuel.saturating_sub(self.store.get_fuel().unwrap_or(0));
        let grown = self.memory_bytes().saturating_sub(memory_bytes);
        self.state_mut().count_work(context, used, grown);
        self.state_mut().current = 0;
        self.state_mut().called = 0;
        match result {
            Ok(answer) => {
                self.end(line, || format!("{answer:?}"));
                Called::Returned(answer)
            }
            Err(error) => {
                let why = describe_trap(&error, fuel);
                self.end(line, || format!("trap: {why}"));
                self.state_mut().log(LogLevel::Critical, format!("{name} failed: {why}"));
                self.state_mut().after.clear();
                self.dead = Some(format!("{name}: {why}"));
                Called::Dead
            }
        }
    }

    /// Copies bytes to where the plugin allocates them, and gives address and size; what it allocates is its own to free.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> wasmtime::Result<(u32, u32)> {
        let size = u32::try_from(bytes.len())?;
        let handles = self.state().guest.clone();
        let (Some(memory), Some(allocate)) = (handles.memory, handles.allocate) else {
            return Err(wasmtime::Error::msg("no memory, or no allocator"));
        };
        if size == 0 {
            return Ok((0, 0));
        }
        let address = allocate.call(&mut self.store, size)?;
        if address == 0 {
            return Err(wasmtime::Error::msg(format!("the allocator gives no {size} bytes")));
        }
        memory.write(&mut self.store, usize::try_from(address)?, bytes)?;
        Ok((address, size))
    }

    /// The plugin's memory.
    pub(crate) fn memory(&self) -> Option<&[u8]> {
        self.state().guest.memory.map(|memory| memory.data(&self.store))
    }

    fn memory_bytes(&self) -> u64 {
        let memory = self.state().guest.memory;
        memory.map_or(0, |memory| u64::try_from(memory.data_size(&self.store)).unwrap_or(u64::MAX))
    }

    /// The line is written before the host calls it leads to; its status follows.
    fn begin(
        &mut self,
        name: &'static str,
        context: u32,
        args: impl FnOnce() -> String,
    ) -> Option<usize> {
        let state = self.state_mut();
        state.stage = Stage::Running;
        state.current = context;
        state.watch.begin_callback(name);
        state.called = context;
        if !state.tracing {
            return None;
        }
        state.note = args();
        state.trace(TraceKind::Callback, context, name, "");
        state.shared.borrow().trace.len().checked_sub(1)
    }

    fn end(&mut self, line: Option<usize>, status: impl FnOnce() -> String) {
        let Some(line) = line else {
            return;
        };
        let status = status();
        if status != "()"
            && let Some(line) = self.state().shared.borrow_mut().trace.get_mut(line)
        {
            line.status = status;
        }
    }
}

/// A trap in words: what a plugin's author can act on, without addresses.
pub(crate) fn describe_trap(error: &wasmtime::Error, fuel: u64) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            format!("out of fuel after {fuel} units, which is an endless loop or far too much work")
        }
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}
