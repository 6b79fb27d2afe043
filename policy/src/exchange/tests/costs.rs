//! Tests of costs through the exchange: what is asked for, and what is settled when the response tells.

use super::*;
use crate::limit::refund::Receipt;
use crate::wire::SettleRequest;

const COSTS: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate"}, "policies": [
    {"name": "llm", "match": {"path": "/llm"}, "rate_limits": [
        {"name": "calls", "by": "ip", "limit": 60, "per": "minute", "cost": {"header": "x-cost", "max": 9}},
        {"name": "tokens", "by": "ip", "limit": 5000, "per": "minute",
         "cost": {"response_header": "x-tokens", "reserve": 100, "max": 9000}},
        {"name": "bytes", "by": "ip", "limit": 500, "per": "minute",
         "cost": {"response_trailer": "x-bytes", "reserve": 5}},
        {"name": "fair", "by": "ip", "limit": 700, "per": "minute", "soft": true,
         "cost": {"response_header": "x-tokens", "reserve": 7, "max": 9000}}]}
]}"#;

fn bench() -> Bench {
    Bench { config: Config::read(COSTS).config.expect("sound"), ..Bench::new() }
}

/// Asks, and is told which of the four limits admit.
fn answered(allowed: [bool; 4]) -> (Bench, Effects) {
    let mut bench = bench();
    let Act::Ask(_) = bench.request("/llm", &facts()).act else { panic!("asks") };
    assert!(bench.exchange.is_timed(), "an answer will settle");
    bench.exchange.sent(3_000_000);
    let names = ["llm.calls", "llm.tokens", "llm.bytes", "llm.fair"];
    let states: Vec<_> =
        names.iter().zip(allowed).map(|(name, allowed)| (*name, allowed, Some(9))).collect();
    let verdict = if allowed[..3] == [true; 3] { "allow" } else { "deny" };
    let charged = r#""reset_us": 1, "charged_us": 1800000000000000"#;
    let body = body(verdict, &states).replace(r#""reset_us": 1"#, charged);
    let effects = bench.reply("200", &body);
    (bench, effects)
}

fn read(response: &Response) -> Vec<(String, i64)> {
    let Some(settlement) = &response.settlement else { return Vec::new() };
    let message = SettleRequest::decode(&settlement.message).expect("the gateway reads it");
    assert_eq!((message.id, settlement.id), (DecisionId::new(ID), DecisionId::new(ID)));
    assert_eq!(message.age_us, 2_000_000);
    assert_eq!(message.traceparent.as_deref(), Some("00-a-b-01"));
    message.adjustments.into_iter().map(|a| (a.id, a.by)).collect()
}

fn values(values: &[Option<&str>]) -> Vec<Option<Vec<u8>>> {
    values.iter().map(|value| value.map(|text| text.as_bytes().to_vec())).collect()
}

#[test]
fn the_request_says_or_reserves_what_it_costs() {
    let mut bench = bench();
    let mut facts = facts();
    facts.headers.push((b"x-cost", b"4"));
    let effects = bench.request("/llm", &facts);
    let Act::Ask(message) = effects.act else { panic!("asks") };
    let message = DecideRequest::decode(&message).expect("readable");
    assert_eq!(message.limits.iter().map(|l| l.cost).collect::<Vec<_>>(), [4, 100, 5, 7]);
    assert_eq!(effects.signals, []);
    facts.headers.push((b"x-cost", b"4"));
    let effects = self::bench().request("/llm", &facts);
    assert_eq!(effects.signals, [Signal::CostMalformed { policy: 0, limit: 0 }]);
}

#[test]
fn each_moment_settles_what_it_tells_and_no_more() {
    let (mut bench, _) = answered([true; 4]);
    let wanted = bench.exchange.wanted(&bench.config, Moment::Headers);
    let tokens = ResponseSource::Header("x-tokens".to_string());
    assert_eq!(wanted, [&tokens, &tokens]);
    let response = bench.respond(Moment::Headers, &values(&[Some("350"), Some("350")]));
    let settled = [("llm.tokens".to_string(), 250), ("llm.fair".to_string(), 343)];
    assert_eq!(read(&response), settled);
    assert!(!response.fields.is_empty());

    assert!(bench.exchange.has_to_tell(), "the trailer is still to come");
    let bytes = ResponseSource::Trailer("x-bytes".to_string());
    assert_eq!(bench.exchange.wanted(&bench.config, Moment::Trailers), [&bytes]);
    let response = bench.respond(Moment::Trailers, &values(&[Some("2")]));
    assert_eq!(read(&response), [("llm.bytes".to_string(), -3)]);
    assert_eq!(response.fields, [], "no fields in trailers");
    let message = response.settlement.expect("checked").message;
    let message = SettleRequest::decode(&message).expect("the gateway reads it");
    let said = Receipt { at_us: 1_800_000_000_000_000, full_us: 1, cold: false };
    assert_eq!(message.adjustments[0].receipt, Some(said));
    assert!(!bench.exchange.has_to_tell());
    assert_eq!(bench.respond(Moment::End, &values(&[Some("2")])), Response::default());
    // One without trailers owes nothing more once it is over.
    let (mut bench, _) = answered([true; 4]);
    bench.respond(Moment::Headers, &values(&[Some("350"), Some("350")]));
    assert_eq!(bench.exchange.wanted(&bench.config, Moment::End), [] as [&ResponseSource; 0]);
    assert_eq!(bench.respond(Moment::End, &[]), Response::default(), "the reserve stays");
    assert!(!bench.exchange.has_to_tell());
}

#[test]
fn what_is_not_said_or_cannot_be_read_leaves_the_reserve() {
    let malformed = |limit| Signal::CostMalformed { policy: 0, limit };
    type Row<'a> = (&'a [Option<&'a str>], &'a [(&'a str, i64)], Vec<Signal>);
    let rows: [Row<'_>; 5] = [
        (&[None, None], &[], vec![]),
        (&[Some("many"), Some("")], &[], vec![malformed(1), malformed(3)]),
        (&[Some("100"), Some("7")], &[], vec![]),
        (&[Some("0"), None], &[("llm.tokens", -100)], vec![]),
        (&[Some("99999999999"), None], &[("llm.tokens", 8_900)], vec![]),
    ];
    for (said, settled, signals) in rows {
        let (mut bench, _) = answered([true; 4]);
        let response = bench.respond(Moment::Headers, &values(said));
        let settled: Vec<_> = settled.iter().map(|(id, by)| (id.to_string(), *by)).collect();
        assert_eq!(read(&response), settled, "{said:?}");
        assert_eq!(response.signals, signals, "{said:?}");
    }
}

#[test]
fn nothing_is_settled_that_was_not_charged() {
    // Denied: nothing was charged.
    let (mut bench, effects) = answered([true, false, true, true]);
    assert!(matches!(effects.act, Act::Deny(_)));
    assert_eq!(bench.respond(Moment::Headers, &values(&[Some("350")])), Response::default());
    // The soft limit was used up, so it was not charged.
    let (mut bench, _) = answered([true, true, true, false]);
    let tokens = ResponseSource::Header("x-tokens".to_string());
    assert_eq!(bench.exchange.wanted(&bench.config, Moment::Headers), [&tokens]);
    let response = bench.respond(Moment::Headers, &values(&[Some("350")]));
    assert_eq!(read(&response), [("llm.tokens".to_string(), 250)]);
    // No verdict: the gateway charged nothing that anybody knows of.
    let mut bench = bench_that_allows();
    bench.request("/llm", &facts());
    assert_eq!(bench.answer(Answer::Reset).act, Act::Resume);
    assert!(!bench.exchange.has_to_tell());
}

fn bench_that_allows() -> Bench {
    let document = COSTS.replace("\"match\"", "\"on_unavailable\": \"allow\", \"match\"");
    Bench { config: Config::read(&document).config.expect("sound"), ..Bench::new() }
}

#[test]
fn a_response_that_ends_without_headers_settles_its_end_alone() {
    let (mut bench, _) = answered([true; 4]);
    let response = bench.respond(Moment::End, &[]);
    assert_eq!(response, Response::default(), "the reserve stays");
    assert!(!bench.exchange.has_to_tell());
}

#[test]
fn without_a_clock_nothing_is_given_back_that_ran_out_by_itself() {
    let (mut bench, _) = answered([true; 4]);
    let values = values(&[Some("0"), None]);
    let said = Said { moment: Moment::Headers, values: &values, now_us: None };
    let settlement = bench.exchange.on_response(&bench.config, &said).settlement.expect("one");
    let message = SettleRequest::decode(&settlement.message).expect("readable");
    assert!(message.age_us > 365 * 86_400_000_000);
}

/// Nobody knows whether it was charged.
#[test]
fn what_could_not_be_read_owes_nothing() {
    let mut bench = bench();
    bench.request("/llm", &facts());
    bench.exchange.sent(3_000_000);
    let states = ["llm.calls", "llm.tokens", "llm.bytes", "llm.fair"].map(|id| (id, true, Some(0)));
    let fair = r#""id": "llm.fair", "#;
    let body = body("allow", &states).replace(fair, &format!(r#"{fair}"unread": true, "#));
    bench.reply("200", &body);
    let response = bench.respond(Moment::Headers, &values(&[Some("350"), Some("350")]));
    assert_eq!(read(&response), [("llm.tokens".to_string(), 250)]);
}

/// Nor behind a clock that stepped back: what looks like no time at all may have been any.
#[test]
fn behind_a_clock_that_stepped_back_nothing_is_given_back_either() {
    let (mut bench, _) = answered([true; 4]);
    let values = values(&[Some("0"), None]);
    let said = Said { moment: Moment::Headers, values: &values, now_us: Some(2_999_999) };
    let settlement = bench.exchange.on_response(&bench.config, &said).settlement.expect("one");
    let message = SettleRequest::decode(&settlement.message).expect("readable");
    assert!(message.age_us > 365 * 86_400_000_000);
}

/// What charges more is done once, however often it is heard, and what gives back by a receipt; without one it is of an
/// age that it tells.
#[test]
fn what_charges_more_is_sent_again_until_it_is_heard_and_what_gives_back_by_its_age_is_not() {
    let late = Answer::Response { marked: false, status: b"504", body: b"" };
    let reply =
        format!(r#"{{"v": 1, "id": "{}", "limits": []}}"#, DecisionId::new(ID)).into_bytes();
    let heard = Answer::Response { marked: true, status: b"200", body: &reply };
    let settled = |cost: &str| {
        let (mut bench, _) = answered([true; 4]);
        let response = bench.respond(Moment::Headers, &values(&[Some(cost), None]));
        response.settlement.expect("one")
    };
    let mut more = settled("4000");
    assert_eq!((more.ended(&late), more.ended(&Answer::Reset)), (Ended::Again, Ended::Again));
    assert_eq!(more.ended(&late), Ended::Over(Vec::new()), "it was sent three times");
    let mut more = settled("4000");
    assert_eq!((more.ended(&late), more.ended(&heard)), (Ended::Again, Ended::Over(Vec::new())));
    let open = Answer::CircuitOpen { retry_ms: 9_000 };
    assert_eq!(settled("4000").ended(&open), Ended::Over(Vec::new()), "nobody is asked");
    let mut back = settled("0");
    assert_eq!((back.ended(&late), back.ended(&heard)), (Ended::Again, Ended::Over(Vec::new())));
    let mut message = SettleRequest::decode(&back.message).expect("readable");
    message.adjustments.iter_mut().for_each(|one| one.receipt = None);
    assert_eq!(Settlement::of(message).ended(&late), Ended::Over(Vec::new()), "once");
}

#[test]
fn a_settlement_fails_for_a_reason() {
    let id = DecisionId::new(ID);
    let reply = format!("{{\"v\": 1, \"id\": \"{id}\", \"limits\": []}}");
    let other = reply.replace("0123", "9999");
    let refusal = "{\"v\": 1, \"reason\": \"store-timeout\", \"status\": 503}";
    let marked = |status: &'static str, body| Answer::Response {
        marked: true,
        status: status.as_bytes(),
        body: str::as_bytes(body),
    };
    let rows = [
        (marked("200", &reply), None),
        (marked("200", &other), Some(Reason::CalloutMalformed)),
        (marked("200", "{}"), Some(Reason::CalloutMalformed)),
        (marked("503", refusal), Some(Reason::StoreTimeout)),
        (marked("500", "x"), Some(Reason::CalloutMalformed)),
        (
            Answer::Response { marked: false, status: b"200", body: reply.as_bytes() },
            Some(Reason::CalloutUnmarked),
        ),
        (Answer::Reset, Some(Reason::CalloutReset)),
        (Answer::NotSent, Some(Reason::CalloutNotSent)),
        (Answer::CircuitOpen { retry_ms: 1 }, Some(Reason::CalloutCircuitOpen)),
    ];
    for (answer, reason) in rows {
        assert_eq!(settlement_failure(id, &answer), reason, "{answer:?}");
    }
}
