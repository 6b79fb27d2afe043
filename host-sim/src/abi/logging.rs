//! Imports for logging and time. It must not know who reads the log.

use wasmtime::Linker;

use super::codes::{AbiVersion, LogLevel, Status};
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>, version: AbiVersion) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_log", log, (level: u32, ptr: u32, len: u32));
    if version == AbiVersion::V0_2_1 {
        host_fn!(linker, "proxy_get_log_level", get_log_level, (out: u32));
    }
    host_fn!(linker, "proxy_get_current_time_nanoseconds", get_current_time, (out: u32));
    host_fn!(linker, "proxy_set_tick_period_milliseconds", set_tick_period, (period_ms: u32));
    Ok(())
}

fn log(guest: &mut Guest<'_, '_>, level: u32, ptr: u32, len: u32) -> HostResult {
    let level = LogLevel::from_code(level).ok_or(Status::BadArgument)?;
    let message = String::from_utf8_lossy(&guest.read(ptr, len)?).into_owned();
    guest.note(|| format!("{} {message:?}", level.name()));
    guest.state_mut().log(level, message);
    Ok(())
}

fn get_log_level(guest: &mut Guest<'_, '_>, out: u32) -> HostResult {
    let level = guest.state().base.log_level;
    guest.write_u32(out, level as u32)
}

fn get_current_time(guest: &mut Guest<'_, '_>, out: u32) -> HostResult {
    let now_unix_ns = guest.state().now_unix_ns();
    guest.write_u64(out, now_unix_ns)
}

fn set_tick_period(guest: &mut Guest<'_, '_>, period_ms: u32) -> HostResult {
    guest.note(|| format!("{period_ms} ms"));
    guest.state_mut().set_tick_period(period_ms);
    Ok(())
}
