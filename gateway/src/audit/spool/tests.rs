//! Tests of the spool: order, crashes, damage.

use super::*;

fn waiting(number: u64) -> Waiting {
    let text = format!(
        r#"{{"action":"admin","actor":"a","detail":"x\ny","id":"e-{number}","outcome":"ok","region":"eu","tenant":null,"ts":1,"v":1}}"#
    );
    Waiting { ids_from: number, event: Event::read(text.as_bytes()).expect("an event") }
}

fn all(numbers: std::ops::Range<u64>) -> Vec<Waiting> {
    numbers.map(waiting).collect()
}

#[test]
fn events_leave_in_order_and_survive_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
    assert!(spool.is_empty());
    spool.push(&all(0..3)).expect("pushed");
    spool.push(&all(3..5)).expect("pushed");
    let (first, at) = spool.peek(2).expect("read");
    assert_eq!(first, all(0..2));
    spool.pass(at).expect("passed");
    assert_eq!(spool.peek(9).expect("read").0, all(2..5));
    // It dies: what had passed comes again, and nothing is missing.
    let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
    let (again, at) = spool.peek(9).expect("read");
    assert_eq!(again, all(0..5));
    spool.pass(at).expect("passed");
    assert!(spool.is_empty());
    assert_eq!(std::fs::metadata(dir.path().join(NAME)).expect("there").len(), 0);
    spool.push(&all(5..6)).expect("pushed");
    assert_eq!(spool.peek(9).expect("read").0, all(5..6));
}

/// A spool of three events whose bytes were changed while nobody looked.
fn damaged(change: impl FnOnce(&mut Vec<u8>, usize)) -> (tempfile::TempDir, Spool) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(NAME);
    Spool::open(dir.path(), 10_000).expect("opened").push(&all(0..3)).expect("pushed");
    let mut bytes = std::fs::read(&path).expect("read");
    let line = bytes.len() / 3;
    change(&mut bytes, line);
    std::fs::write(&path, &bytes).expect("written");
    let spool = Spool::open(dir.path(), 10_000).expect("opened");
    (dir, spool)
}

/// What was kept aside.
fn aside(dir: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("one"));
    let is_aside = |name: &str| name.starts_with("spool.damaged-");
    let kept = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_aside));
    kept.map(|entry| std::fs::read(entry.path()).expect("read")).collect()
}

#[test]
fn a_last_line_that_was_cut_off_is_no_loss() {
    // Within the last line, and within its checksum.
    for left in [1, 40] {
        let (dir, mut spool) = damaged(|bytes, line| bytes.truncate(2 * line + left));
        assert_eq!((spool.peek(9).expect("read").0, spool.take_lost()), (all(0..2), 0));
        assert_eq!(aside(dir.path()).len(), 1, "who knows");
        spool.push(&all(3..4)).expect("pushed");
        assert_eq!(spool.peek(9).expect("read").0, [all(0..2), all(3..4)].concat());
    }
}

#[test]
fn a_damaged_event_is_kept_aside_and_counted_once() {
    for at in [0, 1, 2] {
        let (dir, mut spool) = damaged(|bytes, line| bytes[at * line + 60] ^= 1);
        let mut left = all(0..3);
        left.remove(at);
        for _ in 0..2 {
            assert_eq!(spool.peek(9).expect("read").0, left);
        }
        assert_eq!((spool.take_lost(), spool.take_lost()), (1, 0));
        let kept = aside(dir.path());
        assert!(matches!(kept.as_slice(), [one] if one.ends_with(b"\n") && one.len() > 60));
        // Another run: nothing is counted again, and another damage does not write over the first.
        drop(spool);
        let path = dir.path().join(NAME);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[60] ^= 1;
        std::fs::write(&path, bytes).expect("written");
        let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
        assert_eq!((spool.peek(9).expect("read").0.len(), spool.take_lost()), (1, 1));
        assert_eq!(aside(dir.path()).len(), 2);
    }
}

#[test]
fn a_damaged_end_of_a_line_loses_no_event() {
    for at in [1, 2, 3] {
        let (dir, mut spool) = damaged(|bytes, line| bytes[at * line - 1] ^= 1);
        assert_eq!((spool.peek(9).expect("read").0, spool.take_lost()), (all(0..3), 0), "{at}");
        assert_eq!(aside(dir.path()).len(), 0);
    }
}

#[test]
fn the_last_event_and_its_end_damaged_together_are_a_loss() {
    let (dir, mut spool) = damaged(|bytes, line| {
        bytes[2 * line + 60] ^= 1;
        bytes[3 * line - 1] ^= 1;
    });
    assert_eq!((spool.peek(9).expect("read").0, spool.take_lost()), (all(0..2), 1));
    assert_eq!(aside(dir.path()).len(), 1);
}

/// The disk went bad after the file was opened.
#[test]
fn damage_that_is_found_while_it_runs_is_counted_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
    spool.push(&all(0..3)).expect("pushed");
    let (first, at) = spool.peek(1).expect("read");
    spool.pass(at).expect("passed");
    let path = dir.path().join(NAME);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[usize::try_from(at).expect("small") + 60] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    assert_eq!(first, all(0..1));
    let (left, at) = spool.peek(9).expect("read");
    assert_eq!((left, spool.take_lost()), (all(2..3), 1));
    spool.pass(at).expect("passed");
    assert!(spool.is_empty());
    spool.push(&all(3..4)).expect("pushed");
    assert_eq!(
        Spool::open(dir.path(), 10_000).expect("opened").peek(9).expect("read").0,
        all(3..4)
    );
}

#[test]
fn a_full_spool_takes_all_or_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 400).expect("opened");
    spool.push(&all(0..1)).expect("fits");
    assert!(matches!(spool.push(&all(1..9)), Err(SpoolError::Full(_))));
    spool.push(&all(9..10)).expect("fits");
    assert_eq!(spool.peek(9).expect("read").0, [all(0..1), all(9..10)].concat());
}

/// The store came back, took most of it, and went away again.
#[test]
fn what_has_left_takes_no_room_from_what_comes() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
    spool.push(&all(100..101)).expect("pushed");
    let line = spool.bytes();
    let dir = tempfile::tempdir().expect("a folder");
    let mut spool = Spool::open(dir.path(), 10 * line).expect("opened");
    let size = || std::fs::metadata(dir.path().join(NAME)).expect("there").len();
    let (mut first, mut next) = (100, 110);
    spool.push(&all(first..next)).expect("pushed");
    for round in 0..20 {
        let (left, at) = spool.peek(6).expect("read");
        assert_eq!(left, all(first..first + 6), "{round}");
        spool.pass(at).expect("passed");
        // Others come while these are on their way into the chain.
        let (left, at) = spool.peek(2).expect("read");
        assert_eq!(left, all(first + 6..first + 8), "{round}");
        spool.push(&all(next..next + 6)).expect("there is room");
        spool.pass(at).expect("passed");
        spool.push(&all(next + 6..next + 8)).expect("there is room");
        (first, next) = (first + 8, next + 8);
        assert!(matches!(spool.push(&all(next..next + 1)), Err(SpoolError::Full(_))), "{round}");
        assert!(size() <= 15 * line, "{round}: {}", size());
    }
    // Another run has all that waits, and none that had left before the file became smaller.
    let mut spool = Spool::open(dir.path(), 10_000).expect("opened");
    let (again, _) = spool.peek(99).expect("read");
    assert!(again.len() <= 15 && again.ends_with(&all(first..next)), "{}", again.len());
    assert_eq!(spool.take_lost(), 0);
}
