//! Decisions that wait for their event: what is held, what takes effect, and what is given back where it is refused.

use super::claims::{Desk, KEYED, facts, settled};
use super::*;
use crate::audit::Action;
use crate::wire::FinishBy;

const REFUSED: Refused = Refused { now_us: Some(7_000_000), grpc: true, is_told: false };

fn desk(unrecorded: &str, policy: &str) -> Desk {
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}},
        "audit": {{"allows": "100%", "sync": ["deny", "allow"], "unrecorded": "{unrecorded}"}},
        "identities": {{"tenant": {{"header": "x-tenant", "trusted": true}}}},
        "policies": [{{"name": "pay", "match": {{"path": "/**"}},
            "rate_limits": [{{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}}]{policy}}}]}}"#
    );
    let reading = Config::read(&document);
    Desk::of(reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics)))
}

impl Desk {
    /// Holds what follows, as whoever tells the audit does it.
    fn held(&mut self, effects: &mut Effects) {
        let charged = match self.exchange.take_standing() {
            Some(EventStanding::Charged(charged)) => Some(charged),
            _ => None,
        };
        self.exchange.hold(effects, vec!["pay".to_string()], charged);
        assert!(self.exchange.is_held() && self.exchange.holds_request());
    }

    fn refused(&mut self) -> Effects {
        self.exchange.refuse(&self.config, REFUSED)
    }

    /// Asked 2 s before [`REFUSED`], and admitted.
    fn admitted(&mut self, claim: &str) -> Effects {
        let asked = self.request(&facts(&KEYED, false));
        self.exchange.sent(5_000_000);
        self.told(&asked, true, claim, &[])
    }
}

#[test]
fn an_admission_is_held_and_goes_on_as_it_would_have() {
    let (mut desk, mut plain) = (desk("proceed", ""), desk("proceed", ""));
    let (mut effects, expected) = (desk.admitted(""), plain.admitted(""));
    desk.held(&mut effects);
    assert_eq!(effects, Effects::of(Act::Pass, vec![]), "nothing of it has happened");
    assert_eq!(desk.exchange.let_go(), expected);
    assert!(matches!(desk.exchange.take_standing(), Some(EventStanding::Told)));
    assert!(!desk.exchange.is_held() && !desk.exchange.holds_request());
    assert_eq!(desk.exchange.let_go(), Effects::of(Act::Pass, vec![]), "once");
}

#[test]
fn a_refused_admission_gives_back_what_was_charged_and_claimed() {
    let idempotency =
        r#", "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}"#;
    let claimed = r#","claim":{"state":"claimed","fence":3}"#;
    for (policy, claim, abandons) in [("", "", false), (idempotency, claimed, true)] {
        let mut desk = desk("refuse", policy);
        let mut effects = desk.admitted(claim);
        assert_eq!(effects.act, Act::Resume);
        desk.held(&mut effects);
        assert_eq!(desk.exchange.has_claim(), abandons);
        let refused = desk.refused();
        let Act::Deny(denial) = &refused.act else { panic!("{refused:?}") };
        let told = (denial.reason, denial.retry_after_s, denial.grpc, denial.is_paid);
        assert_eq!(told, (Reason::PolicyStoreUnavailable, Some(1), true, false));
        assert_eq!(denial.violated, ["pay"]);
        let note = refused.note.as_ref().expect("a line");
        assert_eq!((note.verdict, note.cause), (Noted::Denied, Some(Reason::EventNotRecorded)));
        assert!(refused.signals.contains(&Signal::Unavailable(Reason::EventNotRecorded)));
        assert!(!refused.signals.contains(&decided(0, Outcome::Allowed)), "{refused:?}");
        let message = settled(refused.settlement.as_ref().expect("it is given back"));
        let by: i64 = message.adjustments.iter().map(|one| one.by).sum();
        assert_eq!((by, message.age_us), (-1, 2_000_000));
        let ends = message.finish.map(|finish| matches!(finish.by, FinishBy::Abandon { .. }));
        assert_eq!(ends, abandons.then_some(true));
        assert!(matches!(desk.exchange.take_standing(), Some(EventStanding::Hurried)));
        assert!(desk.exchange.replied());
    }
}

/// That it goes on may be on record by then.
#[test]
fn a_refusal_of_what_may_have_been_heard_is_told_each_time() {
    for is_told in [false, true] {
        let mut desk = desk("refuse", "");
        let mut effects = desk.admitted("");
        desk.held(&mut effects);
        let refused = desk.exchange.refuse(&desk.config, Refused { is_told, ..REFUSED });
        assert!(matches!(refused.act, Act::Deny(_)), "{refused:?}");
        let standing = desk.exchange.take_standing();
        assert_eq!(matches!(standing, Some(EventStanding::Contradicts)), is_told, "{standing:?}");
    }
}

#[test]
fn who_leaves_meanwhile_gets_back_what_an_admission_took() {
    let mut desk = desk("refuse", "");
    let mut effects = desk.admitted("");
    assert_eq!(desk.exchange.never_went_on(), None, "nothing waits");
    desk.held(&mut effects);
    let told = desk.exchange.never_went_on().expect("its event says that it goes on");
    assert_eq!((told.action, told.outcome), (Action::Deny, "client-left"));
    assert!(told.decision.is_some() && told.names == ["pay"], "{told:?}");
    let back = desk.exchange.left(&desk.config, Some(7_000_000)).expect("it is given back");
    assert_eq!(desk.exchange.never_went_on(), None, "once");
    assert_eq!(settled(&back).adjustments.len(), 1);
    assert_eq!(desk.refused(), Effects::of(Act::Pass, vec![]), "nobody waits any more");
}

#[test]
fn a_denial_stays_one_and_is_counted_at_once() {
    let mut desk = desk("refuse", "");
    let nobody = Facts { source_address: None, ..facts(&KEYED, false) };
    let mut effects = desk.request(&nobody);
    assert!(matches!(effects.act, Act::Deny(_)), "{effects:?}");
    let (act, signals) = (format!("{:?}", effects.act), effects.signals.clone());
    desk.held(&mut effects);
    assert_eq!(desk.exchange.never_went_on(), None);
    assert_eq!(effects, Effects::of(Act::Pass, signals));
    let refused = desk.refused();
    assert_eq!((format!("{:?}", refused.act), refused.signals.len()), (act, 0));
}

/// A circuit breaker refuses what its limits have charged: that is given back with the denial, and not once more by whoever
/// leaves while the denial waits for its event.
#[test]
fn what_a_held_denial_has_given_back_is_not_given_back_again() {
    let mut desk = desk("refuse", r#", "circuit_breaker": {}"#);
    let asks = desk.admitted("");
    assert!(matches!(asks.act, Act::Permit { .. }), "{asks:?}");
    let no_leave = NoLeave { wait_ms: Some(1), now_us: Some(6_000_000), held: 0 };
    let mut effects = desk.on(Event::Permit(Err(no_leave)));
    assert!(matches!(effects.act, Act::Deny(_)), "{effects:?}");
    desk.held(&mut effects);
    assert_eq!(settled(effects.settlement.as_ref().expect("at once")).adjustments.len(), 1);
    assert!(desk.exchange.left(&desk.config, Some(7_000_000)).is_none());
}
