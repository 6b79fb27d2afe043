//! Where the built plugins are, and one way to run them. It must not know any single plugin.

use std::path::{Path, PathBuf};

use tidegate_host_sim::{Report, Runner, Scenario, Services, TraceKind};

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host-sim lies in the checkout")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `make others`", path.display()))
}

/// A plugin that `make others` built from `tests/`.
pub fn built(name: &str) -> Vec<u8> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| checkout().join("target"), PathBuf::from);
    read(&target.join("wasm32-wasip1/wasm").join(format!("{name}.wasm")))
}

/// An example of the SDK's authors, as the release of this version has it.
pub fn example(version: &str, name: &str) -> Vec<u8> {
    read(&checkout().join(".tools/sdk-examples").join(version).join(format!("{name}.wasm")))
}

/// Runs a scenario that must be as expected, twice: the second run must be the first one again.
pub fn passes(yaml: &str, wasm: &[u8]) -> Report {
    let scenario = Scenario::parse(yaml).unwrap_or_else(|error| panic!("{error}")).with_trace();
    let runner = Runner::with_cache(None).expect("no cache, no error");
    let run = || runner.run_bytes(&scenario, wasm, Services::default()).expect("it runs");
    let (report, again) = (run(), run());
    assert!(report.passed(), "{report}\n{}", trace(&report));
    assert_eq!(trace(&report), trace(&again));
    report
}

/// What the plugins of workers logged, in order.
pub fn logged(report: &Report) -> Vec<&str> {
    let lines = report.logs.iter().filter(|line| line.vm.starts_with('w'));
    lines.map(|line| line.message.as_str()).collect()
}

/// The names of a worker's callbacks, in order.
pub fn callbacks<'a>(report: &'a Report, vm: &str) -> Vec<&'a str> {
    let lines =
        report.trace.iter().filter(|line| line.vm == vm && line.kind == TraceKind::Callback);
    lines.map(|line| line.name.as_str()).collect()
}

fn trace(report: &Report) -> String {
    report.trace.iter().map(|line| format!("{line}\n")).collect()
}
