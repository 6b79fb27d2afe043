//! Decisions inside Envoy that wait for their event: with a gateway that takes it at once, slowly, too late or not
//! at all, and with streams and configurations that go meanwhile.

use std::collections::BTreeSet;

use super::*;

use tidegate_policy::audit::Durability;

const MS: u64 = 1_000_000;
const DENY: &str = "audit: { sync: [deny], timeout: 200ms }";

pub(super) fn keep(urgent: Urgent, is_mute: bool) -> Keeper {
    let (book, is_mixed) = (Arc::default(), false);
    Keeper { book, unanswered: 0, hears: false, urgent, is_mute, is_mixed }
}

pub(super) fn unrecorded(report: &Report, outcome: &str) -> u64 {
    let name = format!("tidegate_audit_unrecorded_total.outcome.{outcome}");
    report.metrics.get(&name).copied().unwrap_or_default()
}

/// The status of a client's request, and after how many ms it came.
pub(super) fn came(report: &Report, client: &str, nth: usize) -> (Option<u16>, u64) {
    let sent = report.exchange(client, nth).unwrap_or_else(|| panic!("{client} {nth}: {report}"));
    let at_ns = sent.headers_at_ns.unwrap_or(u64::MAX);
    (sent.status, at_ns.saturating_sub(sent.sent_at_ns) / MS)
}

/// The ids of the decisions that are told for themselves.
pub(super) fn decisions(notes: &[&AuditNote]) -> BTreeSet<String> {
    let each = notes.iter().filter(|note| note.more == 0);
    each.filter_map(|note| note.detail.split("decision=").nth(1).map(str::to_owned)).collect()
}

pub(super) fn quiet(report: &Report) {
    assert!(report.lints.is_empty(), "{report}");
    assert!(!report.logs.iter().any(|line| line.message.contains("trap")), "{report}");
}

const THREE: &str = "
  - { at: 100ms, client: nobody, send: { path: /who } }
  - { at: 600ms, client: nobody, send: { path: /who } }
  - { at: 1100ms, client: p, send: { path: /p } }
";

#[test]
fn a_denial_goes_out_when_its_event_is_on_record_and_what_is_counted_waits_for_nothing() {
    for after_ms in [0, 120] {
        let (report, book) = run_with(DENY, "70s", THREE, keep(Urgent::After(after_ms), false));
        quiet(&report);
        assert_eq!(came(&report, "nobody", 1), (Some(403), after_ms));
        assert_eq!(came(&report, "nobody", 2), (Some(403), 0));
        assert_eq!(came(&report, "p", 1), (Some(200), 0));
        assert_eq!(book.urgent_ns.len(), 1, "{book:?}");
        let denials = told(&book, Action::Deny);
        let seen: Vec<_> = denials.iter().map(|n| (n.durability, n.more)).collect();
        assert_eq!(seen, [(Durability::Sync, 0), (Durability::Async, 1)], "{book:?}");
        assert_eq!((unrecorded(&report, "late"), metric(&report, "lost")), (0, 0));
    }
}

#[test]
fn a_denial_that_waits_too_long_goes_out_all_the_same_and_its_event_is_recorded_once() {
    for (urgent, waits_ms) in [
        (Urgent::After(400), 200),
        (Urgent::Unanswered, 200),
        (Urgent::Later, 0),
        (Urgent::Refused, 0),
    ] {
        for unrecorded_is in ["proceed", "refuse"] {
            let audit =
                format!("audit: {{ sync: [deny], timeout: 200ms, unrecorded: {unrecorded_is} }}");
            let (report, book) = run_with(&audit, "70s", THREE, keep(urgent, false));
            quiet(&report);
            assert_eq!(came(&report, "nobody", 1), (Some(403), waits_ms), "{urgent:?}");
            assert_eq!(unrecorded(&report, "late"), 1, "{urgent:?}");
            let denials = told(&book, Action::Deny);
            let seen: Vec<_> = denials.iter().map(|n| n.more).collect();
            assert_eq!(seen, [0, 1], "{urgent:?}: {book:?}");
            assert_eq!(metric(&report, "lost"), 0);
        }
    }
}

#[test]
fn an_admission_waits_for_its_event_and_is_refused_without_one_only_where_that_is_said() {
    let timeline = "  - { at: 100ms, client: o, times: 2, every: 400ms, send: { path: /open } }\n";
    for (urgent, waits_ms) in [
        (Urgent::After(120), 120),
        (Urgent::Unanswered, 200),
        (Urgent::Later, 0),
        (Urgent::Refused, 0),
    ] {
        for refuses in [false, true] {
            let way = if refuses { "refuse" } else { "proceed" };
            let audit = format!("audit: {{ sync: [rung], timeout: 200ms, unrecorded: {way} }}");
            let (report, book) = run_with(&audit, "70s", timeline, keep(urgent, true));
            quiet(&report);
            let is_late = urgent != Urgent::After(120);
            let status = if is_late && refuses { 503 } else { 200 };
            assert_eq!(came(&report, "o", 1), (Some(status), waits_ms), "{urgent:?} {way}");
            let first = report.exchange("o", 1).expect("it was sent");
            let text = String::from_utf8_lossy(&first.body);
            assert_eq!(text.contains("policy-store-unavailable"), status == 503, "{text}");
            assert_eq!(first.headers.text("retry-after").is_some(), status == 503);
            // The like of it is only counted, unless the first was refused.
            assert_eq!(came(&report, "o", 2).0, Some(status), "{urgent:?} {way}");
            let refused = if status == 503 { 2 } else { 0 };
            assert_eq!(unrecorded(&report, "refused"), refused, "{urgent:?}");
            let denied: u32 = told(&book, Action::Deny).iter().map(|n| n.more.max(1)).sum();
            assert_eq!(u64::from(denied), refused, "{urgent:?} {way}: {book:?}");
            // Each was told of as one that goes on before it was refused: the message may have been heard. So each
            // refusal is told for itself, and contradicts it by the decision's id.
            let rungs = decisions(&told(&book, Action::Rung));
            assert_eq!(rungs.len(), if refused > 0 { 2 } else { 1 }, "{urgent:?} {way}: {book:?}");
            let denials = told(&book, Action::Deny);
            let expected = if refused > 0 { rungs } else { BTreeSet::new() };
            assert_eq!(decisions(&denials), expected, "{urgent:?} {way}: {book:?}");
            assert!(denials.iter().all(|n| n.detail.contains("cause=event-not-recorded")));
        }
    }
}

/// Nothing of them is on record that they would have to contradict, so they are counted as any denials are.
#[test]
fn refusals_of_what_a_gateway_will_not_have_are_told_once_and_then_counted() {
    let timeline = "  - { at: 100ms, client: o, times: 4, every: 400ms, send: { path: /open } }\n";
    let audit = "audit: { sync: [rung], timeout: 200ms, unrecorded: refuse }";
    let (report, book) = run_with(audit, "70s", timeline, keep(Urgent::Unwanted, true));
    quiet(&report);
    for nth in 1..=4 {
        assert_eq!(came(&report, "o", nth), (Some(503), 0), "{nth}");
    }
    assert_eq!(told(&book, Action::Rung), Vec::<&AuditNote>::new());
    let denials = told(&book, Action::Deny);
    assert_eq!(denials.iter().map(|note| note.more).collect::<Vec<_>>(), [0, 3], "{book:?}");
    assert!(denials.iter().all(|note| note.detail.contains("cause=event-not-recorded")));
    // Each was one that the gateway would not have; all else it has.
    assert_eq!((unrecorded(&report, "refused"), metric(&report, "refused")), (4, 4));
    assert_eq!(metric(&report, "lost"), 0);
}

#[test]
fn an_admission_that_is_drawn_tells_its_share_and_its_class() {
    for (sync, class) in [("", Durability::Sampled), (", sync: [allow]", Durability::Sync)] {
        let audit = format!("audit: {{ allows: 100%{sync} }}");
        let timeline = "  - { at: 100ms, client: p, send: { path: /p } }\n";
        let (report, book) = run_with(&audit, "5s", timeline, keep(Urgent::After(70), false));
        quiet(&report);
        let allows = told(&book, Action::Allow);
        assert_eq!(allows.len(), 1, "{book:?}");
        assert_eq!(allows[0].durability, class);
        assert!(allows[0].detail.starts_with("names=p share_bp=10000 decision="), "{allows:?}");
        let waits_ms = if sync.is_empty() { 0 } else { 70 };
        assert_eq!(came(&report, "p", 1), (Some(200), waits_ms));
    }
}

#[test]
fn a_new_configuration_meanwhile_holds_nobody_for_longer() {
    let timeline = "
  - { at: 100ms, client: nobody, send: { path: /who } }
  - at: 150ms
    update:
      config: { version: 1, gateway: { cluster: tidegate, timeout: 45ms }, audit: {}, policies: [] }
  - { at: 1s, client: p, send: { path: /p } }
";
    for (urgent, waits_ms) in [(Urgent::After(120), 120), (Urgent::Unanswered, 200)] {
        let (report, book) = run_with(DENY, "70s", timeline, keep(urgent, false));
        quiet(&report);
        assert_eq!(came(&report, "nobody", 1), (Some(403), waits_ms), "{urgent:?}");
        assert_eq!(came(&report, "p", 1), (Some(200), 0));
        assert_eq!(told(&book, Action::Deny).len(), 1, "{urgent:?}: {book:?}");
    }
}

/// A class that is not named costs nothing, and one that is named nothing where the like was told.
#[test]
fn where_nothing_waits_no_call_of_the_host_is_made() {
    let (with, _) = run("audit: { sync: [rung] }", "3s", DENIALS, 0, false);
    let (without, _) = run("audit: {}", "3s", DENIALS, 0, false);
    for (with, without) in with.exchanges.iter().zip(&without.exchanges) {
        let (with, without) = (with.usage, without.usage);
        assert_eq!((with.host_calls, with.callouts), (without.host_calls, without.callouts));
    }
}
