//! Imports for shared data. It must not know who else shares it.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_get_shared_data", get, (key: u32, key_len: u32, out: u32, out_len: u32, out_cas: u32));
    host_fn!(linker, "proxy_set_shared_data", set, (key: u32, key_len: u32, value: u32, value_len: u32, cas: u32));
    Ok(())
}

fn get(
    guest: &mut Guest<'_, '_>,
    key: u32,
    key_len: u32,
    out: u32,
    out_len: u32,
    out_cas: u32,
) -> HostResult {
    let key = guest.read(key, key_len)?;
    guest.note(|| String::from_utf8_lossy(&key).into_owned());
    let state = guest.state();
    let found = state.shared.borrow().data.get(&state.base.vm_id, &key);
    let (value, cas) = found.ok_or(Status::NotFound)?;
    guest.give(&value, out, out_len)?;
    guest.write_u32(out_cas, cas)
}

fn set(
    guest: &mut Guest<'_, '_>,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
    cas: u32,
) -> HostResult {
    let key = guest.read(key, key_len)?;
    let value = guest.read(value, value_len)?;
    guest.note(|| format!("{} {} bytes cas={cas}", String::from_utf8_lossy(&key), value.len()));
    let state = guest.state();
    let shared = &mut state.shared.borrow_mut();
    let is_late = cas != 0
        && state.base.is_contended(shared.now_ns, &key)
        && shared.data.get(&state.base.vm_id, &key).is_some();
    if !is_late && shared.data.set(&state.base.vm_id, key, value, cas) {
        Ok(())
    } else {
        Err(Status::CasMismatch.into())
    }
}
