//! Tests of the chain's end on a store that is told how to fail.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::record::{Head, KeyVersion, SignatureCheck};
use tidegate_policy::audit::verify::{Report, Verdict, Verifier};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use super::*;
use crate::audit::writer::shared;
use crate::clock::SystemClock;
use crate::store::memory::MemoryStore;
use crate::store::{Adjustment, Call, Charge, Checked, Standing, StoreCounters, Temperature};

/// What the store does with the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Up,
    /// Nothing reaches it.
    Gone,
    /// Appends are done, and their replies are lost.
    Mute,
}

/// A store in memory behind a bad line. Before each append, somebody else may append first.
struct Faulty {
    inner: Mutex<MemoryStore>,
    mode: Mutex<Mode>,
    rivals: AtomicUsize,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn memory() -> MemoryStore {
    MemoryStore::new(clock(), 100_000, StoreCounters::default())
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(memory()),
            mode: Mutex::new(Mode::Up),
            rivals: AtomicUsize::new(0),
        })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic") = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no panic")
    }

    fn call<T: Send + 'static>(&self, call: impl FnOnce(&dyn Chains) -> Call<T>) -> Call<T> {
        if self.mode() == Mode::Gone {
            return Box::pin(std::future::ready(Err(StoreFailure::Unreachable("gone".into()))));
        }
        call(self.inner.lock().expect("no panic").chains().expect("chains"))
    }

    async fn records(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for segment in 0..4 {
            let call = self.call(|chains| chains.records(&chain(), segment, 0, 100_000));
            all.extend(call.await.expect("records"));
        }
        all
    }
}

impl Chains for Faulty {
    fn append(&self, chain: &ChainName, append: &Append<'_>) -> Call<Outcome> {
        let rivals = self.rivals.load(Ordering::SeqCst);
        if rivals > 0 {
            self.rivals.store(rivals - 1, Ordering::SeqCst);
            let event = event(&format!("rival-{rivals}"));
            let made = batch(chain, append.expected.head, &[event], &TestSigner(1));
            let first = Append { hash: made.head.hash, lines: &made.lines, ..*append };
            drop(self.call(|chains| chains.append(chain, &first)));
        }
        let call = self.call(|chains| chains.append(chain, append));
        if self.mode() == Mode::Mute {
            return Box::pin(std::future::ready(Err(StoreFailure::Timeout)));
        }
        call
    }

    fn place(&self, chain: &ChainName) -> Call<Place> {
        self.call(|chains| chains.place(chain))
    }

    fn records(
        &self,
        chain: &ChainName,
        segment: u64,
        from: u64,
        count: u64,
    ) -> Call<Vec<Vec<u8>>> {
        self.call(|chains| chains.records(chain, segment, from, count))
    }
}

fn unused<T: Send + 'static>() -> Call<T> {
    Box::pin(std::future::ready(Err(StoreFailure::Refused("no part of these tests".into()))))
}

impl Store for Faulty {
    fn kind(&self) -> &'static str {
        "faulty"
    }
    fn describe(&self) -> String {
        String::new()
    }
    fn rate_check(&self, _: &Scope, _: &[Charge<'_>]) -> Call<Checked> {
        unused()
    }
    fn settle(&self, _: &Scope, _: DecisionId, _: &[Adjustment<'_>]) -> Call<Vec<Standing>> {
        unused()
    }
    fn reset(&self, _: &Scope, _: &[Charge<'_>]) -> Call<()> {
        unused()
    }
    fn grant(&self, _: &Scope, _: &Charge<'_>, _: u32, _: Duration) -> Call<()> {
        unused()
    }
    fn set_region(&self, _: &Scope, _: Temperature) -> Call<()> {
        unused()
    }
    fn probe(&self) -> Call<()> {
        unused()
    }
    fn chains(&self) -> Option<&dyn Chains> {
        Some(self)
    }
}

/// Its signature is a hash: these tests are of places, not of Ed25519.
struct TestSigner(u32);

fn signature(version: u32, message: &[u8]) -> [u8; 64] {
    let hash = Hash::of(&[&version.to_be_bytes(), message]).0;
    [hash, hash].concat().try_into().expect("64 bytes")
}

impl Signer for TestSigner {
    fn version(&self) -> KeyVersion {
        KeyVersion(self.0)
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        signature(self.0, message)
    }
}

struct TestCheck;

impl SignatureCheck for TestCheck {
    fn check(&self, public_key: &[u8; 32], message: &[u8], given: &[u8; 64]) -> bool {
        signature(u32::from(public_key[0]), message) == *given
    }
}

fn chain() -> ChainName {
    ChainName::new("eu").expect("a name")
}

fn event(id: &str) -> Event {
    let text = format!(
        r#"{{"action":"admin","actor":"a","detail":"","id":"{id}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
    );
    Event::read(text.as_bytes()).expect("an event")
}

fn open(store: &Arc<Faulty>, dir: &Path) -> ChainEnd {
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    let parts = Parts {
        chain: chain(),
        store,
        signer: shared(Arc::new(TestSigner(1))),
        clock: clock(),
        spool: Spool::open(dir, 1_000_000).expect("a spool"),
        mark: Mark::in_dir(dir),
        counters: ChainCounters::default(),
    };
    ChainEnd::open(parts).expect("opened")
}

async fn verify(store: &Faulty) -> (Report, Vec<String>) {
    let key = |number: u8| {
        let mut public = [0; 32];
        public[0] = number;
        (KeyVersion(number.into()), Key { public, revoked: None })
    };
    let ring = KeyRing {
        chain: chain(),
        keys: [key(1), key(2)].into_iter().collect(),
        checkpoint_keys: Vec::new(),
    };
    let mut verifier = Verifier::new(&ring, &TestCheck);
    let mut ids = Vec::new();
    for record in store.records().await {
        ids.push(Record::read(&record).expect("a record").id);
        verifier.push(&record);
    }
    (verifier.finish(None), ids)
}

fn world() -> (Arc<Faulty>, TempDir) {
    (Faulty::new(), tempfile::tempdir().expect("a folder"))
}

async fn commit(end: &mut ChainEnd, ids: &[&str]) -> Accepted {
    end.commit(ids.iter().map(|id| event(id)).collect()).await.expect("not lost")
}

#[tokio::test]
async fn a_lost_race_is_run_again_behind_the_winner() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    store.rivals.store(AT_ONCE_MAX, Ordering::SeqCst);
    assert_eq!(commit(&mut end, &["a", "b"]).await, Accepted::Chained);
    assert_eq!(end.counters.races_lost.get(), 6);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len()), (Verdict::Valid, 8), "{report:?}");
    assert_eq!(ids[6..], ["a", "b"]);
}

#[tokio::test]
async fn whoever_always_loses_spools_and_drains_in_order() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    store.rivals.store(AT_ONCE_MAX + WAITS.len() + 1, Ordering::SeqCst);
    assert_eq!(commit(&mut end, &["a"]).await, Accepted::Spooled);
    assert!(end.has_spooled());
    assert_eq!(commit(&mut end, &["b"]).await, Accepted::Chained);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, &ids[10..]), (Verdict::Valid, &["a".to_owned(), "b".into()][..]));
}

#[tokio::test]
async fn while_the_store_is_gone_events_wait_on_the_disk_and_leave_in_order() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    store.set(Mode::Gone);
    for id in ["b", "c", "d"] {
        assert_eq!(commit(&mut end, &[id]).await, Accepted::Spooled);
    }
    assert_eq!(end.counters.spooled.get(), 3);
    // The gateway dies; another run finds what was accepted.
    drop(end);
    let mut end = open(&store, dir.path());
    store.set(Mode::Up);
    assert!(end.has_spooled());
    assert_eq!(commit(&mut end, &["e"]).await, Accepted::Chained);
    assert!(!end.has_spooled());
    assert_eq!(end.counters.spool_bytes.get(), 0);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcde".to_owned()));
}

/// The reply was lost, or the gateway died before it could acknowledge: the event comes again.
#[tokio::test]
async fn an_append_whose_reply_was_lost_is_not_doubled() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    store.set(Mode::Mute);
    assert_eq!(commit(&mut end, &["b", "c"]).await, Accepted::Spooled);
    store.set(Mode::Up);
    assert_eq!(commit(&mut end, &["d"]).await, Accepted::Chained);
    assert_eq!(end.counters.duplicates.get(), 2);
    // Killed between append and acknowledgement: whoever waited asks again, another gateway too.
    drop(end);
    let elsewhere = tempfile::tempdir().expect("a folder");
    for dir in [dir.path(), elsewhere.path()] {
        let mut end = open(&store, dir);
        assert_eq!(commit(&mut end, &["c", "d"]).await, Accepted::Chained);
    }
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcd".to_owned()));
}

#[tokio::test]
async fn a_store_that_was_set_back_is_noticed_and_left_alone() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a", "b"]).await;
    // Everything is gone, and another gateway without a mark has begun anew: even further.
    for lines in [&[][..], &["x", "y", "z"][..]] {
        *store.inner.lock().expect("no panic") = memory();
        if !lines.is_empty() {
            let other = tempfile::tempdir().expect("a folder");
            commit(&mut open(&store, other.path()), lines).await;
        }
        // In another run, which only has the mark, and in the one that knows.
        let mut again = open(&store, dir.path());
        assert_eq!(commit(&mut again, &["c"]).await, Accepted::Spooled);
        assert_eq!(again.counters.rollback.get(), 1, "{lines:?}");
        assert_eq!(store.records().await.len(), lines.len(), "nothing was appended");
        again.retry().await;
        assert!(again.has_spooled());
        // For the next round.
        let mut spool = Spool::open(dir.path(), 1_000_000).expect("a spool");
        let (_, at) = spool.peek(9).expect("read");
        spool.pass(at).expect("emptied");
    }
    let before = store.records().await.len();
    // After a failure it asks first, and does not append at all.
    store.set(Mode::Gone);
    assert_eq!(commit(&mut end, &["d"]).await, Accepted::Spooled);
    store.set(Mode::Up);
    assert_eq!(commit(&mut end, &["e"]).await, Accepted::Spooled);
    assert_eq!((end.counters.rollback.get(), store.records().await.len()), (1, before));
}

#[tokio::test]
async fn another_key_signs_from_the_next_batch_on() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    *end.signer.write().expect("no panic") = Arc::new(TestSigner(2));
    commit(&mut end, &["b", "c"]).await;
    let (report, _) = verify(&store).await;
    assert_eq!(report.verdict, Verdict::Valid);
    let expected = [("v1".to_owned(), 1), ("v2".to_owned(), 1)];
    assert_eq!(report.signatures, expected.into_iter().collect());
}

#[tokio::test]
async fn a_segment_that_is_full_is_followed_by_the_next() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let mut number = 0_u64;
    while number <= SEGMENT_MAX {
        let ids: Vec<Event> = (0..50).map(|n| event(&format!("e-{}", number + n))).collect();
        end.commit(ids).await.expect("not lost");
        number += 50;
    }
    let place = end.known.expect("known");
    assert_eq!((place.segment, place.segment_first), (1, SEGMENT_MAX + 1));
    assert_eq!(place.head, Head { seq: number, hash: place.head.hash });
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len() as u64), (Verdict::Valid, number));
}

#[tokio::test]
async fn a_full_spool_is_an_answer_and_counted() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    end.spool = Arc::new(Mutex::new(Spool::open(dir.path(), 10).expect("a spool")));
    store.set(Mode::Gone);
    assert!(end.commit(vec![event("a")]).await.is_err());
    assert_eq!(end.counters.dropped.get(), 1);
}
