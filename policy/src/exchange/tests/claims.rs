//! Requests with idempotency keys: what is asked, what follows, and how claims end.

use super::*;
use crate::idempotency::key::FIELD;
use crate::idempotency::stored::StoredAnswer;
use crate::mode::{Flag, Mode};
use crate::wire::{AnswerHead, ClaimState, FinishBy};

fn config(more: &str) -> Config {
    let document = r#"{"version": 1, "gateway": {"cluster": "tidegate"},
        "identities": {"tenant": {"header": "x-tenant", "trusted": true}},
        "policies": [{"name": "pay", "match": {"path": "/**"},
          "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}],
          "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"MORE}}]}"#;
    let reading = Config::read(&document.replace("MORE", more));
    reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics))
}

pub(super) fn facts(fields: &[(&'static str, &'static str)], has_body: bool) -> Facts<'static> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    Facts {
        source_address: Some(b"192.0.2.1:1".to_vec()),
        headers: [(b":method".as_slice(), b"POST".as_slice())].into_iter().chain(fields).collect(),
        target: Some(b"/pay"),
        has_body,
        ..Facts::default()
    }
}

pub(super) const KEYED: [(&str, &str); 2] = [("x-tenant", "acme"), (FIELD, "k")];

pub(super) struct Desk {
    pub(super) config: Config,
    overrides: Overrides,
    pub(super) exchange: Exchange,
    /// Where the filter is.
    pub(super) caller: CallerScope,
    /// The circuit breakers that are known to refuse.
    pub(super) shut: Vec<usize>,
}

impl Desk {
    fn new(more: &str) -> Self {
        Self::of(config(more))
    }

    pub(super) fn of(config: Config) -> Self {
        let (overrides, exchange) = (Overrides::default(), Exchange::default());
        Self { config, overrides, exchange, caller: caller(), shut: Vec::new() }
    }

    pub(super) fn on(&mut self, event: Event<'_>) -> Effects {
        self.exchange.on(&self.config, &self.overrides, event)
    }

    pub(super) fn request(&mut self, facts: &Facts<'_>) -> Effects {
        let matched = self.config.on_path(Some(b"/pay")).on_host(&self.config, None);
        let (caller, id, shut) = (self.caller.clone(), DecisionId::new(ID), self.shut.clone());
        self.on(Event::Request { matched, facts, caller: &caller, id, known: &shut })
    }

    /// The gateway's word on the question that was asked.
    pub(super) fn answer(&mut self, asked: &Effects, state: &str) -> Effects {
        self.told(asked, true, &format!(r#","claim":{state}"#), &[])
    }

    /// The gateway's word: that of the first answer.
    pub(super) fn done(&mut self, asked: &Effects, answer: &StoredAnswer) -> Effects {
        let (head, octets) = AnswerHead::of(answer).expect("short");
        let state = serde_json::to_string(&ClaimState::Done(head)).expect("JSON");
        self.told(asked, true, &format!(r#","claim":{state}"#), &octets)
    }

    /// The gateway's word: the limits' verdict, what else it says, and octets behind it.
    pub(super) fn told(
        &mut self,
        asked: &Effects,
        allowed: bool,
        more: &str,
        octets: &[u8],
    ) -> Effects {
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        let asked = DecideRequest::decode(message).expect("a sound message");
        let limits: Vec<String> = asked
            .limits
            .iter()
            .map(|limit| {
                format!(
                    r#"{{"id":"{}","allowed":{allowed},"remaining":4,"next_us":1,"reset_us":1}}"#,
                    limit.id
                )
            })
            .collect();
        let body = format!(
            r#"{{"v":1,"id":"{}","verdict":"{}","limits":[{}]{more}}}"#,
            asked.id,
            if allowed { "allow" } else { "deny" },
            limits.join(",")
        );
        let mut body = body.into_bytes();
        if !octets.is_empty() {
            body.push(0);
            body.extend(u32::try_from(octets.len()).expect("short").to_be_bytes());
            body.extend(octets);
        }
        let answer = Answer::Response { marked: true, status: b"200", body: &body };
        self.on(Event::Answer { answer, entropy: 0 })
    }

    /// The gateway says that the key is in flight, and so many others wait.
    fn in_flight(&mut self, asked: &Effects, others: usize) -> Effects {
        let effects = self.answer(asked, r#"{"state":"in_flight","wait_us":9000000}"#);
        match effects.act {
            Act::CountWaiting(0) => self.on(Event::Others(others)),
            _ => effects,
        }
    }

    fn part(&mut self, part: Part<'_>) -> Answering {
        self.exchange.on_answer(&self.config, part)
    }
}

pub(super) fn settled(settlement: &Settlement) -> SettleRequest {
    SettleRequest::decode(&settlement.message).expect("a sound message")
}

fn headers(status: &'static str) -> crate::identity::Fields<'static> {
    vec![(b":status", status.as_bytes()), (b"etag", b"e"), (b"set-cookie", b"s=1")]
}

const OURS: Envoys = Envoys { from_upstream: true, flags: 0, attempts: Some(1), from_route: false };

fn claimed(more: &str) -> Desk {
    let mut desk = Desk::new(more);
    let asked = desk.request(&facts(&KEYED, false));
    let effects = desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert_eq!(effects.act, Act::Resume);
    assert!(desk.exchange.wants_answer());
    desk
}

#[test]
fn what_the_request_itself_says_to_be_wrong_asks_nothing() {
    let tenant = ("x-tenant", "acme");
    let rows: [(&[(&str, &str)], Reason); 5] = [
        (&[tenant], Reason::IdempotencyKeyRequired),
        (&[tenant, (FIELD, "a b")], Reason::IdempotencyKeyInvalid),
        (&[tenant, (FIELD, "a"), (FIELD, "a")], Reason::IdempotencyKeyInvalid),
        (&[(FIELD, "k")], Reason::ClientIdentityRequired),
        (&[tenant, (FIELD, "k"), ("content-length", "262145")], Reason::IdempotencyBodyTooLong),
    ];
    for (fields, reason) in rows {
        let effects = Desk::new("").request(&facts(fields, true));
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        assert_eq!((denial.reason, denial.violated), (reason, vec!["pay".to_string()]));
    }
    let mut desk = Desk::new("");
    let odd = Facts { target: Some(b"/pay%2F..%2Fx"), ..facts(&KEYED, false) };
    let effects = desk.request(&odd);
    let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
    assert_eq!(denial.reason, Reason::IdempotencyPathInvalid);
    assert!(denial.detail.is_some_and(|told| told.contains("0x2f")));
}

#[test]
fn a_body_is_asked_for_to_its_end_and_changes_the_hash() {
    let mut hashes = Vec::new();
    for pieces in [["{}", ""], ["{", "}"], ["{", "]"]] {
        let mut desk = Desk::new("");
        assert_eq!(desk.request(&facts(&KEYED, true)).act, Act::Collect);
        assert!(desk.exchange.collects() && desk.exchange.holds_request());
        let effects = desk.on(Event::Body { bytes: pieces[0].as_bytes(), end: false });
        assert_eq!(effects.act, Act::Collect);
        let asked = desk.on(Event::Body { bytes: pieces[1].as_bytes(), end: true });
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        let asked = DecideRequest::decode(message).expect("a sound message");
        let claim = asked.claim.expect("a claim");
        assert_eq!((claim.lock_ms, claim.life_s, claim.takeover), (15_000, 86_400, false));
        assert_eq!(asked.scope.tenant, Tenant::Named(crate::scope::TenantId::new("acme").unwrap()));
        // The policy matches all paths: this one is the request's own.
        assert!(!claim.keyed.configured);
        hashes.push(claim.keyed.hash);
    }
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    let mut desk = Desk::new(r#", "hash": {"max": "2B"}"#);
    desk.request(&facts(&KEYED, true));
    let effects = desk.on(Event::Body { bytes: b"{ }", end: false });
    assert!(matches!(
        &effects.act,
        Act::Deny(denial) if denial.reason == Reason::IdempotencyBodyTooLong
    ));
}

#[test]
fn each_state_of_a_claim_has_its_answer() {
    let rows = [
        (r#"{"state":"in_flight","wait_us":1500000}"#, Reason::IdempotencyInFlight, Some(2)),
        (r#"{"state":"conflict"}"#, Reason::IdempotencyConflict, None),
        (r#"{"state":"unknown"}"#, Reason::IdempotencyUnknownOutcome, None),
        (r#"{"state":"forgets"}"#, Reason::PolicyStoreUnavailable, Some(1)),
        (r#"{"state":"spent"}"#, Reason::PolicyStoreUnavailable, Some(1)),
    ];
    for (state, reason, retry_after_s) in rows {
        let mut desk = Desk::new("");
        let asked = desk.request(&facts(&KEYED, false));
        let effects = desk.answer(&asked, state);
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        assert_eq!((denial.reason, denial.retry_after_s), (reason, retry_after_s), "{state}");
        // That nobody knows is not idempotency's word: the limits get back what they charged.
        let refunded = effects.settlement.map(|settlement| settled(&settlement).adjustments[0].by);
        let unknown = reason == Reason::PolicyStoreUnavailable;
        assert_eq!(refunded, unknown.then_some(-1), "{state}");
    }
}

#[test]
fn who_waits_asks_for_the_claim_alone_and_not_for_ever() {
    let mut desk = Desk::new(r#", "wait": "50ms""#);
    let mut asked = desk.request(&facts(&KEYED, false));
    let mut waited = 0;
    loop {
        let effects = desk.in_flight(&asked, 0);
        let Act::Wait(delay_ms) = effects.act else {
            assert!(matches!(effects.act, Act::Deny(_)), "{effects:?}");
            break;
        };
        waited += delay_ms;
        asked = desk.on(Event::Waited(FRESH));
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        assert_eq!(DecideRequest::decode(message).expect("sound").limits, []);
    }
    assert_eq!(waited, 50);
    // Whoever is claimed in the end goes on with what its limits said.
    let mut desk = Desk::new(r#", "wait": "50ms""#);
    let asked = desk.request(&facts(&KEYED, false));
    desk.answer(&asked, r#"{"state":"in_flight","wait_us":9000000}"#);
    let asked = desk.on(Event::Waited(FRESH));
    assert_eq!(desk.answer(&asked, r#"{"state":"claimed","fence":1}"#).act, Act::Resume);
    let said = Said { moment: Moment::Headers, values: &[], now_us: None };
    let told = desk.exchange.on_response(&desk.config, &said);
    assert!(!told.fields.is_empty(), "the limits are told, once");
}

/// A retry may come from anywhere; it is on the first request's side of every share.
#[test]
fn a_share_of_keys_goes_by_their_tenant() {
    let by_ip = r#"{"rate_limits": {"enforce": "50%", "by": "ip"}}"#;
    for (mode, own, flagged) in [
        (r#"{"enforce": "50%"}"#, "", false),
        (r#"{"enforce": "50%", "by": "tenant"}"#, "", false),
        (by_ip, r#", "mode": "off""#, true),
    ] {
        let document = format!(
            r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}},
            "identities": {{"tenant": {{"header": "x-tenant", "trusted": true}}}},
            "policies": [{{"name": "pay", "match": {{"path": "/**"}}, "mode": {mode},
              "rate_limits": [{{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}}],
              "idempotency": {{"key": "required", "tenant": "tenant", "upstream_timeout": "10s"{own}}}}}]}}"#
        );
        let reading = Config::read(&document);
        let config = reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics));
        let mut enforced = 0;
        for tenant in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
            let runs = |address: u8| {
                let mut desk = Desk::of(config.clone());
                if flagged {
                    let flag =
                        Flag { mode: Mode::Enforce, share_bp: 5_000, salt: String::from("s") };
                    desk.overrides.flags.insert(String::from("pay"), flag);
                }
                let from = format!("192.0.2.{address}:1").into_bytes();
                let facts = facts(&[("x-tenant", tenant), (FIELD, "k")], false);
                let asked = desk.request(&Facts { source_address: Some(from), ..facts });
                let effects = match claim_of(&asked) {
                    true => desk.answer(&asked, r#"{"state":"conflict"}"#),
                    false => asked,
                };
                matches!(effects.act, Act::Deny(_))
            };
            let sides: Vec<bool> = (1..9).map(runs).collect();
            assert!(sides.iter().all(|side| *side == sides[0]), "{mode} {tenant}: {sides:?}");
            enforced += usize::from(sides[0]);
        }
        assert!((1..12).contains(&enforced), "{mode}: {enforced} of 12");
    }
}

fn claim_of(asked: &Effects) -> bool {
    let Act::Ask(message) = &asked.act else { return false };
    DecideRequest::decode(message).expect("a sound message").claim.is_some()
}

#[test]
fn so_many_wait_and_no_more() {
    for (more, others, waits) in [
        ("", 99, true),
        ("", 100, false),
        (r#", "waiting_max": 2"#, 1, true),
        (r#", "waiting_max": 2"#, 2, false),
    ] {
        let mut desk = Desk::new(&format!(r#", "wait": "1s"{more}"#));
        let asked = desk.request(&facts(&KEYED, false));
        let effects = desk.in_flight(&asked, others);
        let (outcome, is_told) = match &effects.act {
            Act::Wait(20) => (Idempotent::Waited, None),
            Act::Deny(denial) => {
                let Denial { reason, retry_after_s, is_paid, .. } = **denial;
                (Idempotent::Refused { reason, shadow: false }, Some((retry_after_s, is_paid)))
            }
            act => panic!("{act:?}"),
        };
        assert_eq!(is_told, (!waits).then_some((Some(9), true)), "{more} {others}");
        assert_eq!(effects.signals, [Signal::Idempotency { policy: 0, outcome }]);
        assert_eq!(desk.exchange.waits_for(), waits.then_some(0));
        if waits {
            let asked = desk.on(Event::Waited(FRESH));
            assert_eq!(desk.exchange.waits_for(), Some(0), "while it asks, too");
            // It has its place, however many wait.
            let effects = desk.in_flight(&asked, 1_000);
            assert!(matches!(effects.act, Act::Wait(_)), "{effects:?}");
        }
    }
}

/// What a waiter cannot be told says nothing of the first answer. What its lost question may have claimed is given back
/// at once, and it asks on as somebody else: the gateway gives such a claim back, too, whenever it was made.
#[test]
fn a_wait_goes_on_where_it_cannot_ask() {
    let late = || Answer::Response { marked: false, status: b"504", body: b"" };
    let shed = || Answer::Response {
        marked: true,
        status: b"429",
        body: br#"{"v":1,"reason":"service-overloaded"}"#,
    };
    let (unavailable, overloaded) = (Reason::PolicyStoreUnavailable, Reason::ServiceOverloaded);
    let own = DecisionId::new(ID);
    for (answer, reason, lost) in [
        (late as fn() -> Answer<'static>, unavailable, true),
        (|| Answer::Reset, unavailable, true),
        (|| Answer::NotSent, unavailable, false),
        (shed, overloaded, false),
    ] {
        let mut desk = Desk::new(r#", "wait": "50ms""#);
        let asked = desk.request(&facts(&KEYED, false));
        desk.exchange.sent(1_000);
        assert_eq!(desk.in_flight(&asked, 0).act, Act::Wait(20));
        desk.on(Event::Waited(FRESH));
        let effects = desk.on(Event::Answer { answer: answer(), entropy: 0 });
        assert_eq!(effects.act, Act::Wait(20), "{reason:?}");
        assert_eq!(effects.settlement.map(|end| abandoned(&end)), lost.then_some(own));
        assert_eq!(desk.exchange.left(&desk.config, None), None, "nothing is open");
        let asked = desk.on(Event::Waited(FRESH));
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        let id = DecideRequest::decode(message).expect("sound").id;
        assert_eq!(id, if lost { FRESH } else { own }, "{reason:?}");
        let replay = StoredAnswer { status: 201, ..StoredAnswer::default() };
        let replay = StoredAnswer { body: Some(Vec::new()), ..replay };
        assert!(matches!(desk.done(&asked, &replay).act, Act::Replay(_)));

        // At the end of its wait it is told so, and pays nothing.
        let mut desk = Desk::new(r#", "wait": "50ms""#);
        let asked = desk.request(&facts(&KEYED, false));
        desk.exchange.sent(1_000);
        desk.in_flight(&asked, 0);
        let (mut waited_ms, mut asks) = (20, 0);
        let (denial, end) = loop {
            asks += 1;
            desk.on(Event::Waited(DecisionId::new(ID + asks)));
            desk.exchange.sent(1_000 * u64::try_from(asks).expect("few") + 501_000);
            let effects = desk.on(Event::Answer { answer: answer(), entropy: 0 });
            match effects.act {
                Act::Wait(ms) => waited_ms += ms,
                Act::Deny(denial) => break (denial, effects.settlement.expect("an end")),
                act => panic!("{act:?}"),
            }
        };
        assert_eq!((waited_ms, denial.reason), (50, reason));
        let end = settled(&end);
        // As old as when it asked last, and what that took at most.
        let age_us = 500_000 + 1_000 * u64::try_from(asks).expect("few") + 45_000;
        let by: Vec<i64> = end.adjustments.iter().map(|one| one.by).collect();
        assert_eq!((by, end.age_us), (vec![-1], age_us), "{reason:?}");
        let last = DecisionId::new(if lost { ID + asks } else { ID });
        assert_eq!((end.finish.is_some(), denial.id, end.id), (lost, last, last), "{reason:?}");
    }
}

/// It was told that the first request is under way. That nobody can be asked any more does not end that one, so that not
/// even a policy that lets requests run unasked lets this one run beside it.
#[test]
fn who_waited_does_not_run_unasked() {
    let spent = r#"{"state":"spent"}"#;
    for (answer, lost) in [
        (Some(Answer::Reset), true),
        (Some(Answer::NotSent), false),
        (Some(Answer::CircuitOpen { retry_ms: 1_000 }), false),
        (None, false),
    ] {
        let mut desk = Desk::new(r#", "wait": "20ms""#);
        let terms = desk.config.policies[0].idempotency.as_mut().expect("terms");
        terms.allows_unasked = true;
        let asked = desk.request(&facts(&KEYED, false));
        assert_eq!(desk.in_flight(&asked, 0).act, Act::Wait(20));
        let again = desk.on(Event::Waited(FRESH));
        let effects = match answer {
            Some(answer) => desk.on(Event::Answer { answer, entropy: 0 }),
            None => desk.answer(&again, spent),
        };
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        let reason = Reason::IdempotencyInFlight;
        assert_eq!((denial.reason, denial.retry_after_s), (reason, Some(1)));
        // As at the end of any wait it costs the usual budget.
        assert!(denial.is_paid);
        let own = DecisionId::new(ID);
        assert_eq!(effects.settlement.map(|end| abandoned(&end)), lost.then_some(own));
        let outcome = Idempotent::Refused { reason, shadow: false };
        assert_eq!(effects.signals.last(), Some(&Signal::Idempotency { policy: 0, outcome }));
    }
    // Who was told nothing yet may run.
    let mut desk = Desk::new(r#", "wait": "20ms""#);
    desk.config.policies[0].idempotency.as_mut().expect("terms").allows_unasked = true;
    let asked = desk.request(&facts(&KEYED, false));
    assert_eq!(desk.answer(&asked, spent).act, Act::Resume);
}

/// Whose claim it gives back, whatever its fence is.
fn abandoned(end: &Settlement) -> DecisionId {
    let end = settled(end);
    let finish = end.finish.expect("an end");
    assert!(matches!((finish.fence, finish.by), (0, FinishBy::Abandon { .. })));
    assert_eq!(end.adjustments, []);
    end.id
}

/// Who asked on as somebody else and got the key holds it as that one.
#[test]
fn a_claim_of_who_asked_again_is_that_ones() {
    let mut desk = Desk::new(r#", "wait": "50ms""#);
    let asked = desk.request(&facts(&KEYED, false));
    desk.in_flight(&asked, 0);
    desk.on(Event::Waited(DecisionId::new(1)));
    desk.on(Event::Answer { answer: Answer::Reset, entropy: 0 });
    let asked = desk.on(Event::Waited(FRESH));
    assert_eq!(desk.answer(&asked, r#"{"state":"claimed","fence":1}"#).act, Act::Resume);
    let end = desk.part(Part::Headers { headers: &headers("201"), envoys: OURS, end: true });
    assert_eq!(end.settlement.map(|end| end.id), Some(FRESH));
}

#[test]
fn an_answer_is_held_until_it_is_stored_or_streams() {
    for (more, hold) in [("", Hold::Collect), (r#", "response": "fast""#, Hold::Go)] {
        let mut desk = claimed(more);
        let first = desk.part(Part::Headers { headers: &headers("201"), envoys: OURS, end: false });
        assert_eq!((first.hold, first.settlement), (hold, None));
        assert_eq!(desk.part(Part::Body { bytes: b"a\0", end: false }).hold, hold);
        let last = desk.part(Part::Body { bytes: b"b", end: true });
        let kept = if hold == Hold::Go { Hold::Go } else { Hold::Keep };
        assert_eq!(last.hold, kept);
        let mut end = last.settlement.expect("it is stored");
        let message = settled(&end);
        let finish = message.finish.expect("the claim ends");
        let FinishBy::Complete { answer, .. } = finish.by else { panic!("{finish:?}") };
        let stored = answer.with(&message.octets).expect("an answer");
        assert_eq!((finish.fence, stored.status), (3, 201));
        assert_eq!(stored.body.as_deref(), Some(b"a\0b".as_slice()));
        assert_eq!(
            stored.headers.iter().collect::<Vec<_>>(),
            [(b"etag".as_slice(), b"e".as_slice())]
        );
        // It is tried three times, and then not any more.
        let late = Answer::Response { marked: false, status: b"504", body: b"" };
        assert_eq!((end.ended(&late), end.ended(&late)), (Ended::Again, Ended::Again));
        // Then nobody waits any more, and it is told again for a minute.
        let told = |outcome| Vec::from([Signal::Idempotency { policy: 0, outcome }]);
        let mut signals = told(Idempotent::Postponed);
        let mut paused_ms = 0;
        for pause_ms in [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000, 8_000, 8_000, 8_000, 8_000]
        {
            let open = Answer::CircuitOpen { retry_ms: 9_000 };
            let answer = if pause_ms == 8_000 { &open } else { &late };
            assert_eq!(
                end.ended(answer),
                Ended::Later { pause_ms, signals: core::mem::take(&mut signals) }
            );
            paused_ms += pause_ms;
        }
        assert_eq!(paused_ms, 63_500);
        assert_eq!(end.given_up(), told(Idempotent::NotStored));
        assert_eq!(end.ended(&late), Ended::Over(told(Idempotent::NotStored)));
        assert_eq!(desk.exchange.wants_answer(), hold == Hold::Collect, "while it is held");
        desk.part(Part::Stored);
        assert!(!desk.exchange.wants_answer());
    }
}

/// Who was never told of a claim has none that somebody could have taken over.
#[test]
fn what_a_lost_question_never_claimed_is_not_counted_as_taken_over() {
    let finished = |fence: u64, finish: &str| {
        let mut desk = if fence == 0 { Desk::new("") } else { claimed("") };
        let mut end = match fence {
            0 => {
                desk.config.policies[0].rate_limits.clear();
                desk.request(&facts(&KEYED, false));
                *desk
                    .on(Event::Answer { answer: Answer::Reset, entropy: 0 })
                    .settlement
                    .expect("it")
            }
            _ => {
                let answered = Part::Headers { headers: &headers("429"), envoys: OURS, end: true };
                desk.part(answered).settlement.expect("it is given back")
            }
        };
        assert_eq!(settled(&end).finish.map(|finish| finish.fence), Some(fence));
        let body =
            format!(r#"{{"v":1,"id":"{}","limits":[],"finish":"{finish}"}}"#, DecisionId::new(ID));
        end.ended(&Answer::Response { marked: true, status: b"200", body: body.as_bytes() })
    };
    let told = |outcome| Ended::Over(vec![Signal::Idempotency { policy: 0, outcome }]);
    for finish in ["fenced", "gone"] {
        assert_eq!(finished(3, finish), told(Idempotent::Fenced));
        assert_eq!(finished(0, finish), Ended::Over(Vec::new()));
    }
    for finish in ["freed", "remembered"] {
        assert_eq!(finished(0, finish), told(Idempotent::Released));
    }
}

/// A policy of nothing else shows in nothing else.
#[test]
fn a_key_that_meets_a_gateway_at_its_bound_is_counted() {
    let body: &[u8] = br#"{"v":1,"reason":"service-overloaded"}"#;
    let busy = || Answer::Response { marked: true, status: b"429", body };
    for (more, shadow, label) in
        [("", false, "overloaded"), (r#", "mode": "shadow""#, true, "shadow_overloaded")]
    {
        let mut config = config(more);
        config.policies[0].rate_limits.clear();
        let mut desk = Desk::of(config);
        desk.request(&facts(&KEYED, false));
        let effects = desk.on(Event::Answer { answer: busy(), entropy: 0 });
        assert_eq!(matches!(effects.act, Act::Deny(_)), !shadow);
        let outcome = Idempotent::Refused { reason: Reason::ServiceOverloaded, shadow };
        let counted = Signal::Idempotency { policy: 0, outcome };
        assert_eq!(effects.signals, [Signal::Unavailable(Reason::ServiceOverloaded), counted]);
        assert_eq!(outcome.as_str(), label);
    }
}

/// Neither asked for nor counted.
#[test]
fn what_is_off_is_not_looked_at() {
    let mut config = config(r#", "mode": "off""#);
    config.policies[0].rate_limits.clear();
    for fields in [&KEYED[..], &[]] {
        let effects = Desk::of(config.clone()).request(&facts(fields, true));
        assert_eq!((effects.act, effects.signals), (Act::Pass, Vec::new()));
    }
}

/// Whatever is too long, or a stream, passes as it comes, and is done when it has ended: one that is cut is not.
#[test]
fn what_passes_is_done_at_its_end() {
    let events = [("content-type", "text/event-stream"), ("content-length", "3")];
    let rows: [(&[(&str, &str)], Hold); 10] = [
        (&[("content-length", "9")], Hold::Go),
        (&[("content-length", "all")], Hold::Go),
        (&events, Hold::Go),
        (&[("content-type", "Text/Event-Stream; charset=utf-8")], Hold::Go),
        (&[("content-type", "application/x-ndjson")], Hold::Go),
        (&[("content-type", "application/json-seq")], Hold::Go),
        (&[("content-type", "application/stream+json;q=1")], Hold::Go),
        (&[("content-type", "multipart/x-mixed-replace; boundary=b")], Hold::Go),
        (&[("content-type", "application/grpc-web+proto")], Hold::Go),
        // Longer than it may be only in the end.
        (&[("content-type", "application/json")], Hold::Collect),
    ];
    for (fields, held) in rows {
        for cut in [false, true] {
            let mut desk = claimed(r#", "store": {"body": "8B"}"#);
            let mut told = headers("201");
            told.extend(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            let first = desk.part(Part::Headers { headers: &told, envoys: OURS, end: false });
            assert_eq!((first.hold, first.settlement), (held, None), "{fields:?}");
            let more = desk.part(Part::Body { bytes: b"123456789", end: false });
            assert_eq!((more.hold, more.settlement), (Hold::Go, None), "{fields:?}");
            assert!(desk.exchange.passes_answer() && !desk.exchange.holds_answer());
            let last = match cut {
                true => desk.part(Part::Over(OURS)),
                false => desk.part(Part::Body { bytes: b"", end: true }),
            };
            assert_eq!(last.hold, if cut { Hold::Go } else { Hold::Keep });
            let done = last.settlement.map(|end| {
                let message = settled(&end);
                let by = message.finish.expect("an end").by;
                let FinishBy::Complete { answer, .. } = by else { panic!("{by:?}") };
                answer.with(&message.octets).expect("an answer").body
            });
            assert_eq!(done, (!cut).then_some(None), "{fields:?}");
            let kept = Signal::Idempotency { policy: 0, outcome: Idempotent::Kept };
            assert_eq!(last.signals == [kept], cut, "{fields:?}");
        }
    }
    // What says how long it is, and is short, is no stream.
    let mut desk = claimed("");
    let mut told = headers("200");
    told.extend([(b"content-type".as_slice(), b"application/x-ndjson".as_slice())]);
    told.push((b"content-length", b"3"));
    let first = desk.part(Part::Headers { headers: &told, envoys: OURS, end: false });
    assert_eq!(first.hold, Hold::Collect);
}

/// 429 says that the work was not done, but only of its own try.
#[test]
fn an_answer_releases_only_what_was_tried_once() {
    for (attempts, released) in [(Some(1), true), (Some(2), false), (None, false)] {
        let mut desk = claimed("");
        let envoys = Envoys { attempts, ..OURS };
        let answering = desk.part(Part::Headers { headers: &headers("429"), envoys, end: true });
        let finish = answering.settlement.map(|end| settled(&end).finish.expect("an end"));
        let abandons = finish.is_some_and(|f| matches!(f.by, FinishBy::Abandon { .. }));
        assert_eq!((abandons, answering.hold), (released, Hold::Go), "{attempts:?}");
        let kept = Signal::Idempotency { policy: 0, outcome: Idempotent::Kept };
        assert_eq!(answering.signals == [kept], !released, "{attempts:?}");
    }
}

#[test]
fn what_envoy_answers_is_never_stored() {
    let made = |flags, attempts| Envoys { flags, attempts, ..Envoys::default() };
    let rows = [
        // No connection, tried once; no route, not tried.
        (made(1 << 5, Some(1)), true),
        (made(1 << 8, Some(0)), true),
        // After a retry only the last try is known.
        (made(1 << 5, Some(2)), false),
        // A connection that broke, a timeout, both; and what nobody knows.
        (made(1 << 6, Some(1)), false),
        (made(1 << 2, Some(1)), false),
        (made(1 << 5 | 1 << 6, Some(1)), false),
        (made(1 << 5, None), false),
        (made(u64::MAX, Some(1)), false),
    ];
    for (envoys, released) in rows {
        for over in [false, true] {
            let mut desk = claimed("");
            let answering = match over {
                true => desk.part(Part::Over(envoys)),
                false => desk.part(Part::Headers { headers: &headers("503"), envoys, end: false }),
            };
            assert_eq!(answering.hold, Hold::Go);
            let finish = answering.settlement.map(|end| settled(&end).finish.expect("an end"));
            let by =
                finish.map(|finish| (finish.fence, matches!(finish.by, FinishBy::Abandon { .. })));
            assert_eq!(by, released.then_some((3, true)), "{envoys:?}");
            assert!(!desk.exchange.wants_answer());
        }
    }
}

/// A filter behind this one answered. What it did nobody knows, unless it says that it turned the request away.
#[test]
fn what_another_filter_may_have_done_does_not_run_again() {
    let rows = [
        ("200", None, false),
        ("204", None, false),
        ("302", None, false),
        ("500", None, false),
        ("504", None, false),
        ("401", None, true),
        ("403", None, true),
        ("404", None, true),
        ("429", None, true),
        ("503", None, true),
        ("200", Some("0"), false),
        ("200", Some("2"), false),
        ("200", Some("7"), true),
        ("200", Some("14"), true),
        ("200", Some("16"), true),
    ];
    let grpc = [&KEYED[..], &[("content-type", "application/grpc")]].concat();
    // Envoy's flag of an authorisation that was denied says nothing of whether it was sent.
    for (envoys, is_route) in [
        (Envoys { flags: 1 << 12, attempts: Some(0), ..Envoys::default() }, false),
        (Envoys { attempts: Some(0), from_route: true, ..Envoys::default() }, true),
    ] {
        for (status, code, refuses) in rows {
            let mut desk = Desk::new("");
            let asked = desk.request(&facts(if code.is_some() { &grpc } else { &KEYED }, false));
            desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
            let mut told = headers(status);
            told.extend(code.map(|code| (b"grpc-status".as_slice(), code.as_bytes())));
            let answering = desk.part(Part::Headers { headers: &told, envoys, end: true });
            let finish = answering.settlement.map(|end| settled(&end).finish.expect("an end"));
            let abandons = finish.is_some_and(|one| matches!(one.by, FinishBy::Abandon { .. }));
            assert_eq!(abandons, refuses || is_route, "{envoys:?} {status} {code:?}");
        }
        // It ended without an answer.
        let finish =
            claimed("").part(Part::Over(envoys)).settlement.map(|end| settled(&end).finish);
        let by = finish.flatten().expect("an end").by;
        assert!(matches!(by, FinishBy::Abandon { .. }), "{by:?}");
    }
}

/// The upstream is behind a Tidegate of its own, which answered in its place.
#[test]
fn what_another_tidegate_answers_is_never_stored() {
    let rows = [
        ("429", "quota-exceeded", None, true),
        ("429", "service-overloaded", None, true),
        ("400", "idempotency-key-required", None, true),
        ("403", "client-identity-required", None, true),
        ("413", "idempotency-body-too-long", None, true),
        ("422", "idempotency-conflict", None, true),
        ("503", "policy-store-unavailable", None, true),
        ("503", "circuit-open", None, true),
        ("409", "idempotency-in-flight", None, false),
        ("409", "idempotency-unknown-outcome", None, false),
        ("409", "idempotency-result-not-stored", None, false),
        // No Tidegate that is known says so.
        ("429", "idempotency-in-flight", None, false),
        ("400", "of-a-later-version", None, false),
        ("201", "quota-exceeded", None, false),
        ("500", "quota-exceeded", None, false),
        ("200", "idempotency-conflict", Some("3"), true),
        // As versions before said it.
        ("200", "idempotency-conflict", Some("9"), true),
        ("200", "policy-store-unavailable", Some("14"), true),
        ("200", "idempotency-in-flight", Some("10"), false),
        ("200", "idempotency-result-not-stored", Some("6"), false),
        ("200", "quota-exceeded", Some("0"), false),
        ("200", "quota-exceeded", None, false),
    ];
    let grpc = [&KEYED[..], &[("content-type", "application/grpc")]].concat();
    for (status, reason, code, released) in rows {
        for (attempts, rule) in [(1, "standard"), (1, "stripe"), (2, "standard")] {
            let mut desk = Desk::new(&format!(r#", "store": {{"answers": "{rule}"}}"#));
            let asked = desk.request(&facts(if code.is_some() { &grpc } else { &KEYED }, false));
            desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
            let mut told = headers(status);
            told.push((b"x-tidegate-reply", reason.as_bytes()));
            told.extend(code.map(|code| (b"grpc-status".as_slice(), code.as_bytes())));
            let envoys = Envoys { attempts: Some(attempts), ..OURS };
            let answering = desk.part(Part::Headers { headers: &told, envoys, end: false });
            let finish = answering.settlement.map(|end| settled(&end).finish.expect("an end"));
            let by = finish.map(|one| matches!(one.by, FinishBy::Abandon { .. }));
            let is_released = released && attempts == 1;
            assert_eq!(by, is_released.then_some(true), "{status} {reason} {code:?} {attempts}");
            assert_eq!(answering.hold, Hold::Go);
            assert!(!desk.exchange.wants_answer());
        }
    }
    // A replay is the upstream's first answer.
    let mut desk = claimed("");
    let mut told = headers("201");
    told.push((b"idempotent-replayed", b"true"));
    let answering = desk.part(Part::Headers { headers: &told, envoys: OURS, end: true });
    let finish = settled(&answering.settlement.expect("it is stored")).finish.expect("an end");
    assert!(matches!(finish.by, FinishBy::Complete { .. }), "{:?}", finish.by);
}

#[test]
fn who_leaves_while_it_is_asked_gives_back_what_may_be_claimed() {
    let mut desk = Desk::new("");
    desk.request(&facts(&KEYED, false));
    let end = desk.exchange.left(&desk.config, None).expect("an end");
    let finish = settled(&end).finish.expect("an end");
    assert!(matches!((finish.fence, finish.by), (0, FinishBy::Abandon { .. })));
    assert_eq!(desk.exchange.left(&desk.config, None), None, "once");
}

#[test]
fn the_first_answer_comes_back_as_it_was() {
    let answer = StoredAnswer { status: 418, body: Some(b"\0\xff".to_vec()), ..Default::default() };
    let mut desk = Desk::new("");
    let asked = desk.request(&facts(&KEYED, false));
    let effects = desk.done(&asked, &answer);
    assert_eq!(
        effects.act,
        Act::Replay(Box::new(Replay { policy: 0, id: DecisionId::new(ID), answer }))
    );
}

#[test]
fn a_claim_on_too_few_replicas_is_given_back_or_counted() {
    const ASKED: &str = r#", "wait_replicas": 2, "replicas_within": "70ms""#;
    let on = |more: &str, state: &str| {
        let mut desk = Desk::new(&format!("{ASKED}{more}"));
        let asked = desk.request(&facts(&KEYED, false));
        assert_eq!(desk.exchange.timeout_ms(&desk.config), desk.config.gateway.timeout_ms + 70);
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        let message = DecideRequest::decode(message).expect("a sound message");
        assert_eq!(message.timeout_ms, desk.config.gateway.timeout_ms + 70);
        let replicas = message.claim.expect("a claim").replicas.expect("replicas");
        assert_eq!((replicas.count, replicas.within_ms), (2, 70));
        let effects = desk.answer(&asked, state);
        (effects, desk)
    };
    let counted = Signal::Idempotency { policy: 0, outcome: Idempotent::TooFewReplicas };
    let enough = r#"{"state":"claimed","fence":3,"replicas":2}"#;
    let (effects, desk) = on("", enough);
    assert_eq!((effects.act, effects.settlement), (Act::Resume, None));
    assert!(!effects.signals.contains(&counted) && desk.exchange.wants_answer());
    // A gateway that says nothing of replicas waited for none.
    let few = r#"{"state":"claimed","fence":3,"replicas":1}"#;
    for state in [few, r#"{"state":"claimed","fence":3}"#] {
        let (effects, desk) = on("", state);
        let Act::Deny(denial) = effects.act else { panic!("denies: {state}") };
        assert_eq!(denial.reason, Reason::PolicyStoreUnavailable);
        assert_eq!(denial.retry_after_s, Some(1));
        assert!(effects.signals.contains(&Signal::Unavailable(Reason::StoreTooFewReplicas)));
        let message = settled(&effects.settlement.expect("it is given back"));
        let finish = message.finish.expect("the claim ends");
        assert!(matches!((finish.fence, finish.by), (3, FinishBy::Abandon { .. })));
        assert_eq!(message.adjustments[0].by, -1, "and its limits with it");
        assert!(!desk.exchange.wants_answer());
        for more in [r#", "on_too_few_replicas": "allow""#, r#", "mode": "shadow""#] {
            let (effects, desk) = on(more, state);
            assert_eq!((effects.act, effects.settlement), (Act::Resume, None), "{more}");
            assert!(effects.signals.contains(&counted) && desk.exchange.wants_answer());
        }
    }
    // Of who asked on as somebody else it is that one's.
    let mut desk = Desk::new(&format!(r#"{ASKED}, "wait": "50ms""#));
    let asked = desk.request(&facts(&KEYED, false));
    desk.in_flight(&asked, 0);
    desk.on(Event::Waited(DecisionId::new(1)));
    desk.on(Event::Answer { answer: Answer::Reset, entropy: 0 });
    let asked = desk.on(Event::Waited(FRESH));
    let message = settled(&desk.answer(&asked, few).settlement.expect("it is given back"));
    assert_eq!((message.id, message.adjustments.len()), (FRESH, 1));
    assert!(message.finish.is_some());
    // What is there already is on as many replicas as it is.
    let (effects, _) = on("", r#"{"state":"conflict"}"#);
    assert!(
        matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::IdempotencyConflict)
    );
}

#[test]
fn a_request_that_takes_long_keeps_its_key_locked() {
    // The lock is of 15 s.
    let mut desk = Desk::new("");
    let asked = desk.request(&facts(&KEYED, false));
    assert!(desk.exchange.is_timed());
    desk.exchange.sent(1_000_000);
    desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    let beats = |desk: &mut Desk, now_us| desk.exchange.beats(&desk.config, now_us);
    assert_eq!(beats(&mut desk, 5_999_999), None);
    for now_us in [6_000_000, 11_000_000] {
        let mut beat = beats(&mut desk, now_us).expect("it is time");
        let finish = settled(&beat).finish.expect("a claim");
        let by = FinishBy::Extend { lock_ms: 15_000, life_s: 86_400 };
        assert_eq!((finish.fence, finish.by), (3, by));
        assert_eq!(beats(&mut desk, now_us), None, "once");
        // A beat that is lost is not repeated: the next one comes.
        let late = Answer::Response { marked: false, status: b"504", body: b"" };
        assert_eq!(beat.ended(&late), Ended::Over(Vec::new()));
    }
    // A clock that stepped back must not keep it from beating.
    assert!(beats(&mut desk, 10).is_some());
    desk.part(Part::Headers { headers: &headers("201"), envoys: OURS, end: false });
    assert!(beats(&mut desk, 60_000_000).is_some(), "while the answer is on its way");
    desk.part(Part::Body { bytes: b"", end: true });
    assert_eq!(beats(&mut desk, 120_000_000), None, "what is to be stored needs none");
}
