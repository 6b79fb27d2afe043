//! A folder with a plugin and scenarios, and the command run in it. It must not know any single test.

use std::path::Path;
use std::process::{Command, Output};

pub const PASSING: &str = "name: passes\nplugin: { wasm: plugin.wasm }\ntimeline: [{ at: 0ms, client: a, send: { path: /x } }]\nexpect: [{ client: a, status: 200 }]\n";
pub const FAILING: &str = "name: fails\nplugin: { wasm: plugin.wasm }\ntimeline: [{ at: 0ms, client: a, send: {} }]\nexpect: [{ client: a, status: 201 }]\n";

/// Reads all request headers, grows its memory by a page for each request, and asks `gateway` if the path is /ask.
pub const PLUGIN: &str = r#"(module
    (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 4096))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "malloc") (param i32) (result i32)
      (global.get $free)
      (global.set $free (i32.add (global.get $free) (local.get 0))))
    (func (export "proxy_on_context_create") (param i32 i32))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (drop (call $pairs (i32.const 0) (i32.const 0) (i32.const 4)))
      (drop (memory.grow (i32.const 1)))
      (i32.const 0)))"#;

/// A folder with a plugin and these files.
pub fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("plugin.wasm"), wat::parse_str(PLUGIN).expect("a module"))
        .expect("written");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    folder
}

pub fn host_sim(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-sim"));
    command.current_dir(folder).args(args).output().expect("it starts")
}

/// What the command printed, and its exit code.
pub fn printed(folder: &Path, args: &[&str]) -> (String, Option<i32>) {
    let output = host_sim(folder, args);
    (text(&output.stdout), output.status.code())
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
