//! Owns every call that a list can name: its arguments in the ABI's order, its status and value as
//! the log shows them. It must not know why a list calls what.

use serde_json::Value;

use crate::args::{self, Args, Place, Registers};
use crate::imports as host;
use crate::memory::Returned;
use crate::text;

/// What came of a call.
pub(crate) struct Done {
    pub(crate) line: String,
    /// What the callback shall return, where the call says it.
    pub(crate) returned: Option<u32>,
}

/// What a host function gave.
enum Gave {
    Nothing,
    Bytes(Vec<u8>),
    Unseen(Vec<u8>),
    Pairs(Vec<u8>),
    Number(u64),
    Text(String),
}

type Answer = (u32, Gave);

/// Carries out one call.
pub(crate) fn call(
    values: &[Value],
    registers: &mut Registers,
    place: Place,
    names: &Value,
) -> Done {
    let kept = registers.clone();
    let args = Args { values, registers: &kept, place, names };
    let shown = args.text();
    let name = args.raw(0).as_str().unwrap_or("?").to_owned();
    if name == "return" {
        return Done { line: shown, returned: Some(args.number(1)) };
    }
    let answered = headers(&name, &args)
        .or_else(|| streams(&name, &args))
        .or_else(|| shared(&name, &args, registers))
        .or_else(|| metrics(&name, &args, registers))
        .or_else(|| callouts(&name, &args, registers))
        .or_else(|| others(&name, &args));
    let Some((status, gave)) = answered else {
        return Done { line: format!("{shown}: no such call"), returned: None };
    };
    let value = match gave {
        _ if status != 0 => String::new(),
        Gave::Nothing => String::new(),
        Gave::Number(number) => format!(" {number}"),
        Gave::Text(text) => format!(" {text}"),
        Gave::Pairs(bytes) => format!(" {}", text::pairs(&bytes)),
        Gave::Unseen(bytes) => {
            registers.bytes = bytes;
            " some bytes".to_owned()
        }
        Gave::Bytes(bytes) => {
            let value = format!(" {}", text::quoted(&bytes));
            registers.bytes = bytes;
            value
        }
    };
    Done { line: format!("{shown} = {status}{value}"), returned: None }
}

// SAFETY, for every call below: each pointer and size are of one live value, and each target that
// the host writes to outlives the call.

fn headers(name: &str, args: &Args<'_>) -> Option<Answer> {
    let map = args.number(1);
    let (key, value) = (args.bytes(2), args.bytes(3));
    let (k, kn, v, vn) = (key.as_ptr(), key.len(), value.as_ptr(), value.len());
    Some(match name {
        "get" => {
            bytes(|data, size| unsafe { host::proxy_get_header_map_value(map, k, kn, data, size) })
        }
        "get_pairs" => {
            let (status, gave) =
                bytes(|data, size| unsafe { host::proxy_get_header_map_pairs(map, data, size) });
            match gave {
                Gave::Bytes(bytes) => (status, Gave::Pairs(bytes)),
                other => (status, other),
            }
        }
        "size" => number(|out| unsafe { host::proxy_get_header_map_size(map, out) }),
        "add" => plain(unsafe { host::proxy_add_header_map_value(map, k, kn, v, vn) }),
        "replace" => plain(unsafe { host::proxy_replace_header_map_value(map, k, kn, v, vn) }),
        "remove" => plain(unsafe { host::proxy_remove_header_map_value(map, k, kn) }),
        "set_pairs" => plain(unsafe { host::proxy_set_header_map_pairs(map, k, kn) }),
        _ => return None,
    })
}

fn streams(name: &str, args: &Args<'_>) -> Option<Answer> {
    let (first, second, third) = (args.number(1), args.number(2), args.number(3));
    Some(match name {
        "get_buffer" => bytes(|data, size| unsafe {
            host::proxy_get_buffer_bytes(first, second, third, data, size)
        }),
        "buffer_status" => {
            let (mut size, mut flags) = (0, 0);
            let status = unsafe { host::proxy_get_buffer_status(first, &mut size, &mut flags) };
            (status, Gave::Text(format!("{size} bytes, flags {flags}")))
        }
        "set_buffer" => {
            let data = args.bytes(4);
            plain(unsafe {
                host::proxy_set_buffer_bytes(first, second, third, data.as_ptr(), data.len())
            })
        }
        "continue" => plain(unsafe { host::proxy_continue_stream(first) }),
        "close" => plain(unsafe { host::proxy_close_stream(first) }),
        "reply" => {
            let more = args.raw(2);
            let part = |key| args::bytes(more.get(key).unwrap_or(&Value::Null), &[]);
            let (details, body) = (part("details"), part("body"));
            let pairs = more.get("headers").unwrap_or(&Value::Null);
            let pairs =
                if pairs.is_array() { args::encode(pairs, &[]) } else { args::bytes(pairs, &[]) };
            let grpc = more.get("grpc").and_then(Value::as_i64).unwrap_or(-1);
            plain(unsafe {
                host::proxy_send_local_response(
                    first,
                    details.as_ptr(),
                    details.len(),
                    body.as_ptr(),
                    body.len(),
                    pairs.as_ptr(),
                    pairs.len(),
                    i32::try_from(grpc).unwrap_or(-1),
                )
            })
        }
        "effective_context" => plain(effective_context(first)),
        "done" => plain(unsafe { host::proxy_done() }),
        "tick" => plain(unsafe { host::proxy_set_tick_period_milliseconds(first) }),
        _ => return None,
    })
}

fn shared(name: &str, args: &Args<'_>, registers: &mut Registers) -> Option<Answer> {
    let (first, second) = (args.bytes(1), args.bytes(2));
    let (a, an, b, bn) = (first.as_ptr(), first.len(), second.as_ptr(), second.len());
    Some(match name {
        "get_shared" => {
            let mut cas = 0;
            let (status, gave) = bytes(|data, size| unsafe {
                host::proxy_get_shared_data(a, an, data, size, &mut cas)
            });
            registers.cas = cas;
            (status, gave)
        }
        "set_shared" => plain(unsafe { host::proxy_set_shared_data(a, an, b, bn, args.number(3)) }),
        "register_queue" | "resolve_queue" => {
            let vm_id = args.named();
            let answer = number(|id| unsafe {
                match name {
                    "register_queue" => host::proxy_register_shared_queue(a, an, id),
                    _ => host::proxy_resolve_shared_queue(vm_id.as_ptr(), vm_id.len(), b, bn, id),
                }
            });
            keep(&answer, &mut registers.queue);
            // Ids are handed out per process, so that other scenarios would show in them.
            (answer.0, Gave::Text("an id".to_owned()))
        }
        "enqueue" => plain(unsafe { host::proxy_enqueue_shared_queue(args.number(1), b, bn) }),
        "dequeue" => {
            let queue = args.number(1);
            bytes(|data, size| unsafe { host::proxy_dequeue_shared_queue(queue, data, size) })
        }
        _ => return None,
    })
}

fn metrics(name: &str, args: &Args<'_>, registers: &mut Registers) -> Option<Answer> {
    let id = args.number(1);
    Some(match name {
        "define_metric" => {
            let text = args.bytes(2);
            let answer = number(|out| unsafe {
                host::proxy_define_metric(id, text.as_ptr(), text.len(), out)
            });
            keep(&answer, &mut registers.metric);
            answer
        }
        "increment" => plain(unsafe { host::proxy_increment_metric(id, args.wide(2)) }),
        "record" => plain(unsafe { host::proxy_record_metric(id, args.wide(2).cast_unsigned()) }),
        "get_metric" => {
            let mut value = 0;
            let status = unsafe { host::proxy_get_metric(id, &mut value) };
            (status, Gave::Number(value))
        }
        _ => return None,
    })
}

fn callouts(name: &str, args: &Args<'_>, registers: &mut Registers) -> Option<Answer> {
    Some(match name {
        "call" => {
            let (cluster, more) = (args.named(), args.raw(2));
            let part = |key| args::bytes(more.get(key).unwrap_or(&Value::Null), &[]);
            let (body, trailers) = (part("body"), part("trailers"));
            let headers = args::encode(&request(more), &[]);
            let timeout = more.get("timeout").and_then(Value::as_i64).unwrap_or(5000);
            let timeout = i32::try_from(timeout).unwrap_or(0).cast_unsigned();
            let answer = number(|token| unsafe {
                host::proxy_http_call(
                    cluster.as_ptr(),
                    cluster.len(),
                    headers.as_ptr(),
                    headers.len(),
                    body.as_ptr(),
                    body.len(),
                    trailers.as_ptr(),
                    trailers.len(),
                    timeout,
                    token,
                )
            });
            keep(&answer, &mut registers.token);
            answer
        }
        "get_status" => {
            let mut code = 0;
            let (status, gave) =
                bytes(|data, size| unsafe { host::proxy_get_status(&mut code, data, size) });
            let message = if let Gave::Bytes(message) = gave { message } else { Vec::new() };
            (status, Gave::Text(format!("{code} {}", text::quoted(&message))))
        }
        _ => return None,
    })
}

/// The headers of a callout: what is needed at least, then what is written. `bare` has only that.
fn request(more: &Value) -> Value {
    let text = |key, default| more.get(key).and_then(Value::as_str).unwrap_or(default);
    let mut all: Vec<Value> = Vec::new();
    if more.get("bare").is_none() {
        all.push(vec![":method", text("method", "GET")].into());
        all.push(vec![":path", text("path", "/")].into());
        all.push(vec![":authority", "gateway"].into());
    }
    all.extend(more.get("headers").and_then(Value::as_array).cloned().unwrap_or_default());
    all.into()
}

fn others(name: &str, args: &Args<'_>) -> Option<Answer> {
    let (first, second) = (args.bytes(1), args.bytes(2));
    let (a, an, b, bn) = (first.as_ptr(), first.len(), second.as_ptr(), second.len());
    Some(match name {
        "get_property" => {
            bytes(|data, size| unsafe { host::proxy_get_property(a, an, data, size) })
        }
        // For values that differ from run to run.
        "get_property_size" => {
            let (status, gave) =
                bytes(|data, size| unsafe { host::proxy_get_property(a, an, data, size) });
            let size = if let Gave::Bytes(bytes) = gave { bytes.len() } else { 0 };
            (status, Gave::Text(format!("{size} bytes")))
        }
        "get_property_pairs" => {
            let (status, gave) =
                bytes(|data, size| unsafe { host::proxy_get_property(a, an, data, size) });
            let bytes = if let Gave::Bytes(bytes) = gave { bytes } else { Vec::new() };
            (status, Gave::Pairs(bytes))
        }
        "set_property" => plain(unsafe { host::proxy_set_property(a, an, b, bn) }),
        "foreign" => bytes(|data, size| unsafe {
            host::proxy_call_foreign_function(a, an, b, bn, data, size)
        }),
        // For values that two right hosts may spell differently.
        "foreign_unseen" => {
            let (status, gave) = bytes(|data, size| unsafe {
                host::proxy_call_foreign_function(a, an, b, bn, data, size)
            });
            let bytes = if let Gave::Bytes(bytes) = gave { bytes } else { Vec::new() };
            (status, Gave::Unseen(bytes))
        }
        "log" => plain(unsafe { host::proxy_log(args.number(1), b, bn) }),
        "get_log_level" => number(|level| unsafe { host::proxy_get_log_level(level) }),
        "env" => {
            let name = String::from_utf8_lossy(&first).into_owned();
            let found = std::env::var_os(name).map(std::ffi::OsString::into_encoded_bytes);
            found.map_or((1, Gave::Nothing), |value| (0, Gave::Bytes(value)))
        }
        "stderr" => {
            eprintln!("{}", String::from_utf8_lossy(&first));
            (0, Gave::Nothing)
        }
        "trap" => std::process::abort(),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "allocate_without_end" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                // Not filled: the memory shall end, not the time.
                all.push(Vec::with_capacity(1 << 24));
                std::hint::black_box(&all);
            }
        }
        _ => return None,
    })
}

/// The stream's path, silently.
pub(crate) fn path() -> String {
    const REQUEST_HEADERS: u32 = 0;
    let name = b":path";
    let (_, gave) = bytes(|data, size| unsafe {
        host::proxy_get_header_map_value(REQUEST_HEADERS, name.as_ptr(), name.len(), data, size)
    });
    if let Gave::Bytes(path) = gave {
        String::from_utf8_lossy(&path).into_owned()
    } else {
        String::new()
    }
}

/// A buffer's bytes, silently.
pub(crate) fn buffer(buffer: u32, size: u32) -> Vec<u8> {
    let (_, gave) =
        bytes(|data, len| unsafe { host::proxy_get_buffer_bytes(buffer, 0, size, data, len) });
    if let Gave::Bytes(bytes) = gave { bytes } else { Vec::new() }
}

/// Makes the calls that follow speak of this context.
pub(crate) fn effective_context(context: u32) -> u32 {
    unsafe { host::proxy_set_effective_context(context) }
}

/// Writes one line at level info.
pub(crate) fn log(line: &str) {
    const INFO: u32 = 2;
    // A log that cannot be written has nowhere to be complained about.
    let _status = unsafe { host::proxy_log(INFO, line.as_ptr(), line.len()) };
}

fn plain(status: u32) -> Answer {
    (status, Gave::Nothing)
}

fn number(ask: impl FnOnce(*mut u32) -> u32) -> Answer {
    let mut value = 0;
    let status = ask(&mut value);
    (status, Gave::Number(value.into()))
}

fn bytes(ask: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Answer {
    let mut value = Returned::nothing();
    let status = ask(&mut value.data, &mut value.size);
    if status == 0 { (0, Gave::Bytes(value.take())) } else { (status, Gave::Nothing) }
}

fn keep(answer: &Answer, register: &mut u32) {
    if let (0, Gave::Number(value)) = answer {
        *register = u32::try_from(*value).unwrap_or(u32::MAX);
    }
}
