//! Tests of events that somebody noted in the store as appended.

use std::time::Duration;

use tidegate_policy::audit::append::Shelf;
use tidegate_policy::audit::verify::Verdict;

use super::super::own_time::{COUNTS_US, GRACE_US, PATIENCE_US};
use super::super::tests::{begin, commit, looks, verify, world};
use super::super::{Accepted, SEGMENT_MAX};

fn note(shelf: &mut Shelf, segment: u64, id: &str, seq: u64) {
    shelf.ids.entry(segment).or_default().insert(id.to_owned(), seq);
}

/// Under another's number, one that is none, and those that are still to come, which the script takes for nothing.
#[tokio::test]
async fn an_event_that_is_noted_and_not_in_the_chain_is_appended_and_told() {
    let (store, dir) = world();
    let mut end = begin(&store, dir.path()).await;
    commit(&mut end, &["a", "b"]).await;
    store.tamper(|shelf| {
        [("c", 1), ("d", 0), ("e", 5), ("f", u64::MAX)]
            .iter()
            .for_each(|(id, seq)| note(shelf, 0, id, *seq));
    });
    assert_eq!(commit(&mut end, &["c", "b", "d", "e", "f"]).await, Accepted::Chained);
    assert_eq!((end.counters.false_ids.get(), end.counters.duplicates.get()), (2, 1));
    // What is there is noted now, and known when it comes again.
    commit(&mut end, &["f", "e", "d", "c"]).await;
    assert_eq!((end.counters.false_ids.get(), end.counters.duplicates.get()), (2, 5));
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcdef".to_owned()));
}

#[tokio::test]
async fn what_is_noted_is_looked_up_in_the_segment_that_holds_the_number() {
    let (store, dir) = world();
    let mut end = begin(&store, dir.path()).await;
    commit(&mut end, &["first", "second"]).await;
    let batches = SEGMENT_MAX.div_ceil(64) + 1;
    for batch in 0..batches {
        let ids: Vec<String> = (0..64).map(|number| format!("{batch}-{number}")).collect();
        commit(&mut end, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    assert_eq!(end.known.expect("known").segment, 1);
    let before = store.records().await.len();
    store.tamper(|shelf| {
        note(shelf, 1, "planted", 2);
        note(shelf, 0, "planted", SEGMENT_MAX);
    });
    commit(&mut end, &["second", "planted", "0-1"]).await;
    assert_eq!((end.counters.false_ids.get(), end.counters.duplicates.get()), (2, 2));
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len()), (Verdict::Valid, before + 1));
}

/// Of a chain of `a`, `b`, `c` and `d` only `a` is left, and all the ids; the rollback's own is noted as well, since it can
/// be told in advance.
fn cut_off(shelf: &mut Shelf, left: Shelf) {
    let mut left = Shelf { ids: std::mem::take(&mut shelf.ids), ..left };
    let hash = left.place.head.hash.to_string();
    note(&mut left, 0, &format!("rollback-1-{}", &hash[..16]), 1);
    *shelf = left;
}

/// What is noted under numbers that the chain has not reached is in nobody's way; nor are false notes, under numbers that it
/// still has.
#[tokio::test(start_paused = true)]
async fn records_that_were_cut_off_come_back_in_their_bytes_whatever_is_noted_of_them() {
    for falsely in [&[][..], &["b", "d"]] {
        let (store, dir) = world();
        let mut end = begin(&store, dir.path()).await;
        let mut left = Shelf::default();
        commit(&mut end, &["a"]).await;
        store.tamper(|shelf| left = shelf.clone());
        commit(&mut end, &["b", "c"]).await;
        commit(&mut end, &["d"]).await;
        let before = store.records().await;
        store.tamper(|shelf| {
            cut_off(shelf, left);
            falsely.iter().for_each(|id| note(shelf, 0, id, 1));
        });
        assert_eq!(commit(&mut end, &["e"]).await, Accepted::Spooled);
        looks(&mut [&mut end], Duration::from_micros(GRACE_US + COUNTS_US)).await;
        assert!(store.records().await.starts_with(&before), "{falsely:?}");
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcde".to_owned()));
        let counted = usize::try_from(end.counters.false_ids.get()).expect("few");
        assert_eq!((report.rollbacks, counted), (vec![], falsely.len()));
    }
}

/// Nobody is left who could put them back: whatever the ids say, the events and the rollback are not there.
#[tokio::test(start_paused = true)]
async fn events_whose_records_were_cut_off_come_again_although_they_are_noted() {
    let (store, dir) = world();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut gone = begin(&store, elsewhere.path()).await;
    let mut left = Shelf::default();
    commit(&mut gone, &["a"]).await;
    store.tamper(|shelf| left = shelf.clone());
    commit(&mut gone, &["b", "c"]).await;
    commit(&mut gone, &["d"]).await;
    drop(gone);
    let mut end = begin(&store, dir.path()).await;
    assert_eq!(end.known.expect("known").head.seq, 4);
    store.tamper(|shelf| cut_off(shelf, left));
    assert_eq!(commit(&mut end, &["e"]).await, Accepted::Spooled);
    looks(&mut [&mut end], Duration::from_micros(PATIENCE_US + GRACE_US + COUNTS_US)).await;
    assert!(!end.is_set_back() && !end.has_spooled());
    // A filter sends them again.
    assert_eq!(commit(&mut end, &["b", "c", "d"]).await, Accepted::Chained);
    let (report, mut ids) = verify(&store).await;
    ids.retain(|id| !id.starts_with("rollback-"));
    ids.sort();
    assert_eq!((report.verdict, report.rollbacks), (Verdict::Valid, vec![2]));
    assert_eq!(ids.join(""), "abcde");
}
