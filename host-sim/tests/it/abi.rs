//! Statuses and encodings as Envoy 1.40 gives them, and what the three ABI versions have and lack.

use tidegate_host_sim::{StartError, pairs};

use crate::support::{Plugin, at, passes, run, start_error, statuses, trace};

const ONE_REQUEST: &str = "name: one
plugin: { config: conf, vm_config: vmconf }
timeline: [{ at: 0ms, client: a, send: { path: /x } }]
expect: [{ client: a, status: 200 }, { no_log_at: error }]";

/// A callback that makes one call and stops the VM with a trap unless its status is the expected one.
fn status_of(import: &str, params: usize, args: &str, status: i32) {
    let plugin = Plugin::new().import(import, params).on_request_headers(&format!(
        "(if (i32.ne (call ${import} {args}) (i32.const {status})) (then unreachable)) (i32.const 0)"
    ));
    let report = run(ONE_REQUEST, &plugin.build());
    assert!(report.passed(), "{import} {args} is not {status}: {}", trace(&report));
}

#[test]
fn numbers_that_mean_nothing_are_bad_arguments() {
    let mut plugin = Plugin::new();
    let key = at(plugin.data(b":path"));
    drop(plugin);
    let out = "(i32.const 0) (i32.const 4)";
    status_of("proxy_get_header_map_value", 5, &format!("(i32.const 8) {key} {out}"), 2);
    status_of("proxy_get_header_map_pairs", 3, &format!("(i32.const 99) {out}"), 2);
    status_of(
        "proxy_get_buffer_bytes",
        5,
        &format!("(i32.const 9) (i32.const 0) (i32.const 4) {out}"),
        2,
    );
    status_of("proxy_log", 3, "(i32.const 6) (i32.const 0) (i32.const 0)", 2);
    status_of("proxy_set_effective_context", 1, "(i32.const 77)", 2);
    status_of(
        "proxy_define_metric",
        4,
        "(i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0)",
        2,
    );
    status_of("proxy_done", 0, "", 1);
    status_of("proxy_dequeue_shared_queue", 3, &format!("(i32.const 5) {out}"), 1);
}

#[test]
fn only_two_buffers_can_be_absent() {
    for buffer in 0..=8 {
        let status = if buffer == 4 || buffer == 7 { 1 } else { 0 };
        let args =
            format!("(i32.const {buffer}) (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)");
        status_of("proxy_get_buffer_bytes", 5, &args, status);
        let args = format!("(i32.const {buffer}) (i32.const 0) (i32.const 4)");
        status_of("proxy_get_buffer_status", 3, &args, status);
        let status = if status == 1 { 1 } else { 2 };
        let args =
            format!("(i32.const {buffer}) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)");
        status_of("proxy_set_buffer_bytes", 5, &args, status);
    }
    // Far past the end there is nothing, and nothing wraps around.
    let args = "(i32.const 6) (i32.const -1) (i32.const 5) (i32.const 0) (i32.const 4)";
    status_of("proxy_get_buffer_bytes", 5, args, 0);
}

#[test]
fn streams_of_tcp_are_known_by_number() {
    for (kind, of_continue, of_close) in [(2, 0, 0), (3, 12, 0), (4, 2, 2), (7, 2, 2)] {
        status_of("proxy_continue_stream", 1, &format!("(i32.const {kind})"), of_continue);
        status_of("proxy_close_stream", 1, &format!("(i32.const {kind})"), of_close);
    }
}

#[test]
fn a_metric_is_first_asked_for_its_kind() {
    // Kinds are the low bits: 0 counter, 1 gauge, 2 histogram, 3 nothing.
    for (id, status) in [(400, 1), (401, 1), (402, 2), (403, 2)] {
        status_of("proxy_get_metric", 2, &format!("(i32.const {id}) (i32.const 0)"), status);
        for (name, status) in [("proxy_increment_metric", status), ("proxy_record_metric", 1)] {
            let plugin = Plugin::new()
                .import_text(&format!(
                    r#"(import "env" "{name}" (func $f (param i32 i64) (result i32)))"#
                ))
                .on_request_headers(&format!(
                    "(if (i32.ne (call $f (i32.const {id}) (i64.const 1)) (i32.const {status})) (then unreachable)) (i32.const 0)"
                ));
            passes(ONE_REQUEST, &plugin.build());
        }
    }
}

#[test]
fn context_zero_takes_the_switch_of_contexts_back() {
    let mut plugin = Plugin::new()
        .import("proxy_set_effective_context", 1)
        .import("proxy_get_header_map_value", 5);
    let path = at(plugin.data(b":path"));
    let get = format!(
        "(call $proxy_get_header_map_value (i32.const 0) {path} (i32.const 0) (i32.const 4))"
    );
    let plugin = plugin.on_request_headers(&format!(
        "(drop (call $proxy_set_effective_context (i32.const 1))) (drop {get})
         (drop (call $proxy_set_effective_context (i32.const 0))) {get}"
    ));
    let report = passes(ONE_REQUEST, &plugin.build());
    assert_eq!(statuses(&report, "proxy_get_header_map_value"), ["BadArgument", "Ok"]);
}

// === properties ===

/// Asks for each path in turn, and logs what comes.
fn asking(paths: &[&[u8]]) -> Vec<u8> {
    let mut plugin = Plugin::new().import("proxy_get_property", 4).import("proxy_log", 3);
    let mut body = String::new();
    for path in paths {
        let path = at(plugin.data(path));
        body += &format!(
            "(if (i32.eqz (call $proxy_get_property {path} (i32.const 0) (i32.const 4)))
               (then (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))))"
        );
    }
    plugin.on_request_headers(&format!("{body} (i32.const 0)")).build()
}

#[test]
fn property_paths_that_name_nothing_whole_have_statuses_of_their_own() {
    let paths: [&[u8]; 8] = [
        b"",
        b"\0",
        b"request",
        b"request\0\0path",
        b"request\0path\0",
        b"nothing",
        b"xds",
        b"response\0code",
    ];
    let report = passes(ONE_REQUEST, &asking(&paths));
    assert_eq!(
        statuses(&report, "proxy_get_property"),
        [
            "SerializationFailure",
            "NotFound",
            "SerializationFailure",
            "NotFound",
            "Ok",
            "NotFound",
            "SerializationFailure",
            "NotFound"
        ]
    );
}

#[test]
fn properties_of_every_kind_have_their_encoding() {
    let yaml = ONE_REQUEST.replace(
        "timeline",
        "host: { properties: { a: 5, b: 1.5, c: { double: 5 }, d: { duration: 5ms }, e: [x, z], f: { k: true }, g: { hex: '0a01' } } }\ntimeline",
    );
    let paths: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"request\0headers"];
    let report = passes(&yaml, &asking(&paths));
    let sizes: Vec<_> = report
        .logs
        .iter()
        .filter(|line| line.vm == "w0")
        .map(|line| line.message.as_bytes().to_vec())
        .collect();
    assert_eq!(sizes[0], 5u64.to_le_bytes());
    // Bytes that are no UTF-8 are shown as replacement characters, so these two only by their beginning.
    assert!(sizes[1].starts_with(&[0; 6]) && sizes[2].starts_with(&[0; 6]));
    assert!(sizes[3].starts_with(b"@KL"));
    let key = |name: &str| name.as_bytes().to_vec();
    assert_eq!(pairs::decode(&sizes[4]), [(key("x"), Vec::new()), (key("z"), Vec::new())]);
    assert_eq!(pairs::decode(&sizes[5]), [(key("k"), vec![1])]);
    assert_eq!(sizes[6], [10, 1]);
    assert!(pairs::decode(&sizes[7]).contains(&(key(":path"), key("/x"))));
}

// === versions ===

#[test]
fn functions_of_another_version_do_not_link_and_are_named() {
    let old = ["proxy_continue_request", "proxy_continue_response", "proxy_clear_route_cache"];
    let rows = old
        .map(|name| (name, 0, ["proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"].to_vec()))
        .into_iter()
        .chain([
            (
                "proxy_get_configuration",
                2,
                vec!["proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"],
            ),
            ("proxy_continue_stream", 1, vec!["proxy_abi_version_0_1_0"]),
            ("proxy_close_stream", 1, vec!["proxy_abi_version_0_1_0"]),
            ("proxy_get_log_level", 1, vec!["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0"]),
        ]);
    let all = ["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"];
    for (name, params, lacking) in rows {
        for marker in all {
            let wasm = Plugin::new().marker(marker).import(name, params).build();
            if lacking.contains(&marker) {
                let StartError::UnknownImport { name: named, version, .. } = start_error(&wasm)
                else {
                    panic!("{name} in {marker}");
                };
                let version = version.replace('.', "_");
                assert_eq!((named.as_str(), marker.ends_with(&version)), (name, true));
            } else {
                passes("name: it links\nplugin: {}", &wasm);
            }
        }
    }
}

#[test]
fn the_first_marker_names_the_version() {
    let plugin = |marker, second: &str| {
        Plugin::new()
            .marker(marker)
            .import("proxy_continue_request", 0)
            .code(&format!("(func (export \"{second}\"))"))
            .build()
    };
    passes(
        "name: old first\nplugin: {}",
        &plugin("proxy_abi_version_0_1_0", "proxy_abi_version_0_2_1"),
    );
    let error = start_error(&plugin("proxy_abi_version_0_2_1", "proxy_abi_version_0_1_0"));
    assert!(matches!(error, StartError::UnknownImport { .. }), "{error}");
}

/// A plugin of 0.1.0: headers without the end of the stream, configuration by a call of its own.
#[test]
fn a_plugin_of_0_1_0_pauses_resumes_and_reads_its_configuration() {
    let mut plugin = Plugin::new()
        .marker("proxy_abi_version_0_1_0")
        .import("proxy_get_configuration", 2)
        .import("proxy_get_header_map_value", 5)
        .import("proxy_http_call", 10)
        .import("proxy_continue_request", 0)
        .import("proxy_set_effective_context", 1)
        .import("proxy_log", 3);
    let missing = at(plugin.data(b"x-missing"));
    let cluster = at(plugin.data(b"gateway"));
    let headers = at(plugin.map(&[(":method", "GET"), (":path", "/"), (":authority", "gateway")]));
    let log =
        "(drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))";
    let configuration =
        format!("(drop (call $proxy_get_configuration (i32.const 0) (i32.const 4))) {log}");
    let none = "(i32.const 0) (i32.const 0)";
    let plugin = plugin
        .code(&format!(
            "(func (export \"proxy_on_vm_start\") (param i32 i32) (result i32) {configuration} (i32.const 1))
             (func (export \"proxy_on_configure\") (param i32 i32) (result i32) {configuration} (i32.const 1))
             (func (export \"proxy_on_request_headers\") (param i32 i32) (result i32)
               (i32.store (i32.const 4) (i32.const 77))
               (if (call $proxy_get_header_map_value (i32.const 0) {missing} (i32.const 0) (i32.const 4)) (then unreachable))
               (if (i32.load (i32.const 4)) (then unreachable))
               (drop (call $proxy_http_call {cluster} {headers} {none} {none} (i32.const 50) (i32.const 0)))
               (i32.const 1))
             (func (export \"proxy_on_http_call_response\") (param i32 i32 i32 i32 i32)
               (drop (call $proxy_set_effective_context (i32.const 2)))
               (drop (call $proxy_continue_request)))
             (func (export \"proxy_on_response_headers\") (param i32 i32) (result i32) {configuration} (i32.const 0))"
        ))
        .build();
    let report = passes(
        "name: old
plugin: { config: conf, vm_config: vmconf }
host: { main: false, canary: false }
gateway: [{ answer: 200, after: 7ms }]
timeline: [{ at: 0ms, client: a, send: { path: / } }]
expect: [{ client: a, status: 200, at: 7ms }]",
        &plugin,
    );
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(logged, ["vmconf", "conf", "vmconf"]);
}
