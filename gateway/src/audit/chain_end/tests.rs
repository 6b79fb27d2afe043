//! Tests of the chain's end on a store that is told how to fail.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use tempfile::TempDir;
use tidegate_policy::audit::append::{Append, Shelf};
use tidegate_policy::audit::keys::{Key, KeyRing};
use tidegate_policy::audit::record::{Head, KeyVersion, Record};
use tidegate_policy::audit::verify::{Report, Verdict, Verifier};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;
use tidegate_tests::eventually::as_told;

use super::own_time::{BEGINS_US, COUNTS_US, GRACE_US};
use super::*;
use crate::audit::keys::Ed25519;
use crate::audit::writer::shared;
use crate::clock::SystemClock;
use crate::store::memory::MemoryStore;
use crate::store::{Adjustment, Call, Charge, Checked, Standing, StoreCounters, Temperature};

/// What the store does with the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Nothing reaches it.
    Gone,
    /// Appends are done, and their replies are lost.
    Mute,
    /// Appends are done and answered; records cannot be read.
    Blind,
    /// Nothing is done, and nobody hears of it before the time is over.
    Hung,
    /// Appends are done, and answered a second later.
    Slow,
    /// Who asks is noted, and hears nothing.
    Never,
}

/// A store in memory behind a bad line. Before each append, somebody else may append first.
pub struct Faulty {
    inner: Mutex<MemoryStore>,
    mode: Mutex<Mode>,
    rivals: AtomicUsize,
    /// The number of its memory.
    memory: AtomicUsize,
    /// Of each segment only so many records are there, whatever the head says.
    cut: Mutex<Option<u64>>,
    /// In the mode `Never`.
    pub asked: tokio::sync::Notify,
    /// What was appended, for who wants to set the store back.
    done: Mutex<Vec<Appended>>,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn memory() -> MemoryStore {
    MemoryStore::new(clock(), 100_000, StoreCounters::default())
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(memory()),
            mode: Mutex::new(Mode::Up),
            rivals: AtomicUsize::new(0),
            memory: AtomicUsize::new(1),
            cut: Mutex::default(),
            asked: tokio::sync::Notify::new(),
            done: Mutex::default(),
        })
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock().expect("no panic") = mode;
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().expect("no panic")
    }

    fn call<T: Send + 'static>(&self, call: impl FnOnce(&dyn Chains) -> Call<T>) -> Call<T> {
        if self.mode() == Mode::Gone {
            return Box::pin(std::future::ready(Err(StoreFailure::Unreachable("gone".into()))));
        }
        if self.mode() == Mode::Hung {
            return hung();
        }
        if self.mode() == Mode::Never {
            return self.never();
        }
        call(self.inner.lock().expect("no panic").chains().expect("chains"))
    }

    fn never<T: Send + 'static>(&self) -> Call<T> {
        self.asked.notify_one();
        Box::pin(std::future::pending())
    }

    pub async fn records(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for segment in 0..4 {
            let call = self.call(|chains| chains.records(&chain(), segment, 0, 100_000));
            all.extend(call.await.expect("records"));
        }
        all
    }
}

/// What a call gives that waits for nothing.
fn now<T>(mut call: Call<T>) -> Result<T, StoreFailure> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("memory does not wait"),
    }
}

impl Faulty {
    /// So many appends lose their race.
    pub fn rivals(&self, count: usize) {
        self.rivals.store(count, Ordering::SeqCst);
    }

    /// The records behind that many of a segment are gone, and the head is as it was.
    pub fn cut(&self, left: Option<u64>) {
        *self.cut.lock().expect("no panic") = left;
    }

    /// Somebody writes to the store by hand.
    pub fn tamper(&self, how: impl FnOnce(&mut Shelf)) {
        self.inner.lock().expect("no panic").memory_chains().tamper(&chain(), how);
    }

    /// How many appends were done.
    pub fn appends(&self) -> usize {
        self.done.lock().expect("no panic").len()
    }

    /// Somebody who may write to the store appends the event, canonical and linked, with that signature on it.
    pub fn forge(&self, event: Event, seal: &Forged) {
        let expected = now(self.place(&chain())).expect("a place");
        let made =
            |signer: &dyn Signer, events: &[Event]| batch(&chain(), expected.head, events, signer);
        let line = match seal {
            // The last of a batch is signed, the first is not.
            Forged::Unsigned => {
                made(&TestSigner(1), &[event, self::event("another")]).lines.swap_remove(0)
            }
            Forged::By(signer) => made(signer, &[event]).lines.swap_remove(0),
        };
        let hash = Record::read(&line.bytes).expect("a record").hash;
        let (segment, lines) = (expected.segment, vec![line]);
        let forged = Appended { start: expected, segment, ids_from: 0, hash, lines };
        let done = now(self.append(&chain(), &forged.call(expected)));
        assert!(matches!(done, Ok(Outcome::Done(_))), "{done:?}");
    }

    /// As after a loss of power: only the first appends are left.
    pub fn set_back(&self, to: usize) {
        let mut done = self.done.lock().expect("no panic");
        done.truncate(to);
        let fresh = memory();
        for one in done.iter() {
            let chains = fresh.chains().expect("chains");
            let outcome = now(chains.append(&chain(), &one.call(one.start)));
            assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
        }
        *self.inner.lock().expect("no panic") = fresh;
    }
}

impl Chains for Faulty {
    fn append(&self, chain: &ChainName, append: &Append<'_>) -> Call<Outcome> {
        if self.mode() == Mode::Hung {
            return hung();
        }
        if self.mode() == Mode::Never {
            return self.never();
        }
        let rivals = self.rivals.load(Ordering::SeqCst);
        if rivals > 0 {
            self.rivals.store(rivals - 1, Ordering::SeqCst);
            let event = event(&format!("rival-{rivals}"));
            let made = batch(chain, append.expected.head, &[event], &TestSigner(1));
            let first = Append { hash: made.head.hash, lines: &made.lines, ..*append };
            drop(self.call(|chains| chains.append(chain, &first)));
        }
        let call = self.call(|chains| chains.append(chain, append));
        let Append { expected, segment, ids_from, hash, lines, .. } = *append;
        let appended = Appended { start: expected, segment, ids_from, hash, lines: lines.to_vec() };
        // Memory answers at once, and a call that is only polled later would be done later.
        let outcome = now(call);
        if matches!(outcome, Ok(Outcome::Done(_))) {
            self.done.lock().expect("no panic").push(appended);
        }
        if self.mode() == Mode::Slow {
            return Box::pin(async {
                as_told(Duration::from_secs(1)).await;
                outcome
            });
        }
        let mute = self.mode() == Mode::Mute;
        Box::pin(std::future::ready(if mute { Err(StoreFailure::Timeout) } else { outcome }))
    }

    fn memory(&self, _: &ChainName) -> Option<u64> {
        Some(u64::try_from(self.memory.load(Ordering::SeqCst)).expect("small"))
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
        if self.mode() == Mode::Blind {
            return Box::pin(std::future::ready(Err(StoreFailure::Timeout)));
        }
        let cut = *self.cut.lock().expect("no panic");
        let count = count.min(cut.unwrap_or(u64::MAX).saturating_sub(from));
        if count == 0 {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        self.call(|chains| chains.records(chain, segment, from, count))
    }
}

/// What a store waits for an answer.
const TIMEOUT: Duration = Duration::from_millis(250);

fn hung<T: Send + 'static>() -> Call<T> {
    Box::pin(async {
        as_told(TIMEOUT).await;
        Err(StoreFailure::Timeout)
    })
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

/// How a record that no gateway appended is signed.
pub enum Forged {
    Unsigned,
    By(FalseSigner),
}

/// Signs with one key under the version of another.
pub struct FalseSigner {
    pub key: u32,
    pub version: u32,
}

impl Signer for FalseSigner {
    fn version(&self) -> KeyVersion {
        KeyVersion(self.version)
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        TestSigner(self.key).sign(message)
    }
}

/// Its key is its version, over and over.
pub struct TestSigner(pub u32);

impl TestSigner {
    fn key(&self) -> SigningKey {
        SigningKey::from_bytes(&[u8::try_from(self.0).expect("small"); 32])
    }
}

impl Signer for TestSigner {
    fn version(&self) -> KeyVersion {
        KeyVersion(self.0)
    }
    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key().sign(message).to_bytes()
    }
}

/// The keys 1 and 2.
pub fn ring() -> KeyRing {
    let key = |number: u32| {
        let public = TestSigner(number).key().verifying_key().to_bytes();
        (KeyVersion(number), Key { public, revoked: None })
    };
    KeyRing { chain: chain(), keys: [key(1), key(2)].into(), checkpoint_keys: Vec::new() }
}

pub fn chain() -> ChainName {
    ChainName::new("eu").expect("a name")
}

pub fn event(id: &str) -> Event {
    let text = format!(
        r#"{{"action":"admin","actor":"a","detail":"","id":"{id}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
    );
    Event::read(text.as_bytes()).expect("an event")
}

pub fn open(store: &Arc<Faulty>, dir: &Path) -> ChainEnd {
    open_with(store, dir, 1_000_000)
}

pub fn open_with(store: &Arc<Faulty>, dir: &Path, spool_bytes_max: u64) -> ChainEnd {
    open_counted(store, dir, spool_bytes_max, ChainCounters::default())
}

pub fn open_counted(
    store: &Arc<Faulty>,
    dir: &Path,
    spool_bytes_max: u64,
    counters: ChainCounters,
) -> ChainEnd {
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    let parts = Parts {
        chain: chain(),
        store,
        signer: shared(Arc::new(TestSigner(1))),
        keys: Arc::new(RwLock::new(Arc::new(ring()))),
        clock: clock(),
        spool: Spool::open(dir, spool_bytes_max).expect("a spool"),
        mark: Mark::in_dir(dir),
        ring: Ring::open(dir).expect("a ring"),
        counters,
    };
    ChainEnd::open(parts).expect("opened")
}

/// One that was there before the first record.
pub async fn begin(store: &Arc<Faulty>, dir: &Path) -> ChainEnd {
    let mut end = open(store, dir);
    end.retry().await;
    end
}

pub async fn verify(store: &Faulty) -> (Report, Vec<String>) {
    let ring = ring();
    let mut verifier = Verifier::new(&ring, &Ed25519);
    verifier.accept_rollbacks();
    let mut ids = Vec::new();
    for record in store.records().await {
        ids.push(Record::read(&record).expect("a record").id);
        verifier.push(&record);
    }
    (verifier.finish(None), ids)
}

pub fn world() -> (Arc<Faulty>, TempDir) {
    (Faulty::new(), tempfile::tempdir().expect("a folder"))
}

/// Longer than whoever begins leaves others time.
const BEGINS: Duration = Duration::from_micros(BEGINS_US + COUNTS_US);

/// Time that passes while the gateways look.
pub async fn looks(ends: &mut [&mut ChainEnd], how_long: Duration) {
    let step = Duration::from_micros(COUNTS_US);
    for _ in 0..how_long.as_micros().div_ceil(step.as_micros()) {
        tokio::time::advance(step).await;
        for end in &mut *ends {
            end.retry().await;
        }
    }
}

pub async fn commit(end: &mut ChainEnd, ids: &[&str]) -> Accepted {
    end.commit(ids.iter().map(|id| event(id)).collect()).await.expect("not lost")
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_run_again_behind_the_winner() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let clock = clock();
    store.rivals.store(races::AT_ONCE_MAX, Ordering::SeqCst);
    assert_eq!(commit(&mut end, &["a", "b"]).await, Accepted::Chained);
    assert_eq!(clock.elapsed_us(), 0, "at once");
    assert_eq!(end.counters.races_lost.get(), 6);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len()), (Verdict::Valid, 8), "{report:?}");
    assert_eq!(ids[6..], ["a", "b"]);
}

/// A filter keeps what it heard no answer for, and sends it again whenever a gateway can be reached.
#[tokio::test]
async fn an_old_event_that_comes_again_is_found_behind_many_others() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let at = |id: &str, ts_ms: u64| {
        let text = String::from_utf8(event(id).bytes()).expect("UTF-8");
        Event::read(text.replace(r#""ts":1,"#, &format!(r#""ts":{ts_ms},"#)).as_bytes())
            .expect("an event")
    };
    let now_ms = clock().unix_us() / 1_000;
    let old = at("old", now_ms - OLD_MS);
    end.commit(vec![old.clone()]).await.expect("not lost");
    for batch in 0..400 {
        let events = (0..64).map(|n| at(&format!("{batch}-{n}"), now_ms)).collect();
        end.commit(events).await.expect("not lost");
    }
    end.commit(vec![old]).await.expect("not lost");
    let ids = store.records().await.len();
    assert_eq!(ids, 1 + 400 * 64, "three segments later it is known");
}

#[tokio::test(start_paused = true)]
async fn whoever_always_loses_spools_and_drains_in_order() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let clock = clock();
    store.rivals.store(races::ATTEMPTS_MAX, Ordering::SeqCst);
    assert_eq!(commit(&mut end, &["a"]).await, Accepted::Spooled);
    // Up to 10, 20 and 40 ms, and a ms for each, in which tokio counts.
    assert!((1..=73_000).contains(&clock.elapsed_us()), "{}", clock.elapsed_us());
    assert!(end.has_spooled());
    assert_eq!(commit(&mut end, &["b"]).await, Accepted::Chained);
    let (report, ids) = verify(&store).await;
    assert_eq!(
        (report.verdict, &ids[races::ATTEMPTS_MAX..]),
        (Verdict::Valid, &["a".to_owned(), "b".into()][..])
    );
}

#[tokio::test(start_paused = true)]
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
    looks(&mut [&mut end], BEGINS).await;
    assert_eq!(commit(&mut end, &["e"]).await, Accepted::Chained);
    assert!(!end.has_spooled());
    assert_eq!(end.counters.spool_bytes.get(), 0);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcde".to_owned()));
}

/// The reply was lost, or the gateway died before it could acknowledge: the event comes again.
#[tokio::test(start_paused = true)]
async fn an_append_whose_reply_was_lost_is_not_doubled() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut other = begin(&store, elsewhere.path()).await;
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    store.set(Mode::Mute);
    assert_eq!(commit(&mut end, &["b", "c"]).await, Accepted::Spooled);
    store.set(Mode::Up);
    assert_eq!(commit(&mut end, &["d"]).await, Accepted::Chained);
    assert_eq!(end.counters.duplicates.get(), 2);
    // Killed between append and acknowledgement: whoever waited asks again, another gateway too.
    drop(end);
    for end in [&mut open(&store, dir.path()), &mut other] {
        looks(&mut [end], BEGINS).await;
        assert_eq!(commit(end, &["c", "d"]).await, Accepted::Chained);
    }
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcd".to_owned()));
}

/// What comes in meanwhile would wait for it as well, batch by batch, until the queue is full.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_once() {
    let (store, dir) = world();
    let mut end = begin(&store, dir.path()).await;
    let clock = clock();
    store.set(Mode::Hung);
    for number in 0..20 {
        assert_eq!(commit(&mut end, &[&format!("e-{number}")]).await, Accepted::Spooled);
    }
    assert_eq!(clock.elapsed_us(), crate::clock::whole_us(TIMEOUT));
    // The question that is under way is asked again.
    for _ in 0..3 {
        tokio::time::advance(TIMEOUT).await;
        end.retry().await;
    }
    assert!(end.has_spooled() && end.looks_often());
    store.set(Mode::Up);
    for _ in 0..2 {
        tokio::time::advance(TIMEOUT).await;
        end.retry().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(commit(&mut end, &["last"]).await, Accepted::Chained);
    assert!(!end.has_spooled() && !end.looks_often());
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len(), &*ids[20]), (Verdict::Valid, 21, "last"));
}

/// Its store may have lost records a moment ago, and it is the only one that does not know.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_knows_too_little_of_a_chain_gives_others_time_to_put_records_back() {
    let rows = [
        ("new", BEGINS_US),
        ("away", GRACE_US),
        ("begins with a mark", BEGINS_US),
        ("stood still while the store was away", GRACE_US),
    ];
    for (what, grace_us) in rows {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let mut end = open(&store, dir.path());
        commit(&mut end, &["a"]).await;
        if what == "begins with a mark" {
            begin(&store, elsewhere.path()).await;
        }
        let mut fresh = open(&store, elsewhere.path());
        if what == "stood still while the store was away" {
            looks(&mut [&mut fresh], BEGINS).await;
            assert!(!fresh.looks_often());
        }
        commit(&mut end, &["b", "c"]).await;
        let before = store.records().await;
        store.set_back(1);
        if what == "stood still while the store was away" {
            store.memory.fetch_add(1, Ordering::SeqCst);
        }
        if what == "away" {
            store.set(Mode::Gone);
            fresh.retry().await;
            store.set(Mode::Up);
        }
        assert_eq!(commit(&mut fresh, &["d"]).await, Accepted::Spooled);
        // It stood still, and does not take the others for gone.
        tokio::time::advance(Duration::from_secs(60)).await;
        fresh.retry().await;
        let left = Duration::from_micros(grace_us - COUNTS_US - 1);
        looks(&mut [&mut fresh], left - Duration::from_micros(COUNTS_US)).await;
        end.retry().await;
        assert_eq!(store.records().await, before, "{what}");
        looks(&mut [&mut fresh], Duration::from_secs(1)).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcd".to_owned()));
    }
}

#[tokio::test]
async fn a_gateway_that_begins_a_chain_waits_for_nobody() {
    let (store, dir) = world();
    store.set(Mode::Gone);
    let mut end = open(&store, dir.path());
    assert_eq!(commit(&mut end, &["a"]).await, Accepted::Spooled);
    store.set(Mode::Up);
    assert_eq!(commit(&mut end, &["b"]).await, Accepted::Chained);
}

#[tokio::test]
async fn another_key_signs_from_the_next_batch_on() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    *end.signer.write().expect("no panic") = Some(Arc::new(TestSigner(2)));
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
async fn a_full_spool_is_an_answer_and_not_yet_a_loss() {
    let (store, dir) = world();
    let mut end = open_with(&store, dir.path(), 10);
    store.set(Mode::Gone);
    assert!(end.commit(vec![event("a")]).await.is_err());
    assert_eq!((end.counters.spool_full.get(), end.counters.dropped.get()), (1, 0));
}

/// What comes goes behind what waits, where there is room; without room it waits until there is.
#[tokio::test]
async fn a_full_spool_loses_nothing_any_more_once_the_store_takes_events() {
    let (store, dir) = world();
    let mut end = open_with(&store, dir.path(), 40_000);
    let mut expected = Vec::new();
    for number in 0..1_000 {
        let id = format!("e-{number}");
        if end.keep(vec![event(&id)]).await.is_err() {
            break;
        }
        expected.push(id);
    }
    assert_eq!(end.counters.spool_full.get(), 1);
    // A batch of the others gives no room for them.
    let large: Vec<String> = (0..BATCH_MAX).map(|n| format!("{n:0>120}")).collect();
    let ids: Vec<&str> = large.iter().map(String::as_str).collect();
    assert_eq!(commit(&mut end, &ids).await, Accepted::Chained);
    assert_eq!((end.has_spooled(), end.counters.spool_full.get()), (false, 0));
    expected.extend(large);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids), (Verdict::Valid, expected));
}

/// What was accepted and cannot be read any more is told by the chain.
#[tokio::test]
async fn what_the_disk_lost_is_counted_and_told() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    store.set(Mode::Gone);
    assert_eq!(commit(&mut end, &["a", "b"]).await, Accepted::Spooled);
    drop(end);
    let path = dir.path().join("spool.jsonl");
    let mut bytes = std::fs::read(&path).expect("read");
    let at = bytes.len() - 40;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    store.set(Mode::Up);
    let mut end = open(&store, dir.path());
    assert_eq!(end.counters.dropped.get(), 1);
    assert_eq!(commit(&mut end, &["c"]).await, Accepted::Chained);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, &ids[..2]), (Verdict::Valid, &["a".to_owned(), "c".into()][..]));
    assert!(ids.len() == 3 && ids[2].starts_with("loss-"), "{ids:?}");
}
