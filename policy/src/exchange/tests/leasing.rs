//! Tests that a request all of whose limits are leased is decided as any other: once as it is, and once as a
//! question that happens to be answered by this Envoy's units.

use super::*;
use crate::exchange::lease::Wish;
use proptest::prelude::*;

fn config(policies: &[usize], audit: &str, fields: &str) -> Config {
    let policies: Vec<_> =
        policies.iter().enumerate().map(|(at, limits)| policy(at, *limits)).collect();
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}}, {audit} "rate_limit_fields": "{fields}",
            "policies": [{}]}}"#,
        policies.join(",")
    );
    let reading = Config::read(&document);
    reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics))
}

fn policy(at: usize, limits: usize) -> String {
    let limit = |name: usize| {
        let by = if name == 0 { r#""ip""# } else { r#"{"header": "x-key", "trusted": true}"# };
        let limit = name * 7 + at + 2;
        format!(
            r#"{{"name": "l{name}", "by": {by}, "limit": {limit}, "per": "minute", "decide": "lease"}}"#
        )
    };
    let limits: Vec<_> = (0..limits).map(limit).collect();
    // Words of its own, so that it matters which policy denies.
    let denied = match at % 2 {
        0 => "",
        _ => r#", "denied": {"content_type": "text/plain", "body": "{{limit}}"}"#,
    };
    format!(
        r#"{{"name": "p{at}", "match": {{"path": "/**"}}, "rate_limits": [{}]{denied}}}"#,
        limits.join(",")
    )
}

fn answer() -> impl Strategy<Value = Spent> {
    prop_oneof![
        6 => (0u64..100, reduced()).prop_map(|(remaining, reduced)| Spent::Taken { remaining, reduced }),
        3 => (1u64..3_000_000_000, reduced())
            .prop_map(|(wait_us, reduced)| Spent::Denied { wait_us, reduced }),
        1 => Just(Spent::Ask { leases: Vec::new() }),
    ]
}

fn reduced() -> impl Strategy<Value = Option<u32>> {
    prop::option::of(1u32..4)
}

fn bench(config: &Config) -> Bench {
    let overrides = Overrides::default();
    Bench { config: config.clone(), overrides, exchange: Exchange::default() }
}

/// Puts the same as a question: the long way.
fn at_length(bench: &mut Bench, facts: &Facts<'_>, spends: &[Spend]) -> Effects {
    let Phase::Leasing(Leasing { id, tenant, gated }) = &bench.exchange.phase else {
        panic!("{:?}", bench.exchange);
    };
    let asked = |spend: &Spend| {
        let LeaseName { policy, limit, .. } = spend.name;
        Asked { policy, limit, shadow: false, soft: false }
    };
    let wish = |spend: &Spend| Wish {
        asked: asked(spend),
        subject: spend.name.subject.clone(),
        cost: spend.cost,
    };
    let (what, tenant) = ((*id, *gated), tenant.clone());
    let wishes = spends.iter().map(wish);
    let mut question = Question::new(&bench.config, what, &caller(), tenant, wishes);
    question.learn(facts);
    let (phase, effects) = put(&bench.config, question, Some(facts), Vec::new());
    bench.exchange.phase = phase;
    effects
}

fn spends(effects: Effects) -> Vec<Spend> {
    match effects.act {
        Act::Spend(spends) => spends,
        other => panic!("{other:?}"),
    }
}

/// As of a limit that the gateway decides: what is lowered says so, and shows what is in force.
#[test]
fn a_leased_limit_that_is_lowered_shows_what_is_in_force_and_says_so() {
    // Two are configured for a minute.
    for (reduced, reason, quota, next_s) in
        [(None, Reason::QuotaExceeded, 2, 30), (Some(1), Reason::TemporaryReducedCapacity, 1, 60)]
    {
        let config = config(&[1], "", "draft-10");
        let denied = Spent::Denied { wait_us: 9_000_000, reduced };
        for answer in [denied, Spent::Taken { remaining: 1, reduced }] {
            let mut bench = bench(&config);
            let spends = spends(bench.request("/x", &facts()));
            let (facts, answers) = (Some(&facts()), vec![answer]);
            let (caller, known) = (&caller(), &Vec::<usize>::new());
            let event = Event::Spent { spends, answers, entropy: 0, facts, caller, known };
            let effects = bench.exchange.on(&bench.config, &bench.overrides, event);
            let fields = match effects.act {
                Act::Deny(denial) => {
                    assert_eq!(denial.reason, reason);
                    denial.fields
                }
                _ => {
                    let said = Said { moment: Moment::Headers, values: &[], now_us: None };
                    let response = bench.exchange.on_response(&config, &said);
                    let fields = response.writes(None).0.to_vec();
                    assert!(fields[1].1.ends_with(&format!("t={next_s}")), "{fields:?}");
                    fields
                }
            };
            assert_eq!(fields[0].1, format!("\"p0.l0\";q={quota};w=60"));
        }
    }
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_one_lead_to_the_same(
        policies in prop::collection::vec(1usize..4, 1..4),
        answers in prop::collection::vec(answer(), 9),
        joins: bool,
        audit in prop::sample::select(vec!["", r#""audit": {"allows": "100%"},"#]),
        fields in prop::sample::select(vec!["draft-10", "x-draft-03", "off"]),
        grpc: bool,
        entropy: u64,
    ) {
        let config = config(&policies, audit, fields);
        let mut facts = facts();
        if grpc {
            facts.headers.push((b"content-type", b"application/grpc"));
        }
        let (mut short, mut long) = (bench(&config), bench(&config));
        let asks = spends(short.request("/x", &facts));
        long.request("/x", &facts);
        let asks_at_length = spends(at_length(&mut long, &facts, &asks));
        prop_assert_eq!(&asks, &asks_at_length);
        let mut answers: Vec<_> = answers.into_iter().take(asks.len()).collect();
        if let ([spend], [answer]) = (asks.as_slice(), answers.as_mut_slice())
            && joins
        {
            prop_assert!(spend.joins);
            *answer = Spent::Join;
        }
        let mut told = Vec::new();
        for (bench, spends) in [(&mut short, asks), (&mut long, asks_at_length)] {
            let (answers, facts, caller) = (answers.clone(), Some(&facts), &caller());
            let known = &Vec::<usize>::new();
            let event = Event::Spent { spends, answers, entropy, facts, caller, known };
            let mut effects = bench.exchange.on(&bench.config, &bench.overrides, event);
            let whom = effects.whom.take();
            let testimony = bench.exchange.testimony(&config, &effects, whom);
            let said = Said { moment: Moment::Headers, values: &[], now_us: None };
            let state = (bench.exchange.holds_request(), bench.exchange.has_to_tell());
            let response = bench.exchange.on_response(&config, &said);
            told.push((effects, testimony, state, response));
        }
        let (long, short) = (told.pop(), told.pop());
        prop_assert_eq!(short, long);
    }
}
