//! Tests of a chain that runs: its folder, its keys.

use std::path::Path;

use super::*;
use crate::clock::SystemClock;
use crate::settings::Environment;
use crate::store::StoreCounters;
use crate::store::memory::MemoryStore;

/// RFC 8410 §10.3: everybody knows it.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Arc::new(SystemClock::new()), 100_000, StoreCounters::default()))
}

fn keys(dir: &Path) -> KeySource {
    let dir = dir.display().to_string();
    KeySource::of(&Environment::from([("AUDIT_PRIVATE_KEY_DIR", dir.as_str())])).expect("a folder")
}

fn start(store: &Arc<dyn Store>, dir: &Path) -> Result<(Arc<Trail>, ChainCounters), String> {
    let keys_dir = dir.join("keys");
    std::fs::create_dir_all(&keys_dir).expect("made");
    if !keys_dir.join("v1.pem").exists() {
        std::fs::write(keys_dir.join("v1.pem"), PEM).expect("written");
    }
    let settings = TrailSettings {
        chain: ChainName::new("eu").expect("a name"),
        dir: dir.join("audit"),
        keys: keys(&keys_dir),
        tick: Duration::from_millis(5),
        spool_bytes_max: 1_000_000,
        refuse_when_full: true,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let counters = ChainCounters::default();
    let (store, pseudonyms) = (Arc::clone(store), Pseudonyms::default());
    Trail::start(settings, pseudonyms, None, store, clock, counters.clone())
        .map(|trail| (trail, counters))
}

#[tokio::test]
async fn a_second_gateway_is_kept_out_of_the_folder() {
    let (store, dir) = (memory(), tempfile::tempdir().expect("a folder"));
    let (first, _) = start(&store, dir.path()).expect("started");
    let error = start(&store, dir.path()).err().expect("refused");
    let folder = dir.path().join("audit").display().to_string();
    for expected in ["--audit-dir (TIDEGATE_AUDIT_DIR)", &folder, "a folder of its own"] {
        assert!(error.contains(expected), "{error}");
    }
    first.finish().await;
    drop(first);
    start(&store, dir.path()).expect("free again");
}
