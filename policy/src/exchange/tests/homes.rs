//! Requests whose tenant is at home in another region: the limits are asked here, the key is asked there.

use super::claims::{Desk, KEYED, facts, settled};
use super::*;
use crate::scope::Region;
use crate::wire::FinishBy;

const RESET: Answer<'_> = Answer::Reset;
const BUSY: Answer<'_> = Answer::Response {
    marked: true,
    status: b"503",
    body: br#"{"v":1,"reason":"service-overloaded"}"#,
};

fn region(name: &str) -> Option<Region> {
    Some(Region::new(name).expect("a sound name"))
}

/// In the south; everybody is at home in the north.
fn desk(policy: &str) -> Desk {
    limited("", policy)
}

/// The same with more limits.
fn limited(limits: &str, policy: &str) -> Desk {
    let document = r#"{"version": 1, "gateway": {"cluster": "tidegate"},
        "homes": {"regions": {"north": {"cluster": "tidegate-north"}}, "default": "north"},
        "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
        "policies": [{"name": "pay", "match": {"path": "/**"},
          "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}LIMITS],
          "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}POLICY}]}"#;
    let document = document.replace("LIMITS", limits).replace("POLICY", policy);
    let reading = Config::read(&document);
    let config = reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics));
    let mut desk = Desk::of(config);
    desk.caller.region = region("south");
    desk
}

fn message(asked: &Effects) -> DecideRequest {
    let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
    DecideRequest::decode(message).expect("a sound message")
}

/// The limits admit, and home is asked.
fn at_home(desk: &mut Desk) -> Effects {
    let asked = desk.request(&facts(&KEYED, false));
    let here = message(&asked);
    assert_eq!((here.limits.len(), here.claim, here.scope.region), (1, None, region("south")));
    assert_eq!((desk.exchange.home(&desk.config), here.timeout_ms), (None, 45));
    let asked = desk.told(&asked, true, "", &[]);
    let there = message(&asked);
    assert_eq!((there.limits.len(), there.scope.region), (0, region("north")));
    assert!(there.claim.is_some());
    assert_eq!((desk.exchange.home(&desk.config), there.timeout_ms), (Some(0), 250));
    assert_eq!(desk.exchange.timeout_ms(&desk.config), 250);
    assert!(desk.exchange.is_timed() && desk.exchange.holds_request());
    asked
}

/// What goes back: the units of the limits, here, and the claim's fence, at home.
fn given_back(settlement: Option<Box<Settlement>>) -> (Option<i64>, Option<u64>) {
    let Some(settlement) = settlement else { return (None, None) };
    let message = settled(&settlement);
    let by = |message: &crate::wire::SettleRequest| {
        assert_eq!((message.scope.region.clone(), &message.finish), (region("south"), &None));
        // Both callouts lie between.
        assert!(message.age_us >= 45_000, "{message:?}");
        message.adjustments[0].by
    };
    let Some(finish) = &message.finish else {
        assert_eq!((settlement.home, &settlement.beside), (None, &None));
        return (Some(by(&message)), None);
    };
    assert_eq!((settlement.home, message.scope.region), (Some(0), region("north")));
    assert_eq!((message.adjustments.len(), message.timeout_ms), (0, 250));
    assert!(matches!(finish.by, FinishBy::Abandon { .. }));
    let beside = settlement.beside.map(|beside| by(&settled(&beside)));
    (beside, Some(finish.fence))
}

#[test]
fn the_limits_are_asked_here_and_the_key_at_home() {
    let mut desk = desk("");
    let asked = at_home(&mut desk);
    desk.exchange.sent(1_000_000);
    let effects = desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert_eq!((effects.act, effects.settlement), (Act::Resume, None));
    let beat = desk.exchange.beats(&desk.config, 9_000_000).expect("it is time");
    assert_eq!((beat.home, settled(&beat).scope.region), (Some(0), region("north")));
    let headers = vec![(b":status".as_slice(), b"201".as_slice())];
    let envoys = Envoys { from_upstream: true, ..Envoys::default() };
    let part = Part::Headers { headers: &headers, envoys, end: true };
    let end = desk.exchange.on_answer(&desk.config, part).settlement.expect("it is stored");
    let message = settled(&end);
    assert_eq!((end.home, end.beside, message.scope.region), (Some(0), None, region("north")));
    assert!(matches!(message.finish.expect("an end").by, FinishBy::Complete { .. }));
    // The limits are told of all the same.
    let said = Said { moment: Moment::Headers, values: &[], now_us: None };
    assert!(!desk.exchange.on_response(&desk.config, &said).fields.is_empty());
}

#[test]
fn in_the_home_region_itself_one_question_does() {
    let mut desk = desk("");
    desk.caller.region = region("north");
    let asked = desk.request(&facts(&KEYED, false));
    let message = message(&asked);
    assert_eq!((message.limits.len(), message.scope.region), (1, region("north")));
    assert!(message.claim.is_some());
    assert_eq!((desk.exchange.home(&desk.config), message.timeout_ms), (None, 45));
    desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    let beat = desk.exchange.beats(&desk.config, 60_000_000).expect("it is time");
    assert_eq!(beat.home, None);
}

#[test]
fn limits_that_deny_ask_nobody_at_home() {
    let mut desk = desk("");
    let asked = desk.request(&facts(&KEYED, false));
    let effects = desk.told(&asked, false, "", &[]);
    assert!(matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::QuotaExceeded));
    assert_eq!(effects.settlement, None);
}

#[test]
fn what_home_says_is_what_clients_get() {
    let rows = [
        (r#"{"state":"conflict"}"#, Reason::IdempotencyConflict, (None, None)),
        (r#"{"state":"unknown"}"#, Reason::IdempotencyUnknownOutcome, (None, None)),
        (r#"{"state":"in_flight","wait_us":9}"#, Reason::IdempotencyInFlight, (None, None)),
        // That nobody knows is not idempotency's word.
        (r#"{"state":"forgets"}"#, Reason::PolicyStoreUnavailable, (Some(-1), None)),
    ];
    for (state, reason, back) in rows {
        let mut desk = desk("");
        let asked = at_home(&mut desk);
        let effects = desk.answer(&asked, state);
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        assert_eq!((denial.reason, given_back(effects.settlement)), (reason, back), "{state}");
    }
}

#[test]
fn without_home_nothing_runs_and_nothing_stays_charged() {
    let open = Answer::CircuitOpen { retry_ms: 9 };
    let mismatch = br#"{"v":1,"reason":"region-mismatch"}"#;
    let mismatch = Answer::Response { marked: true, status: b"409", body: mismatch };
    let rows = [
        // What may have been claimed there is given back there.
        (RESET, Reason::PolicyStoreUnavailable, (Some(-1), Some(0))),
        (open, Reason::PolicyStoreUnavailable, (Some(-1), None)),
        (mismatch, Reason::PolicyStoreUnavailable, (Some(-1), None)),
        (BUSY, Reason::ServiceOverloaded, (Some(-1), None)),
    ];
    for (answer, reason, back) in rows {
        let mut desk = desk("");
        at_home(&mut desk);
        let told = format!("{answer:?}");
        let effects = desk.on(Event::Answer { answer, entropy: 0 });
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        assert_eq!((denial.reason, given_back(effects.settlement)), (reason, back), "{told}");
        assert!(denial.retry_after_s.is_some());
    }
    let mut desk = desk(r#", "on_unavailable": ["deny"]"#);
    desk.config.policies[0].idempotency.as_mut().expect("terms").allows_unasked = true;
    at_home(&mut desk);
    let effects = desk.on(Event::Answer { answer: RESET, entropy: 0 });
    assert_eq!((effects.act, given_back(effects.settlement)), (Act::Resume, (None, Some(0))));
}

#[test]
fn a_gateway_here_that_cannot_be_asked_decides_about_limits_alone() {
    // Nothing was charged, so nothing of it goes back.
    let mut admits = desk(r#", "on_unavailable": ["allow"]"#);
    admits.request(&facts(&KEYED, false));
    let asked = admits.on(Event::Answer { answer: RESET, entropy: 0 });
    assert_eq!(admits.exchange.home(&admits.config), Some(0));
    assert_eq!(admits.answer(&asked, r#"{"state":"claimed","fence":3}"#).act, Act::Resume);
    assert!(admits.exchange.wants_answer());

    let mut none = desk(r#", "on_unavailable": ["allow"]"#);
    none.request(&facts(&KEYED, false));
    none.on(Event::Answer { answer: RESET, entropy: 0 });
    let effects = none.on(Event::Answer { answer: RESET, entropy: 0 });
    assert!(matches!(
        &effects.act,
        Act::Deny(denial) if denial.reason == Reason::PolicyStoreUnavailable
    ));
    assert_eq!(given_back(effects.settlement), (None, Some(0)));

    let mut denies = desk(r#", "on_unavailable": ["deny"]"#);
    denies.request(&facts(&KEYED, false));
    let effects = denies.on(Event::Answer { answer: RESET, entropy: 0 });
    assert!(matches!(effects.act, Act::Deny(_)), "{effects:?}");
    assert_eq!(effects.settlement, None, "nobody was asked for a claim");

    // Nor does one that is at its bound let a request run unprotected.
    let mut busy = desk(r#", "mode": {"rate_limits": "shadow"}"#);
    busy.request(&facts(&KEYED, false));
    let effects = busy.on(Event::Answer { answer: BUSY, entropy: 0 });
    assert!(
        matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::ServiceOverloaded)
    );
}

/// The limits admit here and home is at its bound: the request goes on, and owes what it would have owed.
#[test]
fn a_claim_in_shadow_whose_home_is_at_its_bound_loses_nothing_of_the_limits() {
    let limits = r#",
        {"name": "tokens", "by": "ip", "limit": 900, "per": "minute",
         "cost": {"response_header": "x-tokens", "reserve": 100, "max": 900}},
        {"name": "pages", "by": "ip", "limit": 9, "per": "minute", "soft": true}"#;
    let mut desk = limited(limits, "");
    desk.config.policies[0].idempotency.as_mut().expect("terms").mode = Some(Mode::Shadow);
    desk.request(&facts(&KEYED, false));
    let some = Some(9);
    let states = [("pay.ip", true, some), ("pay.tokens", true, some), ("pay.pages", false, some)];
    let body = body("allow", &states);
    let answer = Answer::Response { marked: true, status: b"200", body: body.as_bytes() };
    let asked = desk.on(Event::Answer { answer, entropy: 0 });
    assert!(message(&asked).claim.is_some());
    let effects = desk.on(Event::Answer { answer: BUSY, entropy: 0 });
    assert_eq!((effects.act, effects.soft.as_deref()), (Act::Resume, Some("pay.pages")));
    let note = effects.note.expect("a line").to_string();
    assert!(
        note.starts_with("verdict=degraded reason=service-overloaded soft=pay.pages "),
        "{note}"
    );
    assert!(effects.signals.contains(&Signal::Unavailable(Reason::ServiceOverloaded)));
    let tokens = [Some(b"250".to_vec())];
    let said = Said { moment: Moment::Headers, values: &tokens, now_us: Some(5_000_000) };
    let response = desk.exchange.on_response(&desk.config, &said);
    assert!(!response.fields.is_empty());
    let owed = settled(&response.settlement.expect("what it did cost"));
    assert_eq!((owed.adjustments.len(), owed.adjustments[0].by), (1, 150));
}

#[test]
fn what_a_circuit_breaker_refuses_goes_back_to_two_regions() {
    let mut desk = desk(r#", "circuit_breaker": {}"#);
    let asked = at_home(&mut desk);
    let effects = desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert!(matches!(effects.act, Act::Permit { .. }), "{effects:?}");
    let no_leave = NoLeave { wait_ms: Some(1_500), now_us: None, held: 0 };
    let effects = desk.on(Event::Permit(Err(no_leave)));
    assert!(matches!(effects.act, Act::Deny(_)));
    assert_eq!(given_back(effects.settlement), (Some(-1), Some(3)));
}

#[test]
fn who_leaves_gives_back_at_home_what_may_be_claimed_there() {
    let mut desk = desk("");
    desk.request(&facts(&KEYED, false));
    assert_eq!(desk.exchange.left(&desk.config, None), None, "nothing was claimed yet");
    let mut desk = self::desk("");
    at_home(&mut desk);
    let left = desk.exchange.left(&desk.config, None);
    assert_eq!(given_back(left.map(Box::new)), (None, Some(0)));
}
