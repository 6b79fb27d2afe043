//! Tests of the continuous verification: when checkpoints are written, and how a chain is followed.

use std::path::Path;
use std::sync::RwLock;

use tidegate_policy::audit::keys::Revocation;
use tidegate_policy::audit::record::{Event, KeyVersion, Rollback};
use tidegate_policy::audit::value::Value;
use tidegate_policy::audit::{Action, AuditEvent, Durability, Thinning};
use tidegate_policy::scope::{Region, Tenant};

use super::*;
use crate::audit::chain_end::tests::{
    Faulty, Forged, Mode, begin, chain, event, looks, open, open_counted, ring, world,
};
use crate::audit::chain_end::{BATCH_MAX, ChainEnd, SEGMENT_MAX};
use crate::clock::SystemClock;
use crate::secret::Secret;

/// RFC 8410 §10.3: everybody knows it.
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

fn watch(store: &Arc<Faulty>, dir: &Path) -> (Watch, ChainCounters) {
    watch_by(store, dir, Arc::new(RwLock::new(Arc::new(ring()))))
}

fn watch_by(store: &Arc<Faulty>, dir: &Path, keys: SharedKeys) -> (Watch, ChainCounters) {
    let counters = ChainCounters::default();
    let notes = Notes::new(dir, "log.example/eu", &Secret::new(PEM)).expect("a key");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store: Arc<dyn Store> = Arc::<Faulty>::clone(store);
    let watch = Watch::new(chain(), store, keys, Some(notes), clock, counters.clone());
    (watch.expect("begun"), counters)
}

/// Appends the events from one number to another, the last one left out.
async fn append(end: &mut ChainEnd, from: u64, to: u64) {
    let ids: Vec<u64> = (from..to).collect();
    for batch in ids.chunks(BATCH_MAX) {
        let events = batch.iter().map(|id| event(&format!("e-{id}"))).collect();
        end.commit(events).await.expect("not lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_is_written_after_ten_seconds_or_a_thousand_records() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    let mut size = async || {
        watch.step().await.expect("the store answers");
        counters.checkpoint_size.get()
    };
    append(&mut end, 0, 999).await;
    assert_eq!(size().await, 0);
    tokio::time::advance(Duration::from_millis(9_000)).await;
    assert_eq!(size().await, 0, "not yet");
    append(&mut end, 999, 1_000).await;
    assert_eq!(size().await, 1_000);
    append(&mut end, 1_000, 1_001).await;
    assert_eq!(size().await, 1_000);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(size().await, 1_001);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(size().await, 1_001, "nothing new");
}

/// What came behind the last one may have waited for ten seconds already.
#[tokio::test(start_paused = true)]
async fn the_first_checkpoint_after_a_restart_does_not_wait() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let checkpoints = dir.path().join("checkpoints");
    let (mut before, _) = watch(&store, &checkpoints);
    append(&mut end, 0, 1_000).await;
    before.step().await.expect("the store answers");
    drop(before);
    append(&mut end, 1_000, 1_005).await;
    let (mut watch, counters) = watch(&store, &checkpoints);
    watch.step().await.expect("the store answers");
    assert_eq!(counters.checkpoint_size.get(), 1_005);
    append(&mut end, 1_005, 1_010).await;
    watch.step().await.expect("the store answers");
    assert_eq!(counters.checkpoint_size.get(), 1_005, "the next one does");
}

/// Each attempt is told by a critical line.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_is_tried_again_after_ten_seconds() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let checkpoints = dir.path().join("checkpoints");
    let (mut watch, counters) = watch(&store, &checkpoints);
    std::fs::remove_dir(&checkpoints).expect("removed");
    std::fs::write(&checkpoints, "no folder").expect("written");
    append(&mut end, 0, 3_000).await;
    for (advance_s, failures) in [(0, 1), (0, 1), (9, 1), (1, 2), (1, 2)] {
        tokio::time::advance(Duration::from_secs(advance_s)).await;
        watch.step().await.expect("the store answers");
        assert_eq!(counters.checkpoint_failures.get(), failures, "{advance_s}");
    }
    std::fs::remove_file(&checkpoints).expect("removed");
    std::fs::create_dir(&checkpoints).expect("made");
    tokio::time::advance(Duration::from_secs(10)).await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.checkpoint_size.get(), counters.checkpoint_failures.get()), (3_000, 2));
}

/// Checkpoints may be written milliseconds apart, and others have the turn for as long.
#[tokio::test(start_paused = true)]
async fn that_others_have_the_turn_is_told_once_and_only_after_ten_seconds() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let checkpoints = dir.path().join("checkpoints");
    let (mut watch, counters) = watch(&store, &checkpoints);
    let mut from = 0;
    for round in 0..2 {
        let turn = folder::Folder::at(&checkpoints).turn().expect("free");
        let others = [(0, 0), (0, 0), (9, 0), (1, 0), (1, 1), (30, 1)];
        for (advance_s, failures) in others {
            append(&mut end, from, from + 1_000).await;
            from += 1_000;
            tokio::time::advance(Duration::from_secs(advance_s)).await;
            watch.step().await.expect("the store answers");
            let seen = (counters.checkpoint_failures.get(), counters.checkpoint_size.get());
            assert_eq!(seen, (round + failures, i64::try_from(from).expect("small")));
        }
        drop(turn);
        watch.step().await.expect("the store answers");
        let newest = std::fs::read_to_string(checkpoints.join("checkpoint")).expect("there");
        assert_eq!(newest.lines().nth(1), Some(from.to_string().as_str()), "it was paid");
    }
}

/// Here a folder stands in the place of the newest.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_kept_counts_though_the_newest_cannot_be_replaced() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let checkpoints = dir.path().join("checkpoints");
    let (mut watch, counters) = watch(&store, &checkpoints);
    std::fs::create_dir(checkpoints.join("checkpoint")).expect("made");
    append(&mut end, 0, 1_000).await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.checkpoint_size.get(), counters.checkpoint_failures.get()), (1_000, 1));
}

/// The folder may be another machine's. The pipe in the place of the newest stands for it: who reads it waits until somebody
/// writes.
#[tokio::test]
async fn a_folder_that_stands_still_holds_up_neither_appends_nor_the_verification() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let checkpoints = dir.path().join("checkpoints");
    let (mut watch, counters) = watch(&store, &checkpoints);
    append(&mut end, 0, 1_000).await;
    watch.step().await.expect("the store answers");
    assert_eq!(counters.checkpoint_size.get(), 1_000);
    let newest = checkpoints.join("checkpoint");
    std::fs::remove_file(&newest).expect("removed");
    let made = std::process::Command::new("mkfifo").arg(&newest).status().expect("mkfifo");
    assert!(made.success());
    // Where all stands still nobody else could end it.
    let (goes_on, stands_still) = std::sync::mpsc::channel::<()>();
    let pipe = newest.clone();
    let watchdog = std::thread::spawn(move || {
        let is_stuck = stands_still.recv_timeout(Duration::from_secs(20)).is_err();
        std::fs::write(pipe, "").expect("somebody reads");
        is_stuck
    });
    append(&mut end, 1_000, 2_000).await;
    for to in [2_001, 2_002] {
        append(&mut end, to - 1, to).await;
        watch.step().await.expect("the store answers");
        let verified = counters.verified_seq.get();
        assert_eq!(
            (verified, counters.checkpoint_size.get()),
            (i64::try_from(to).expect("small"), 1_000)
        );
    }
    goes_on.send(()).expect("it listens");
    assert!(!watchdog.join().expect("no panic"), "all stood still");
    tidegate_tests::eventually(Duration::from_secs(20), "the checkpoint is written", async || {
        watch.step().await.expect("the store answers");
        let size = counters.checkpoint_size.get();
        if size >= 2_000 { Ok(()) } else { Err(size) }
    })
    .await;
}

/// All of the chain was taken away, and no gateway is left that knows of it.
#[tokio::test(start_paused = true)]
async fn a_chain_that_is_shorter_than_the_last_checkpoint_is_a_finding() {
    for is_back in [false, true] {
        let (store, dir) = world();
        let checkpoints = dir.path().join("checkpoints");
        let mut end = open(&store, dir.path());
        append(&mut end, 0, 1_000).await;
        let (mut before, _) = watch(&store, &checkpoints);
        before.step().await.expect("the store answers");
        let appends = store.appends();
        store.set_back(0);
        let elsewhere = tempfile::tempdir().expect("a folder");
        if !is_back {
            append(&mut open(&store, elsewhere.path()), 0, 10).await;
        }
        let (mut watch, counters) = watch(&store, &checkpoints);
        let first = if is_back { 1 } else { 11 };
        for _ in 0..3 {
            watch.step().await.expect("the store answers");
            assert_eq!((counters.findings.get(), counters.first_bad.get()), (1, first));
        }
        if is_back {
            end.retry().await;
            assert_eq!(store.appends(), appends);
            watch.step().await.expect("the store answers");
            assert_eq!((counters.findings.get(), counters.first_bad.get()), (0, 0));
        } else {
            append(&mut open(&store, elsewhere.path()), 10, 1_100).await;
            watch.step().await.expect("the store answers");
            assert!(counters.findings.get() > 0, "it is another chain");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_followed_from_segment_to_segment_and_read_again_from_the_start() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    let count = SEGMENT_MAX + 200;
    append(&mut end, 0, count).await;
    for _ in 0..40 {
        watch.step().await.expect("the store answers");
    }
    let seen = (counters.verified_seq.get(), counters.verify_lag.get(), counters.findings.get());
    assert_eq!(seen, (i64::try_from(count).expect("small"), 0, 0));
    assert!(counters.sweeps.get() > 1, "{}", counters.sweeps.get());
}

/// A user of Redis that may not read lists, a segment that is none.
#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_not_verified_and_that_shows() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    append(&mut end, 0, 200).await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.verified_seq.get(), counters.verify_lag.get()), (200, 0));
    store.set(Mode::Blind);
    for count in [300, 400] {
        append(&mut end, count - 100, count).await;
        watch.step().await.expect_err("nothing can be read");
        let lag = i64::try_from(count - 200).expect("small");
        assert_eq!((counters.verified_seq.get(), counters.verify_lag.get()), (200, lag));
    }
    store.set(Mode::Up);
    watch.step().await.expect("the store answers");
    assert_eq!((counters.verified_seq.get(), counters.verify_lag.get()), (400, 0));
}

/// The gateways that lost them put them back; until then they are a finding.
#[tokio::test(start_paused = true)]
async fn verified_records_that_are_gone_are_a_finding_until_they_are_back() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    append(&mut end, 0, 200).await;
    watch.step().await.expect("the store answers");
    let told = || (counters.findings.get(), counters.first_bad.get());
    assert_eq!(told(), (0, 0));
    // The first batch is left.
    store.set_back(1);
    watch.step().await.expect("the store answers");
    assert_eq!(told(), (1, 65));
    end.retry().await;
    watch.step().await.expect("the store answers");
    assert_eq!(told(), (0, 0), "all is back");
    assert_eq!(counters.verified_seq.get(), 200);
}

/// Whoever may write to the store appends without a key: each append of a gateway ends with a signature.
#[tokio::test(start_paused = true)]
async fn an_end_that_no_gateway_signed_is_a_finding_until_it_is_taken_away() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    append(&mut end, 0, 64).await;
    watch.step().await.expect("the store answers");
    store.forge(event("forged"), &Forged::Unsigned);
    for _ in 0..3 {
        watch.step().await.expect("the store answers");
        assert_eq!((counters.findings.get(), counters.first_bad.get()), (1, 65));
    }
    store.set_back(1);
    append(&mut end, 64, 65).await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.findings.get(), counters.verified_seq.get()), (0, 65));
}

/// A rollback excuses what is missing, so that whoever has made it missing would write one.
#[tokio::test(start_paused = true)]
async fn a_rollback_that_no_gateway_signed_accounts_for_nothing() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    append(&mut end, 0, 200).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    watch.step().await.expect("the store answers");
    store.set_back(1);
    watch.step().await.expect("the store answers");
    let there = Rollback { kept: 64, known: 200, common: 64 }.detail();
    store.forge(told(there), &Forged::Unsigned);
    for _ in 0..3 {
        watch.step().await.expect("the store answers");
        assert!(counters.findings.get() > 1, "missing, and forged");
        assert_eq!(counters.first_bad.get(), 65);
    }
    assert_eq!(watch.tail.verifier.so_far().rollbacks.len(), 0);
    assert_eq!(counters.checkpoint_size.get(), 200, "no other origin");
}

/// The event of a rollback record.
fn told(detail: Value) -> Event {
    let told = AuditEvent {
        id: "rollback-x".to_owned(),
        ts_ms: 1,
        region: Region::new("eu").expect("a region"),
        actor: "gateway".to_owned(),
        tenant: Tenant::None,
        action: Action::Rollback,
        outcome: "ok".to_owned(),
        detail: String::new(),
        durability: Durability::Async,
        thinning: Thinning::Each,
        about: Vec::new(),
        basis: tidegate_policy::audit::Basis::default(),
    };
    Event::with_detail(&told, detail).expect("sound")
}

/// All is read again, and nobody has signed anything more.
#[tokio::test(start_paused = true)]
async fn a_signature_by_a_revoked_key_is_counted_once_however_often_it_is_read() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    append(&mut end, 0, 200).await;
    let mut ring = ring();
    let key = ring.keys.get_mut(&KeyVersion(1)).expect("the key that signs");
    key.revoked = Some(Revocation { after_seq: None, reason: String::new() });
    let keys: SharedKeys = Arc::new(RwLock::new(Arc::new(ring)));
    let (mut watch, counters) = watch_by(&store, &dir.path().join("checkpoints"), keys);
    watch.step().await.expect("the store answers");
    assert_eq!(counters.revoked_usage.get(), 4);
    // The first batch is left, and the others are put back.
    store.set_back(1);
    watch.step().await.expect("the store answers");
    end.retry().await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.verified_seq.get(), counters.revoked_usage.get()), (200, 4));
}

/// The keys 1 and 2, or but one of them.
fn only(version: u32) -> Arc<KeyRing> {
    let mut ring = ring();
    ring.keys.retain(|held, _| held.0 == version);
    Arc::new(ring)
}

/// A new key reaches one gateway before the other.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_known_is_a_finding_after_a_while_and_until_it_comes() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    append(&mut end, 0, 100).await;
    let keys: SharedKeys = Arc::new(RwLock::new(only(2)));
    let folder = dir.path().join("checkpoints");
    let (mut watch, counters) = watch_by(&store, &folder, Arc::clone(&keys));
    let mut told = async || {
        watch.step().await.expect("the store answers");
        let verified = counters.verified_seq.get();
        (counters.findings.get() > 0, counters.first_bad.get(), verified)
    };
    assert_eq!(told().await, (false, 0, 63), "not yet");
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(told().await, (false, 0, 63), "not yet");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(told().await, (true, 64, 63));
    *keys.write().expect("no panic") = Arc::new(ring());
    assert_eq!(told().await, (false, 0, 100), "it came");
    assert_eq!(counters.sweeps.get(), 1);
    // The next one has as long.
    *keys.write().expect("no panic") = only(2);
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(told().await, (false, 0, 100));
}

#[tokio::test(start_paused = true)]
async fn what_else_is_wrong_beside_a_key_that_is_not_known_is_a_finding_at_once() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    append(&mut end, 0, 64).await;
    let keys: SharedKeys = Arc::new(RwLock::new(only(2)));
    let folder = dir.path().join("checkpoints");
    let (mut watch, counters) = watch_by(&store, &folder, keys);
    watch.step().await.expect("the store answers");
    assert_eq!(counters.findings.get(), 0);
    let line = store.records().await.pop().expect("a record");
    watch.tail.verifier.push(&line);
    watch.show(64);
    assert!(counters.findings.get() > 0, "a record that stands twice");
}

/// Whoever deletes the newest list, or cuts off its end, leaves the head as it is.
#[tokio::test(start_paused = true)]
async fn records_that_the_head_counts_and_the_store_does_not_hold_are_a_finding() {
    for left in [0, 70] {
        let (store, dir) = world();
        let mut end = open(&store, dir.path());
        let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
        append(&mut end, 0, 200).await;
        let mut told = async || {
            watch.step().await.expect("the store answers");
            (counters.findings.get(), counters.first_bad.get(), counters.sweeps.get())
        };
        assert_eq!(told().await, (0, 0, 1));
        store.cut(Some(left));
        for _ in 0..5 {
            told().await;
        }
        let first = i64::try_from(left).expect("small") + 1;
        assert_eq!(told().await, (1, first, 1), "and no sweep is whole");
        store.cut(None);
        told().await;
        assert_eq!(told().await, (0, 0, 3), "all is back");
    }
}

/// It began to verify afterwards.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_comes_later_finds_it_too() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    append(&mut end, 0, 200).await;
    store.cut(Some(0));
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    watch.step().await.expect("the store answers");
    assert_eq!((counters.findings.get(), counters.first_bad.get()), (1, 1));
    assert_eq!(counters.sweeps.get(), 0);
}

/// The store lost records under a checkpoint, and a gateway that did not know them appended in their places.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_records_whose_places_others_took_is_no_tampering_for_ever() {
    for is_started_anew in [false, true] {
        let (store, dir) = world();
        let (notes, elsewhere) = (dir.path().join("checkpoints"), dir.path().join("elsewhere"));
        let (mut a, mut c) = (begin(&store, dir.path()).await, begin(&store, &elsewhere).await);
        let (mut first, mut counters) = watch(&store, &notes);
        append(&mut a, 0, 7).await;
        c.retry().await;
        append(&mut a, 7, 17).await;
        tokio::time::advance(Duration::from_secs(10)).await;
        first.step().await.expect("the store answers");
        assert_eq!(counters.checkpoint_size.get(), 17);
        store.set_back(1);
        append(&mut c, 100, 119).await;
        first.step().await.expect("the store answers");
        assert!(counters.findings.get() > 0, "nobody has said yet that they are lost");
        for _ in 0..3 {
            a.retry().await;
            looks(&mut [&mut a], Duration::from_secs(11)).await;
        }
        let records = store.records().await;
        let told = Record::read(&records[26]).expect("a record").rollback;
        assert_eq!(told, Some(Rollback { kept: 26, known: 17, common: 7 }));
        if is_started_anew {
            (first, counters) = watch(&store, &notes);
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        for _ in 0..2 {
            first.step().await.expect("the store answers");
        }
        assert_eq!((counters.findings.get(), counters.first_bad.get()), (0, 0));
        assert_eq!(counters.checkpoint_size.get(), 37, "anew: {is_started_anew}");
    }
}

/// The records were back before the verification looked again: the alarm waits for it, and for a new reading of them.
#[tokio::test(start_paused = true)]
async fn the_alarm_stays_until_what_came_back_was_verified() {
    let (store, dir) = world();
    let (mut watch, counters) = watch(&store, &dir.path().join("checkpoints"));
    let mut end = open_counted(&store, dir.path(), 1_000_000, counters.clone());
    end.retry().await;
    append(&mut end, 0, 200).await;
    watch.step().await.expect("the store answers");
    assert_eq!((counters.verified_seq.get(), counters.rollback.get()), (200, 0));
    store.set_back(2);
    looks(&mut [&mut end], Duration::from_secs(15)).await;
    assert_eq!((end.is_set_back(), counters.repaired.get()), (false, 1));
    let alarm = || (counters.rollback.get(), counters.rollback.raised().get());
    assert_eq!(alarm(), (1, 1));
    watch.step().await.expect("the store answers");
    assert_eq!((alarm(), counters.verified_seq.get()), ((0, 1), 200));
}
