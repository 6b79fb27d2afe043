//! Imports for metrics. It must not know who scrapes them.

use wasmtime::Linker;

use super::codes::Status;
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::metrics::MetricKind;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_define_metric", define, (kind: u32, name: u32, name_len: u32, out: u32));
    host_fn!(linker, "proxy_increment_metric", increment, (id: u32, delta: i64));
    host_fn!(linker, "proxy_record_metric", record, (id: u32, value: i64));
    host_fn!(linker, "proxy_get_metric", get, (id: u32, out: u32));
    Ok(())
}

fn define(guest: &mut Guest<'_, '_>, kind: u32, name: u32, name_len: u32, out: u32) -> HostResult {
    let kind = MetricKind::from_code(kind).ok_or(Status::BadArgument)?;
    let name = String::from_utf8_lossy(&guest.read(name, name_len)?).into_owned();
    guest.note(|| format!("{} {name}", kind.name()));
    let state = guest.state_mut();
    let id = state.metric_ids.define(kind, &name);
    let is_new = state.shared.borrow_mut().metrics.define(kind, &name);
    if is_new {
        state.watch_definition();
    }
    guest.write_u32(out, id)
}

fn increment(guest: &mut Guest<'_, '_>, id: u32, delta: i64) -> HostResult {
    let (kind, name) = known_value(guest, id)?;
    guest.note(|| format!("{name} by {delta}"));
    let done = guest.state().shared.borrow_mut().metrics.increment(kind, &name, delta);
    guest.state_mut().watch_count(kind, &name);
    if done { Ok(()) } else { Err(Status::BadArgument.into()) }
}

fn record(guest: &mut Guest<'_, '_>, id: u32, value: i64) -> HostResult {
    let (kind, name) = known(guest, id)?;
    guest.note(|| format!("{name} = {value}"));
    guest.state().shared.borrow_mut().metrics.record(kind, &name, value.cast_unsigned());
    guest.state_mut().watch_count(kind, &name);
    Ok(())
}

fn get(guest: &mut Guest<'_, '_>, id: u32, out: u32) -> HostResult {
    let (kind, name) = known_value(guest, id)?;
    guest.note(|| name.clone());
    let value = guest.state().shared.borrow().metrics.value(kind, &name);
    guest.write_u64(out, value.ok_or(Status::BadArgument)?)
}

/// A number that no counter or gauge can have is a bad argument, also before it is looked up.
fn known_value(guest: &Guest<'_, '_>, id: u32) -> HostResult<(MetricKind, String)> {
    match MetricKind::from_code(id & 3) {
        Some(MetricKind::Counter | MetricKind::Gauge) => known(guest, id),
        _ => Err(Status::BadArgument.into()),
    }
}

fn known(guest: &Guest<'_, '_>, id: u32) -> HostResult<(MetricKind, String)> {
    Ok(guest.state().metric_ids.find(id).ok_or(Status::NotFound)?)
}
