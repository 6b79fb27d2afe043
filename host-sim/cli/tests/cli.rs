//! The command from outside: what it prints and how it exits.

use std::path::Path;
use std::process::{Command, Output};

const PASSING: &str = "name: passes\nplugin: { wasm: plugin.wasm }\ntimeline: [{ at: 0ms, client: a, send: { path: /x } }]\nexpect: [{ client: a, status: 200 }]\n";
const FAILING: &str = "name: fails\nplugin: { wasm: plugin.wasm }\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 201 }]\n";
const PLUGIN: &str = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;

/// A folder with a plugin and these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("plugin.wasm"), wat::parse_str(PLUGIN).expect("a module"))
        .expect("written");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

fn host_sim(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-sim"));
    command.current_dir(folder).args(args).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_passes_exits_with_0_and_a_summary() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let output = host_sim(folder.path(), &["run", "a.yaml"]);
    assert_eq!(
        text(&output.stdout),
        "passed: passes (1 checks, 1 requests, 0 host calls, 0 bytes)\n1 passed, 0 failed\n"
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(
        folder.path().join("target/host-sim-cache").is_dir(),
        "the cache is local to the project"
    );
}

#[test]
fn one_failure_or_one_broken_file_exits_with_1_and_the_others_still_run() {
    let folder = folder(&[
        ("a.yaml", FAILING),
        ("b.yaml", "name: x\nplugin: {}\nhots: 1\n"),
        ("c.yaml", PASSING),
        ("d.txt", ""),
    ]);
    let output = host_sim(folder.path(), &["run", "."]);
    let stdout = text(&output.stdout);
    assert!(stdout.contains("FAILED: fails\nline 4: client a: status\n  expected 201\n  seen     200 with the body \"ok\"\n  in ./a.yaml"), "{stdout}");
    assert!(stdout.contains("./b.yaml:3:1: ") && stdout.contains("hots"), "{stdout}");
    assert!(stdout.ends_with("1 passed, 2 failed\n"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_trace_is_for_people_or_for_machines() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let trace = text(&host_sim(folder.path(), &["run", "a.yaml", "--trace"]).stdout);
    assert!(
        trace.contains("0ms w0       2 proxy_on_request_headers 6 headers, end=true -> 0\n"),
        "{trace}"
    );
    let json = text(&host_sim(folder.path(), &["run", "a.yaml", "--trace-json"]).stdout);
    assert!(json.starts_with("{\"args\":\"sends GET /x\",\"at_ns\":0,"), "{json}");
}

#[test]
fn another_plugin_can_be_named_and_a_missing_one_is_explained() {
    let folder = folder(&[
        ("a.yaml", &PASSING.replace("plugin.wasm", "none.wasm")),
        ("b.yaml", &PASSING.replace("{ wasm: plugin.wasm }", "{}")),
    ]);
    let output = host_sim(folder.path(), &["run", "a.yaml", "--wasm", "plugin.wasm"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let missing = text(&host_sim(folder.path(), &["run", "a.yaml"]).stdout);
    assert!(
        missing.contains("none.wasm cannot be read") && missing.contains("is it built"),
        "{missing}"
    );
    let unnamed = text(&host_sim(folder.path(), &["run", "b.yaml"]).stdout);
    assert!(unnamed.contains("no plugin.wasm") && unnamed.contains("--wasm PATH"), "{unnamed}");
    let no_file = host_sim(folder.path(), &["run", "no.yaml"]);
    assert!(
        text(&no_file.stdout).contains("no.yaml: cannot be read; is the path right?"),
        "{no_file:?}"
    );
    let not_wasm = text(&host_sim(folder.path(), &["run", "a.yaml", "--wasm", "b.yaml"]).stdout);
    assert!(not_wasm.contains("not a WebAssembly binary"), "{not_wasm}");
}

#[test]
fn an_unusable_cache_says_so() {
    let folder = folder(&[("a.yaml", PASSING)]);
    let output = host_sim(folder.path(), &["run", "a.yaml", "--cache", "a.yaml"]);
    let stderr = text(&output.stderr);
    assert!(
        stderr
            .contains("cache of compiled modules in a.yaml cannot be used; name another directory"),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(1));
}
