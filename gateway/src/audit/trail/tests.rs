//! Tests of a chain that runs: its folder, its keys.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate_policy::audit::record::{KeyVersion, Record};
use tidegate_policy::audit::{Action, Durability, Thinning};
use tidegate_policy::scope::{Region, Tenant};
use tidegate_tests::eventually;

use super::*;
use crate::audit::chain_end::Accepted;
use crate::audit::chain_end::tests::{Faulty, Mode, world};
use crate::clock::SystemClock;
use crate::settings::Environment;
use crate::store::StoreCounters;
use crate::store::memory::MemoryStore;

const WAIT: Duration = Duration::from_secs(60);
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
    start_with(store, dir, 1_000_000, None)
}

fn start_with(
    store: &Arc<dyn Store>,
    dir: &Path,
    spool_bytes_max: u64,
    desk: Option<OwnThread>,
) -> Result<(Arc<Trail>, ChainCounters), String> {
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
        spool_bytes_max,
        refuse_when_full: true,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let counters = ChainCounters::default();
    let (store, pseudonyms) = (Arc::clone(store), Pseudonyms::default());
    Trail::start(settings, pseudonyms, None, store, clock, counters.clone(), desk)
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

/// Another key, of 32 octets that are all seven.
fn second_key() -> String {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    key.to_pkcs8_pem(LineEnding::LF).expect("a key").to_string()
}

async fn on_record(trail: &Trail, id: &str) -> Accepted {
    trail.pass_on(&event(id.to_owned()), Haste::Urgent).expect("room").await.expect("not lost")
}

fn event(id: String) -> AuditEvent {
    AuditEvent {
        id,
        ts_ms: 1,
        region: Region::new("eu").expect("a region"),
        actor: "ann".to_owned(),
        tenant: Tenant::None,
        action: Action::Admin,
        outcome: "ok".to_owned(),
        detail: String::new(),
        durability: Durability::Sync,
        thinning: Thinning::Each,
        about: Vec::new(),
        basis: tidegate_policy::audit::Basis::default(),
    }
}

/// The store takes a batch a second; nobody waits for a minute until it has all.
#[tokio::test(start_paused = true)]
async fn what_is_left_when_the_gateway_ends_is_on_the_disk_or_counted() {
    for has_room in [true, false] {
        let (faulty, dir) = world();
        let store: Arc<dyn Store> = Arc::<Faulty>::clone(&faulty);
        let (trail, counters) =
            start_with(&store, dir.path(), if has_room { 1_000_000 } else { 10 }, None)
                .expect("started");
        faulty.set(Mode::Slow);
        let ids: BTreeSet<String> = (0..4_000).map(|number| format!("e-{number}")).collect();
        ids.iter().for_each(|id| trail.take(&event(id.clone())));
        trail.finish().await;
        faulty.set(Mode::Up);
        let chained: BTreeSet<String> =
            records(&store).await.into_iter().map(|(id, _)| id).collect();
        drop(trail);
        let mut spool = Spool::open(&dir.path().join("audit"), 1_000_000).expect("opened");
        let (waiting, _) = spool.peek(10_000).expect("read");
        let waiting = waiting.iter().map(|one| one.event.id().to_owned()).collect();
        let dropped = usize::try_from(counters.dropped.get()).expect("small");
        assert!((64..1_000).contains(&chained.len()), "{}", chained.len());
        if has_room {
            assert_eq!((&chained | &waiting, dropped), (ids, 0));
        } else {
            // Of the batch under way nobody knows whether it is in the chain.
            let lost = ids.len() - chained.len();
            assert!((lost..=lost + 64).contains(&dropped), "{dropped}, {lost}");
        }
    }
}

/// Each record's event, and the version that signed it.
async fn records(store: &Arc<dyn Store>) -> Vec<(String, Option<KeyVersion>)> {
    let chain = ChainName::new("eu").expect("a name");
    let records = store.chains().expect("chains").records(&chain, 0, 0, 1_000).await;
    let record = |bytes: Vec<u8>| Record::read(&bytes).expect("a record");
    let records = records.expect("read").into_iter().map(record);
    records.map(|record| (record.id, record.seal.map(|seal| seal.version))).collect()
}

#[tokio::test]
async fn the_last_key_never_signs_again_once_it_is_revoked_and_nothing_is_lost() {
    let (store, dir) = (memory(), tempfile::tempdir().expect("a folder"));
    let (trail, counters) = start(&store, dir.path()).expect("started");
    assert_eq!(on_record(&trail, "before").await, Accepted::Chained);
    // A file that nobody can read has nothing to do with it.
    std::fs::write(dir.path().join("keys/v9.pem"), "no key").expect("written");
    std::fs::write(dir.path().join("keys/revoked"), "v1\n").expect("written");
    eventually(WAIT, "no key may sign", async || {
        if counters.no_key.get() == 1 { Ok(()) } else { Err(counters.no_key.get()) }
    })
    .await;
    for id in ["one", "two"] {
        assert_eq!(on_record(&trail, id).await, Accepted::Spooled);
    }
    let held = |id: &str, version| (id.to_owned(), Some(KeyVersion(version)));
    assert_eq!(records(&store).await, [held("before", 1)]);
    // Another key is there, and the events leave the disk.
    std::fs::remove_file(dir.path().join("keys/v9.pem")).expect("removed");
    std::fs::write(dir.path().join("keys/v2.pem"), second_key()).expect("written");
    eventually(WAIT, "the spool is empty", async || {
        let all = records(&store).await;
        if all.len() >= 7 { Ok(()) } else { Err(all) }
    })
    .await;
    let all = records(&store).await;
    // One is revoked, none signs, another is known and signs.
    let (own, events): (Vec<_>, Vec<_>) = all.iter().partition(|(id, _)| id.starts_with("keys-"));
    let ids: Vec<_> = events.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((own.len(), ids), (4, vec!["before", "one", "two"]), "{all:?}");
    let signed: Vec<_> = all.iter().filter_map(|(_, version)| *version).collect();
    assert!(signed[0] == KeyVersion(1) && signed[1..].iter().all(|v| *v == KeyVersion(2)));
    assert!(all.last().is_some_and(|(_, version)| *version == Some(KeyVersion(2))), "{all:?}");
    assert_eq!((counters.no_key.get(), counters.dropped.get()), (0, 0));
}

/// They say who did what.
#[tokio::test]
async fn nobody_else_reads_the_files_of_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let (store, dir) = (memory(), tempfile::tempdir().expect("a folder"));
    let folder = dir.path().join("audit");
    std::fs::create_dir(&folder).expect("made");
    // Of a version that did not care.
    for name in ["spool.jsonl", "recent", "recent-before"] {
        std::fs::write(folder.join(name), "").expect("written");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.join(name), open).expect("set");
    }
    let (trail, _) = start(&store, dir.path()).expect("started");
    assert_eq!(on_record(&trail, "one").await, Accepted::Chained);
    trail.finish().await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let entry = entry.expect("one");
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        names.push(entry.file_name());
    }
    assert!(names.len() >= 5, "{names:?}");
}

/// A file in whose place is a pipe that nobody reads: whoever writes it stands still.
#[tokio::test]
async fn a_disk_that_stands_still_keeps_the_chain_waiting_and_nobody_else() {
    let (store, dir) = (memory(), tempfile::tempdir().expect("a folder"));
    let desk = OwnThread::start("audit".to_owned(), || ()).expect("a thread");
    let (trail, _) = start_with(&store, dir.path(), 1_000_000, Some(desk)).expect("started");
    assert_eq!(on_record(&trail, "before").await, Accepted::Chained);
    let pipe = dir.path().join("audit/high-water.new");
    eventually(WAIT, "the next mark goes into the pipe", async || {
        let made = std::process::Command::new("mkfifo").arg(&pipe).output().expect("it runs");
        if made.status.success() { Ok(()) } else { Err(made) }
    })
    .await;
    let (runs, told) = std::sync::mpsc::channel();
    let disk = std::thread::spawn(move || {
        let is_served = told.recv_timeout(Duration::from_secs(20)).is_ok();
        // Now the disk goes on.
        (is_served, std::fs::read_to_string(&pipe).expect("a mark"))
    });
    let event = trail.pass_on(&event("meanwhile".to_owned()), Haste::Urgent).expect("room");
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    runs.send(()).expect("it waits");
    assert_eq!(event.await, Ok(Accepted::Chained));
    let (is_served, mark) = disk.join().expect("no panic");
    assert!(is_served && mark.ends_with('\n'), "{mark:?}");
    trail.finish().await;
}
