//! Tests of chains whose head was set back while the lists kept their records.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::audit::append::Shelf;
use tidegate_policy::audit::record::Event;
use tidegate_policy::audit::verify::Verdict;

use super::super::own_time::{BEGINS_US, COUNTS_US, GRACE_US, PATIENCE_US};
use super::super::tests::{
    FalseSigner, Faulty, Forged, Mode, begin, chain, commit, event, looks, open, verify, world,
};
use super::super::{Accepted, BATCH_MAX, SEGMENT_MAX};
use super::*;
use crate::store::chains::Chains;

const BEGINS: Duration = Duration::from_micros(BEGINS_US + COUNTS_US);
const GRACE: Duration = Duration::from_micros(GRACE_US + COUNTS_US);

/// The head says that the chain ends with the record of that number.
fn set_head(store: &Faulty, seq: u64) {
    store.tamper(|shelf| {
        let (mut place, mut left) = (Place::GENESIS, seq);
        for (segment, records) in &shelf.segments {
            let held = u64::try_from(records.len()).expect("small");
            if left == 0 {
                break;
            }
            let here = left.min(held);
            let last = &records[usize::try_from(here).expect("small") - 1];
            let last = Record::read(last).expect("a record");
            let segment_first = last.seq + 1 - here;
            place = Place {
                head: Head { seq: last.seq, hash: last.hash },
                segment: *segment,
                segment_first,
            };
            left -= here;
        }
        shelf.place = place;
    });
}

/// Set back between two appends and within one, and taken away; the ids stayed, or went as well.
#[tokio::test(start_paused = true)]
async fn a_head_that_was_set_back_goes_on_over_the_records_that_its_list_kept() {
    for (to, takes_ids) in [(3, false), (2, false), (0, false), (0, true)] {
        let (store, dir) = world();
        let elsewhere = tempfile::tempdir().expect("a folder");
        let (mut a, mut b) =
            (begin(&store, dir.path()).await, begin(&store, elsewhere.path()).await);
        commit(&mut a, &["a", "b", "c"]).await;
        commit(&mut b, &["d", "e"]).await;
        commit(&mut a, &["f"]).await;
        let (before, ids) = (store.records().await, |shelf: &mut Shelf| shelf.ids.clear());
        // Nobody is left who has the last records to put back.
        drop(a);
        set_head(&store, to);
        if takes_ids {
            store.tamper(ids);
        }
        assert_eq!(commit(&mut b, &["g"]).await, Accepted::Spooled);
        assert_eq!(b.counters.rollback.get(), 1);
        let mut fresh = open(&store, dir.path());
        assert_eq!(commit(&mut fresh, &["h"]).await, Accepted::Spooled);
        looks(&mut [&mut b, &mut fresh], 2 * GRACE).await;
        assert!(!b.is_set_back() && !fresh.is_set_back(), "{to}");
        assert_eq!(&store.records().await[..6], &before[..], "{to}: nothing was written anew");
        let (report, mut ids) = verify(&store).await;
        ids.sort();
        assert_eq!((report.verdict, report.rollbacks.len()), (Verdict::Valid, 0), "{to}");
        assert_eq!(ids.join(""), "abcdefgh", "{to}");
        for end in [&b, &fresh] {
            assert_eq!((end.counters.rollback.get(), end.counters.origins.get()), (0, 0));
        }
        // An event that comes again is known.
        commit(&mut b, &["d", "f"]).await;
        assert_eq!(verify(&store).await.1.len(), 8, "{to}");
    }
}

/// It has no mark, so that the head alone tells it nothing.
#[tokio::test(start_paused = true)]
async fn who_knows_nothing_of_a_chain_finds_it_torn_before_it_appends() {
    for to in [0, 1, 2] {
        let (store, dir) = world();
        commit(&mut open(&store, dir.path()), &["a"]).await;
        let mut end = begin(&store, dir.path()).await;
        looks(&mut [&mut end], BEGINS).await;
        commit(&mut end, &["b", "c"]).await;
        drop(end);
        set_head(&store, to);
        let other = tempfile::tempdir().expect("a folder");
        let mut fresh = open(&store, other.path());
        looks(&mut [&mut fresh], BEGINS).await;
        assert_eq!(commit(&mut fresh, &["d"]).await, Accepted::Spooled, "{to}");
        assert_eq!((fresh.counters.rollback.get(), store.records().await.len()), (1, 3));
        looks(&mut [&mut fresh], GRACE).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abcd".to_owned()), "{to}");
        assert_eq!(fresh.counters.rollback.get(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_was_set_back_over_the_border_of_segments_goes_on_over_both() {
    let border = SEGMENT_MAX.next_multiple_of(u64::try_from(BATCH_MAX).expect("small"));
    for to in [border, border - 64, border - 70] {
        let (store, dir) = world();
        let mut end = begin(&store, dir.path()).await;
        for batch in 0..160 {
            let events: Vec<Event> =
                (0..BATCH_MAX).map(|number| event(&format!("{batch}-{number}"))).collect();
            end.commit(events).await.expect("not lost");
        }
        let before = store.records().await;
        assert_eq!(end.known.expect("known").segment, 1);
        drop(end);
        set_head(&store, to);
        let other = tempfile::tempdir().expect("a folder");
        let mut fresh = open(&store, other.path());
        looks(&mut [&mut fresh], BEGINS).await;
        assert_eq!(commit(&mut fresh, &["new"]).await, Accepted::Spooled, "{to}");
        assert_eq!(store.records().await, before, "{to}");
        looks(&mut [&mut fresh], GRACE).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.len()), (Verdict::Valid, before.len() + 1), "{to}");
        assert_eq!(&store.records().await[..before.len()], &before[..]);
    }
}

/// Linked to the head, but not by a gateway.
#[tokio::test(start_paused = true)]
async fn a_record_that_no_gateway_signed_is_not_taken_up() {
    for seal in [Forged::Unsigned, Forged::By(FalseSigner { key: 2, version: 1 })] {
        let (store, dir) = world();
        let mut end = begin(&store, dir.path()).await;
        commit(&mut end, &["a"]).await;
        store.forge(event("forged"), &seal);
        set_head(&store, 1);
        assert_eq!(commit(&mut end, &["b"]).await, Accepted::Spooled);
        looks(&mut [&mut end], Duration::from_micros(3 * PATIENCE_US)).await;
        assert_eq!((end.is_set_back(), end.counters.origins.get()), (true, 0));
        let there = store.place(&chain()).await.expect("a place");
        assert_eq!((there.head.seq, store.records().await.len()), (1, 2));
        // Somebody takes it away.
        store.tamper(|shelf| {
            shelf.segments.get_mut(&0).expect("there").truncate(1);
        });
        looks(&mut [&mut end], GRACE).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "ab".to_owned()));
    }
}

/// Behind the head lies what no gateway has signed, or less than the head counts: whoever appended there would give it
/// a place in the list that nobody looks for.
#[tokio::test(start_paused = true)]
async fn nothing_is_appended_where_a_list_and_its_head_cannot_be_brought_together() {
    type Tears = fn(&mut Shelf);
    let more: Tears = |shelf| {
        shelf.segments.get_mut(&0).expect("there").push(b"junk".to_vec());
    };
    let fewer: Tears = |shelf| {
        shelf.segments.get_mut(&0).expect("there").remove(0);
    };
    let last: Tears = |shelf| {
        shelf.segments.get_mut(&0).expect("there").pop();
    };
    for (what, tears) in [("more", more), ("fewer", fewer), ("without the last", last)] {
        let (store, dir) = world();
        let mut end = begin(&store, dir.path()).await;
        commit(&mut end, &["a"]).await;
        commit(&mut end, &["b"]).await;
        let mut whole = Shelf::default();
        store.tamper(|shelf| {
            whole = shelf.clone();
            tears(shelf);
        });
        let torn = store.records().await;
        assert_eq!(commit(&mut end, &["c"]).await, Accepted::Spooled, "{what}");
        looks(&mut [&mut end], Duration::from_micros(3 * PATIENCE_US)).await;
        assert!(end.is_set_back() && end.has_spooled(), "{what}");
        // Nothing says that it is whole while it is not, whoever looks and whether or not something waits.
        let counters = (end.counters.rollback.get(), end.counters.repaired.get());
        assert_eq!(counters, (1, 0), "{what}");
        assert_eq!((store.records().await, end.counters.origins.get()), (torn, 0), "{what}");
        // Somebody has put it right.
        store.tamper(|shelf| *shelf = whole);
        looks(&mut [&mut end], GRACE).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.join("")), (Verdict::Valid, "abc".to_owned()), "{what}");
    }
}

/// Somebody waits for each look: what came to the gateway meanwhile would wait for all that lies there.
#[tokio::test(start_paused = true)]
async fn one_look_takes_up_no_more_than_its_turn() {
    let (store, dir) = world();
    let mut end = begin(&store, dir.path()).await;
    for batch in 0..30 {
        let events: Vec<Event> =
            (0..BATCH_MAX).map(|number| event(&format!("{batch}-{number}"))).collect();
        end.commit(events).await.expect("not lost");
    }
    let before = store.records().await;
    drop(end);
    set_head(&store, 0);
    let other = tempfile::tempdir().expect("a folder");
    let mut fresh = open(&store, other.path());
    looks(&mut [&mut fresh], BEGINS).await;
    assert_eq!(commit(&mut fresh, &["new"]).await, Accepted::Spooled);
    // Each append takes longer than a turn.
    set_head(&store, 0);
    store.set(Mode::Slow);
    for _ in 0..3 {
        let appends = store.appends();
        fresh.retry().await;
        assert_eq!((store.appends() - appends, fresh.looks_often()), (1, true));
    }
    store.set(Mode::Up);
    looks(&mut [&mut fresh], GRACE).await;
    assert_eq!(&store.records().await[..before.len()], &before[..]);
    let (report, ids) = verify(&store).await;
    assert_eq!((report.verdict, ids.len()), (Verdict::Valid, before.len() + 1));
}

/// The chain's first record in the first segment, all others in the second one.
fn part(shelf: &mut Shelf) {
    let behind = shelf.segments.get_mut(&0).expect("there").split_off(1);
    shelf.segments.insert(1, behind);
    let ids = shelf.ids.get(&0).expect("there").clone();
    shelf.ids.insert(1, ids);
    (shelf.place.segment, shelf.place.segment_first) = (1, 2);
}

/// Two gateways that know a chain of three records, `a`, `b` and `c`, of which two are in the second segment.
async fn parted(store: &Arc<Faulty>, dirs: [&Path; 2]) -> [ChainEnd; 2] {
    let gone = tempfile::tempdir().expect("a folder");
    let mut before = begin(store, gone.path()).await;
    commit(&mut before, &["a"]).await;
    commit(&mut before, &["b"]).await;
    store.tamper(part);
    let (mut first, mut second) = (open(store, dirs[0]), open(store, dirs[1]));
    looks(&mut [&mut first, &mut second], BEGINS).await;
    assert_eq!(commit(&mut first, &["c"]).await, Accepted::Chained);
    second.retry().await;
    assert_eq!(second.known.expect("known").head.seq, 3);
    [first, second]
}

/// The first segment was archived, so that behind a head that is gone lies nothing that follows it.
#[tokio::test(start_paused = true)]
async fn what_still_lies_in_its_list_is_not_given_up() {
    let ((store, dir), other) = (world(), tempfile::tempdir().expect("a folder"));
    let [first, mut end] = parted(&store, [dir.path(), other.path()]).await;
    drop(first);
    let mut place = Place::GENESIS;
    store.tamper(|shelf| {
        shelf.segments.remove(&0);
        shelf.ids.remove(&0);
        place = std::mem::replace(&mut shelf.place, Place::GENESIS);
    });
    let before = store.records().await;
    assert_eq!(commit(&mut end, &["d"]).await, Accepted::Spooled);
    looks(&mut [&mut end], Duration::from_micros(3 * PATIENCE_US)).await;
    assert_eq!((end.is_set_back(), end.counters.origins.get()), (true, 0));
    assert_eq!(store.records().await, before, "nothing was appended");
    // Somebody says where it ends.
    store.tamper(|shelf| shelf.place = place);
    looks(&mut [&mut end], GRACE).await;
    assert!(!end.is_set_back() && !end.has_spooled());
    let records = store.records().await;
    assert_eq!((records.len(), &records[..before.len()]), (before.len() + 1, &before[..]));
}

/// By the number of its first record a record's place in its list is found.
#[tokio::test(start_paused = true)]
async fn a_segment_that_the_head_says_begins_elsewhere_is_torn_for_all() {
    for first in [1, 3, 4, 5, 9] {
        let ((store, dir), other) = (world(), tempfile::tempdir().expect("a folder"));
        let [mut a, mut b] = parted(&store, [dir.path(), other.path()]).await;
        let before = store.records().await;
        store.tamper(|shelf| shelf.place.segment_first = first);
        let unknowing = tempfile::tempdir().expect("a folder");
        let mut fresh = open(&store, unknowing.path());
        looks(&mut [&mut a, &mut b, &mut fresh], BEGINS).await;
        assert_eq!(commit(&mut a, &["d"]).await, Accepted::Spooled, "{first}");
        assert_eq!(commit(&mut fresh, &["e"]).await, Accepted::Spooled, "{first}");
        let how_long = Duration::from_micros(3 * PATIENCE_US);
        looks(&mut [&mut a, &mut b, &mut fresh], how_long).await;
        for end in [&a, &b, &fresh] {
            let counters = (end.counters.repaired.get(), end.counters.origins.get());
            assert_eq!((end.counters.rollback.get(), counters), (1, (0, 0)), "{first}");
        }
        assert_eq!(store.records().await, before, "{first}");
        store.tamper(|shelf| shelf.place.segment_first = 2);
        looks(&mut [&mut a, &mut b, &mut fresh], 2 * GRACE).await;
        let (report, ids) = verify(&store).await;
        assert_eq!((report.verdict, ids.len()), (Verdict::Valid, 5), "{first}");
    }
}
