//! Imports that are no part of the ABI but that Envoy provides: name resolution, and two of Emscripten's. It must not know names.

use wasmtime::{Caller, Linker};

use super::guest::{Guest, HostResult, allow_in_stage};
use super::link::host_fn;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "envoy_resolve_dns", resolve_dns, (name: u32, name_len: u32, out: u32));
    linker.func_wrap(
        "env",
        "pthread_equal",
        |caller: Caller<'_, VmState>, a: u32, b: u32| -> wasmtime::Result<u32> {
            allow_in_stage(caller.data().stage, "pthread_equal")?;
            Ok(u32::from(a == b))
        },
    )?;
    linker.func_wrap(
        "env",
        "emscripten_notify_memory_growth",
        |caller: Caller<'_, VmState>, _memory: u32| -> wasmtime::Result<()> {
            allow_in_stage(caller.data().stage, "emscripten_notify_memory_growth")
        },
    )?;
    Ok(())
}

/// The answer comes to the root, after the callback that asked.
fn resolve_dns(guest: &mut Guest<'_, '_>, name: u32, name_len: u32, out: u32) -> HostResult {
    let name = String::from_utf8_lossy(&guest.read(name, name_len)?).into_owned();
    guest.note(|| name.clone());
    // The token is written first: where it cannot be, nothing is asked.
    let token = guest.state_mut().next_dns_token();
    guest.write_u32(out, token)?;
    guest.state_mut().resolve_name(token, &name);
    Ok(())
}
