//! One host call seen from the host: guest memory, allocation, trace and accounting. It must not know any single host function.

use wasmtime::{Caller, Error, Extern, Memory, TypedFunc};

use super::codes::Status;
use crate::host::trace::TraceKind;
use crate::host::vm_state::{Stage, VmState};

/// A host function's view of the VM that called it.
pub(crate) struct Guest<'a, 'c> {
    pub(crate) caller: &'a mut Caller<'c, VmState>,
}

/// Why a host function did not answer Ok.
pub(crate) enum Fail {
    /// A status for the plugin to handle.
    Status(Status),
    /// The VM cannot go on.
    Trap(Error),
}

/// What every host function returns.
pub(crate) type HostResult<T = ()> = Result<T, Fail>;

/// Memory and allocator of an instance, looked up once.
#[derive(Clone, Default)]
pub(crate) struct GuestHandles {
    pub(crate) memory: Option<Memory>,
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
}

impl From<Status> for Fail {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Each host call costs fuel, and so does each byte it moves: a loop of calls ends as surely as a loop of instructions, and
/// what one callback can make the host keep is bounded.
const FUEL_PER_CALL: u64 = 50;
const FAULT: u32 = 21;

/// Runs one host function: restriction by stage, fuel, accounting, trace.
pub(crate) fn host_call(
    caller: &mut Caller<'_, VmState>,
    name: &'static str,
    body: impl FnOnce(&mut Guest<'_, '_>) -> HostResult,
) -> wasmtime::Result<i32> {
    allow_in_stage(caller.data().stage, name)?;
    if let Some(turnstile) = &caller.data().turnstile {
        turnstile.pass(name);
    }
    let mut guest = Guest { caller };
    guest.state_mut().watch.host_call = name;
    guest.charge(FUEL_PER_CALL)?;
    let context = guest.state().current;
    let result = body(&mut guest);
    let state = guest.state_mut();
    state.count_call(context);
    let status = match result {
        Ok(()) => Status::Ok,
        Err(Fail::Status(status)) => status,
        Err(Fail::Trap(error)) => return Err(error),
    };
    state.watch_host_call(context, name, status);
    state.trace(TraceKind::HostCall, context, name, status.name());
    Ok(status as i32)
}

/// A host function that the plugin's capabilities leave out: it links, and answers with a refusal.
pub(super) fn restricted_call(
    caller: &mut Caller<'_, VmState>,
    name: &str,
) -> wasmtime::Result<i32> {
    allow_in_stage(caller.data().stage, name)?;
    let mut guest = Guest { caller };
    guest.charge(FUEL_PER_CALL)?;
    guest.note(|| "not among the plugin's capabilities".to_owned());
    let state = guest.state_mut();
    let context = state.current;
    state.count_call(context);
    state.trace(TraceKind::HostCall, context, name, Status::InternalFailure.name());
    Ok(Status::InternalFailure as i32)
}

/// The WASI calls that do not trap while a module initialises are all but these: measured, one by one, on Envoy.
const NOT_WHILE_INITIALIZING: [&str; 6] =
    ["fd_read", "fd_seek", "fd_close", "path_open", "sched_yield", "proc_exit"];
/// While the host asks for memory nothing else may be called back: an allocator has no business with the host.
const WHILE_ALLOCATING: [&str; 4] = ["proxy_log", "fd_write", "clock_time_get", "poll_oneoff"];

/// What may be called in this stage; Envoy traps on all else, or crashes.
pub(super) fn allow_in_stage(stage: Stage, name: &str) -> wasmtime::Result<()> {
    let is_ours =
        name.starts_with("proxy_") || name.starts_with("envoy_") || name == "pthread_equal";
    match stage {
        Stage::Running => Ok(()),
        Stage::Starting => Err(Error::msg(format!(
            "{name} is called by the module's start section: Envoy's whole process crashes on this"
        ))),
        Stage::Initializing if name == "proxy_log" => Ok(()),
        Stage::Initializing if is_ours || NOT_WHILE_INITIALIZING.contains(&name) => {
            Err(Error::msg(format!("{name} is not allowed during _initialize or _start")))
        }
        Stage::Initializing => Ok(()),
        Stage::Allocating if WHILE_ALLOCATING.contains(&name) => Ok(()),
        Stage::Allocating => {
            Err(Error::msg(format!("{name} is not allowed while the host allocates guest memory")))
        }
    }
}

/// Runs one WASI function, which answers with a number of its own.
pub(super) fn wasi_call(
    caller: &mut Caller<'_, VmState>,
    name: &str,
    body: impl FnOnce(&mut Guest<'_, '_>) -> HostResult<u32>,
) -> wasmtime::Result<u32> {
    allow_in_stage(caller.data().stage, name)?;
    let mut guest = Guest { caller };
    guest.charge(FUEL_PER_CALL)?;
    match body(&mut guest) {
        Ok(errno) => Ok(errno),
        // An address outside memory is FAULT in WASI's own numbers.
        Err(Fail::Status(_)) => Ok(FAULT),
        Err(Fail::Trap(error)) => Err(error),
    }
}

// === impl Guest ===

impl Guest<'_, '_> {
    pub(crate) fn state(&self) -> &VmState {
        self.caller.data()
    }

    pub(crate) fn state_mut(&mut self) -> &mut VmState {
        self.caller.data_mut()
    }

    /// Says what this call was asked, for the trace; nothing is formatted while the trace is off.
    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let state = self.state_mut();
        if state.tracing {
            state.note = text();
        }
    }

    pub(crate) fn read(&mut self, ptr: u32, len: u32) -> HostResult<Vec<u8>> {
        let range = range(ptr, len).ok_or(Status::InvalidMemoryAccess)?;
        let memory = self.memory()?;
        let bytes =
            memory.data(&self.caller).get(range).ok_or(Status::InvalidMemoryAccess)?.to_vec();
        self.charge_bytes(bytes.len())?;
        Ok(bytes)
    }

    pub(crate) fn write(&mut self, ptr: u32, bytes: &[u8]) -> HostResult {
        let len = u32::try_from(bytes.len()).or(Err(Status::InvalidMemoryAccess))?;
        let range = range(ptr, len).ok_or(Status::InvalidMemoryAccess)?;
        let memory = self.memory()?;
        let target =
            memory.data_mut(&mut *self.caller).get_mut(range).ok_or(Status::InvalidMemoryAccess)?;
        target.copy_from_slice(bytes);
        self.charge_bytes(bytes.len())
    }

    pub(crate) fn write_u32(&mut self, ptr: u32, value: u32) -> HostResult {
        self.write(ptr, &value.to_le_bytes())
    }

    pub(crate) fn write_u64(&mut self, ptr: u32, value: u64) -> HostResult {
        self.write(ptr, &value.to_le_bytes())
    }

    /// Hands bytes over: the guest allocates, the host fills and writes address and length. No bytes need no allocation.
    pub(crate) fn give(&mut self, bytes: &[u8], ptr_out: u32, len_out: u32) -> HostResult {
        let address = if bytes.is_empty() { 0 } else { self.place(bytes)? };
        self.write_u32(ptr_out, address)?;
        self.write_u32(len_out, u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// Copies bytes to where the guest allocates them; gives the address.
    pub(crate) fn place(&mut self, bytes: &[u8]) -> HostResult<u32> {
        let len = u32::try_from(bytes.len()).or(Err(Status::InvalidMemoryAccess))?;
        let address = self.allocate(len)?;
        self.write(address, bytes)?;
        Ok(address)
    }

    fn allocate(&mut self, len: u32) -> HostResult<u32> {
        let allocate = self.state().guest.allocate.clone().ok_or(Status::InvalidMemoryAccess)?;
        let before = std::mem::replace(&mut self.state_mut().stage, Stage::Allocating);
        let result = allocate.call(&mut *self.caller, len);
        self.state_mut().stage = before;
        self.state_mut().count_allocation();
        match result {
            Ok(0) => Err(Status::InvalidMemoryAccess.into()),
            Ok(address) => Ok(address),
            Err(error) => Err(Fail::Trap(error)),
        }
    }

    /// `_initialize` may log before the host has looked up the exports.
    fn memory(&mut self) -> HostResult<Memory> {
        if let Some(memory) = self.state().guest.memory {
            return Ok(memory);
        }
        match self.caller.get_export("memory") {
            Some(Extern::Memory(memory)) => Ok(memory),
            _ => Err(Status::InvalidMemoryAccess.into()),
        }
    }

    fn charge_bytes(&mut self, len: usize) -> HostResult {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let context = self.state().current;
        self.state_mut().count_bytes(context, len);
        self.charge(len).map_err(Fail::Trap)
    }

    fn charge(&mut self, fuel: u64) -> wasmtime::Result<()> {
        let left = self.caller.get_fuel()?;
        self.caller.set_fuel(left.checked_sub(fuel).ok_or(wasmtime::Trap::OutOfFuel)?)
    }
}

fn range(ptr: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(ptr).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    Some(start..end)
}
