//! Imports for buffers. It must not know when a body is available; the stream says so.

use wasmtime::Linker;

use super::codes::{BufferType, Status};
use super::guest::{Guest, HostResult};
use super::link::host_fn;
use crate::host::access::Seen;
use crate::host::vm_state::VmState;

pub(crate) fn register(linker: &mut Linker<VmState>) -> wasmtime::Result<()> {
    host_fn!(linker, "proxy_get_buffer_bytes", get, (buffer: u32, start: u32, max: u32, out: u32, out_len: u32));
    host_fn!(linker, "proxy_get_buffer_status", status, (buffer: u32, out_size: u32, out_flags: u32));
    host_fn!(linker, "proxy_set_buffer_bytes", set, (buffer: u32, start: u32, size: u32, ptr: u32, len: u32));
    Ok(())
}

fn buffer_type(buffer: u32) -> HostResult<BufferType> {
    Ok(BufferType::from_code(buffer).ok_or(Status::BadArgument)?)
}

/// Past the end there is nothing, which is no error.
fn get(
    guest: &mut Guest<'_, '_>,
    buffer: u32,
    start: u32,
    max: u32,
    out: u32,
    out_len: u32,
) -> HostResult {
    let buffer = buffer_type(buffer)?;
    guest.note(|| format!("{buffer:?} from {start}, at most {max}"));
    let part = {
        let bytes = content(guest, buffer)?;
        let index = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let end = index(start).saturating_add(index(max)).min(bytes.len());
        bytes.get(index(start)..end).unwrap_or_default().to_vec()
    };
    guest.give(&part, out, out_len)
}

/// Only the configuration and a callout's body can be absent; any other buffer that holds nothing is empty.
fn content<'a>(guest: &'a Guest<'_, '_>, buffer: BufferType) -> HostResult<Seen<'a, [u8]>> {
    let found = guest.state().buffer(buffer);
    match buffer {
        BufferType::CalloutBody | BufferType::PluginConfig => Ok(found.ok_or(Status::NotFound)?),
        _ => Ok(found.unwrap_or(Seen::Own(&[]))),
    }
}

fn status(guest: &mut Guest<'_, '_>, buffer: u32, out_size: u32, out_flags: u32) -> HostResult {
    let buffer = buffer_type(buffer)?;
    guest.note(|| format!("{buffer:?}"));
    let len = content(guest, buffer)?.len();
    guest.write_u32(out_size, u32::try_from(len).unwrap_or(u32::MAX))?;
    guest.write_u32(out_flags, 0)
}

fn set(
    guest: &mut Guest<'_, '_>,
    buffer: u32,
    start: u32,
    size: u32,
    ptr: u32,
    len: u32,
) -> HostResult {
    let buffer = buffer_type(buffer)?;
    guest.note(|| format!("{buffer:?} from {start}, {size} bytes by {len}"));
    let bytes = guest.read(ptr, len)?;
    content(guest, buffer)?;
    guest
        .state_mut()
        .with_body(buffer, |body| splice(body, start, size, bytes))
        .ok_or(Status::BadArgument)?
}

/// Envoy drains and prepends at the start, appends at or past the end, and refuses what lies between.
fn splice(body: &mut Vec<u8>, start: u32, size: u32, bytes: Vec<u8>) -> HostResult {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    if start == 0 {
        let drained = usize::try_from(size).unwrap_or(usize::MAX).min(body.len());
        body.splice(..drained, bytes);
        Ok(())
    } else if start >= body.len() {
        body.extend(bytes);
        Ok(())
    } else {
        Err(Status::BadArgument.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spliced(start: u32, size: u32) -> Option<Vec<u8>> {
        let mut body = b"abcd".to_vec();
        splice(&mut body, start, size, b"XY".to_vec()).is_ok().then_some(body)
    }

    #[test]
    fn a_body_is_replaced_prepended_and_appended_but_not_cut_in_the_middle() {
        assert_eq!(spliced(0, 4).unwrap(), b"XY");
        assert_eq!(spliced(0, u32::MAX).unwrap(), b"XY");
        assert_eq!(spliced(0, 0).unwrap(), b"XYabcd");
        assert_eq!(spliced(0, 1).unwrap(), b"XYbcd");
        assert_eq!(spliced(4, 0).unwrap(), b"abcdXY");
        assert_eq!(spliced(2, 1), None);
    }
}
