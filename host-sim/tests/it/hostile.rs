//! Modules that are broken or mean harm: each gives a clear error, and the simulator never panics.

use tidegate_host_sim::StartError;

use crate::support::{Plugin, at, passes, run, start_error, start_error_on};

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Memory and marker, and what else each plugin must have.
const MARK: &str = r#"(memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))"#;

#[test]
fn bytes_that_are_no_plugin_are_named() {
    let good = Plugin::new().build();
    assert_eq!(start_error(b""), StartError::NotWasm);
    assert_eq!(start_error(b"(module)"), StartError::NotWasm);
    // Without the names at its end the module would still be whole.
    let names =
        good.windows(5).position(|window| window == b"\x04name").expect("a name section") - 2;
    for len in 4..names {
        let error = start_error(&good[..len]);
        assert!(
            matches!(error, StartError::Invalid(_) | StartError::NoAbi | StartError::NoMemory),
            "{len}: {error}"
        );
    }
    assert_eq!(start_error(&wat(r#"(module (memory (export "memory") 1))"#)), StartError::NoAbi);
    assert_eq!(
        start_error(&wat(r#"(module (func (export "proxy_abi_version_0_2_0")))"#)),
        StartError::NoMemory
    );
    let markers_alone = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_3_0"))
        (global (export "proxy_abi_version_0_2_1") i32 (i32.const 0)))"#;
    assert_eq!(start_error(&wat(markers_alone)), StartError::NoAbi);
    assert_eq!(
        start_error(&wat(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_1_0")))"#
        )),
        StartError::NoAllocator
    );
}

#[test]
fn every_flipped_byte_of_a_module_is_a_result_and_no_panic() {
    let good = crate::callouts::asking().build();
    for index in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[index] ^= 0x55;
        run(
            "name: flipped\nplugin: {}\nhost: { fuel: 10000 }\ntimeline: [{ at: 0ms, client: a, send: {} }]",
            &bad,
        );
    }
}

#[test]
fn imports_that_do_not_exist_or_do_not_fit_are_named() {
    let error = start_error(&Plugin::new().import("proxy_fly", 2).build());
    assert_eq!(
        error.to_string(),
        "unknown import env.proxy_fly: a host of ABI 0.2.1, which the plugin's marker names, has no such function"
    );
    let error = start_error(&Plugin::new().import("proxy_log", 2).build());
    assert!(
        error.to_string().starts_with("the import env.proxy_log has the wrong type"),
        "{error}"
    );
    let error = start_error(&wat(&format!(
        r#"(module (import "env" "memory" (memory 1)) {})"#,
        r#"(func (export "proxy_abi_version_0_2_1")) (export "memory" (memory 0))"#
    )));
    assert!(error.to_string().contains("env.memory"), "{error}");
}

#[test]
fn exports_of_the_wrong_type_are_named() {
    let error = start_error(&wat(&format!(
        r#"(module {MARK} (func (export "proxy_on_request_headers") (param i32)))"#
    )));
    assert_eq!(
        error.to_string(),
        "the export proxy_on_request_headers has the type (type (func (param i32))), which is not the ABI's"
    );
    let error = start_error(&wat(&format!(
        r#"(module {MARK} (global (export "proxy_on_tick") i32 (i32.const 0)))"#
    )));
    assert_eq!(
        error.to_string(),
        "the export proxy_on_tick is no function, which is not the ABI's"
    );
    let rows = [
        "proxy_on_new_connection",
        "proxy_on_downstream_data",
        "proxy_on_request_metadata",
        "proxy_on_foreign_function",
        "proxy_on_grpc_close",
        "envoy_on_resolve_dns",
        "_initialize",
        "_start",
    ];
    for name in rows {
        let module = format!(r#"(module {MARK} (func (export "{name}") (param i64)))"#);
        let error = start_error(&wat(&module)).to_string();
        assert!(error.starts_with(&format!("the export {name} has the type")), "{error}");
    }
    let error = start_error(&wat(
        r#"(module (func (export "memory")) (func (export "proxy_abi_version_0_2_1")))"#,
    ));
    assert_eq!(error.to_string(), "the export memory is no memory, which is not the ABI's");
}

#[test]
fn traps_before_the_first_request_name_their_function() {
    let rows = [
        (r#"(func $f unreachable) (start $f)"#, "start section"),
        (r#"(data (i32.const 999999) "x")"#, "start section"),
        (
            r#"(func (export "_initialize")) (func (export "main") (param i32 i32) (result i32) unreachable)"#,
            "main failed",
        ),
        (r#"(func (export "_initialize") unreachable)"#, "_initialize failed"),
        (r#"(func (export "_start") unreachable)"#, "_start failed"),
        (
            r#"(func (export "_initialize")) (func (export "__main_void") (result i32) unreachable)"#,
            "__main_void failed",
        ),
        (
            r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) unreachable)"#,
            "proxy_on_vm_start failed",
        ),
        (
            r#"(func (export "proxy_on_context_create") (param i32 i32) unreachable)"#,
            "proxy_on_context_create failed",
        ),
        (
            r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) i32.const 0)"#,
            "proxy_on_configure returned false",
        ),
        (r#"(func (export "_initialize") (loop br 0))"#, "out of fuel"),
        (r#"(func $f (loop br 0)) (start $f)"#, "out of fuel"),
        (r#"(func $f (export "_initialize") call $f)"#, "stack"),
    ];
    for (code, expected) in rows {
        let error = start_error_on("{ fuel: 1000000 }", &wat(&format!("(module {MARK} {code})")))
            .to_string();
        assert!(error.contains(expected), "{code}: {error}");
    }
}

/// A callback that makes one call and stops the VM with a trap unless its status is the expected one.
fn status_of(import: &str, params: usize, args: &str, status: i32) {
    let plugin = Plugin::new().import(import, params).on_request_headers(&format!(
        "(if (i32.ne (call ${import} {args}) (i32.const {status})) (then unreachable)) (i32.const 0)"
    ));
    passes(
        "name: status\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200 }, { no_log_at: error }]",
        &plugin.build(),
    );
}

#[test]
fn addresses_outside_memory_are_status_6() {
    let far = "(i32.const -8)";
    status_of("proxy_log", 3, &format!("(i32.const 2) {far} (i32.const 100)"), 6);
    status_of("proxy_log", 3, "(i32.const 2) (i32.const 0) (i32.const -1)", 6);
    status_of("proxy_get_current_time_nanoseconds", 1, far, 6);
    status_of("proxy_get_header_map_pairs", 3, &format!("(i32.const 0) {far} {far}"), 6);
    status_of(
        "proxy_set_shared_data",
        5,
        &format!("{far} (i32.const 9) {far} (i32.const 9) (i32.const 0)"),
        6,
    );
    status_of(
        "proxy_get_header_map_value",
        5,
        &format!("(i32.const 0) {far} (i32.const 20) (i32.const 0) (i32.const 0)"),
        6,
    );
}

#[test]
fn an_allocator_that_lies_is_status_6() {
    for address in ["0", "-16"] {
        let module = wat(&format!(
            r#"(module (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
               (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
               (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const {address}))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (if (i32.ne (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)) (i32.const 6)) (then unreachable))
                 (i32.const 0)))"#
        ));
        passes(
            "name: lie\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200 }]",
            &module,
        );
    }
}

#[test]
fn malloc_is_preferred_over_the_other_allocator() {
    let plugin = Plugin::new()
        .import("proxy_get_header_map_pairs", 3)
        .code("(func (export \"proxy_on_memory_allocate\") (param i32) (result i32) unreachable)")
        .on_request_headers(
            "(call $proxy_get_header_map_pairs (i32.const 0) (i32.const 0) (i32.const 4))",
        );
    passes(
        "name: malloc\nplugin: {}\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200 }]",
        &plugin.build(),
    );
}

#[test]
fn an_endless_loop_is_stopped_by_fuel_and_named() {
    let loops = [
        "(loop br 0) (i32.const 0)",
        "(loop (drop (call $proxy_get_current_time_nanoseconds (i32.const 0))) br 0) (i32.const 0)",
    ];
    for code in loops {
        let plugin =
            Plugin::new().import("proxy_get_current_time_nanoseconds", 1).on_request_headers(code);
        passes(
            "name: loop
plugin: {}
host: { fuel: 100000 }
timeline: [{ at: 0ms, client: a, send: {} }]
expect:
  - { client: a, status: 503, details: wasm_fail_stream }
  - { log: { contains: \"proxy_on_request_headers failed: out of fuel after 100000 units\", level: critical } }",
            &plugin.build(),
        );
    }
}

#[test]
fn whatever_is_asked_for_without_end_ends_with_the_fuel() {
    let mut plugin = Plugin::new();
    let name = at(plugin.data(b"name"));
    drop(plugin);
    let count_up =
        "(i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))";
    let zeros = |count: usize| "(i32.const 0)".repeat(count);
    let much = "(i32.const 60000)";
    let rows = [
        ("memory", "(drop (memory.grow (i32.const 1)))".to_owned()),
        ("malloc", "(drop (call $malloc (i32.const 65536)))".to_owned()),
        ("log", format!("(drop (call $log (i32.const 2) (i32.const 0) {much}))")),
        ("metrics", format!("(drop (call $define (i32.const 0) {name} (i32.const 0)))")),
        (
            "data",
            format!(
                "{count_up} (drop (call $set (i32.const 1024) (i32.const 4) (i32.const 0) {much} (i32.const 0)))"
            ),
        ),
        (
            "callouts",
            format!(
                "(drop (call $grpc {name} {name} {name} {} {much} (i32.const 1) (i32.const 0)))",
                zeros(3)
            ),
        ),
    ];
    for (what, body) in rows {
        let plugin = Plugin::new()
            .import_text(
                r#"(import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (import "env" "proxy_set_shared_data" (func $set (param i32 i32 i32 i32 i32) (result i32)))
                (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
                (import "env" "proxy_grpc_call" (func $grpc (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
            )
            .on_request_headers(&format!("(loop {body} br 0) (i32.const 0)"));
        passes(
            &format!(
                "name: {what} without end
plugin: {{}}
host: {{ fuel: 3000000, memory_max: 1MiB }}
timeline: [{{ at: 0ms, client: a, send: {{}} }}]
expect:
  - {{ client: a, status: 503, details: wasm_fail_stream }}
  - {{ log: {{ contains: \"proxy_on_request_headers failed: out of fuel\", level: critical }} }}"
            ),
            &plugin.build(),
        );
    }
}

#[test]
fn memory_ends_at_its_limit() {
    let error = start_error_on("{ memory_max: 128KiB }", &Plugin::new().build());
    assert!(error.to_string().contains("memory"), "{error}");
    let grows = Plugin::new().on_request_headers(
        "(if (i32.ne (memory.grow (i32.const 4)) (i32.const 4)) (then unreachable))
         (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (i32.const 0)",
    );
    passes(
        "name: grow\nplugin: {}\nhost: { memory_max: 512KiB }\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 200 }]",
        &grows.build(),
    );
}
