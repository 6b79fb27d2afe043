//! Plugins written as text, and one way to run them. It must not know any single test.

use tidegate_host_sim::{Report, Runner, Scenario, Services, StartError, pairs};

/// A WebAssembly text module that grows by pieces: what every plugin needs is there from the start.
///
/// Memory below 1 KiB is scratch for the plugin (results of host calls go there), data starts at 1 KiB, and the host's
/// allocations start at 64 KiB.
pub struct Plugin {
    imports: String,
    body: String,
    data_end: usize,
    marker: &'static str,
}

/// Where a piece of data lies, as two constants for a call.
pub fn at((ptr, len): (usize, usize)) -> String {
    format!("(i32.const {ptr}) (i32.const {len})")
}

impl Plugin {
    pub fn new() -> Self {
        let marker = "proxy_abi_version_0_2_1";
        Self { imports: String::new(), body: String::new(), data_end: 1024, marker }
    }

    /// Claims another ABI version by this export.
    pub fn marker(mut self, marker: &'static str) -> Self {
        self.marker = marker;
        self
    }

    /// Imports a host function of module `env` that takes this many i32 and returns its status, as `$name`.
    pub fn import(mut self, name: &str, params: usize) -> Self {
        let params = "i32 ".repeat(params);
        self.imports +=
            &format!("(import \"env\" \"{name}\" (func ${name} (param {params}) (result i32)))\n");
        self
    }

    /// Imports that take more than i32.
    pub fn import_text(mut self, text: &str) -> Self {
        self.imports += text;
        self.imports += "\n";
        self
    }

    /// Puts bytes into memory; the caller keeps address and length.
    pub fn data(&mut self, bytes: &[u8]) -> (usize, usize) {
        let place = (self.data_end, bytes.len());
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        self.body += &format!("(data (i32.const {}) \"{escaped}\")\n", place.0);
        self.data_end += bytes.len().next_multiple_of(8).max(8);
        place
    }

    /// Puts an encoded header map into memory.
    pub fn map(&mut self, entries: &[(&str, &str)]) -> (usize, usize) {
        let pairs: Vec<_> =
            entries.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect();
        self.data(&pairs::encode(&pairs))
    }

    /// Adds functions, globals, anything.
    pub fn code(mut self, text: &str) -> Self {
        self.body += text;
        self.body += "\n";
        self
    }

    /// A request-headers callback with this body, which must leave an action.
    pub fn on_request_headers(self, body: &str) -> Self {
        self.code(&format!(
            "(func (export \"proxy_on_request_headers\") (param $context i32) (param $count i32) (param $end i32) (result i32) {body})"
        ))
    }

    pub fn build(self) -> Vec<u8> {
        let text = format!(
            r#"(module
            {}
            (memory (export "memory") 4)
            (global $free (mut i32) (i32.const 65536))
            (func (export "{}"))
            (func $malloc (export "malloc") (param $len i32) (result i32)
              (global.get $free)
              (global.set $free (i32.add (global.get $free) (local.get $len))))
            {})"#,
            self.imports, self.marker, self.body
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// Runs a scenario with a plugin; no cache on disk, so that tests share nothing.
pub fn run(yaml: &str, wasm: &[u8]) -> Report {
    let scenario = Scenario::parse(yaml).expect("the scenario is valid").with_trace();
    Runner::with_cache(None)
        .expect("no cache, no error")
        .run_bytes(&scenario, wasm, Services::default())
        .expect("it runs")
}

/// Runs a scenario that must be as expected.
pub fn passes(yaml: &str, wasm: &[u8]) -> Report {
    let report = run(yaml, wasm);
    assert!(report.passed(), "{report}\n{}", trace(&report));
    report
}

/// The trace as a person reads it.
pub fn trace(report: &Report) -> String {
    report.trace.iter().map(|line| format!("{line}\n")).collect()
}

/// Why a plugin does not start.
pub fn start_error(wasm: &[u8]) -> StartError {
    start_error_on("{}", wasm)
}

/// The same with host options.
pub fn start_error_on(host: &str, wasm: &[u8]) -> StartError {
    let report = run(&format!("name: start\nplugin: {{}}\nhost: {host}\n"), wasm);
    assert!(!report.passed());
    report.start_error.expect("the plugin must not start")
}

/// The trace's lines of one callback or host call in workers: arguments and status.
pub fn calls(report: &Report, name: &str) -> Vec<(String, String)> {
    let lines = report.trace.iter().filter(|line| line.vm.starts_with('w') && line.name == name);
    lines.map(|line| (line.args.clone(), line.status.clone())).collect()
}

/// Only the statuses.
pub fn statuses(report: &Report, name: &str) -> Vec<String> {
    calls(report, name).into_iter().map(|(_, status)| status).collect()
}

/// The callbacks and host calls of the workers, without arguments, in order.
pub fn names(report: &Report) -> Vec<String> {
    report
        .trace
        .iter()
        .filter(|line| line.vm.starts_with('w'))
        .map(|line| line.name.clone())
        .collect()
}
