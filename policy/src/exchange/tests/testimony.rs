//! Tests of what the audit chain is told by the filter: one row per way a request can end.

use super::*;
use crate::audit::Action;
use crate::audit::testimony::Testimony;
use crate::identity::SubjectKind;

fn config(audit: &str) -> Config {
    let limit = |decide: &str| {
        format!(
            r#"[{{"name": "key", "by": {{"header": "x-key", "trusted": true}}, "limit": 5, "per": "minute", "decide": "{decide}"}}]"#
        )
    };
    let (exact, leased) = (limit("exact"), limit("lease"));
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}}, {audit} "policies": [
            {{"name": "deny", "match": {{"path": "/deny"}}, "rate_limits": {exact}, "on_unavailable": ["deny"]}},
            {{"name": "open", "match": {{"path": "/open"}}, "rate_limits": {exact}, "on_unavailable": ["local_share", "allow"]}},
            {{"name": "lease", "match": {{"path": "/lease"}}, "rate_limits": {leased}}},
            {{"name": "up", "match": {{"path": "/up"}}, "circuit_breaker": {{}}, "rate_limits": {exact}}},
            {{"name": "only", "match": {{"path": "/only"}}, "circuit_breaker": {{}}}}]}}"#
    );
    let reading = Config::read(&document);
    reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics))
}

fn bench(audit: &str) -> Bench {
    Bench { config: config(audit), overrides: Overrides::default(), exchange: Exchange::default() }
}

impl Bench {
    fn told(&self, effects: &Effects) -> Option<Box<Testimony>> {
        self.exchange.testimony(&self.config, effects, effects.whom.clone())
    }

    fn spent(&mut self, asks: Effects, answer: Spent) -> Effects {
        let Act::Spend(spends) = asks.act else { panic!("{asks:?}") };
        let (answers, facts, caller) = (vec![answer], &facts(), &caller());
        let known = &Vec::<usize>::new();
        let event = Event::Spent { spends, answers, facts: Some(facts), entropy: 0, caller, known };
        self.exchange.on(&self.config, &self.overrides, event)
    }
}

fn whom(told: &Testimony) -> Vec<(&str, SubjectKind, &str)> {
    told.about.iter().map(|a| (a.limit.as_str(), a.subject.kind, a.subject.name.as_str())).collect()
}

const ON: &str = r#""audit": {"allows": "100%"},"#;

#[test]
fn what_the_gateway_denies_is_its_own_to_record() {
    let mut bench = bench(ON);
    bench.request("/deny", &facts());
    let denied = bench.reply("200", &body("deny", &[("deny.key", false, Some(1))]));
    assert!(matches!(denied.act, Act::Deny(_)), "{denied:?}");
    assert_eq!(bench.told(&denied), None);
}

#[test]
fn what_is_admitted_is_told_with_whom_if_its_share_takes_it_in() {
    for (audit, is_told) in [(ON, true), (r#""audit": {},"#, false), ("", false)] {
        let mut bench = bench(audit);
        let asks = bench.request("/deny", &facts());
        assert_eq!(bench.told(&asks), None, "nothing is decided yet");
        let admitted = bench.reply("200", &body("allow", &[("deny.key", true, Some(0))]));
        assert_eq!(admitted.act, Act::Resume);
        let told = bench.told(&admitted);
        assert_eq!(told.is_some(), is_told, "{audit}");
        let Some(told) = told else { continue };
        assert_eq!((told.action, told.outcome), (Action::Allow, "ok"));
        assert_eq!(
            (told.names.as_slice(), told.decision),
            (&["deny".to_string()][..], Some(DecisionId::new(ID)))
        );
        assert_eq!(whom(&told), [("deny.key", SubjectKind::Header, "k1")]);
    }
}

#[test]
fn the_share_is_drawn_by_the_id_alone_and_evenly() {
    let config = config(r#""audit": {"allows": "10%"},"#);
    let signals = [Signal::Decided { policy: 0, outcome: Outcome::Allowed }];
    let drawn = |n: u128| witness::is_drawn(&config, DecisionId::new((77 << 64) | n), &signals);
    let count = (0..10_000).filter(|n| drawn(*n)).count();
    assert!((850..1_150).contains(&count), "{count} of 10,000");
    assert!((0..100).all(|n| drawn(n) == drawn(n)));
    let denied = [Signal::Decided { policy: 0, outcome: Outcome::NotCharged }];
    assert!((0..1_000).all(|n| !witness::is_drawn(&config, DecisionId::new(n), &denied)));
}

#[test]
fn leased_units_that_deny_are_told_with_whom_and_those_that_admit_by_their_share() {
    for (audit, allows) in [(ON, true), (r#""audit": {},"#, false)] {
        let mut denying = bench(audit);
        let spends = denying.request("/lease", &facts());
        let denied = denying.spent(spends, Spent::Denied { wait_us: 1, reduced: None });
        let told = denying.told(&denied).expect("the gateway knows nothing of it");
        assert_eq!((told.action, told.outcome), (Action::Deny, "quota-exceeded"));
        assert_eq!(whom(&told), [("lease.key", SubjectKind::Header, "k1")]);

        let mut admitting = bench(audit);
        let spends = admitting.request("/lease", &facts());
        let admitted = admitting.spent(spends, Spent::Taken { remaining: 3, reduced: None });
        let told = admitting.told(&admitted);
        assert_eq!(told.as_ref().map(|told| whom(told).len()), allows.then_some(1), "{audit}");
    }
}

#[test]
fn rungs_are_told_with_whom_and_why() {
    let mut denying = bench(ON);
    denying.request("/deny", &facts());
    let denied = denying.answer(Answer::Reset);
    let told = denying.told(&denied).expect("nobody else knows");
    assert_eq!((told.action, told.outcome), (Action::Deny, "policy-store-unavailable"));
    assert_eq!(
        (told.cause, told.rungs.as_slice()),
        (Some(Reason::CalloutReset), &[Rung::Deny][..])
    );
    assert_eq!(whom(&told), [("deny.key", SubjectKind::Header, "k1")]);

    for (share, rung) in [
        (ShareAnswer::Taken, Rung::LocalShare),
        (ShareAnswer::Spent { retry_us: None }, Rung::Allow),
    ] {
        let mut open = bench(ON);
        open.request("/open", &facts());
        let shares = open.answer(Answer::CircuitOpen { retry_ms: 10 });
        assert!(matches!(shares.act, Act::Share(_)), "{shares:?}");
        assert_eq!(open.told(&shares), None);
        let event = Event::Shares { answers: &[share], entropy: 0 };
        let went_on = open.exchange.on(&open.config, &open.overrides, event);
        let told = open.told(&went_on).expect("nobody else knows");
        assert_eq!((told.action, told.outcome), (Action::Rung, "callout-circuit-open"));
        assert_eq!(
            (told.rungs.as_slice(), told.names.as_slice()),
            (&[rung][..], &["open".to_string()][..])
        );
        assert_eq!(whom(&told).len(), 1);
    }
}

#[test]
fn who_is_not_known_and_who_meets_an_open_circuit_is_told_of() {
    let mut unknown = bench(ON);
    let denied = unknown.request("/deny", &Facts { headers: Vec::new(), ..facts() });
    let told = unknown.told(&denied).expect("nobody was asked");
    assert_eq!((told.action, told.outcome), (Action::Deny, "client-identity-required"));
    assert_eq!((told.names.as_slice(), told.about.len()), (&["deny.key".to_string()][..], 0));

    let mut shut = bench(ON);
    shut.request("/up", &facts());
    let permit = shut.reply("200", &body("allow", &[("up.key", true, Some(0))]));
    assert!(matches!(permit.act, Act::Permit { .. }), "{permit:?}");
    assert_eq!(shut.told(&permit), None, "it has not gone on");
    let no_leave = NoLeave { wait_ms: Some(1), now_us: None, held: 0 };
    let refused = shut.exchange.on(&shut.config, &shut.overrides, Event::Permit(Err(no_leave)));
    let told = shut.told(&refused).expect("the gateway admitted it");
    assert_eq!((told.action, told.outcome), (Action::Deny, "circuit-open"));

    let mut open = bench(ON);
    open.request("/up", &facts());
    open.reply("200", &body("allow", &[("up.key", true, Some(0))]));
    let went_on = open.exchange.on(&open.config, &open.overrides, Event::Permit(Ok(())));
    let told = open.told(&went_on).expect("all of its share");
    assert_eq!((told.action, whom(&told).len()), (Action::Allow, 1));
}

#[test]
fn what_a_circuit_breaker_alone_lets_go_on_is_told_by_its_share() {
    for (audit, is_told) in [(ON, true), (r#""audit": {},"#, false)] {
        let mut bench = bench(audit);
        let permit = bench.request("/only", &facts());
        assert!(matches!(permit.act, Act::Permit { .. }), "{permit:?}");
        assert_eq!(bench.told(&permit), None, "it has not gone on");
        let went_on = bench.exchange.on(&bench.config, &bench.overrides, Event::Permit(Ok(())));
        assert!(matches!(went_on.act, Act::Pass | Act::Resume), "{went_on:?}");
        let told = bench.told(&went_on);
        assert_eq!(told.is_some(), is_told);
        let names = told.map(|told| (told.action, told.names, told.about.len()));
        assert_eq!(names, is_told.then(|| (Action::Allow, vec!["only".to_string()], 0)));
    }
}

#[test]
fn an_overload_is_the_gateways_to_record() {
    let mut bench = bench(ON);
    bench.request("/deny", &facts());
    let refusal = format!(r#"{{"v": {}, "reason": "service-overloaded"}}"#, crate::wire::VERSION);
    let denied = bench.reply("429", &refusal);
    assert!(matches!(denied.act, Act::Deny(_)), "{denied:?}");
    assert_eq!(bench.told(&denied), None);
}
