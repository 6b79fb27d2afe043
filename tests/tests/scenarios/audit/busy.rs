//! A worker that is asked more from tick to tick than its bound of events: a whole message goes with the request that
//! completes it.

use tidegate_policy::wire::audit::BRIEFS_MAX;

use super::*;

#[test]
fn a_busy_worker_hands_whole_messages_over_between_its_ticks_and_loses_nothing() {
    let many = "  - { at: 100ms, client: p, times: 6000, every: 50us, send: { path: /p } }\n";
    let (report, book) = run("audit: { allows: 100% }", "3s", many, 0, false);
    assert_eq!((metric(&report, "kept"), metric(&report, "lost")), (6_001, 0), "{report}");
    let sizes: Vec<_> = book.messages.iter().map(Vec::len).collect();
    // Until a gateway has said that it reads briefs, a whole message is a small one.
    let whole = sizes.iter().filter(|size| **size == BRIEFS_MAX).count();
    assert!((6..=7).contains(&whole) && sizes.len() < 12, "{sizes:?}");
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
