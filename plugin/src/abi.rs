//! Owns the functions that the host calls: proxy-wasm ABI 0.2.1. Each hands its numbers to
//! [`crate::vm`] and holds no logic.
//!
//! Only what the filter needs is exported, because the host skips a callback that is not there: a
//! request that matches nothing enters the VM for headers, bodies and trailers, for its end and for the
//! coming and going of its context, and for nothing else; bodies cost it no call of the host, and without
//! idempotency in any policy not even a look. That, bytes for headers, and actions beyond "pause" are why these
//! are not the SDK's (docs/decisions/0003).

use crate::circuits::are_uploads;
use crate::{check, host, vm};

/// What the host is told to do with a stream after its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    /// Go on to the next filter.
    Continue = 0,
    /// Hold it, and hand over what follows: after headers with `allow_on_headers_stop_iteration` only.
    HoldBody = 1,
    /// Of a body: hold it and push back on its sender instead of buffering without a bound.
    HoldBack = 2,
    /// Hold headers, body and trailers, and push back on the sender instead of buffering. Unlike
    /// `StopIteration` it means the same with and without `allow_on_headers_stop_iteration`, and
    /// a large upload is slowed down instead of being answered with 413.
    HoldAll = 4,
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[cfg(target_arch = "wasm32")]
unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// The host calls it once, before anything else. A module that has it is a reactor; in one without it the linker wraps
/// each callback as if it were a whole program, with a look for what is to be done at its end.
#[cfg(target_arch = "wasm32")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the linker makes it, and a host calls this once.
    unsafe { __wasm_call_ctors() }
}

/// Says of a build that its debug assertions are on: they trap where the filter should degrade. A
/// test refuses to ship a filter that exports this.
#[cfg(debug_assertions)]
#[unsafe(no_mangle)]
extern "C" fn tidegate_debug_assertions() {}

/// The host asks for memory to put a value in; the value is then taken over by [`crate::host`].
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    crate::host::allocate(size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    vm::with(|vm| vm.create(context, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> bool {
    vm::with(|vm| vm.configure(root, size)).unwrap_or(false)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(stream: u32, _headers: usize, end: bool) -> u32 {
    let action = vm::with(|vm| vm.request_headers(stream, !end)).unwrap_or_else(vm::refuse_unready);
    after_headers(action)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(stream: u32, size: usize, end: bool) -> u32 {
    if end && are_uploads() {
        vm::with(|vm| vm.request_whole(stream));
    }
    if !vm::looks_at_bodies() {
        return after_body(Action::Continue);
    }
    let action =
        vm::with(|vm| vm.request_body(stream, size, end)).unwrap_or_else(vm::refuse_unready);
    after_body(action)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(stream: u32, _trailers: usize) -> u32 {
    if are_uploads() {
        vm::with(|vm| vm.request_whole(stream));
    }
    let action = vm::with(|vm| vm.request_trailers(stream)).unwrap_or_else(vm::refuse_unready);
    after_trailers(action)
}

/// The upstream's answer is held only where it has to be stored first.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(stream: u32, _headers: usize, end: bool) -> u32 {
    #[cfg(feature = "trap-on-header")]
    crate::trap::if_told();
    after_headers(vm::with(|vm| vm.response_headers(stream, end)).unwrap_or(Action::Continue))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(stream: u32, size: usize, end: bool) -> u32 {
    if end {
        vm::with(|vm| vm.answer_whole(stream));
    }
    if !vm::looks_at_bodies() {
        return after_body(Action::Continue);
    }
    after_body(vm::with(|vm| vm.answer_body(stream, size, end)).unwrap_or(Action::Continue))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(stream: u32, _trailers: usize) -> u32 {
    after_trailers(vm::with(|vm| vm.response_trailers(stream)).unwrap_or(Action::Continue))
}

/// Comes only while a request waits, and where a configuration has circuit breakers, leases, idempotency or an
/// audit.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    vm::with(|vm| vm.tick(root));
}

fn after_headers(action: Action) -> u32 {
    match action {
        Action::Continue => 0,
        Action::HoldBody => 1,
        Action::HoldBack | Action::HoldAll => 4,
    }
}

/// What is held by its headers is held by its body, too: a body that went on would take all with it.
fn after_body(action: Action) -> u32 {
    match action {
        Action::Continue => 0,
        Action::HoldBody => 1,
        Action::HoldBack | Action::HoldAll => 2,
    }
}

fn after_trailers(action: Action) -> u32 {
    match action {
        Action::Continue => 0,
        Action::HoldBody | Action::HoldBack | Action::HoldAll => 1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    _root: u32,
    token: u32,
    headers: usize,
    body_size: usize,
    _trailers: usize,
) {
    vm::with(|vm| vm.call_response(token, headers, body_size));
}

/// The stream is over: what only its end tells is known now. Over HTTP/3 Envoy says so of requests whose client left,
/// and of no others.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(stream: u32) {
    vm::with(|vm| vm.response_end(stream));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    vm::with(|vm| vm.delete(context));
}

/// Not proxy-wasm's: what `host-sim check` asks of any plugin that has it (docs/checking.md). The
/// configuration and the facts of an Envoy file in, diagnostics out, as JSON. No context exists then.
#[unsafe(no_mangle)]
extern "C" fn plugin_check_config(
    config: *mut u8,
    config_size: usize,
    facts: *mut u8,
    facts_size: usize,
) -> u64 {
    let config = host::taken(config, config_size);
    let facts = host::taken(facts, facts_size);
    host::handed_over(check::answer(&config, &facts).into_bytes())
}
