//! Imports that must link but that this host answers with a refusal: gRPC, foreign functions, DNS. It must not know callers.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_grpc_call", grpc_call, (a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32, j: u32, k: u32, l: u32));
    host_fn!(linker, "proxy_grpc_stream", grpc_stream, (a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32, i: u32));
    host_fn!(linker, "proxy_grpc_send", grpc_send, (id: u32, message: u32, len: u32, eos: u32));
    host_fn!(linker, "proxy_grpc_cancel", grpc_end, (id: u32));
    host_fn!(linker, "proxy_grpc_close", grpc_end, (id: u32));
    host_fn!(linker, "proxy_call_foreign_function", foreign, (name: u32, name_len: u32, args: u32, args_len: u32, out: u32, out_len: u32));
    host_fn!(linker, "envoy_resolve_dns", resolve_dns, (name: u32, name_len: u32, out: u32));
    linker.func_wrap("env", "pthread_equal", |a: u32, b: u32| -> u32 { u32::from(a == b) })?;
    linker.func_wrap("env", "emscripten_notify_memory_growth", |_memory: u32| {})?;
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn grpc_call(
    _: &mut Guest<'_, '_>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> HostResult {
    Err(Status::Unimplemented.into())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn grpc_stream(
    _: &mut Guest<'_, '_>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> HostResult {
    Err(Status::Unimplemented.into())
}

/// No gRPC call can be open, so no id is known.
fn grpc_send(_: &mut Guest<'_, '_>, _: u32, _: u32, _: u32, _: u32) -> HostResult {
    Err(Status::NotFound.into())
}

fn grpc_end(_: &mut Guest<'_, '_>, _: u32) -> HostResult {
    Err(Status::NotFound.into())
}

/// Envoy answers NotFound for a foreign function it does not have; this host has none.
fn foreign(
    guest: &mut Guest<'_, '_>,
    name: u32,
    name_len: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> HostResult {
    let name = guest.read(name, name_len)?;
    guest.note(|| String::from_utf8_lossy(&name).into_owned());
    Err(Status::NotFound.into())
}

fn resolve_dns(_: &mut Guest<'_, '_>, _: u32, _: u32, _: u32) -> HostResult {
    Err(Status::Unimplemented.into())
}
