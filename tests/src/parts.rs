//! Owns where the real parts are: Envoy, redis-server, the built filters, the gateway's binary.
//! Each has a variable that overrides it and a sentence for when it is missing.

use std::env;
use std::path::{Path, PathBuf};

/// The profile of programs that measure what is shipped.
const MEASURE: &str = "measure";

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the checkout").to_owned()
}

/// Where cargo builds: the folder of the profile that this very program was built into, two up.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn found(what: &str, path: PathBuf, remedy: &str) -> PathBuf {
    assert!(path.is_file(), "{what} is missing: no file {}; {remedy}", path.display());
    path
}

/// Envoy's binary: `ENVOY`, else what `make envoy` brought.
pub fn envoy() -> PathBuf {
    let path = env::var_os("ENVOY").map_or_else(|| root().join(".tools/bin/envoy"), PathBuf::from);
    found("Envoy", path, "run `make envoy`, or set ENVOY=/path/to/envoy")
}

/// Redis's binary: `REDIS_SERVER`, else what `make redis` brought, else the system's.
pub fn redis_server() -> PathBuf {
    let path = env::var_os("REDIS_SERVER").map(PathBuf::from).unwrap_or_else(|| {
        let brought = root().join(".tools/bin/redis-server");
        if brought.is_file() { brought } else { PathBuf::from("/usr/bin/redis-server") }
    });
    found("redis-server", path, "run `make redis`, or set REDIS_SERVER=/path/to/redis-server")
}

/// Redis's command line, and where its libraries lie if it was brought.
pub fn redis_cli() -> (PathBuf, Option<PathBuf>) {
    let server = redis_server();
    let home = root().join(".tools/redis-server/usr");
    let brought = server.starts_with(root().join(".tools"));
    let path =
        if brought { home.join("bin/redis-cli") } else { server.with_file_name("redis-cli") };
    let libraries = brought.then(|| {
        let mut folders = std::fs::read_dir(home.join("lib")).expect("libraries");
        folders.next().expect("one").expect("readable").path()
    });
    (found("redis-cli", path, "it belongs beside redis-server"), libraries)
}

/// A filter as it is shipped: `tidegate` or `noop_filter`.
pub fn filter(name: &str) -> PathBuf {
    let path = target().join("wasm32-wasip1/wasm").join(format!("{name}.wasm"));
    found("the built filter", path, "run `make plugin`")
}

/// The filter that traps when an answer says `x-tidegate-trap`.
pub fn trapping_filter() -> PathBuf {
    let path = target().join("wasm32-wasip1/wasm-trap/tidegate.wasm");
    found("the filter that traps", path, "run `make others`")
}

/// The gateway's binary: as it is shipped, to a program that measures; else of the asking one's profile.
pub fn gateway() -> PathBuf {
    found("the built gateway", beside("tidegate-gateway"), "run `make gateway`")
}

/// The gateway whose claims are plain commands, of the gateway's profile.
pub fn plain_gateway() -> PathBuf {
    found("the gateway with plain claims", beside("examples/plain-claims"), "run `make bench`")
}

/// The auditor's program, of the gateway's profile.
pub fn auditor() -> PathBuf {
    found("the built tidegate-audit", beside("tidegate-audit"), "run `make gateway`")
}

/// The server that benchmarks measure the gateway beside, of the gateway's profile.
pub fn http_floor() -> PathBuf {
    found("the server without decisions", beside("examples/http-floor"), "run `make bench`")
}

/// A program of the gateway's profile.
fn beside(name: &str) -> PathBuf {
    let exe = env::current_exe().expect("a program knows its file");
    let dir = exe.parent().expect("a file lies in a folder");
    // Tests lie one folder below the programs.
    let dir =
        if dir.ends_with("deps") { dir.parent().expect("deps lies in a folder") } else { dir };
    if dir.ends_with(MEASURE) { dir.with_file_name("release").join(name) } else { dir.join(name) }
}
