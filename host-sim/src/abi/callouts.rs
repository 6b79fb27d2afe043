//! Imports for HTTP callouts. It must not know how an answer comes about.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use super::pairs;
use crate::host::callouts::Dispatch;
use crate::host::headers::HeaderMap;
use crate::host::inline::{self, Kind};
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_http_call", http_call, (
        cluster: u32, cluster_len: u32, headers: u32, headers_len: u32, body: u32, body_len: u32,
        trailers: u32, trailers_len: u32, timeout_ms: u32, out: u32
    ));
    host_fn!(linker, "proxy_get_status", get_status, (out: u32, out_message: u32, out_len: u32));
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn http_call(
    guest: &mut Guest<'_, '_>,
    cluster: u32,
    cluster_len: u32,
    headers: u32,
    headers_len: u32,
    body: u32,
    body_len: u32,
    trailers: u32,
    trailers_len: u32,
    timeout_ms: u32,
    out: u32,
) -> HostResult {
    let dispatch = Dispatch {
        cluster: String::from_utf8_lossy(&guest.read(cluster, cluster_len)?).into_owned(),
        headers: inline::joined(Kind::Request, &pairs::decode(&guest.read(headers, headers_len)?)),
        body: guest.read(body, body_len)?,
        trailers: HeaderMap::from_pairs(pairs::decode(&guest.read(trailers, trailers_len)?)),
        timeout_ms: i32::try_from(timeout_ms)
            .ok()
            .and_then(|ms| u32::try_from(ms).ok())
            .ok_or(Status::BadArgument)?,
    };
    guest.note(|| dispatch.summary());
    // Envoy proves the address before it sends anything.
    guest.write_u32(out, 0)?;
    let token = guest.state_mut().dispatch(dispatch)?;
    guest.write_u32(out, token)
}

/// After a reset callout the code stays 11 for good, as in Envoy: no plugin should rely on it.
fn get_status(guest: &mut Guest<'_, '_>, out: u32, out_message: u32, out_len: u32) -> HostResult {
    let (code, message) = guest.state().callouts.last_status.clone();
    guest.write_u32(out, code)?;
    guest.give(message.as_bytes(), out_message, out_len)
}
