//! Imports for gRPC calls and streams. It must not know how an answer comes about.

use wasmtime::Linker;

use super::guest::{Guest, HostResult};
use super::link::host_fn;
use super::pairs;
use crate::host::grpc::{GrpcKind, GrpcOpening};
use crate::host::headers::HeaderMap;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_grpc_call", call, (
        target: u32, target_len: u32, service: u32, service_len: u32, method: u32, method_len: u32,
        metadata: u32, metadata_len: u32, message: u32, message_len: u32, timeout_ms: u32, out: u32
    ));
    host_fn!(linker, "proxy_grpc_stream", stream, (
        target: u32, target_len: u32, service: u32, service_len: u32, method: u32, method_len: u32,
        metadata: u32, metadata_len: u32, out: u32
    ));
    host_fn!(linker, "proxy_grpc_send", send, (token: u32, message: u32, len: u32, end: u32));
    host_fn!(linker, "proxy_grpc_close", close, (token: u32));
    host_fn!(linker, "proxy_grpc_cancel", cancel, (token: u32));
    Ok(())
}

/// What a call and a stream have in common.
#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn opening(
    guest: &mut Guest<'_, '_>,
    kind: GrpcKind,
    target: u32,
    target_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
) -> HostResult<GrpcOpening> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(GrpcOpening {
        kind,
        target: guest.read(target, target_len)?,
        service: text(&guest.read(service, service_len)?),
        method: text(&guest.read(method, method_len)?),
        metadata: HeaderMap::from_pairs(pairs::decode(&guest.read(metadata, metadata_len)?)),
        message: None,
        timeout_ms: 0,
    })
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn call(
    guest: &mut Guest<'_, '_>,
    target: u32,
    target_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    message: u32,
    message_len: u32,
    timeout_ms: u32,
    out: u32,
) -> HostResult {
    let mut opening = opening(
        guest,
        GrpcKind::Call,
        target,
        target_len,
        service,
        service_len,
        method,
        method_len,
        metadata,
        metadata_len,
    )?;
    opening.message = Some(guest.read(message, message_len)?);
    opening.timeout_ms = timeout_ms;
    guest.note(|| opening.summary());
    let token = guest.state_mut().grpc_open(opening)?;
    guest.write_u32(out, token)
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn stream(
    guest: &mut Guest<'_, '_>,
    target: u32,
    target_len: u32,
    service: u32,
    service_len: u32,
    method: u32,
    method_len: u32,
    metadata: u32,
    metadata_len: u32,
    out: u32,
) -> HostResult {
    let opening = opening(
        guest,
        GrpcKind::Stream,
        target,
        target_len,
        service,
        service_len,
        method,
        method_len,
        metadata,
        metadata_len,
    )?;
    guest.note(|| opening.summary());
    let token = guest.state_mut().grpc_open(opening)?;
    guest.write_u32(out, token)
}

fn send(guest: &mut Guest<'_, '_>, token: u32, message: u32, len: u32, end: u32) -> HostResult {
    let message = guest.read(message, len)?;
    guest.note(|| format!("token {token}, {} bytes, end={}", message.len(), end != 0));
    Ok(guest.state_mut().grpc_send(token, &message, end != 0)?)
}

fn close(guest: &mut Guest<'_, '_>, token: u32) -> HostResult {
    guest.note(|| format!("token {token}"));
    Ok(guest.state_mut().grpc_close(token)?)
}

fn cancel(guest: &mut Guest<'_, '_>, token: u32) -> HostResult {
    guest.note(|| format!("token {token}"));
    Ok(guest.state_mut().grpc_cancel(token)?)
}
