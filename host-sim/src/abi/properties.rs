//! Imports for properties. It must not know which properties exist.

use wasmtime::Linker;

use super::guest::{Guest, HostResult};
use super::link::host_fn;
use super::path;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_get_property", get, (path: u32, path_len: u32, out: u32, out_len: u32));
    host_fn!(linker, "proxy_set_property", set, (path: u32, path_len: u32, value: u32, value_len: u32));
    Ok(())
}

fn get(guest: &mut Guest<'_, '_>, path: u32, path_len: u32, out: u32, out_len: u32) -> HostResult {
    let path = guest.read(path, path_len)?;
    guest.note(|| path::dotted(&path));
    let state = guest.state();
    let value = state.property(&path).ok_or_else(|| state.status_of_missing_property(&path))?;
    guest.give(&value, out, out_len)
}

fn set(
    guest: &mut Guest<'_, '_>,
    path: u32,
    path_len: u32,
    value: u32,
    value_len: u32,
) -> HostResult {
    let path = guest.read(path, path_len)?;
    let value = guest.read(value, value_len)?;
    guest.note(|| format!("{} {} bytes", path::dotted(&path), value.len()));
    Ok(guest.state_mut().set_property(&path, value)?)
}
