//! The import for foreign functions. It must not know any of them.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_call_foreign_function", call, (name: u32, name_len: u32, args: u32, args_len: u32, out: u32, out_len: u32));
    Ok(())
}

/// A function that is known leaves an address and a length also when it fails; address 0 asks for no result.
fn call(
    guest: &mut Guest<'_, '_>,
    name: u32,
    name_len: u32,
    args: u32,
    args_len: u32,
    out: u32,
    out_len: u32,
) -> HostResult {
    let name = String::from_utf8_lossy(&guest.read(name, name_len)?).into_owned();
    let args = guest.read(args, args_len)?;
    guest.note(|| format!("{name}, {} bytes", args.len()));
    let answer = guest.state_mut().foreign_call(&name, &args).ok_or(Status::NotFound)?;
    let (bytes, status) = match answer {
        Ok(bytes) => (bytes, None),
        Err(status) => (Vec::new(), Some(status)),
    };
    let len = u32::try_from(bytes.len()).or(Err(Status::InvalidMemoryAccess))?;
    if out != 0 {
        let address = if len > 0 { guest.place(&bytes)? } else { 0 };
        guest.write_u32(out, address)?;
    }
    if out_len != 0 {
        guest.write_u32(out_len, len)?;
    }
    status.map_or(Ok(()), |status| Err(status.into()))
}
