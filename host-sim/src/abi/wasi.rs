//! The WASI preview1 calls that do something here: environment, clock, randomness, standard streams, exit. It must not touch the machine.

use wasmtime::{Caller, Linker};

use super::codes::LogLevel;
use super::guest::{Guest, HostResult, allow_in_stage, wasi_call};
use crate::host::vm_state::VmState;

const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const INVAL: u32 = 28;
const NOTSUP: u32 = 58;

/// Envoy's own bound for one call.
const RANDOM_BYTES_MAX: u32 = 64 * 1024;
/// One write is one log line; a wasm32 guest has no use for more vectors than this.
const IOVECS_MAX: u32 = 1024;

macro_rules! wasi_fn {
    ($linker:expr, $module:expr, $name:literal, $function:path, ($($arg:ident: $ty:ty),*)) => {
        $linker.func_wrap($module, $name, |mut caller: Caller<'_, VmState>, $($arg: $ty),*| -> wasmtime::Result<u32> {
            wasi_call(&mut caller, $name, |guest| $function(guest, $($arg),*))
        })?
    };
}

pub(crate) fn register(linker: &mut Linker<VmState>, module: &str) -> wasmtime::Result<()> {
    wasi_fn!(linker, module, "environ_sizes_get", environ_sizes_get, (count: u32, size: u32));
    wasi_fn!(linker, module, "environ_get", environ_get, (pointers: u32, text: u32));
    wasi_fn!(linker, module, "args_sizes_get", args_sizes_get, (count: u32, size: u32));
    wasi_fn!(linker, module, "args_get", args_get, (pointers: u32, text: u32));
    wasi_fn!(linker, module, "clock_time_get", clock_time_get, (clock: u32, precision: u64, out: u32));
    wasi_fn!(linker, module, "clock_res_get", clock_res_get, (clock: u32, out: u32));
    wasi_fn!(linker, module, "random_get", random_get, (ptr: u32, len: u32));
    wasi_fn!(linker, module, "fd_write", fd_write, (fd: u32, iovecs: u32, count: u32, out: u32));
    wasi_fn!(linker, module, "fd_fdstat_get", fd_fdstat_get, (fd: u32, out: u32));
    // In Envoy it returns; a C library traps right after it by its own unreachable instruction.
    linker.func_wrap(
        module,
        "proc_exit",
        |caller: Caller<'_, VmState>, _code: u32| -> wasmtime::Result<()> {
            allow_in_stage(caller.data().stage, "proc_exit")
        },
    )?;
    Ok(())
}

fn environ_sizes_get(guest: &mut Guest<'_, '_>, count: u32, size: u32) -> HostResult<u32> {
    let lines = guest.state().base.environ();
    guest.write_u32(count, len_u32(lines.len()))?;
    guest.write_u32(size, len_u32(lines.iter().map(Vec::len).sum()))?;
    Ok(SUCCESS)
}

fn environ_get(guest: &mut Guest<'_, '_>, pointers: u32, text: u32) -> HostResult<u32> {
    let lines = guest.state().base.environ();
    let (mut pointer, mut address) = (pointers, text);
    for line in lines {
        guest.write_u32(pointer, address)?;
        guest.write(address, &line)?;
        pointer = pointer.saturating_add(4);
        address = address.saturating_add(len_u32(line.len()));
    }
    Ok(SUCCESS)
}

fn args_sizes_get(guest: &mut Guest<'_, '_>, count: u32, size: u32) -> HostResult<u32> {
    guest.write_u32(count, 0)?;
    guest.write_u32(size, 0)?;
    Ok(SUCCESS)
}

fn args_get(_: &mut Guest<'_, '_>, _: u32, _: u32) -> HostResult<u32> {
    Ok(SUCCESS)
}

/// The clocks that Envoy has: real time and monotonic time. Both are the virtual one.
fn is_clock(clock: u32) -> bool {
    clock <= 1
}

fn clock_time_get(
    guest: &mut Guest<'_, '_>,
    clock: u32,
    _precision: u64,
    out: u32,
) -> HostResult<u32> {
    if !is_clock(clock) {
        return Ok(NOTSUP);
    }
    let now_unix_ns = guest.state().now_unix_ns();
    guest.write_u64(out, now_unix_ns)?;
    Ok(SUCCESS)
}

fn clock_res_get(guest: &mut Guest<'_, '_>, clock: u32, out: u32) -> HostResult<u32> {
    if !is_clock(clock) {
        return Ok(NOTSUP);
    }
    guest.write_u64(out, 1)?;
    Ok(SUCCESS)
}

fn random_get(guest: &mut Guest<'_, '_>, ptr: u32, len: u32) -> HostResult<u32> {
    if len > RANDOM_BYTES_MAX {
        return Ok(INVAL);
    }
    if len > 0 {
        let bytes = guest.state_mut().random.bytes(len);
        guest.write(ptr, &bytes)?;
    }
    Ok(SUCCESS)
}

/// Standard output logs as info, standard error as error, one line per write.
fn fd_write(
    guest: &mut Guest<'_, '_>,
    fd: u32,
    iovecs: u32,
    count: u32,
    out: u32,
) -> HostResult<u32> {
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Ok(BADF),
    };
    if count > IOVECS_MAX {
        return Ok(INVAL);
    }
    let mut text = Vec::new();
    for index in 0..count {
        let entry = guest.read(iovecs.saturating_add(index * 8), 8)?;
        let (ptr, len) = (number_at(&entry, 0), number_at(&entry, 4));
        if len > 0 {
            text.extend(guest.read(ptr, len)?);
        }
    }
    let line = String::from_utf8_lossy(text.strip_suffix(b"\n").unwrap_or(&text)).into_owned();
    if !text.is_empty() {
        guest.state_mut().log(level, line);
    }
    guest.write_u32(out, len_u32(text.len()))?;
    Ok(SUCCESS)
}

/// Something of an unknown kind that can be written, which is what a C library asks before its first write.
fn fd_fdstat_get(guest: &mut Guest<'_, '_>, fd: u32, out: u32) -> HostResult<u32> {
    const RIGHT_FD_WRITE: u8 = 64;
    if !(1..=2).contains(&fd) {
        return Ok(BADF);
    }
    let mut stat = [0u8; 24];
    stat[8] = RIGHT_FD_WRITE;
    guest.write(out, &stat)?;
    Ok(SUCCESS)
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |four| u32::from_le_bytes(*four))
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
