//! Who goes while decisions wait for their event: clients whose admission is on record by then, and a configuration that its
//! host ends under live streams.

use std::collections::BTreeSet;

use super::sync::{came, decisions, keep, quiet, unrecorded};
use super::*;

/// Its event says that the request goes on, whether it was heard, is heard later, or is handed over again.
#[test]
fn who_leaves_while_an_admission_waits_is_on_record_as_gone() {
    for (sync, path, told_as) in [
        ("sync: [rung]", "/open", Action::Rung),
        ("allows: 100%, sync: [allow]", "/p", Action::Allow),
    ] {
        let is_mute = told_as == Action::Rung;
        let timeline = format!(
            "
  - {{ at: 100ms, client: o, send: {{ path: {path} }} }}
  - {{ at: 150ms, client: o, disconnect: true }}
  - {{ at: 1s, client: nobody, send: {{ path: /who }} }}
"
        );
        for urgent in [Urgent::After(120), Urgent::After(400), Urgent::Unanswered] {
            for way in ["proceed", "refuse"] {
                let audit = format!("audit: {{ {sync}, timeout: 200ms, unrecorded: {way} }}");
                let (report, book) = run_with(&audit, "70s", &timeline, keep(urgent, is_mute));
                quiet(&report);
                assert_eq!(came(&report, "nobody", 1), (Some(403), 0));
                let gone = report.exchange("o", 1).expect("it was sent");
                assert_eq!((gone.status, gone.is_disconnected), (None, true), "{report}");
                let admitted = decisions(&told(&book, told_as));
                let left: Vec<_> = told(&book, Action::Deny)
                    .into_iter()
                    .filter(|note| note.outcome == "client-left")
                    .collect();
                assert_eq!(admitted.len(), 1, "{urgent:?} {way}: {book:?}");
                assert_eq!(decisions(&left), admitted, "{urgent:?} {way}: {book:?}");
                assert_eq!(left.len(), 1, "{urgent:?} {way}: {book:?}");
                let refused = (unrecorded(&report, "late"), unrecorded(&report, "refused"));
                assert_eq!((refused, metric(&report, "lost")), ((0, 0), 0));
            }
        }
    }
}

/// Whose denial waits was denied, wherever it is by then.
#[test]
fn who_leaves_while_a_denial_waits_is_on_record_as_denied_once() {
    let timeline = "
  - { at: 100ms, client: nobody, send: { path: /who } }
  - { at: 150ms, client: nobody, disconnect: true }
";
    let audit = "audit: { sync: [deny], timeout: 200ms }";
    for urgent in [Urgent::After(120), Urgent::Unanswered, Urgent::After(400)] {
        let (report, book) = run_with(audit, "70s", timeline, keep(urgent, false));
        quiet(&report);
        let outcomes: Vec<_> =
            told(&book, Action::Deny).iter().map(|note| note.outcome.clone()).collect();
        assert_eq!(outcomes, ["client-identity-required"], "{urgent:?}: {book:?}");
    }
}

const ENDED: &str = "10s, drain: 300ms";

/// A request is held, and its configuration ends 300 ms after the next one came: with the calls that are under way, and with
/// all that it would still do for the request.
fn replaced_by(gateway: &str, audit: &str) -> String {
    format!(
        "
  - {{ at: 100ms, client: o, send: {{ path: /open }} }}
  - at: 150ms
    update:
      config: {{ version: 1, gateway: {{ cluster: {gateway}, timeout: 45ms }}, {audit}policies: [] }}
  - {{ at: 2s, client: o, disconnect: true }}
"
    )
}

/// Nobody takes its events over, since the next one has another gateway: all of them are counted as lost, and so is what the
/// end itself gives cause to tell.
#[test]
fn what_a_configuration_has_to_tell_when_its_host_ends_it_is_counted() {
    for (way, lost) in [("proceed", 2), ("refuse", 3)] {
        let audit = format!("audit: {{ sync: [rung], timeout: 5s, unrecorded: {way} }}");
        let keeper = keep(Urgent::After(20_000), true);
        let (report, _) = run_with(&audit, ENDED, &replaced_by("another", ""), keeper);
        quiet(&report);
        // That it came into force, the rung, and that this was refused.
        assert_eq!(metric(&report, "lost"), lost, "{way}: {report}");
    }
}

#[test]
fn what_a_configuration_has_to_tell_when_its_host_ends_it_is_told_by_the_next() {
    for way in ["proceed", "refuse"] {
        let audit = format!("audit: {{ sync: [rung], timeout: 5s, unrecorded: {way} }}");
        let keeper = keep(Urgent::After(20_000), true);
        let timeline = replaced_by("tidegate", "audit: {}, ");
        let (report, book) = run_with(&audit, ENDED, &timeline, keeper);
        quiet(&report);
        let rungs = decisions(&told(&book, Action::Rung));
        let expected = if way == "refuse" { rungs.clone() } else { BTreeSet::new() };
        assert_eq!(rungs.len(), 1, "{way}: {book:?}");
        assert_eq!(decisions(&told(&book, Action::Deny)), expected, "{way}: {book:?}");
        assert_eq!(metric(&report, "lost"), 0, "{way}: {report}");
    }
}
