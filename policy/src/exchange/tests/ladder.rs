//! Tests of the ladder: what becomes of requests without a verdict, rung by rung.

use super::*;
use crate::config::Rung;
use crate::local_share::ShareAnswer;

/// One policy with two limits on the whole ladder, one that allows in the end, one that denies.
const LADDERS: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate"}, "policies": [
    {"name": "whole", "match": {"path": "/whole/**"}, "rate_limits": [
        {"name": "a", "by": "ip", "limit": 600, "per": "minute"},
        {"name": "b", "by": "ip", "limit": 60, "per": "minute"}]},
    {"name": "open", "match": {"path": "/**"}, "on_unavailable": ["local_share", "allow"],
     "rate_limits": [{"name": "c", "by": "ip", "limit": 60, "per": "minute"}]},
    {"name": "shut", "match": {"path": "/whole/shut"}, "on_unavailable": "deny",
     "rate_limits": [{"name": "d", "by": "ip", "limit": 60, "per": "minute"}]}
]}"#;

/// Falls onto the ladder at `path`, answers the shares, and gives what comes of it.
fn fallen(path: &str, answer: Answer<'_>, shares: &[ShareAnswer]) -> (usize, Effects) {
    let config = Config::read(LADDERS).config.expect("sound");
    let mut bench = Bench { config, ..Bench::new() };
    bench.request(path, &facts());
    let effects = bench.answer(answer);
    let Act::Share(calls) = effects.act else { panic!("asks for shares: {effects:?}") };
    assert!(matches!(effects.signals[..], [Signal::Unavailable(_)]), "{:?}", effects.signals);
    let event = Event::Shares { answers: shares, entropy: 0 };
    (calls.len(), bench.exchange.on(&bench.config, &bench.overrides, event))
}

#[test]
fn the_ladder_is_walked_rung_by_rung_for_each_policy() {
    use ShareAnswer::Taken;
    let spent = |retry_us| ShareAnswer::Spent { retry_us };
    let open = Answer::CircuitOpen { retry_ms: 9_001 };
    let admitted = decided(0, Outcome::LocalShareAllowed);
    let refused = decided(0, Outcome::LocalShareDenied);
    let reduced = Reason::TemporaryReducedCapacity;
    // Path, what fell, shares of a, b, c; signals; denial: reason, violated, Retry-After.
    type Denied = Option<(Reason, &'static [&'static str], Option<u64>)>;
    type Row = (&'static str, Answer<'static>, Vec<ShareAnswer>, Vec<Signal>, Denied);
    let rows: [Row; 6] = [
        (
            "/whole/x",
            Answer::Reset,
            vec![Taken, Taken, Taken],
            vec![admitted, decided(1, Outcome::LocalShareAllowed)],
            None,
        ),
        (
            "/x",
            Answer::Reset,
            vec![spent(Some(5))],
            vec![decided(1, Outcome::DegradedAllowed)],
            None,
        ),
        (
            "/whole/x",
            Answer::Reset,
            vec![Taken, spent(Some(3_000_000)), Taken],
            vec![refused, decided(1, Outcome::LocalShareAllowed)],
            Some((reduced, &["whole.b"], Some(3))),
        ),
        // The gateway may be back before the share is.
        (
            "/whole/x",
            open,
            vec![spent(Some(20_000_000)), spent(Some(10_000_000)), Taken],
            vec![refused, decided(1, Outcome::LocalShareAllowed)],
            Some((reduced, &["whole.a", "whole.b"], Some(10))),
        ),
        (
            "/whole/x",
            Answer::NotSent,
            vec![spent(None), Taken, spent(None)],
            vec![refused, decided(1, Outcome::DegradedAllowed)],
            Some((reduced, &["whole.a"], Some(1))),
        ),
        (
            "/whole/shut",
            Answer::Reset,
            vec![Taken, Taken, Taken],
            vec![
                admitted,
                decided(1, Outcome::LocalShareAllowed),
                decided(2, Outcome::DegradedDenied),
            ],
            Some((Reason::PolicyStoreUnavailable, &["shut"], Some(1))),
        ),
    ];
    for (path, answer, shares, signals, denied) in rows {
        let case = format!("{path} {answer:?} {shares:?}");
        let (calls, effects) = fallen(path, answer, &shares);
        assert_eq!(calls, shares.len(), "{case}");
        let (fell, decided): (Vec<_>, Vec<_>) =
            effects.signals.into_iter().partition(|signal| matches!(signal, Signal::Fell { .. }));
        assert_eq!(decided, signals, "{case}");
        assert_eq!(fell.len(), signals.len(), "{case}");
        match (effects.act, denied) {
            (Act::Resume, None) => {}
            (Act::Deny(denial), Some((reason, violated, retry_after_s))) => {
                assert_eq!(
                    (denial.reason, denial.retry_after_s),
                    (reason, retry_after_s),
                    "{case}"
                );
                assert_eq!(denial.violated, violated, "{case}");
            }
            (act, _) => panic!("{case}: {act:?}"),
        }
    }
}

#[test]
fn the_rung_and_the_reason_stand_in_the_metric_and_in_the_line() {
    use ShareAnswer::{Spent, Taken};
    let fell = |rung| Signal::Fell { rung, reason: Reason::CalloutReset };
    let spent = Spent { retry_us: None };
    let rows: [(_, &[ShareAnswer], &[Signal], _); 3] = [
        (
            "/whole/x",
            &[Taken, Taken, spent],
            &[fell(Rung::LocalShare), fell(Rung::Allow)],
            "verdict=degraded reason=callout-reset rungs=local_share,allow limits=whole,open decision",
        ),
        (
            "/whole/x",
            &[spent, Taken, Taken],
            &[fell(Rung::Deny), fell(Rung::LocalShare)],
            "verdict=denied reason=temporary-reduced-capacity cause=callout-reset rungs=local_share,deny limits=whole.a decision",
        ),
        (
            "/x",
            &[spent],
            &[fell(Rung::Allow)],
            "verdict=degraded reason=callout-reset rungs=allow limits=open decision",
        ),
    ];
    for (path, shares, signals, line) in rows {
        let (_, effects) = fallen(path, Answer::Reset, shares);
        assert!(effects.signals.ends_with(signals), "{path}: {:?}", effects.signals);
        let note = effects.note.expect("a note");
        assert!(!note.has_verdict());
        assert!(note.to_string().starts_with(line), "{note}");
    }
}

#[test]
fn an_open_circuit_says_when_it_makes_sense_to_come_again() {
    let (mut bench, _) = Bench::asked("/strict/x");
    let effects = bench.answer(Answer::CircuitOpen { retry_ms: 9_001 });
    assert_eq!(effects.signals[0], Signal::Unavailable(Reason::CalloutCircuitOpen));
    let Act::Deny(denial) = effects.act else { panic!("denied") };
    assert_eq!((denial.reason, denial.retry_after_s), (Reason::PolicyStoreUnavailable, Some(10)));
}
