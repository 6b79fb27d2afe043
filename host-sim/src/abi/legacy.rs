//! The imports that only ABI 0.1.0 has. It must not know how their successors work.

use wasmtime::Linker;

use super::codes::BufferType;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::stream::Direction;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_continue_request", continue_request, ());
    host_fn!(linker, "proxy_continue_response", continue_response, ());
    host_fn!(linker, "proxy_get_configuration", get_configuration, (out: u32, out_len: u32));
    host_fn!(linker, "proxy_clear_route_cache", clear_route_cache, ());
    Ok(())
}

fn continue_request(guest: &mut Guest<'_, '_>) -> HostResult {
    guest.state_mut().continue_stream(Direction::Request);
    Ok(())
}

fn continue_response(guest: &mut Guest<'_, '_>) -> HostResult {
    guest.state_mut().continue_stream(Direction::Response);
    Ok(())
}

/// The plugin's while it is being configured, the VM's at any other time.
fn get_configuration(guest: &mut Guest<'_, '_>, out: u32, out_len: u32) -> HostResult {
    let state = guest.state();
    let plugin = state.buffer(BufferType::PluginConfig);
    let config = plugin.or(state.buffer(BufferType::VmConfig));
    let config = config.map(|config| config.to_vec()).unwrap_or_default();
    guest.give(&config, out, out_len)
}

/// There is one route here, so nothing has to be chosen again.
fn clear_route_cache(_: &mut Guest<'_, '_>) -> HostResult {
    Ok(())
}
