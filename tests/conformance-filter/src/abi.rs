//! Owns what the host calls: every callback of ABI 0.2.1 that HTTP has. Each hands its numbers on.

use crate::vm::{self, Event};

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    crate::memory::allocate(size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    vm::create(context, parent);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(root: u32, size: u32) -> u32 {
    vm::start(root, size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: u32) -> u32 {
    vm::configure(root, size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    vm::run(&Event::new("tick", root), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(root: u32, queue: u32) {
    vm::queue_ready(root, queue);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, count: u32, eos: u32) -> u32 {
    vm::request_headers(context);
    vm::run(&Event::new("request_headers", context).sized(count).ends(eos), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: u32, eos: u32) -> u32 {
    vm::run(&Event::new("request_body", context).sized(size).ends(eos), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, count: u32) -> u32 {
    vm::run(&Event::new("request_trailers", context).sized(count), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, count: u32, eos: u32) -> u32 {
    vm::run(&Event::new("response_headers", context).sized(count).ends(eos), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(context: u32, size: u32, eos: u32) -> u32 {
    vm::run(&Event::new("response_body", context).sized(size).ends(eos), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(context: u32, count: u32) -> u32 {
    vm::run(&Event::new("response_trailers", context).sized(count), 0)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(
    root: u32,
    token: u32,
    headers: u32,
    body_size: u32,
    trailers: u32,
) {
    vm::http_call_response(root, token, [headers, body_size, trailers]);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(context: u32) -> u32 {
    vm::run(&Event::new("done", context), 1)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    vm::run(&Event::new("log", context), 0);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    vm::run(&Event::new("delete", context), 0);
    vm::delete(context);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_foreign_function(root: u32, id: u32, size: u32) {
    vm::run(&Event::new("foreign_function", root).numbered(id).sized(size), 0);
}
