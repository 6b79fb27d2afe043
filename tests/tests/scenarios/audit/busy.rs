//! A worker that is asked more from tick to tick than its bound of events: a whole message goes with the request that
//! completes it.

use tidegate_policy::wire::audit::BRIEFS_MAX;

use super::*;

#[test]
fn a_busy_worker_hands_whole_messages_over_between_its_ticks_and_loses_nothing() {
    // Each message is on its way for longer than the request that sent it.
    let keeper = sync::keep(Urgent::After(5), false);
    let many = "  - { at: 100ms, client: p, times: 12000, every: 25us, send: { path: /p } }\n";
    let (report, book) = run_with("audit: { allows: 100% }", "3s", many, keeper);
    assert_eq!((metric(&report, "kept"), metric(&report, "lost")), (12_001, 0), "{report}");
    let sizes: Vec<_> = book.messages.iter().map(Vec::len).collect();
    // Until a gateway has said that it reads briefs, a whole message is a small one.
    let whole = sizes.iter().filter(|size| **size == BRIEFS_MAX).count();
    assert!((14..=15).contains(&whole) && sizes.len() < 20, "{sizes:?}");
    // What it sends for its root it sends beside the request, which goes its way.
    assert!(report.exchanges.iter().all(|sent| sent.status == Some(200)), "{report}");
}

/// One after the other, each when its time has come, however many requests are there meanwhile.
#[test]
fn a_busy_worker_asks_a_gateway_that_does_not_answer_no_more_often_than_another_does() {
    let many = "  - { at: 100ms, client: p, times: 6000, every: 500us, send: { path: /p } }\n";
    let (report, book) = run("audit: { allows: 100% }", "4s", many, 100, false);
    assert_eq!(metric(&report, "kept"), 0, "{report}");
    // In four seconds two, each of which waits a second in vain. The main thread has one event of its own.
    let sizes = book.messages.iter().map(Vec::len).filter(|size| *size > 1);
    assert_eq!(sizes.collect::<Vec<_>>(), [64, 64]);
}

#[test]
fn beyond_its_bound_events_are_lost_counted_and_the_chain_is_told() {
    let many = "  - { at: 100ms, client: p, times: 6000, every: 5ms, send: { path: /p } }\n";
    let (report, book) = run("audit: { allows: 100% }", "200s", many, 12, false);
    let (kept, lost) = (metric(&report, "kept"), metric(&report, "lost"));
    assert!(lost > 0, "{kept} kept");
    let allows = told(&book, Action::Allow).len();
    assert_eq!(u64::try_from(allows).expect("few") + lost, 6_000);
    let losses = told(&book, Action::Loss);
    assert!(!losses.is_empty(), "the loss is on record");
    let number = |note: &&AuditNote| -> u64 {
        let number = note.detail.split(' ').next().and_then(|n| n.parse().ok());
        number.unwrap_or_else(|| panic!("{note:?}"))
    };
    assert_eq!(losses.iter().map(number).sum::<u64>(), lost);
}
