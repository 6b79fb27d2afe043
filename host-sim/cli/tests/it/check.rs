//! `host-sim check`: files in, diagnostics out, with plugins that know nothing of any configuration.

use crate::support::printed;

/// A plugin that gives one answer, whatever it is asked; `body` is what its check does.
fn plugin(body: &str, answer: &str) -> Vec<u8> {
    let data = answer.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\0a");
    let module = format!(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (global $next (mut i32) (i32.const 32768))
            (func (export "malloc") (param i32) (result i32)
                (global.get $next)
                (global.set $next (i32.add (global.get $next) (local.get 0))))
            (data (i32.const 1024) "{data}")
            (func (export "plugin_check_config") (param i32 i32 i32 i32) (result i64) {body}))"#
    );
    wat::parse_str(module).expect("a module")
}

fn answers(answer: &str) -> Vec<u8> {
    plugin(&format!("(i64.const {})", (1024u64 << 32) | answer.len() as u64), answer)
}

/// What check prints about a file of this name and text.
fn check(wasm: &[u8], name: &str, text: &str, flags: &[&str]) -> (String, Option<i32>) {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("p.wasm"), wasm).expect("written");
    std::fs::write(dir.path().join(name), text).expect("written");
    let mut args = vec!["check", name, "--wasm", "p.wasm", "--cache", "cache"];
    args.extend(flags);
    printed(dir.path(), &args)
}

const YAML: &str = "a: 1\nlist:\n  - { x: hello, y: [ 2 ] }\n";
/// What the plugin is given for it.
const JSON: &str = r#"{"a": 1, "list": [{"x": "hello", "y": [2]}]}"#;

fn about(piece: &str, severity: &str) -> String {
    let start = JSON.find(piece).expect("a piece");
    format!(
        r#"{{"diagnostics": [{{"severity": "{severity}", "field": "f", "problem": "is wrong", "remedy": "do x", "span": [{start}, {}]}}]}}"#,
        start + piece.len()
    )
}

#[test]
fn a_place_in_the_json_is_shown_in_the_yaml_it_was_made_from() {
    for (piece, line, marks) in [
        ("\"hello\"", "    3 |   - { x: hello, y: [ 2 ] }", "      |          ^^^^^ do x"),
        ("2", "    3 |   - { x: hello, y: [ 2 ] }", "      |                      ^ do x"),
        ("\"list\"", "    2 | list:", "      | ^^^^ do x"),
        ("1", "    1 | a: 1", "      |    ^ do x"),
    ] {
        let (printed, code) = check(&answers(&about(piece, "error")), "c.yaml", YAML, &[]);
        let expected = format!("error: f: is wrong\n{line}\n{marks}\n1 error, no warnings\n");
        assert_eq!((printed.as_str(), code), (expected.as_str(), Some(1)), "{piece}");
    }
}

#[test]
fn json_is_handed_over_as_it_is_and_yaml_as_json() {
    // A configuration that is an answer itself is given back as the answer.
    let echo = "(i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))";
    let given = r#"{"diagnostics": [{"severity": "warning", "problem": "b", "problem": "c"}]}"#;
    let (printed, code) = check(&plugin(echo, ""), "c.json", given, &[]);
    assert_eq!((printed.as_str(), code), ("", Some(2)), "a field that stands twice is no answer");
    let given = given.replace(", \"problem\": \"c\"", "");
    let (printed, code) = check(&plugin(echo, ""), "c.json", &given, &[]);
    assert_eq!((printed.as_str(), code), ("warning: b\nno errors, 1 warning\n", Some(0)));
    let (printed, code) = check(
        &plugin(echo, ""),
        "c.yaml",
        "diagnostics: [{ severity: warning, problem: ü }]\n",
        &[],
    );
    assert_eq!((printed.as_str(), code), ("warning: ü\nno errors, 1 warning\n", Some(0)));
    let (printed, code) = check(&answers("{\"diagnostics\": []}"), "c.yaml", "b: 1\nb: 2\n", &[]);
    let expected =
        "error: b stands twice; keep one of them\n    2 | b: 2\n      | ^\n1 error, no warnings\n";
    assert_eq!((printed.as_str(), code), (expected, Some(1)));
}

#[test]
fn warnings_fail_only_where_that_is_wanted() {
    let wasm = answers(&about("1", "warning"));
    assert_eq!(check(&wasm, "c.yaml", YAML, &[]).1, Some(0));
    assert_eq!(check(&wasm, "c.yaml", YAML, &["--deny-warnings"]).1, Some(1));
    let (printed, code) = check(&wasm, "c.yaml", YAML, &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(
        report,
        serde_json::json!({ "version": 1, "file": "c.yaml", "errors": 0, "warnings": 1, "diagnostics": [
            { "severity": "warning", "field": "f", "problem": "is wrong", "remedy": "do x", "line": 1, "column": 4 },
        ]})
    );
}

#[test]
fn a_plugin_that_answers_nonsense_cannot_be_checked_with() {
    let good = "{\"diagnostics\": []}";
    for wasm in [
        plugin("(unreachable)", good),
        plugin("(i64.const -1)", good),
        plugin("(i64.shl (i64.const 1024) (i64.const 32))", good),
        b"no wasm".to_vec(),
    ] {
        assert_eq!(check(&wasm, "c.yaml", YAML, &[]), (String::new(), Some(2)));
    }
    assert_eq!(check(&answers(good), "c.yaml", YAML, &["--wasm", "none.wasm"]).1, Some(2));
}

#[test]
fn a_plugin_without_the_export_is_started_instead() {
    let refuses = |level: u32, answer: u32| {
        let module = format!(
            r#"(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
                (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
                (func (export "malloc") (param i32) (result i32) (i32.const 1024))
                (data (i32.const 16) "it is wrong")
                (func (export "proxy_on_configure") (param i32 i32) (result i32)
                    (drop (call $log (i32.const {level}) (i32.const 16) (i32.const 11)))
                    (i32.const {answer})))"#
        );
        wat::parse_str(module).expect("a module")
    };
    let (printed, code) = check(&refuses(4, 0), "c.yaml", YAML, &[]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "error: it is wrong", "{printed}");
    assert!(lines[1].contains("refuses its configuration"), "{printed}");
    assert_eq!(code, Some(1));
    let (printed, code) = check(&refuses(3, 1), "c.yaml", YAML, &[]);
    assert_eq!((printed.as_str(), code), ("warning: it is wrong\nno errors, 1 warning\n", Some(0)));
}

const ENVOY: &str = r#"static_resources:
  listeners:
  - filter_chains:
    - filters:
      - typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          streamIdleTimeout: 1.5s
          http_filters:
          - name: one
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              config:
                name: first
                vm_config: { environment_variables: { host_env_keys: [A], key_values: { B: b } } }
                configuration:
                  "@type": type.googleapis.com/google.protobuf.StringValue
                  value: |
                    {
                      "a": "wrong"
                    }
          - name: two
            typed_config:
              "@type": type.googleapis.com/udpa.type.v1.TypedStruct
              type_url: type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm
              value: { config: { name: second, fail_open: true, configuration: { "@type": type.googleapis.com/google.protobuf.Struct, value: { a: 1 } } } }
  clusters: [{ name: c, connect_timeout: 0.25s }]
"#;

#[test]
fn of_an_envoy_file_every_filter_is_checked_where_it_stands() {
    let text = "{\n  \"a\": \"wrong\"\n}\n";
    let start = text.find("\"wrong\"").expect("there");
    let answer = format!(
        r#"{{"diagnostics": [{{"severity": "error", "field": "a", "problem": "is wrong", "span": [{start}, {}]}},
            {{"severity": "warning", "problem": "no cluster", "at": "/static_resources/clusters/0/name"}}]}}"#,
        start + 7
    );
    let (printed, code) = check(&answers(&answer), "e.yaml", ENVOY, &[]);
    assert_eq!(code, Some(1));
    let expected = "error: first: a: is wrong\n   19 |                       \"a\": \"wrong\"\n      |                            ^^^^^^^\n\
        warning: first: no cluster\n   26 |   clusters: [{ name: c, connect_timeout: 0.25s }]\n      |                      ^\n";
    assert!(printed.starts_with(expected), "{printed}");
    assert!(printed.ends_with("2 errors, 2 warnings\n"), "{printed}");
    let none = "static_resources: { clusters: [] }\n";
    assert_eq!(check(&answers(&answer), "e.yaml", none, &[]), (String::new(), Some(2)));
}

#[test]
fn of_an_istio_resource_the_plugins_configuration_is_checked() {
    let file = "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: { name: t }\nspec:\n  pluginConfig:\n    a: wrong\n";
    let answer = r#"{"diagnostics": [{"severity": "error", "field": "a", "problem": "is wrong", "span": [6, 13]}]}"#;
    let (printed, code) = check(&answers(answer), "plugin.yaml", file, &[]);
    assert_eq!(code, Some(1));
    assert!(
        printed.starts_with("error: a: is wrong\n    6 |     a: wrong\n      |        ^^^^^\n"),
        "{printed}"
    );
}

#[test]
fn what_is_no_file_cannot_be_checked() {
    let dir = tempfile::tempdir().expect("a folder");
    for file in [".", "none.yaml"] {
        assert_eq!(printed(dir.path(), &["check", file, "--wasm", "x"]), (String::new(), Some(2)));
    }
}
