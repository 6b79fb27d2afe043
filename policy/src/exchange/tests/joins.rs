//! Tests of requests that wait for what another request's message brings of leased units.

use super::*;
use crate::wire::DecideRequest;

fn bench(limits: usize) -> Bench {
    let limit = |name: usize| {
        format!(
            r#"{{"name": "l{name}", "by": {{"header": "x-key", "trusted": true}}, "limit": 5, "per": "minute", "decide": "lease"}}"#
        )
    };
    let limits: Vec<_> = (0..limits).map(limit).collect();
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}}, "policies": [
            {{"name": "lease", "match": {{"path": "/lease"}}, "rate_limits": [{}]}}]}}"#,
        limits.join(",")
    );
    let config = Config::read(&document).config.expect("a configuration");
    Bench { config, overrides: Overrides::default(), exchange: Exchange::default() }
}

impl Bench {
    fn says(&mut self, asks: Effects, answer: Spent, facts: Option<&Facts<'_>>) -> Effects {
        let Act::Spend(spends) = asks.act else { panic!("{asks:?}") };
        let (answers, caller, known) = (vec![answer], &caller(), &Vec::<usize>::new());
        let event = Event::Spent { spends, answers, facts, entropy: 0, caller, known };
        self.exchange.on(&self.config, &self.overrides, event)
    }
}

fn may_join(effects: &Effects) -> Vec<bool> {
    match &effects.act {
        Act::Spend(spends) => spends.iter().map(|spend| spend.joins).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_may_wait_once_and_then_goes_on_as_any_other() {
    for then in [
        Spent::Taken { remaining: 3, reduced: None },
        Spent::Denied { wait_us: 1, reduced: None },
        Spent::Ask { leases: Vec::new() },
    ] {
        let mut bench = bench(1);
        let asks = bench.request("/lease", &facts());
        assert_eq!(may_join(&asks), [true]);
        let held = bench.says(asks, Spent::Join, Some(&facts()));
        assert_eq!((held.act, held.signals.len()), (Act::Join, 0), "nothing is decided yet");
        assert!(bench.exchange.holds_request());
        let again = bench.exchange.on(&bench.config, &bench.overrides, Event::Waited(FRESH));
        assert_eq!(may_join(&again), [false], "once");
        match (bench.says(again, then.clone(), None).act, then) {
            (Act::Resume, Spent::Taken { .. }) | (Act::Deny(_), Spent::Denied { .. }) => {}
            (Act::Ask(message), Spent::Ask { .. }) => {
                let message = DecideRequest::decode(&message).expect("a message");
                assert_eq!(message.limits.len(), 1);
                assert!(message.traceparent.is_some(), "read while it could be");
            }
            (act, then) => panic!("{then:?}: {act:?}"),
        }
    }
}

#[test]
fn who_needs_units_of_two_limits_waits_for_none() {
    assert_eq!(may_join(&bench(2).request("/lease", &facts())), [false, false]);
}
