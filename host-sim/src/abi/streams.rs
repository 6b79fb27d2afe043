//! Imports that steer streams and contexts. It must not know how a pause or a reply is carried out.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use super::pairs;
use crate::host::reply::LocalReply;
use crate::host::stream::Direction;
use crate::host::vm_state::{After, VmState};

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_send_local_response", send_local_response, (
        code: u32, details: u32, details_len: u32, body: u32, body_len: u32, headers: u32, headers_len: u32, grpc: i32
    ));
    host_fn!(linker, "proxy_set_effective_context", set_effective_context, (context: u32));
    host_fn!(linker, "proxy_done", done, ());
    Ok(())
}

pub(crate) fn register_since_0_2_0(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_continue_stream", continue_stream, (kind: u32));
    host_fn!(linker, "proxy_close_stream", close_stream, (kind: u32));
    Ok(())
}

fn continue_stream(guest: &mut Guest<'_, '_>, kind: u32) -> HostResult {
    let direction = match kind {
        0 => Direction::Request,
        1 => Direction::Response,
        // TCP: nothing to continue on an HTTP filter; towards the upstream Envoy cannot.
        2 => return Ok(()),
        3 => return Err(Status::Unimplemented.into()),
        _ => return Err(Status::BadArgument.into()),
    };
    guest.note(|| format!("{direction:?}"));
    guest.state_mut().continue_stream(direction);
    Ok(())
}

fn close_stream(guest: &mut Guest<'_, '_>, kind: u32) -> HostResult {
    guest.note(|| format!("stream type {kind}"));
    match kind {
        0 | 1 => guest.state_mut().defer(After::Close),
        // TCP streams: nothing to close on an HTTP filter.
        2 | 3 => {}
        _ => return Err(Status::BadArgument.into()),
    }
    Ok(())
}

/// Always Ok, even where there is no stream to reply on: so Envoy does it.
#[expect(clippy::too_many_arguments, reason = "the ABI's own signature")]
fn send_local_response(
    guest: &mut Guest<'_, '_>,
    code: u32,
    details: u32,
    details_len: u32,
    body: u32,
    body_len: u32,
    headers: u32,
    headers_len: u32,
    grpc: i32,
) -> HostResult {
    let details = String::from_utf8_lossy(&guest.read(details, details_len)?).into_owned();
    let reply = LocalReply {
        status: code,
        details: details.split_whitespace().collect::<Vec<_>>().join("_"),
        body: guest.read(body, body_len)?,
        headers: pairs::decode(&guest.read(headers, headers_len)?),
        grpc_status: u32::try_from(grpc).ok(),
    };
    guest.note(|| format!("{} {:?} {} bytes", reply.status, reply.details, reply.body.len()));
    guest.state_mut().defer(After::Reply(reply));
    Ok(())
}

/// Context 0 takes the switch back.
fn set_effective_context(guest: &mut Guest<'_, '_>, context: u32) -> HostResult {
    guest.note(|| format!("{context}"));
    let state = guest.state_mut();
    if !state.knows_context(context) {
        return Err(Status::BadArgument.into());
    }
    // Zero is "whichever context the host called".
    state.current = if context == 0 { state.called } else { context };
    Ok(())
}

/// For a root that answered `proxy_on_done` with false; for any other there is nothing to finish.
fn done(guest: &mut Guest<'_, '_>) -> HostResult {
    if guest.state_mut().finish_done() { Ok(()) } else { Err(Status::NotFound.into()) }
}
