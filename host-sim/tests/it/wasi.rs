//! WASI as Envoy 1.40 provides it: every function's number, and who may call it while a module starts.

use crate::support::{Plugin, passes, run, start_error, start_error_on, trace};

const ONE_REQUEST: &str = "name: one
plugin: {}
host: { main: false, canary: false }
timeline: [{ at: 0ms, client: a, send: { path: /x } }]
expect: [{ client: a, status: 200 }]";

const NOTHING: &str = "-";

/// Name, arguments of these types, the answer when all are zero, and whether it traps while the module starts.
const FUNCTIONS: [(&str, &str, u32, bool); 44] = [
    ("args_get", "i32 i32", 0, false),
    ("args_sizes_get", "i32 i32", 0, false),
    ("clock_res_get", "i32 i32", 0, false),
    ("clock_time_get", "i32 i64 i32", 0, false),
    ("environ_get", "i32 i32", 0, false),
    ("environ_sizes_get", "i32 i32", 0, false),
    ("fd_advise", "i32 i64 i64 i32", 0, false),
    ("fd_allocate", "i32 i64 i64", 0, false),
    ("fd_close", "i32", 0, true),
    ("fd_datasync", "i32", 0, false),
    ("fd_fdstat_get", "i32 i32", 8, false),
    ("fd_fdstat_set_flags", "i32 i32", 52, false),
    ("fd_fdstat_set_rights", "i32 i64 i64", 0, false),
    ("fd_filestat_get", "i32 i32", 8, false),
    ("fd_filestat_set_size", "i32 i64", 0, false),
    ("fd_filestat_set_times", "i32 i64 i64 i32", 0, false),
    ("fd_pread", "i32 i32 i32 i64 i32", 52, false),
    ("fd_prestat_dir_name", "i32 i32 i32", 52, false),
    ("fd_prestat_get", "i32 i32", 8, false),
    ("fd_pwrite", "i32 i32 i32 i64 i32", 0, false),
    ("fd_read", "i32 i32 i32 i32", 52, true),
    ("fd_readdir", "i32 i32 i32 i64 i32", 20, false),
    ("fd_renumber", "i32 i32", 58, false),
    ("fd_seek", "i32 i64 i32 i32", 0, true),
    ("fd_sync", "i32", 0, false),
    ("fd_tell", "i32 i32", 0, false),
    ("fd_write", "i32 i32 i32 i32", 8, false),
    ("path_create_directory", "i32 i32 i32", 58, false),
    ("path_filestat_get", "i32 i32 i32 i32 i32", 58, false),
    ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32", 58, false),
    ("path_link", "i32 i32 i32 i32 i32 i32", 58, false),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", 44, true),
    ("path_readlink", "i32 i32 i32 i32 i32 i32", 58, false),
    ("path_remove_directory", "i32 i32 i32", 58, false),
    ("path_rename", "i32 i32 i32 i32 i32 i32", 58, false),
    ("path_symlink", "i32 i32 i32 i32", 58, false),
    ("path_unlink_file", "i32 i32 i32", 58, false),
    ("poll_oneoff", "i32 i32 i32 i32", 0, false),
    ("random_get", "i32 i32", 0, false),
    ("sched_yield", NOTHING, 0, true),
    ("sock_accept", "i32 i32 i32", 58, false),
    ("sock_recv", "i32 i32 i32 i32 i32 i32", 58, false),
    ("sock_send", "i32 i32 i32 i32 i32", 58, false),
    ("sock_shutdown", "i32 i32", 58, false),
];

fn import(module: &str, name: &str, types: &str) -> (String, String) {
    let types = if types == NOTHING { "" } else { types };
    let args: String = types.split_whitespace().map(|ty| format!("({ty}.const 0)")).collect();
    let import = format!(r#"(import "{module}" "{name}" (func $f (param {types}) (result i32)))"#);
    (import, format!("(call $f {args})"))
}

#[test]
fn every_function_answers_with_envoys_number() {
    for module in ["wasi_snapshot_preview1", "wasi_unstable"] {
        for (name, types, answer, _) in FUNCTIONS {
            let (import, call) = import(module, name, types);
            let plugin = Plugin::new().import_text(&import).on_request_headers(&format!(
                "(if (i32.ne {call} (i32.const {answer})) (then unreachable)) (i32.const 0)"
            ));
            let report = run(ONE_REQUEST, &plugin.build());
            assert!(report.passed(), "{module}.{name} is not {answer}\n{}", trace(&report));
        }
    }
}

#[test]
fn while_a_module_starts_a_few_functions_trap() {
    for (name, types, _, is_forbidden) in FUNCTIONS {
        let (import, call) = import("wasi_snapshot_preview1", name, types);
        let wasm = Plugin::new()
            .import_text(&import)
            .code(&format!("(func (export \"_initialize\") (drop {call}))"))
            .build();
        if is_forbidden {
            let error = start_error(&wasm).to_string();
            assert_eq!(
                error,
                format!("_initialize failed: {name} is not allowed during _initialize or _start")
            );
        } else {
            passes("name: allowed\nplugin: {}", &wasm);
        }
    }
}

#[test]
fn of_the_hosts_own_functions_only_logging_is_allowed_while_a_module_starts() {
    let plugin = |name: &str, params: usize, call: &str| {
        let call = format!("(func (export \"_initialize\") (drop (call ${name} {call})))");
        Plugin::new().import(name, params).code(&call).build()
    };
    passes(
        "name: log\nplugin: {}\nexpect: [{ log: { contains: \"\", level: warn } }]",
        &plugin("proxy_log", 3, "(i32.const 3) (i32.const 0) (i32.const 4)"),
    );
    for (name, params, args) in [
        ("proxy_get_current_time_nanoseconds", 1, "(i32.const 0)"),
        ("proxy_get_log_level", 1, "(i32.const 0)"),
        ("pthread_equal", 2, "(i32.const 0) (i32.const 0)"),
    ] {
        let error = start_error(&plugin(name, params, args)).to_string();
        assert!(error.contains(&format!("{name} is not allowed during _initialize")), "{error}");
    }
}

#[test]
fn a_start_section_that_calls_the_host_would_crash_envoy() {
    let wasm = Plugin::new()
        .import("proxy_log", 3)
        .code("(func $s (drop (call $proxy_log (i32.const 3) (i32.const 0) (i32.const 4)))) (start $s)")
        .build();
    let error = start_error(&wasm).to_string();
    assert!(error.contains("start section") && error.contains("proxy_log"), "{error}");
}

#[test]
fn an_allocator_may_log_and_ask_the_time_and_nothing_else() {
    let allowed = ["fd_write", "clock_time_get", "poll_oneoff"];
    for (name, types, ..) in FUNCTIONS {
        let (import, call) = import("wasi_snapshot_preview1", name, types);
        let text = format!(
            r#"(module {import} (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
               (memory (export "memory") 2) (func (export "proxy_abi_version_0_2_1"))
               (func (export "malloc") (param i32) (result i32) (drop {call}) (i32.const 65536))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                 (call $pairs (i32.const 0) (i32.const 16) (i32.const 20))))"#
        );
        let report = run(ONE_REQUEST, &wat::parse_str(&text).expect("a module"));
        assert_eq!(report.passed(), allowed.contains(&name), "{name}\n{}", trace(&report));
    }
}

#[test]
fn what_envoy_does_not_provide_or_provides_otherwise_does_not_link() {
    let error = |name: &str, params: usize| {
        let params = "i32 ".repeat(params);
        let import = format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func (param {params}) (result i32)))"#
        );
        start_error(&Plugin::new().import_text(&import).build()).to_string()
    };
    assert!(error("proc_raise", 1).starts_with("unknown import wasi_snapshot_preview1.proc_raise"));
    for (name, params) in [("path_link", 7), ("path_symlink", 5), ("sock_accept", 2)] {
        let error = error(name, params);
        assert!(
            error.starts_with(&format!(
                "the import wasi_snapshot_preview1.{name} has the wrong type"
            )),
            "{error}"
        );
    }
}

/// It returns; what a C library does next is a trap of its own.
#[test]
fn proc_exit_ends_nothing_by_itself() {
    let plugin = |after: &str| {
        Plugin::new()
            .import_text(
                r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#,
            )
            .on_request_headers(&format!("(call $exit (i32.const 3)) {after}"))
            .build()
    };
    passes(ONE_REQUEST, &plugin("(i32.const 0)"));
    passes(&ONE_REQUEST.replace("200", "503"), &plugin("unreachable"));
    let wasm = Plugin::new()
        .import_text(r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#)
        .code("(func (export \"_start\") (call $exit (i32.const 0)))")
        .build();
    let error = start_error_on("{}", &wasm).to_string();
    assert_eq!(error, "_start failed: proc_exit is not allowed during _initialize or _start");
}

#[test]
fn clocks_randomness_and_writes_keep_their_bounds() {
    let rows = [
        ("clock_time_get", "i32 i64 i32", "(i32.const 1) (i64.const 0) (i32.const 0)", 0),
        ("clock_time_get", "i32 i64 i32", "(i32.const 2) (i64.const 0) (i32.const 0)", 58),
        ("clock_time_get", "i32 i64 i32", "(i32.const 0) (i64.const 0) (i32.const -4)", 21),
        ("clock_res_get", "i32 i32", "(i32.const 3) (i32.const 0)", 58),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 65536)", 0),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 65537)", 28),
        ("random_get", "i32 i32", "(i32.const -16) (i32.const 100)", 21),
        ("random_get", "i32 i32", "(i32.const -16) (i32.const 0)", 0),
        (
            "fd_write",
            "i32 i32 i32 i32",
            "(i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)",
            0,
        ),
        (
            "fd_write",
            "i32 i32 i32 i32",
            "(i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0)",
            8,
        ),
        (
            "fd_write",
            "i32 i32 i32 i32",
            "(i32.const 1) (i32.const -16) (i32.const 5) (i32.const 0)",
            21,
        ),
        (
            "fd_write",
            "i32 i32 i32 i32",
            "(i32.const 1) (i32.const 0) (i32.const 0) (i32.const -16)",
            21,
        ),
        ("fd_fdstat_get", "i32 i32", "(i32.const 1) (i32.const 0)", 0),
    ];
    for (name, types, args, answer) in rows {
        let (import, _) = import("wasi_snapshot_preview1", name, types);
        let plugin = Plugin::new().import_text(&import).on_request_headers(&format!(
            "(if (i32.ne (call $f {args}) (i32.const {answer})) (then unreachable)) (i32.const 0)"
        ));
        let report = run(ONE_REQUEST, &plugin.build());
        assert!(report.passed(), "{name} {args} is not {answer}\n{}", trace(&report));
    }
}
