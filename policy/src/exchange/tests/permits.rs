//! Circuit breakers, the last stage: when they are asked, and what is given back where they refuse.

use super::claims::{Desk, KEYED, facts, settled};
use super::*;
use crate::idempotency::stored::StoredAnswer;
use crate::limit::refund::Receipt;
use crate::stages::{Idempotency, Limits, Outcomes, Permit, Verdict as Staged};
use crate::wire::{Adjustment, FinishBy};

const LIMITS: &str =
    r#", "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}]"#;
const IDEMPOTENCY: &str =
    r#", "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s""#;

fn desk(policy: &str) -> Desk {
    read("", policy)
}

fn read(more: &str, policy: &str) -> Desk {
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}},{more}
        "identities": {{"tenant": {{"header": "x-tenant", "trusted": true}}}},
        "policies": [{{"name": "pay", "match": {{"path": "/**"}}{policy}}}]}}"#
    );
    let reading = Config::read(&document);
    Desk::of(reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics)))
}

impl Desk {
    fn left(&mut self) -> Option<Settlement> {
        self.exchange.left(&self.config, Some(7_000_000))
    }

    fn permit(&mut self, wait_ms: Option<u64>) -> Effects {
        // 2 s after the question was sent.
        let now_us = Some(7_000_000);
        let said = match wait_ms {
            None => Ok(()),
            wait_ms => Err(NoLeave { wait_ms, now_us, held: 0 }),
        };
        self.on(Event::Permit(said))
    }
}

fn done() -> StoredAnswer {
    StoredAnswer { status: 201, body: Some(b"first".to_vec()), ..Default::default() }
}

fn asks_leave(effects: &Effects) -> bool {
    let breaker = Circuit { policy: 0, breaker: 0, enforced: true, whose: None };
    effects.act == Act::Permit { circuit: breaker, grpc: false }
}

/// What a settlement gives back: how many units, whether the claim, and the age it tells.
fn given_back(settlement: Option<&Settlement>) -> (i64, bool, u64) {
    let Some(message) = settlement.map(settled) else { return (0, false, 0) };
    let by = |one: &Adjustment| one.by;
    let abandons = message.finish.map(|finish| {
        assert_eq!(finish.fence, 3);
        matches!(finish.by, FinishBy::Abandon { .. })
    });
    (message.adjustments.iter().map(by).sum(), abandons == Some(true), message.age_us)
}

/// The store's own word on a charge goes back to it with what is given back.
#[test]
fn what_was_said_of_a_charge_is_said_again() {
    for (limit, cold) in [("", false), (r#","limit":2"#, true)] {
        let mut desk = desk(&[LIMITS, r#", "circuit_breaker": {}"#].concat());
        let asked = desk.request(&facts(&KEYED, false));
        let Act::Ask(message) = &asked.act else { panic!("{asked:?}") };
        let id = DecideRequest::decode(message).expect("a question").id;
        desk.exchange.sent(5_000_000);
        let reply = format!(
            r#"{{"v":1,"id":"{id}","verdict":"allow","limits":[{{"id":"pay.ip","allowed":true,"remaining":4,
            "next_us":1,"reset_us":12000000,"retry_us":0,"charged_us":1800000000000000{limit}}}]}}"#
        );
        let answer = Answer::Response { marked: true, status: b"200", body: reply.as_bytes() };
        assert!(asks_leave(&desk.on(Event::Answer { answer, entropy: 0 })));
        let denied = desk.permit(Some(1_500));
        let message = settled(denied.settlement.as_deref().expect("a refund"));
        let receipts: Vec<_> = message.adjustments.iter().map(|one| one.receipt).collect();
        let said = Receipt { at_us: 1_800_000_000_000_000, full_us: 12_000_000, cold };
        assert_eq!(receipts, [Some(said)]);
        // The store counts the charge's age, so what is lost is sent again.
        let mut refund = *denied.settlement.expect("a refund");
        let late = Answer::Response { marked: false, status: b"504", body: b"" };
        assert_eq!(
            (refund.ended(&late), refund.ended(&Answer::Reset)),
            (Ended::Again, Ended::Again)
        );
        assert_eq!(settled(&refund), message);
        assert_eq!(refund.ended(&Answer::NotSent), Ended::Over(Vec::new()), "three times");
    }
}

/// Soft limits and those in shadow were charged, too, where they admitted.
#[test]
fn what_counts_for_itself_comes_back_where_it_was_charged() {
    let limits = r#", "rate_limits": [
        {"name": "ip", "by": "ip", "limit": 5, "per": "minute"},
        {"name": "fair", "by": "ip", "limit": 5, "per": "minute", "soft": true},
        {"name": "used", "by": "ip", "limit": 5, "per": "minute", "soft": true},
        {"name": "unread", "by": "ip", "limit": 5, "per": "minute", "soft": true}]"#;
    let mut desk = desk(&[limits, r#", "circuit_breaker": {}"#].concat());
    let asked = desk.request(&facts(&KEYED, false));
    let Act::Ask(message) = &asked.act else { panic!("{asked:?}") };
    let id = DecideRequest::decode(message).expect("a question").id;
    desk.exchange.sent(5_000_000);
    let states =
        [("ip", true, true), ("fair", true, true), ("used", false, false), ("unread", true, false)];
    let states = states.map(|(name, allowed, charged)| {
        let charged = if charged { r#","charged_us":1800000000000000"# } else { "" };
        format!(
            r#"{{"id":"pay.{name}","allowed":{allowed},"remaining":4,"next_us":1,"reset_us":12000000,"retry_us":{}{charged}}}"#,
            u8::from(!allowed)
        )
    });
    let reply =
        format!(r#"{{"v":1,"id":"{id}","verdict":"allow","limits":[{}]}}"#, states.join(","));
    let answer = Answer::Response { marked: true, status: b"200", body: reply.as_bytes() };
    assert!(asks_leave(&desk.on(Event::Answer { answer, entropy: 0 })));
    let denied = desk.permit(Some(1_500));
    let message = settled(denied.settlement.as_deref().expect("a refund"));
    let back: Vec<_> = message.adjustments.iter().map(|one| (one.id.as_str(), one.by)).collect();
    assert_eq!(back, [("pay.ip", -1), ("pay.fair", -1)]);
}

/// Beside a claim all is repeated that has a receipt, and the rest only once.
#[test]
fn beside_a_claim_a_refund_is_repeated_if_it_has_a_receipt() {
    for (charged, repeated) in [(r#","charged_us":1800000000000000"#, -1), ("", 0)] {
        let mut desk = desk(&format!(r#"{LIMITS}{IDEMPOTENCY}}}, "circuit_breaker": {{}}"#));
        let asked = desk.request(&facts(&KEYED, false));
        let Act::Ask(message) = &asked.act else { panic!("{asked:?}") };
        let id = DecideRequest::decode(message).expect("a question").id;
        desk.exchange.sent(5_000_000);
        let reply = format!(
            r#"{{"v":1,"id":"{id}","verdict":"allow","claim":{{"state":"claimed","fence":3}},"limits":[{{
            "id":"pay.ip","allowed":true,"remaining":4,"next_us":1,"reset_us":12000000,"retry_us":0{charged}}}]}}"#
        );
        let answer = Answer::Response { marked: true, status: b"200", body: reply.as_bytes() };
        assert!(asks_leave(&desk.on(Event::Answer { answer, entropy: 0 })));
        let denied = desk.permit(Some(1_500));
        let mut end = *denied.settlement.expect("an end");
        assert_eq!(given_back(Some(&end)), (-1, true, 2_000_000));
        assert_eq!(end.ended(&Answer::Reset), Ended::Again);
        assert_eq!(given_back(Some(&end)), (repeated, true, 2_000_000), "{charged}");
        // Later, the claim alone: a store knows for a minute only what it has settled already.
        assert_eq!(end.ended(&Answer::Reset), Ended::Again);
        assert!(matches!(end.ended(&Answer::Reset), Ended::Later { .. }));
        assert_eq!(given_back(Some(&end)), (0, true, 2_000_000), "{charged}");
    }
}

#[test]
fn every_combination_of_stages_ends_as_the_table_of_stages_says() {
    let limits = [Limits::NotAsked, Limits::Charged, Limits::Denied];
    let claims = [
        (Idempotency::NotAsked, ""),
        (Idempotency::Claimed, r#"{"state":"claimed","fence":3}"#),
        (Idempotency::Refused, r#"{"state":"conflict"}"#),
        (Idempotency::Replay, "done"),
        (Idempotency::Unavailable, r#"{"state":"forgets"}"#),
    ];
    let mut seen = 0;
    for limits in limits {
        for (idempotency, state) in claims {
            for permit in [Permit::NotAsked, Permit::Granted, Permit::Refused] {
                // Where a limit denies nothing is claimed.
                if limits == Limits::Denied && idempotency != Idempotency::NotAsked {
                    continue;
                }
                seen += 1;
                let outcomes = Outcomes { limits, idempotency, permit, ..Outcomes::NONE };
                let mut policy = String::new();
                if limits != Limits::NotAsked {
                    policy.push_str(LIMITS);
                }
                if idempotency != Idempotency::NotAsked {
                    policy.push_str(IDEMPOTENCY);
                    policy.push('}');
                }
                if permit != Permit::NotAsked {
                    policy.push_str(r#", "circuit_breaker": {}"#);
                }
                if policy.is_empty() {
                    policy.push_str(r#", "mode": "off""#);
                    policy.push_str(LIMITS);
                }
                let mut desk = desk(&policy);
                let mut effects = desk.request(&facts(&KEYED, false));
                if matches!(effects.act, Act::Ask(_)) {
                    desk.exchange.sent(5_000_000);
                    effects = match state {
                        "" => desk.told(&effects, limits != Limits::Denied, "", &[]),
                        "done" => desk.done(&effects, &done()),
                        state => desk.answer(&effects, state),
                    };
                }
                let reaches = Outcomes { permit: Permit::NotAsked, ..outcomes }.verdict();
                let is_asked = permit != Permit::NotAsked && reaches == Staged::Admit;
                assert_eq!(asks_leave(&effects), is_asked, "{outcomes:?}: {effects:?}");
                if is_asked {
                    assert!(desk.exchange.holds_request());
                    assert_eq!((effects.signals.len(), &effects.note), (0, &None));
                    let wait_ms = (permit == Permit::Refused).then_some(1_500);
                    effects = desk.permit(wait_ms);
                }
                let give_back = outcomes.give_back();
                let back = given_back(effects.settlement.as_deref());
                let units = if give_back.refund { -1 } else { 0 };
                assert_eq!((back.0, back.1), (units, give_back.abandon), "{outcomes:?}");
                // Sent again it would be older than it says: the claim is given back then, and no unit.
                if let Some(settlement) = &mut effects.settlement {
                    let repeated = settlement.ended(&Answer::Reset) == Ended::Again;
                    assert_eq!(repeated, give_back.abandon, "{outcomes:?}");
                    let again = given_back(Some(settlement));
                    let same = (if repeated { 0 } else { back.0 }, back.1, back.2);
                    assert_eq!(again, same, "{outcomes:?}");
                }
                match (outcomes.verdict(), effects.act) {
                    (Staged::Admit, Act::Pass | Act::Resume) => {
                        assert_eq!(
                            desk.exchange.wants_answer(),
                            idempotency == Idempotency::Claimed
                        );
                    }
                    (Staged::Replay, Act::Replay(replay)) => {
                        assert_eq!(replay.answer.status, 201);
                    }
                    (Staged::Deny(_), Act::Deny(denial)) => {
                        let open = denial.reason == Reason::CircuitOpen;
                        assert_eq!(open, is_asked, "{outcomes:?}: {denial:?}");
                        assert!(desk.exchange.replied());
                    }
                    (verdict, act) => panic!("{outcomes:?}: {verdict:?} and {act:?}"),
                }
            }
        }
    }
    assert_eq!(seen, 33);
}

#[test]
fn a_refusal_says_which_and_when_and_counts_nobody_as_admitted() {
    let mut desk = desk(&format!(r#"{LIMITS}, "circuit_breaker": {{}}"#));
    let asked = desk.request(&facts(&[], false));
    assert!(desk.exchange.is_timed());
    desk.exchange.sent(5_000_000);
    desk.told(&asked, true, "", &[]);
    let effects = desk.permit(Some(1_500));
    assert_eq!(given_back(effects.settlement.as_deref()), (-1, false, 2_000_000));
    assert_eq!(effects.signals, [decided(0, Outcome::NotCharged)]);
    let note = effects.note.expect("a line").to_string();
    assert!(note.starts_with("verdict=denied reason=circuit-open limits=pay "), "{note}");
    let Act::Deny(denial) = effects.act else { panic!("denies") };
    assert_eq!((denial.retry_after_s, denial.violated), (Some(2), vec!["pay".to_string()]));
}

#[test]
fn without_a_clock_a_refusal_gives_back_nothing_that_came_back_by_itself() {
    let mut desk = desk(&format!(r#"{LIMITS}, "circuit_breaker": {{}}"#));
    let asked = desk.request(&facts(&[], false));
    desk.told(&asked, true, "", &[]);
    let effects = desk.on(Event::Permit(Err(NoLeave { wait_ms: Some(1), now_us: None, held: 0 })));
    let (by, _, age_us) = given_back(effects.settlement.as_deref());
    assert!(by == -1 && age_us > 86_400_000_000_000, "{by} {age_us}");
}

#[test]
fn beside_a_breaker_that_refuses_a_first_answer_is_looked_for_and_nothing_is_claimed() {
    let policy = format!(r#"{LIMITS}{IDEMPOTENCY}}}, "circuit_breaker": {{}}"#);
    let look = |desk: &mut Desk| {
        desk.shut = vec![0];
        let asked = desk.request(&facts(&KEYED, false));
        desk.exchange.sent(5_000_000);
        assert_eq!(claim_of(&asked).map(|claim| claim.look), Some(true));
        asked
    };
    let mut replays = desk(&policy);
    let asked = look(&mut replays);
    assert!(matches!(replays.done(&asked, &done()).act, Act::Replay(_)));

    let mut refused = desk(&policy);
    let asked = look(&mut refused);
    assert!(asks_leave(&refused.answer(&asked, r#"{"state":"absent"}"#)));
    let effects = refused.permit(Some(1_500));
    assert_eq!(given_back(effects.settlement.as_deref()), (-1, false, 2_000_000));
    assert!(matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::CircuitOpen));

    // It closed meanwhile: now the key is claimed, and leave was given.
    let mut granted = desk(&policy);
    let asked = look(&mut granted);
    granted.answer(&asked, r#"{"state":"absent"}"#);
    let asked = granted.permit(None);
    assert_eq!(claim_of(&asked).map(|claim| claim.look), Some(false));
    let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
    let limits = DecideRequest::decode(message).expect("a sound message").limits;
    assert!(limits.is_empty(), "the limits were charged");
    let effects = granted.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert_eq!(effects.act, Act::Resume);
    assert!(granted.exchange.wants_answer());
}

#[test]
fn who_waited_for_a_first_answer_gets_back_what_was_charged_before() {
    let policy = format!(r#"{LIMITS}{IDEMPOTENCY}, "wait": "50ms"}}, "circuit_breaker": {{}}"#);
    let mut desk = desk(&policy);
    let asked = desk.request(&facts(&KEYED, false));
    desk.exchange.sent(5_000_000);
    let waits = desk.answer(&asked, r#"{"state":"in_flight","wait_us":40000}"#);
    assert_eq!(waits.act, Act::CountWaiting(0));
    let waits = desk.on(Event::Others(0));
    assert!(matches!(waits.act, Act::Wait(_)), "{waits:?}");
    let again = desk.on(Event::Waited(FRESH));
    desk.exchange.sent(6_000_000);
    assert!(asks_leave(&desk.answer(&again, r#"{"state":"claimed","fence":3}"#)));
    let effects = desk.permit(Some(1_500));
    // As old as the first question.
    assert_eq!(given_back(effects.settlement.as_deref()), (-1, true, 2_000_000));
}

/// The claim is the one of whoever asked last, and what the limits charged goes with it.
#[test]
fn who_asked_on_as_somebody_else_gives_that_ones_claim_back() {
    let policy = format!(r#"{LIMITS}{IDEMPOTENCY}, "wait": "50ms"}}, "circuit_breaker": {{}}"#);
    let mut desk = desk(&policy);
    let asked = desk.request(&facts(&KEYED, false));
    desk.answer(&asked, r#"{"state":"in_flight","wait_us":40000}"#);
    desk.on(Event::Others(0));
    desk.on(Event::Waited(DecisionId::new(1)));
    desk.on(Event::Answer { answer: Answer::Reset, entropy: 0 });
    let again = desk.on(Event::Waited(FRESH));
    assert!(asks_leave(&desk.answer(&again, r#"{"state":"claimed","fence":3}"#)));
    let message = settled(&desk.permit(Some(1_500)).settlement.expect("it gives back"));
    assert_eq!((message.id, message.adjustments.len()), (FRESH, 1));
    assert!(message.finish.is_some());
}

/// What was never sent has its tries still when the way is open again; of what has no receipt nobody knows then what is left.
#[test]
fn what_was_refused_by_the_way_alone_keeps_what_its_receipts_prove() {
    for (receipt, kept) in [("", 0), (r#","charged_us":1"#, 1)] {
        let mut desk = desk(&format!(r#"{LIMITS}{IDEMPOTENCY}}}, "circuit_breaker": {{}}"#));
        let asked = desk.request(&facts(&KEYED, false));
        let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
        let asked = DecideRequest::decode(message).expect("a sound message");
        let body = format!(
            r#"{{"v":1,"id":"{}","verdict":"allow","claim":{{"state":"claimed","fence":3}},
            "limits":[{{"id":"{}","allowed":true,"remaining":4,"next_us":1,"reset_us":1{receipt}}}]}}"#,
            asked.id, asked.limits[0].id
        );
        let answer = Answer::Response { marked: true, status: b"200", body: body.as_bytes() };
        desk.on(Event::Answer { answer, entropy: 0 });
        let mut end = desk.permit(Some(1_500)).settlement.expect("it gives back");
        assert_eq!(settled(&end).adjustments.len(), 1);
        for _ in 0..2 {
            let later = end.ended(&Answer::CircuitOpen { retry_ms: 9 });
            assert!(matches!(later, Ended::Later { .. }), "{later:?}");
            assert_eq!(settled(&end).adjustments.len(), kept, "{receipt}");
        }
        // Then it has three tries, of which each may have been heard.
        let mut tries = 0;
        while end.ended(&Answer::Reset) == Ended::Again {
            tries += 1;
        }
        assert_eq!((tries, settled(&end).adjustments.len()), (2, 0));
    }
}

#[test]
fn a_breaker_in_shadow_is_asked_and_hides_no_claim() {
    let policy = format!(r#"{IDEMPOTENCY}}}, "circuit_breaker": {{}}, "mode": "shadow""#);
    let mut desk = desk(&policy);
    desk.shut = vec![0];
    let asked = desk.request(&facts(&KEYED, false));
    assert_eq!(claim_of(&asked).map(|claim| claim.look), Some(false));
    let effects = desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert!(
        matches!(effects.act, Act::Permit { circuit: Circuit { enforced: false, .. }, .. }),
        "{effects:?}"
    );
}

fn claim_of(asked: &Effects) -> Option<crate::wire::ClaimCall> {
    let Act::Ask(message) = &asked.act else { panic!("asks: {asked:?}") };
    DecideRequest::decode(message).expect("a sound message").claim
}

#[test]
fn a_fallback_answers_or_leads_the_request_elsewhere() {
    let answer = r#", "circuit_breaker": {"fallback": {"answer": {"body": "[]"}}}"#;
    let rows = [(facts(&[], false), Some(0)), (grpc(), None)];
    for (facts, fallback) in rows {
        let mut answers = desk(answer);
        answers.request(&facts);
        let effects = answers.permit(Some(1_500));
        let Act::Deny(denial) = effects.act else { panic!("denies: {effects:?}") };
        assert_eq!((denial.reason, denial.fallback), (Reason::CircuitOpen, fallback));
    }

    let elsewhere =
        r#", "circuit_breaker": {"fallback": {"header": {"name": "x-u", "value": "b"}}}"#;
    let mut leads = desk(&format!("{LIMITS}{IDEMPOTENCY}}}{elsewhere}"));
    let asked = leads.request(&facts(&KEYED, false));
    leads.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    let effects = leads.permit(Some(1_500));
    assert_eq!((effects.act, effects.reroute, effects.settlement), (Act::Resume, Some(0), None));
    assert!(leads.exchange.wants_answer(), "the answer of the other cluster is stored");

    // What was only looked for is claimed first.
    let mut looks = desk(&format!("{LIMITS}{IDEMPOTENCY}}}{elsewhere}"));
    looks.shut = vec![0];
    let asked = looks.request(&facts(&KEYED, false));
    looks.answer(&asked, r#"{"state":"absent"}"#);
    let asked = looks.permit(Some(1_500));
    assert_eq!(claim_of(&asked).map(|claim| claim.look), Some(false));
    let effects = looks.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert_eq!((effects.act, effects.reroute), (Act::Resume, Some(0)));

    let mut passes = desk(elsewhere);
    passes.request(&facts(&[], false));
    let effects = passes.permit(None);
    assert_eq!((effects.act, effects.reroute), (Act::Pass, None));
}

fn grpc() -> Facts<'static> {
    facts(&[("content-type", "application/grpc")], true)
}

#[test]
fn who_is_held_is_asked_for_again_until_the_time_or_the_room_is_over() {
    let breaker = r#", "circuit_breaker": {"hold": {"for": "220ms", "max": 2}}"#;
    let refused = |wait_ms, held| Event::Permit(Err(NoLeave { wait_ms, now_us: None, held }));
    let holds = |delay_ms| Act::Hold { breaker: 0, delay_ms };

    let mut desk = desk(breaker);
    desk.request(&facts(&[], false));
    for (held, delay_ms) in [(1, 100), (2, 100), (9, 20)] {
        assert_eq!(desk.on(refused(None, held)).act, holds(delay_ms));
        assert!(desk.exchange.holds_request());
        assert!(matches!(desk.on(Event::Waited(FRESH)).act, Act::Permit { .. }));
    }
    let effects = desk.on(refused(None, 0));
    assert!(matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::CircuitOpen));

    // Leave comes while it is held.
    let mut desk = self::desk(breaker);
    desk.request(&facts(&[], false));
    desk.on(refused(None, 0));
    desk.on(Event::Waited(FRESH));
    assert_eq!(desk.permit(None).act, Act::Pass);

    // No room, or nothing to hope for.
    for (wait_ms, held) in [(None, 2), (Some(8_000), 0)] {
        let mut desk = self::desk(breaker);
        desk.request(&facts(&[], false));
        assert!(matches!(desk.on(refused(wait_ms, held)).act, Act::Deny(_)), "{wait_ms:?} {held}");
    }
}

#[test]
fn who_leaves_while_held_gives_back_claim_and_charge() {
    let breaker = r#", "circuit_breaker": {"hold": {"for": "1s"}}"#;
    let mut desk = desk(&format!("{LIMITS}{IDEMPOTENCY}}}{breaker}"));
    let asked = desk.request(&facts(&KEYED, false));
    desk.exchange.sent(5_000_000);
    desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert!(matches!(desk.permit(Some(1)).act, Act::Hold { .. }));
    let settlement = desk.left();
    assert_eq!(given_back(settlement.as_ref()), (-1, true, 2_000_000));
    assert_eq!(desk.left(), None, "once");
}

/// Its question may have claimed the key in the store all the same.
#[test]
fn a_key_that_may_be_claimed_is_given_back_also_if_the_breaker_refuses() {
    let optional = r#", "idempotency": {"key": "optional", "tenant": "tenant", "upstream_timeout": "10s",
        "on_unavailable": "allow"}, "circuit_breaker": {"hold": {"for": "1s"}}"#;
    for (limits, units) in [("", 0), (LIMITS, -1)] {
        let held = || {
            // The limits are asked here, and the key of its tenant's home: only the second question fails.
            let homes = r#""homes": {"regions": {"north": {"cluster": "n"}}, "default": "north"},"#;
            let mut desk = read(if units < 0 { homes } else { "" }, &format!("{limits}{optional}"));
            let mut asked = desk.request(&facts(&KEYED, false));
            desk.exchange.sent(5_000_000);
            if units < 0 {
                asked = desk.told(&asked, true, "", &[]);
            }
            assert!(matches!(asked.act, Act::Ask(_)), "{asked:?}");
            let effects = desk.on(Event::Answer { answer: Answer::Reset, entropy: 0 });
            assert!(asks_leave(&effects), "{effects:?}");
            assert!(matches!(desk.permit(Some(1)).act, Act::Hold { .. }));
            desk
        };
        let given_back = |settlement: Option<Settlement>| {
            let settlement = settlement.expect("the key is given back");
            let finish = settled(&settlement).finish.expect("a claim");
            assert!(matches!((finish.fence, finish.by), (0, FinishBy::Abandon { .. })));
            let beside = settlement.beside.map(|beside| settled(&beside));
            beside.map_or((0, 0), |beside| (beside.adjustments[0].by, beside.age_us))
        };
        let expected = (units, if units < 0 { 2_000_000 } else { 0 });

        let mut refused = held();
        let effects = refused.permit(Some(8_000));
        assert!(matches!(&effects.act, Act::Deny(denial) if denial.reason == Reason::CircuitOpen));
        assert_eq!(given_back(effects.settlement.map(|one| *one)), expected);
        assert_eq!(refused.left(), None, "once");

        let mut left = held();
        assert_eq!(given_back(left.left()), expected);

        // Whoever runs has given it back as well: it is not protected.
        let mut granted = held();
        let effects = granted.permit(None);
        assert_eq!(effects.act, Act::Resume);
        assert_eq!(given_back(effects.settlement.map(|one| *one)), (0, 0));
    }
}

/// What was looked for beside a breaker that refuses is claimed by itself, once leave comes.
#[test]
fn limits_stay_charged_for_nobody_whose_key_cannot_be_claimed_afterwards() {
    const BUSY: Answer<'_> = Answer::Response {
        marked: true,
        status: b"503",
        body: br#"{"v":1,"reason":"service-overloaded"}"#,
    };
    let elsewhere = r#""circuit_breaker": {"fallback": {"header": {"name": "x-u", "value": "b"}}}"#;
    let held = r#""circuit_breaker": {"hold": {"for": "2s"}}"#;
    let few = r#"{"state":"claimed","fence":3,"replicas":0}"#;
    // What the second question comes to, and the fence of the claim that goes back with the unit.
    type Row<'r> = (Result<fn() -> Answer<'static>, &'r str>, Option<u64>);
    let rows: [Row<'_>; 5] = [
        (Ok(|| Answer::Reset), Some(0)),
        (Ok(|| BUSY), None),
        (Ok(|| Answer::CircuitOpen { retry_ms: 9 }), None),
        (Err(few), Some(3)),
        (Err(r#"{"state":"forgets"}"#), None),
    ];
    for (breaker, waits) in [(elsewhere, false), (held, true)] {
        for (said, fence) in rows {
            let said = said.map(|answer| answer());
            let is_sent = !matches!(said, Ok(Answer::CircuitOpen { .. }));
            let told = format!("{said:?} {waits}");
            let more = r#", "wait_replicas": 1"#;
            let mut desk = desk(&format!("{LIMITS}{IDEMPOTENCY}{more}}}, {breaker}"));
            desk.shut = vec![0];
            let asked = desk.request(&facts(&KEYED, false));
            desk.exchange.sent(5_000_000);
            desk.answer(&asked, r#"{"state":"absent"}"#);
            let mut asked = desk.permit(Some(1));
            if waits {
                assert!(matches!(asked.act, Act::Hold { .. }), "{asked:?}");
                desk.on(Event::Waited(FRESH));
                asked = desk.permit(None);
            }
            if is_sent {
                desk.exchange.sent(6_000_000);
            }
            let effects = match said {
                Ok(answer) => desk.on(Event::Answer { answer, entropy: 0 }),
                Err(state) => desk.answer(&asked, state),
            };
            let Act::Deny(denial) = effects.act else { panic!("denies: {told}") };
            assert_ne!(denial.reason, Reason::CircuitOpen);
            let message = settled(&effects.settlement.expect("it gives back"));
            assert_eq!((message.adjustments.len(), message.adjustments[0].by), (1, -1), "{told}");
            assert_eq!(message.finish.map(|finish| finish.fence), fence, "{told}");
            // The second question itself takes as long as it may; how long somebody was held who was never sent
            // nobody knows.
            let age_us = message.age_us;
            match (is_sent, waits) {
                (true, _) => assert!((1_045_000..1_200_000).contains(&age_us), "{age_us}"),
                (false, true) => assert!(age_us > 86_400_000_000_000, "{age_us}"),
                (false, false) => assert!((90_000..400_000).contains(&age_us), "{age_us}"),
            }
        }
    }
}

/// It may be held for longer than its claim is locked.
#[test]
fn the_claim_of_who_is_held_is_kept_alive() {
    let breaker = r#", "circuit_breaker": {"hold": {"for": "60s"}}"#;
    let mut desk = desk(&format!("{LIMITS}{IDEMPOTENCY}}}{breaker}"));
    let asked = desk.request(&facts(&KEYED, false));
    desk.exchange.sent(5_000_000);
    assert!(!desk.exchange.has_claim());
    desk.answer(&asked, r#"{"state":"claimed","fence":3}"#);
    assert!(matches!(desk.permit(Some(1)).act, Act::Hold { .. }));
    assert!(desk.exchange.has_claim() && !desk.exchange.wants_answer());
    let config = desk.config.clone();
    assert_eq!(desk.exchange.beats(&config, 5_000_001), None);
    let beats = desk.exchange.beats(&config, 60_000_000).expect("a third of its lock is over");
    let message = SettleRequest::decode(&beats.message).expect("a sound message");
    assert!(matches!(message.finish.expect("of a claim").by, FinishBy::Extend { .. }));
}

/// Breakers that grant leave at once, or do not; how often they were asked, with whether for gRPC.
#[derive(Debug)]
struct Counting(bool, core::cell::RefCell<Vec<bool>>);

impl Known for Counting {
    fn is_shut(&self, _circuit: &Circuit) -> bool {
        false
    }

    fn grants(&self, _circuit: &Circuit, grpc: bool) -> bool {
        self.1.borrow_mut().push(grpc);
        self.0
    }
}

fn arrives(desk: &mut Desk, facts: &Facts<'_>, known: &dyn Known) -> Effects {
    let matched = desk.config.on_path(Some(b"/pay")).on_host(&desk.config, None);
    let (caller, id) = (caller(), DecisionId::new(ID));
    desk.on(Event::Request { matched, facts, caller: &caller, id, known })
}

#[test]
fn leave_that_is_granted_at_once_is_the_same_as_one_that_was_asked_for() {
    let leased = r#", "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute",
        "decide": "lease"}], "circuit_breaker": {}"#;
    for policy in [r#", "circuit_breaker": {}"#, leased] {
        let run = |known: &Counting| {
            let mut desk = desk(policy);
            let mut effects = arrives(&mut desk, &facts(&[], false), known);
            if let Act::Spend(spends) = effects.act {
                assert!(known.1.borrow().is_empty(), "limits are asked first");
                let (answers, caller) =
                    (vec![Spent::Taken { remaining: 3, reduced: None }], &caller());
                let (entropy, facts) = (0, Some(&facts(&[], false)));
                let event = Event::Spent { spends, answers, entropy, facts, caller, known };
                effects = desk.on(event);
            }
            let is_asked = asks_leave(&effects);
            if is_asked {
                effects = desk.permit(None);
            }
            let told = desk.exchange.testimony(&desk.config, &effects, None);
            assert_eq!(*known.1.borrow(), [false], "once, and for no gRPC");
            (is_asked, effects, told, desk.exchange.has_to_tell())
        };
        let (asked, at_once) =
            (run(&Counting(false, vec![].into())), run(&Counting(true, vec![].into())));
        assert!(asked.0 && !at_once.0, "{policy}");
        assert_eq!((asked.1, asked.2, asked.3), (at_once.1, at_once.2, at_once.3), "{policy}");
    }
}

#[test]
fn leave_is_asked_for_when_the_request_would_go_on_and_not_before() {
    let policy = format!(r#"{LIMITS}{IDEMPOTENCY}}}, "circuit_breaker": {{}}"#);
    let known = Counting(true, vec![].into());
    let mut desk = desk(&policy);
    let asked = arrives(&mut desk, &facts(&KEYED, false), &known);
    assert!(asks_leave(&desk.answer(&asked, r#"{"state":"claimed","fence":3}"#)), "as it is now");
    assert!(known.1.borrow().is_empty(), "what it said before the question is of no use after it");
}

#[test]
fn a_request_is_grpc_to_its_breaker_if_it_says_so_and_has_a_body() {
    for (facts, expected) in [
        (facts(&[("content-type", "application/grpc")], true), true),
        (facts(&[("content-type", "application/grpc")], false), false),
        (facts(&[("content-type", "application/json")], true), false),
    ] {
        let known = Counting(true, vec![].into());
        let mut desk = desk(r#", "circuit_breaker": {}"#);
        assert_eq!(arrives(&mut desk, &facts, &known).act, Act::Pass);
        assert_eq!(*known.1.borrow(), [expected], "{facts:?}");
    }
}
