//! Foreign functions and names: each answers with what Envoy 1.40 answered.

use crate::support::{Plugin, at, calls, passes, statuses, trace};

const ONE_REQUEST: &str = "name: one
plugin: {}
host: { main: false, canary: false }
timeline: [{ at: 0ms, client: a, send: { path: /x } }]
expect: [{ client: a, status: 200 }]";

/// Calls each function with its arguments in turn, and logs what each leaves.
fn calling(rows: &[(&str, &[u8])]) -> Vec<u8> {
    let mut plugin = Plugin::new().import("proxy_call_foreign_function", 6).import("proxy_log", 3);
    let mut body = String::new();
    for (name, args) in rows {
        let (name, args) = (at(plugin.data(name.as_bytes())), at(plugin.data(args)));
        body += &format!(
            "(if (i32.eqz (call $proxy_call_foreign_function {name} {args} (i32.const 8) (i32.const 12)))
               (then (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 8)) (i32.load (i32.const 12))))))"
        );
    }
    plugin.on_request_headers(&format!("{body} (i32.const 0)")).build()
}

#[test]
fn every_foreign_function_answers_as_in_envoy() {
    let rows: [(&str, &[u8], &str); 24] = [
        ("nope", b"", "NotFound"),
        ("clear_route_cache", b"", "Ok"),
        ("compress", b"aaaaaaaaaaaaaaaa", "Ok"),
        ("uncompress", b"junk", "SerializationFailure"),
        ("uncompress", b"", "SerializationFailure"),
        ("verify_signature", b"", "BadArgument"),
        ("verify_signature", b"\xff", "BadArgument"),
        ("verify_signature", b"\x12\x01k", "Unimplemented"),
        ("sign", b"\x12\x01k\x22\x01p", "BadArgument"),
        ("sign", b"\x22\x01p", "Unimplemented"),
        ("declare_property", b"\x0a\x03abc", "Ok"),
        ("declare_property", b"\x0a\x03abc", "BadArgument"),
        ("declare_property", b"\xff", "BadArgument"),
        ("set_envoy_filter_state", b"", "NotFound"),
        ("set_envoy_filter_state", b"\x0a\x03key\x12\x01v", "NotFound"),
        ("set_envoy_filter_state", b"\x0a\x0cenvoy.string\x12\x01v", "Ok"),
        ("set_envoy_filter_state", b"\xff", "BadArgument"),
        ("expr_create", b"request.path", "Ok"),
        ("expr_create", b"(((", "BadArgument"),
        ("expr_create", b"1 + 1", "Unimplemented"),
        ("expr_evaluate", b"\0\0\0\0", "Ok"),
        ("expr_evaluate", b"\x09\0\0\0", "NotFound"),
        ("expr_evaluate", b"", "BadArgument"),
        ("expr_delete", b"\x09\0\0\0", "Ok"),
    ];
    let plugin = calling(&rows.map(|(name, args, _)| (name, args)));
    let report = passes(ONE_REQUEST, &plugin);
    let expected: Vec<_> = rows.iter().map(|(.., status)| *status).collect();
    assert_eq!(statuses(&report, "proxy_call_foreign_function"), expected, "{}", trace(&report));
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.as_str()).collect();
    assert!(logged.contains(&"/x"), "{logged:?}");
}

#[test]
fn an_unknown_function_leaves_its_outputs_alone_and_a_failing_one_clears_them() {
    for (name, left) in [("nope", 77), ("sign", 0)] {
        let mut plugin = Plugin::new().import("proxy_call_foreign_function", 6);
        let name = at(plugin.data(name.as_bytes()));
        let plugin = plugin.on_request_headers(&format!(
            "(i32.store (i32.const 8) (i32.const 77)) (i32.store (i32.const 12) (i32.const 77))
             (drop (call $proxy_call_foreign_function {name} (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
             (if (i32.ne (i32.load (i32.const 8)) (i32.const {left})) (then unreachable))
             (if (i32.ne (i32.load (i32.const 12)) (i32.const {left})) (then unreachable))
             (i32.const 0)"
        ));
        passes(ONE_REQUEST, &plugin.build());
    }
}

#[test]
fn what_is_declared_read_only_is_set_once_and_filter_state_is_readable() {
    let mut plugin = Plugin::new()
        .import("proxy_call_foreign_function", 6)
        .import("proxy_set_property", 4)
        .import("proxy_get_property", 4);
    let declare = at(plugin.data(b"declare_property"));
    let declared = at(plugin.data(b"\x0a\x02ro\x10\x01"));
    let set_state = at(plugin.data(b"set_envoy_filter_state"));
    let state = at(plugin.data(b"\x0a\x0cenvoy.string\x12\x01v"));
    let (ro, rw) = (at(plugin.data(b"ro")), at(plugin.data(b"rw")));
    let path = at(plugin.data(b"filter_state\0envoy.string"));
    let none = "(i32.const 0) (i32.const 0)";
    let set = |name: &str| {
        format!("(drop (call $proxy_set_property {name} (i32.const 0) (i32.const 2)))")
    };
    let plugin = plugin.on_request_headers(&format!(
        "(drop (call $proxy_call_foreign_function {declare} {declared} {none}))
         {ro_set} {ro_set} {rw_set} {rw_set}
         (drop (call $proxy_call_foreign_function {set_state} {state} {none}))
         (drop (call $proxy_get_property {path} (i32.const 0) (i32.const 4)))
         (i32.const 0)",
        ro_set = set(&ro),
        rw_set = set(&rw),
    ));
    let report = passes(ONE_REQUEST, &plugin.build());
    assert_eq!(statuses(&report, "proxy_set_property"), ["Ok", "BadArgument", "Ok", "Ok"]);
    assert_eq!(statuses(&report, "proxy_get_property"), ["Ok"]);
}

#[test]
fn a_name_is_resolved_for_the_root_after_the_callback() {
    let mut plugin = Plugin::new()
        .import("envoy_resolve_dns", 3)
        .import("proxy_get_buffer_bytes", 5)
        .import("proxy_log", 3);
    let names =
        [b"127.0.0.9".as_slice(), b"localhost", b"no.such.host"].map(|name| at(plugin.data(name)));
    let ask: String = names
        .iter()
        .map(|name| format!("(drop (call $envoy_resolve_dns {name} (i32.const 8)))"))
        .collect();
    let plugin = plugin.on_request_headers(&format!("{ask} (i32.const 0)")).code(
        "(func (export \"envoy_on_resolve_dns\") (param i32 i32 i32)
           (if (call $proxy_get_buffer_bytes (i32.const 8) (i32.const 0) (local.get 2) (i32.const 0) (i32.const 4)) (then unreachable))
           (drop (call $proxy_log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4)))))",
    );
    let report = passes(ONE_REQUEST, &plugin.build());
    let told: Vec<_> =
        calls(&report, "envoy_on_resolve_dns").into_iter().map(|(args, _)| args).collect();
    assert_eq!(told, ["token 2, 20 bytes", "token 3, 20 bytes", "token 4, 4 bytes"]);
    let logged: Vec<_> = report.logs.iter().map(|line| line.message.clone()).collect();
    let one = |address: &str| format!("\u{1}{}{address}\0", "\0".repeat(7));
    assert_eq!(logged, [one("127.0.0.9:0"), one("127.0.0.1:0"), "\0\0\0\0".to_owned()]);
    assert!(trace(&report).contains("envoy_resolve_dns no.such.host -> Ok"));
}
