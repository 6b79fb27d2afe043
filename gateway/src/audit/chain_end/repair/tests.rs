//! Tests of chains whose store was set back: pieces that are put back, pieces that are missing.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tempfile::TempDir;
use tidegate_policy::audit::record::Event;
use tidegate_policy::audit::verify::Verdict;
use tidegate_tests::eventually;

use super::super::own_time::COUNTS_US;
use super::super::tests::{Faulty, Mode, begin, chain, commit, event, looks, open, verify, world};
use super::super::{Accepted, ChainEnd};
use super::*;
use crate::audit::spool::Spool;
use crate::store::chains::Chains;

/// Longer than a missing piece is waited for, and than others are where nothing is missing.
const PATIENCE: Duration = Duration::from_micros(PATIENCE_US + COUNTS_US);
const GRACE: Duration = Duration::from_micros(GRACE_US + COUNTS_US);
const WAIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.retain(|id| !id.starts_with("rollback-"));
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn what_the_store_lost_comes_back_in_the_same_bytes() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (mut a, mut b) = (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
    for (end, id) in [(0, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "e"), (0, "f")] {
        commit(if end == 0 { &mut a } else { &mut b }, &[id]).await;
    }
    let before = store.records().await;
    store.set_back(2);
    // a has the first piece and then has to wait for b, which has nothing to append.
    assert_eq!(commit(&mut a, &["g"]).await, Accepted::Spooled);
    a.retry().await;
    assert_eq!((a.counters.rollback.get(), store.records().await.len()), (1, 3));
    b.retry().await;
    assert_eq!(store.records().await.len(), 4);
    a.retry().await;
    assert_eq!(commit(&mut b, &["h"]).await, Accepted::Spooled, "others may have pieces, too");
    assert_eq!(store.records().await, before);
    looks(&mut [&mut a], GRACE).await;
    looks(&mut [&mut b], GRACE).await;
    assert_eq!((a.counters.rollback.get(), b.counters.rollback.get()), (0, 0));
    let after = store.records().await;
    assert_eq!(&after[..6], &before[..], "bytes, numbers and signatures are the same");
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcdefgh".to_owned()));
    assert_eq!((a.counters.put_back.get(), b.counters.put_back.get()), (3, 1));
    assert_eq!((a.counters.origins.get(), report.rollbacks.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn where_a_piece_is_missing_the_chain_goes_on_under_a_new_origin() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (mut a, mut b) = (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
    commit(&mut a, &["a"]).await;
    commit(&mut b, &["b"]).await;
    commit(&mut a, &["c"]).await;
    // b dies together with the store, and its disk comes back without what it wrote last.
    drop(b);
    for name in ["recent", "recent-before"] {
        std::fs::write(elsewhere.path().join(name), "").expect("written");
    }
    store.set_back(1);
    assert_eq!(commit(&mut a, &["d"]).await, Accepted::Spooled);
    a.retry().await;
    assert_eq!((a.counters.rollback.get(), store.records().await.len()), (1, 1), "it waits for b");
    looks(&mut [&mut a], PATIENCE).await;
    a.retry().await;
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, report.rollbacks), (Verdict::Valid, vec![2]));
    assert_eq!(sorted(ids), ["a", "c", "d"], "what a had is there once");
    assert_eq!((a.counters.rollback.get(), a.counters.origins.get()), (0, 1));
    // b comes back with its mark: it accepts the new origin.
    let mut b = open(&store, elsewhere.path());
    assert_eq!(commit(&mut b, &["e"]).await, Accepted::Spooled);
    b.retry().await;
    assert_eq!((b.counters.rollback.get(), b.counters.origins.get()), (0, 0));
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, report.rollbacks), (Verdict::Valid, vec![2]));
    assert_eq!(sorted(ids), ["a", "c", "d", "e"]);
}

/// What is taken out of the ring has to be on the disk elsewhere: the rollback record is in the chain already, and
/// whatever ends the gateway now must not end its events.
#[tokio::test(start_paused = true)]
async fn lost_events_stay_in_the_ring_until_the_spool_has_them() {
    for is_killed in [false, true] {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let (mut a, mut b) =
            (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
        commit(&mut a, &["a"]).await;
        commit(&mut b, &["b"]).await;
        commit(&mut a, &["c", "d"]).await;
        drop(b);
        store.set_back(1);
        let no_room = Spool::open(&dir.path().join("full"), 10).expect("a spool");
        let room = std::mem::replace(&mut a.spool, Arc::new(Mutex::new(no_room)));
        looks(&mut [&mut a], PATIENCE).await;
        for _ in 0..3 {
            a.retry().await;
            assert!(a.is_set_back(), "it does not go on without its events");
            assert_eq!((a.counters.spool_full.get(), a.counters.dropped.get()), (1, 0));
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        if is_killed {
            a = open(&store, dir.path());
        } else {
            a.spool = room;
        }
        a.retry().await;
        a.retry().await;
        assert!(!a.is_set_back() && !a.has_spooled());
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, report.rollbacks), (Verdict::Valid, vec![2]));
        assert_eq!(sorted(ids), ["a", "c", "d"], "killed: {is_killed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_began_anew_is_noticed_by_who_has_only_the_mark() {
    let (store, dir) = world();
    commit(&mut open(&store, dir.path()), &["a", "b"]).await;
    store.set_back(0);
    let other = tempfile::tempdir().expect("a folder");
    commit(&mut open(&store, other.path()), &["x", "y", "z"]).await;
    let mut again = open(&store, dir.path());
    assert_eq!(commit(&mut again, &["c"]).await, Accepted::Spooled);
    assert_eq!((again.counters.rollback.get(), store.records().await.len()), (1, 3));
    // An outage does not look like a repair.
    store.set(Mode::Gone);
    again.retry().await;
    store.set(Mode::Up);
    assert_eq!(again.counters.rollback.get(), 1);
    looks(&mut [&mut again], PATIENCE).await;
    again.retry().await;
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, report.rollbacks), (Verdict::Valid, vec![4]));
    assert_eq!(sorted(ids), ["a", "b", "c", "x", "y", "z"], "what was lost comes again");
}

/// It lost a race against the chain that took the place of its records, and appended behind it before it looked.
#[tokio::test(start_paused = true)]
async fn lost_events_are_found_before_an_append_that_is_in_the_chain() {
    let (store, dir) = world();
    let other = tempfile::tempdir().expect("a folder");
    let (mut a, mut b) = (begin(&store, dir.path()).await, begin(&store, other.path()).await);
    commit(&mut b, &["a"]).await;
    commit(&mut a, &["b"]).await;
    store.set_back(1);
    for id in ["x", "y", "z"] {
        commit(&mut b, &[id]).await;
    }
    assert_eq!(commit(&mut a, &["c"]).await, Accepted::Spooled);
    assert_eq!((a.counters.rollback.get(), store.records().await.len()), (1, 5));
    looks(&mut [&mut a], PATIENCE).await;
    a.retry().await;
    let (report, ids) = verify(&store).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!(sorted(ids), ["a", "b", "c", "x", "y", "z"]);
}

/// Each second somebody appends who knew no more than what was left: the places of the lost records are taken, and
/// the chain never stands still.
#[tokio::test(start_paused = true)]
async fn a_chain_that_goes_on_without_its_lost_records_is_given_up_in_time_and_once() {
    for is_killed in [false, true] {
        let (store, dir) = world();
        let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
        let mut a = begin(&store, dir.path()).await;
        let mut other = begin(&store, dirs[0].path()).await;
        let mut b = begin(&store, dirs[1].path()).await;
        commit(&mut b, &["a"]).await;
        commit(&mut a, &["b"]).await;
        b.retry().await;
        for id in ["c", "d"] {
            commit(&mut a, &[id]).await;
            commit(&mut other, &[&format!("{id}-other")]).await;
        }
        store.set_back(2);
        commit(&mut b, &["x-0"]).await;
        if is_killed {
            // Of what it had seen only the mark and its own appends are left.
            a = open(&store, dir.path());
        }
        let mut took_s = 0;
        for second in 1..40 {
            assert_eq!(commit(&mut b, &[&format!("x-{second}")]).await, Accepted::Chained);
            // When it is time, others are faster than the rollback record.
            store.rivals(if second == 11 { 15 } else { 0 });
            looks(&mut [&mut a, &mut other], SECOND).await;
            if !a.is_set_back() && !other.is_set_back() {
                took_s = second;
                break;
            }
        }
        assert!((10..=12).contains(&took_s), "killed: {is_killed}, {took_s} s");
        commit(&mut a, &["e"]).await;
        let (report, mut ids) = verify(&store).await;
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 1), "{report:?}");
        let records = store.records().await;
        let told = records.iter().find_map(|bytes| Record::read(bytes).expect("a record").rollback);
        let told = told.expect("a rollback");
        assert_eq!((told.common, told.known >= 5), (2, true), "{told:?}");
        ids.retain(|id| !id.starts_with("x-") && !id.starts_with("rival-"));
        assert_eq!(sorted(ids), ["a", "b", "c", "c-other", "d", "d-other", "e"]);
    }
}

/// They come one every four seconds; until all are there the chain is not as this gateway knew it, and nothing of its
/// own fits.
#[tokio::test(start_paused = true)]
async fn records_that_others_put_back_slowly_are_waited_for() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut a = begin(&store, dir.path()).await;
    let mut b = begin(&store, elsewhere.path()).await;
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        commit(&mut b, &[id]).await;
    }
    commit(&mut a, &["h"]).await;
    let before = store.records().await;
    store.set_back(1);
    for piece in b.ring.appends().skip(1) {
        a.retry().await;
        assert!(a.is_set_back());
        let there = store.place(&chain()).await.expect("a place");
        let done = store.append(&chain(), &piece.call(there)).await;
        assert!(matches!(done, Ok(Outcome::Done(_))), "{done:?}");
        looks(&mut [&mut a], 4 * SECOND).await;
    }
    a.retry().await;
    assert_eq!(store.records().await, before);
    looks(&mut [&mut a], GRACE).await;
    assert_eq!((a.is_set_back(), a.counters.origins.get()), (false, 0));
}

/// Far from the missing records somebody appends who knows of no loss: it looks like records that are put back.
#[tokio::test(start_paused = true)]
async fn a_chain_that_only_grows_towards_its_lost_records_is_given_up_after_a_minute() {
    let (store, dir) = world();
    let dirs = [(), ()].map(|()| tempfile::tempdir().expect("a folder"));
    let mut a = begin(&store, dir.path()).await;
    let mut b = begin(&store, dirs[0].path()).await;
    commit(&mut b, &["a"]).await;
    let many: Vec<Event> = (0..200).map(|number| event(&format!("m-{number}"))).collect();
    let mut dies = begin(&store, dirs[1].path()).await;
    looks(&mut [&mut dies], 2 * SECOND).await;
    for some in many.chunks(BATCH_MAX) {
        dies.commit(some.to_vec()).await.expect("not lost");
    }
    drop(dies);
    commit(&mut a, &["b"]).await;
    store.set_back(1);
    let mut took_s = 0;
    for second in 0..100 {
        commit(&mut b, &[&format!("x-{second}")]).await;
        a.retry().await;
        if !a.is_set_back() {
            took_s = second;
            break;
        }
        looks(&mut [&mut a], SECOND).await;
    }
    assert!((60..=62).contains(&took_s), "{took_s} s");
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 1), "{report:?}");
    assert_eq!(ids.iter().filter(|id| *id == "b").count(), 1);
}

/// The store fails again: whoever has pieces has as long for them as before.
#[tokio::test(start_paused = true)]
async fn the_time_for_missing_records_begins_anew_when_the_store_fails_again() {
    type Fails = fn(&Faulty);
    let gone: Fails = |store| store.set(Mode::Gone);
    let set_back: Fails = |store| store.set_back(1);
    for (what, fails) in [("gone", gone), ("set back", set_back)] {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let mut a = begin(&store, dir.path()).await;
        let mut b = begin(&store, elsewhere.path()).await;
        commit(&mut b, &["a"]).await;
        commit(&mut b, &["b"]).await;
        commit(&mut a, &["c"]).await;
        commit(&mut b, &["d"]).await;
        commit(&mut a, &["e"]).await;
        store.set_back(2);
        for id in ["x", "y"] {
            b.known = None;
            (b.unsure, b.grace_us) = (true, None);
            commit(&mut b, &[id]).await;
        }
        a.retry().await;
        looks(&mut [&mut a], 9 * SECOND).await;
        fails(&store);
        a.retry().await;
        store.set(Mode::Up);
        for _ in 0..9 {
            looks(&mut [&mut a], SECOND).await;
            assert!(a.is_set_back(), "{what}");
        }
        looks(&mut [&mut a], 2 * SECOND).await;
        assert!(!a.is_set_back(), "{what}");
        let (report, _) = verify(&store).await;
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 1), "{what}");
    }
}

/// The store ends between an append that was a second try and the look whether the chain is still the same.
#[tokio::test(start_paused = true)]
async fn an_append_that_is_not_known_to_be_in_the_chain_is_missed_when_it_is_lost() {
    let (store, dir) = world();
    let mut end = open(&store, dir.path());
    commit(&mut end, &["a"]).await;
    store.rivals(1);
    store.set(Mode::Blind);
    assert_eq!(commit(&mut end, &["b"]).await, Accepted::Spooled);
    assert_eq!(store.appends(), 2);
    store.set(Mode::Up);
    store.set_back(1);
    looks(&mut [&mut end], PATIENCE).await;
    end.retry().await;
    let (report, ids) = verify(&store).await;
    assert_eq!(report.verdict, Verdict::Valid, "{report:?}");
    assert_eq!(ids.iter().filter(|id| *id == "b").count(), 1, "{ids:?}");
}

/// Nobody else had a chance to put back what is missing while the machine stood still.
#[tokio::test(start_paused = true)]
async fn time_in_which_a_gateway_stood_still_counts_for_nobody() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (mut a, mut b) = (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
    commit(&mut b, &["a"]).await;
    commit(&mut b, &["b"]).await;
    commit(&mut a, &["c"]).await;
    let before = store.records().await;
    store.set_back(1);
    looks(&mut [&mut a], 8 * SECOND).await;
    for _ in 0..5 {
        tokio::time::advance(60 * SECOND).await;
        a.retry().await;
        assert!(a.is_set_back());
    }
    b.retry().await;
    a.retry().await;
    assert_eq!(store.records().await, before);
    looks(&mut [&mut a, &mut b], GRACE).await;
    assert_eq!((a.is_set_back(), a.counters.origins.get()), (false, 0));
}

/// Redis had done it and was slow to say so; another gateway appended behind it, and then the power failed.
#[tokio::test(start_paused = true)]
async fn an_append_whose_reply_was_lost_is_put_back_like_the_others() {
    for (what, ids) in [
        ("it knows nothing of the loss", &["a", "b", "c"][..]),
        ("it has looked before", &["a", "b", "c"][..]),
        ("its own is lost too", &["a", "own", "b", "c"]),
    ] {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let (mut a, mut b) =
            (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
        commit(&mut a, &["a"]).await;
        if what == "its own is lost too" {
            commit(&mut a, &["own"]).await;
        }
        store.set(Mode::Mute);
        assert_eq!(commit(&mut a, &["b"]).await, Accepted::Spooled);
        store.set(Mode::Up);
        commit(&mut b, &["c"]).await;
        if what == "it has looked before" {
            a.place().await.expect("nothing is wrong");
        }
        let before = store.records().await;
        store.set(Mode::Gone);
        looks(&mut [&mut a, &mut b], SECOND).await;
        store.set(Mode::Up);
        store.set_back(1);
        looks(&mut [&mut a, &mut b], PATIENCE).await;
        assert_eq!(store.records().await, before, "{what}");
        looks(&mut [&mut a, &mut b], 2 * GRACE).await;
        assert!(!a.is_set_back() && !b.is_set_back() && !a.has_spooled(), "{what}");
        let (report, there) = verify(&store).await;
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{what}");
        assert_eq!(there, ids, "{what}");
    }
}

/// Others count the time until this gateway's records are back; its disk takes longer than they wait.
#[tokio::test]
async fn records_are_put_back_while_the_spool_is_written() {
    let (store, dir) = world();
    let mut end = begin(&store, dir.path()).await;
    commit(&mut end, &["a"]).await;
    commit(&mut end, &["b"]).await;
    let before = store.records().await;
    store.set_back(1);
    let (spool, (slow, over)) = (Arc::clone(&end.spool), std::sync::mpsc::channel::<()>());
    let (held, is_held) = std::sync::mpsc::channel();
    let disk = std::thread::spawn(move || {
        let spool = spool.lock().expect("no panic");
        held.send(()).expect("it waits");
        // An error is the end of the test.
        let _ended = over.recv();
        drop(spool);
    });
    is_held.recv().expect("it is held");
    let back = eventually(WAIT, "the records are back", async || {
        let there = store.records().await;
        if there == before { Ok(()) } else { Err(there.len()) }
    });
    let back = async {
        back.await;
        drop(slow);
    };
    let (accepted, ()) = tokio::join!(commit(&mut end, &["c"]), back);
    assert_eq!(accepted, Accepted::Spooled);
    disk.join().expect("no panic");
}

/// What somebody signed: how many records, the rollbacks among them, and the last one.
type Signed = (u64, Vec<Record>, Record);

fn rollbacks(records: &[Record]) -> Vec<Record> {
    records.iter().filter(|record| record.rollback.is_some()).cloned().collect()
}

/// No checkpoint is contradicted by a chain in which no rollback stands that says that its records are lost. Where
/// a rollback itself is lost for good its origin says nothing: record 0050.
fn agrees(records: &[Record], (size, told, last): &Signed) -> bool {
    let hashes = |all: &[Record]| all.iter().map(|record| record.hash).collect::<Vec<_>>();
    let now = rollbacks(records);
    if !hashes(&now).starts_with(&hashes(told)) {
        return true;
    }
    let mut since = now.iter().skip(told.len()).filter_map(|record| record.rollback);
    since.any(|told| told.common < *size)
        || records.iter().any(|there| there.seq == *size && there.hash == last.hash)
}

fn read(records: &[Vec<u8>]) -> Vec<Record> {
    records.iter().map(|bytes| Record::read(bytes).expect("a record")).collect()
}

/// Gateways append, the store is set back, some of them die with it, and some append before they know: whoever
/// lives gets all of its events into the chain once, what was kept is as it was, and no checkpoint is contradicted.
#[tokio::test(start_paused = true)]
async fn no_event_of_a_gateway_that_lives_is_lost_or_doubled() {
    for seed in 0..16_u8 {
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let mut below = |n: usize| usize::try_from(random.next_u32()).expect("32 bits") % n;
        let store = Faulty::new();
        let gateways = 1 + below(4);
        let mut dirs: Vec<TempDir> =
            (0..gateways).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let fresh = |dir: &TempDir| open(&store, Path::new(dir.path()));
        let mut ends: Vec<ChainEnd> = dirs.iter().map(fresh).collect();
        let mut owed: Vec<Vec<String>> = vec![Vec::new(); gateways];
        let mut number = 0;
        let mut signed: Vec<Signed> = Vec::new();
        for _round in 0..2 {
            for _ in 0..5 + below(20) {
                let who = below(gateways);
                let count = 1 + below(3);
                let ids: Vec<String> =
                    (0..count).map(|n| format!("e-{who}-{}", number + n)).collect();
                number += count;
                let events = ids.iter().map(|id| event(id)).collect();
                if below(8) == 0 {
                    store.set(Mode::Mute);
                }
                ends[who].commit(events).await.expect("not lost");
                store.set(Mode::Up);
                owed[who].extend(ids);
            }
            let before = store.records().await;
            let kept = store.appends() - below(store.appends().min(12) + 1);
            store.set_back(kept);
            let kept_records = store.records().await;
            let mut known = 0;
            for who in 0..gateways {
                let knew = ends[who].known.map_or(0, |known| known.head.seq);
                if below(4) == 0 {
                    // Killed: what it had is on its disk.
                    ends[who] = fresh(&dirs[who]);
                } else if below(6) == 0 {
                    // The disk is gone as well: what its records held is only in the store, if there.
                    dirs[who] = tempfile::tempdir().expect("a folder");
                    ends[who] = fresh(&dirs[who]);
                    owed[who].clear();
                    continue;
                }
                known = known.max(usize::try_from(knew).expect("small"));
            }
            // Of what nobody remembers nobody can tell that it is lost.
            let records = read(&before);
            signed.extend((1..=known).map(|size| {
                let last = records[size - 1].clone();
                (last.seq, rollbacks(&records[..size]), last)
            }));
            // Whenever one gives a piece up, others may have one again.
            let settled =
                |ends: &[ChainEnd]| ends.iter().all(|end| !end.is_set_back() && !end.has_spooled());
            for round in 0..20 {
                if round > 1 && settled(&ends) {
                    break;
                }
                for _ in 0..2 {
                    for (who, end) in ends.iter_mut().enumerate() {
                        if round < 3 && below(3) == 0 {
                            let id = format!("e-{who}-{number}");
                            number += 1;
                            commit(end, &[&id]).await;
                            owed[who].push(id);
                        }
                        end.retry().await;
                    }
                }
                let mut waited = Duration::ZERO;
                while waited < GRACE && !settled(&ends) {
                    looks(&mut ends.iter_mut().collect::<Vec<_>>(), SECOND).await;
                    waited += SECOND;
                }
            }
            let after = store.records().await;
            assert!(after.len() >= kept_records.len(), "seed {seed}");
            assert_eq!(&after[..kept_records.len()], &before[..kept_records.len()], "seed {seed}");
            for (who, end) in ends.iter().enumerate() {
                let state = (end.counters.rollback.get(), end.has_spooled());
                assert_eq!(state, (0, false), "seed {seed}, gateway {who}");
            }
        }
        let (report, ids) = verify(&store).await;
        assert_eq!(report.verdict, Verdict::Valid, "seed {seed}: {report:?}");
        let records = read(&store.records().await);
        for signed in &signed {
            assert!(agrees(&records, signed), "seed {seed}: {} records", signed.0);
        }
        for id in owed.iter().flatten() {
            let count = ids.iter().filter(|there| *there == id).count();
            assert_eq!(count, 1, "seed {seed}: {id}");
        }
    }
}
