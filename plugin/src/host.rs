//! Owns every call to the host: one function a call, its status mapped, no logic. The only file
//! with `unsafe` memory in it.
//!
//! ABI 0.2.1 (proxy-wasm/spec). A host call writes pointers to memory that it got from
//! [`allocate`]; [`Returned::take`] turns such a pair into an owned vector exactly once.

use std::alloc::{Layout, alloc};

use crate::property::Property;

mod imports;

use imports::{
    proxy_add_header_map_value, proxy_continue_stream, proxy_define_metric, proxy_get_buffer_bytes,
    proxy_get_current_time_nanoseconds, proxy_get_header_map_pairs, proxy_get_header_map_value,
    proxy_get_metric, proxy_get_property, proxy_get_shared_data, proxy_http_call,
    proxy_increment_metric, proxy_log, proxy_record_metric, proxy_remove_header_map_value,
    proxy_replace_header_map_value, proxy_send_local_response, proxy_set_effective_context,
    proxy_set_property, proxy_set_shared_data, proxy_set_tick_period_milliseconds,
};

/// The host's word for "no": its status, by the numbers of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub u32);

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const SERIALIZATION_FAILURE: u32 = 3;
const CAS_MISMATCH: u32 = 8;

/// A level of the host's log.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Info,
    Warn,
    Error,
}

/// A header map.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Map {
    Request,
    Response,
    ResponseTrailer,
    CallResponse,
}

/// A buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer {
    RequestBody,
    ResponseBody,
    CallResponseBody,
    PluginConfiguration,
}

/// Memory for a value of the host's; null if there is none left, which the host reports.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    match Layout::array::<u8>(size) {
        // SAFETY: the layout's size is not zero.
        Ok(layout) if size > 0 => unsafe { alloc(layout) },
        Ok(_) | Err(_) => std::ptr::null_mut(),
    }
}

/// A value that the host put into memory it got from [`allocate`], taken over.
pub(crate) fn taken(data: *mut u8, size: usize) -> Vec<u8> {
    Returned { data, size }.take(OK).unwrap_or_default()
}

/// Hands bytes to the host, for good: address in the upper half, size in the lower. Only for an
/// instance that is thrown away afterwards.
pub(crate) fn handed_over(bytes: Vec<u8>) -> u64 {
    let bytes = bytes.leak();
    let half = |number: usize| u64::try_from(number).unwrap_or_default();
    (half(bytes.as_ptr().addr()) << 32) | half(bytes.len())
}

/// Where the host writes a value's place.
struct Returned {
    data: *mut u8,
    size: usize,
}

// === impl Returned ===

impl Returned {
    fn nothing() -> Self {
        Self { data: std::ptr::null_mut(), size: 0 }
    }

    fn take(self, status: u32) -> Result<Vec<u8>, Status> {
        checked(status)?;
        if self.data.is_null() || self.size == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the host allocated exactly `size` bytes by `allocate` for this call, wrote all
        // of them, and keeps no pointer; align 1 and capacity = size match `allocate`'s layout.
        Ok(unsafe { Vec::from_raw_parts(self.data, self.size, self.size) })
    }
}

fn checked(status: u32) -> Result<(), Status> {
    if status == OK { Ok(()) } else { Err(Status(status)) }
}

fn found(value: Result<Vec<u8>, Status>) -> Result<Option<Vec<u8>>, Status> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Status(NOT_FOUND)) => Ok(None),
        Err(status) => Err(status),
    }
}

// === impl Map ===

impl Map {
    fn number(self) -> u32 {
        match self {
            Self::Request => 0,
            Self::Response => 2,
            Self::ResponseTrailer => 3,
            Self::CallResponse => 6,
        }
    }
}

/// Writes one line to the host's log. A log that cannot be written is not worth failing for.
pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Info => 2,
        Level::Warn => 3,
        Level::Error => 4,
    };
    // SAFETY: pointer and size are of one live slice.
    let _status: u32 = unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// The first value of a header; `None` if it is absent.
pub(crate) fn header(map: Map, name: &str) -> Result<Option<Vec<u8>>, Status> {
    let mut value = Returned::nothing();
    // SAFETY: pointer and size are of one live slice; both targets outlive the call.
    let status = unsafe {
        proxy_get_header_map_value(
            map.number(),
            name.as_ptr(),
            name.len(),
            &mut value.data,
            &mut value.size,
        )
    };
    found(value.take(status))
}

/// All headers of a map, in the host's encoding.
pub(crate) fn header_pairs(map: Map) -> Result<Vec<u8>, Status> {
    let mut value = Returned::nothing();
    // SAFETY: both targets outlive the call.
    let status =
        unsafe { proxy_get_header_map_pairs(map.number(), &mut value.data, &mut value.size) };
    value.take(status)
}

/// Adds a header beside those of its name.
pub(crate) fn add_header(map: Map, name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: each pointer and size are of one live slice.
    checked(unsafe {
        proxy_add_header_map_value(
            map.number(),
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Sets a header in place of those of its name.
pub(crate) fn replace_header(map: Map, name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: each pointer and size are of one live slice.
    checked(unsafe {
        proxy_replace_header_map_value(
            map.number(),
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Takes a header out, however often it stands; none is fine.
pub(crate) fn remove_header(map: Map, name: &str) -> Result<(), Status> {
    // SAFETY: pointer and size are of one live slice.
    checked(unsafe { proxy_remove_header_map_value(map.number(), name.as_ptr(), name.len()) })
}

/// Up to `size_max` bytes of a buffer, from its start; `None` if there is no such buffer now.
pub(crate) fn buffer(buffer: Buffer, size_max: usize) -> Result<Option<Vec<u8>>, Status> {
    buffer_from(buffer, 0, size_max)
}

/// Up to `size_max` bytes of a buffer, from `start` on.
pub(crate) fn buffer_from(
    buffer: Buffer,
    start: usize,
    size_max: usize,
) -> Result<Option<Vec<u8>>, Status> {
    let number = match buffer {
        Buffer::RequestBody => 0,
        Buffer::ResponseBody => 1,
        Buffer::CallResponseBody => 4,
        Buffer::PluginConfiguration => 7,
    };
    let mut value = Returned::nothing();
    // SAFETY: both targets outlive the call.
    let status = unsafe {
        proxy_get_buffer_bytes(number, start, size_max, &mut value.data, &mut value.size)
    };
    found(value.take(status))
}

/// A property, its path's parts joined by NUL.
pub(crate) fn property(path: &str) -> Result<Property, Status> {
    let mut value = Returned::nothing();
    // SAFETY: pointer and size are of one live slice; both targets outlive the call.
    let status =
        unsafe { proxy_get_property(path.as_ptr(), path.len(), &mut value.data, &mut value.size) };
    match value.take(status) {
        Ok(bytes) => Ok(Property::Bytes(bytes)),
        Err(Status(NOT_FOUND)) => Ok(Property::Absent),
        Err(Status(SERIALIZATION_FAILURE)) => Ok(Property::Nameless),
        Err(status) => Err(status),
    }
}

/// Sets a property of the stream: filter state that access logs read as `wasm.NAME`.
pub(crate) fn set_property(name: &str, value: &str) -> Result<(), Status> {
    // SAFETY: each pointer and size are of one live slice.
    checked(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// Lets the held request go on.
pub(crate) fn continue_request() -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_continue_stream(0) })
}

/// Lets the held answer go on.
pub(crate) fn continue_response() -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_continue_stream(1) })
}

/// Calls for a tick of this root every so many ms; 0 is none.
pub(crate) fn set_tick_period(period_ms: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_set_tick_period_milliseconds(period_ms) })
}

/// Answers in the upstream's place. `details` is what access logs show; `headers` is encoded.
pub(crate) fn send_local_response(
    code: u32,
    details: &str,
    body: &[u8],
    headers: &[u8],
    grpc_status: i32,
) -> Result<(), Status> {
    // SAFETY: each pointer and size are of one live slice.
    checked(unsafe {
        proxy_send_local_response(
            code,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Sends a callout; gives its token. `headers` is encoded. The timeout is never 0, which would
/// mean none at all.
pub(crate) fn http_call(
    cluster: &str,
    headers: &[u8],
    body: &[u8],
    timeout_ms: u32,
) -> Result<u32, Status> {
    let mut token = 0;
    // SAFETY: each pointer and size are of one live slice; the target outlives the call.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            std::ptr::null(),
            0,
            timeout_ms.max(1),
            &mut token,
        )
    };
    checked(status).map(|()| token)
}

/// Defines a counter; gives its id.
pub(crate) fn define_counter(name: &str) -> Result<u32, Status> {
    let mut id = 0;
    // SAFETY: pointer and size are of one live slice; the target outlives the call.
    let status = unsafe { proxy_define_metric(0, name.as_ptr(), name.len(), &mut id) };
    checked(status).map(|()| id)
}

/// Sets a gauge, which is the whole Envoy's: whoever sets it last.
pub(crate) fn set_gauge(name: &str, value: u64) -> Result<(), Status> {
    let mut id = 0;
    // SAFETY: pointer and size are of one live slice; the target outlives the call.
    let status = unsafe { proxy_define_metric(1, name.as_ptr(), name.len(), &mut id) };
    checked(status)?;
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_record_metric(id, value) })
}

/// Adds to a counter; nothing may not be added.
pub(crate) fn increment(id: u32, by: u64) -> Result<(), Status> {
    let by = i64::try_from(by).unwrap_or(i64::MAX);
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_increment_metric(id, by) })
}

/// A metric's value, the whole process's.
pub(crate) fn metric(id: u32) -> Result<u64, Status> {
    let mut value = 0;
    // SAFETY: the target outlives the call.
    checked(unsafe { proxy_get_metric(id, &mut value) })?;
    Ok(value)
}

/// Makes the calls that follow speak of this context.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Status> {
    // SAFETY: no memory is passed.
    checked(unsafe { proxy_set_effective_context(context) })
}

/// The host's wall clock, in µs since 1970. It may step.
pub(crate) fn now_us() -> Result<u64, Status> {
    let mut time_ns = 0;
    // SAFETY: the target outlives the call.
    checked(unsafe { proxy_get_current_time_nanoseconds(&mut time_ns) })?;
    Ok(time_ns / 1_000)
}

/// For a key that is not there: the host takes any number then, and refuses this one if somebody
/// has made the key in the meantime. 0 would overwrite what he wrote.
const CAS_ABSENT: u32 = u32::MAX;

/// A value of the process's shared data, with the number that writing it needs; empty if there is
/// none.
pub(crate) fn shared(key: &str) -> Result<(Vec<u8>, u32), Status> {
    let mut value = Returned::nothing();
    let mut cas = 0;
    // SAFETY: pointer and size are of one live slice; the targets outlive the call.
    let status = unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), &mut value.data, &mut value.size, &mut cas)
    };
    Ok(match found(value.take(status))? {
        Some(value) => (value, cas),
        None => (Vec::new(), CAS_ABSENT),
    })
}

/// Writes a value of the process's shared data; `false` if another worker was faster.
pub(crate) fn set_shared(key: &str, value: &[u8], cas: u32) -> Result<bool, Status> {
    // SAFETY: each pointer and size are of one live slice.
    let status =
        unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas) };
    match checked(status) {
        Ok(()) => Ok(true),
        Err(Status(CAS_MISMATCH)) => Ok(false),
        Err(status) => Err(status),
    }
}
