//! Owns the host's functions as the ABI declares them. Nothing but declarations.

/// Where the host writes the address of bytes it hands over.
pub(crate) type Out = *mut *mut u8;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    pub(crate) fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    pub(crate) fn proxy_get_log_level(level: *mut u32) -> u32;
    pub(crate) fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    pub(crate) fn proxy_set_tick_period_milliseconds(ms: u32) -> u32;

    pub(crate) fn proxy_get_buffer_bytes(
        buffer: u32,
        start: u32,
        max: u32,
        data: Out,
        size: *mut usize,
    ) -> u32;
    pub(crate) fn proxy_get_buffer_status(buffer: u32, size: *mut u32, flags: *mut u32) -> u32;
    pub(crate) fn proxy_set_buffer_bytes(
        buffer: u32,
        start: u32,
        size: u32,
        data: *const u8,
        data_size: usize,
    ) -> u32;

    pub(crate) fn proxy_get_header_map_size(map: u32, size: *mut u32) -> u32;
    pub(crate) fn proxy_get_header_map_pairs(map: u32, data: Out, size: *mut usize) -> u32;
    pub(crate) fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
    pub(crate) fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: Out,
        size: *mut usize,
    ) -> u32;
    pub(crate) fn proxy_add_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    pub(crate) fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    pub(crate) fn proxy_remove_header_map_value(map: u32, key: *const u8, key_size: usize) -> u32;

    pub(crate) fn proxy_continue_stream(stream: u32) -> u32;
    pub(crate) fn proxy_close_stream(stream: u32) -> u32;
    pub(crate) fn proxy_send_local_response(
        code: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;

    pub(crate) fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    pub(crate) fn proxy_get_status(code: *mut u32, message: Out, size: *mut usize) -> u32;

    pub(crate) fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: Out,
        size: *mut usize,
        cas: *mut u32,
    ) -> u32;
    pub(crate) fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        cas: u32,
    ) -> u32;
    pub(crate) fn proxy_register_shared_queue(name: *const u8, size: usize, id: *mut u32) -> u32;
    pub(crate) fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_size: usize,
        name: *const u8,
        name_size: usize,
        id: *mut u32,
    ) -> u32;
    pub(crate) fn proxy_enqueue_shared_queue(id: u32, value: *const u8, size: usize) -> u32;
    pub(crate) fn proxy_dequeue_shared_queue(id: u32, data: Out, size: *mut usize) -> u32;

    pub(crate) fn proxy_define_metric(
        kind: u32,
        name: *const u8,
        name_size: usize,
        id: *mut u32,
    ) -> u32;
    pub(crate) fn proxy_increment_metric(id: u32, by: i64) -> u32;
    pub(crate) fn proxy_record_metric(id: u32, value: u64) -> u32;
    pub(crate) fn proxy_get_metric(id: u32, value: *mut u64) -> u32;

    pub(crate) fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: Out,
        size: *mut usize,
    ) -> u32;
    pub(crate) fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;

    pub(crate) fn proxy_set_effective_context(context: u32) -> u32;
    pub(crate) fn proxy_done() -> u32;
    pub(crate) fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: Out,
        size: *mut usize,
    ) -> u32;
}
