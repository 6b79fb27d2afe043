//! Tests of what responses are told of their limits.

use super::*;

/// Beside a limit that denies, of one that could not be read there is nothing to see.
#[test]
fn clients_are_told_nothing_of_a_limit_that_could_not_be_read() {
    for unread in [false, true] {
        let mut bench = Bench::new();
        bench.request("/strict/x", &facts());
        let states = [
            ("strict.ip", false, Some(9)),
            ("strict.key", true, Some(0)),
            ("lax.ip", true, Some(0)),
        ];
        let key = r#""id": "strict.key", "#;
        let body = body("deny", &states).replace(key, &format!(r#"{key}"unread": {unread}, "#));
        let Act::Deny(denial) = bench.reply("200", &body).act else { panic!("denies") };
        let shown = denial.fields.iter().any(|field| field.1.contains("strict.key"));
        assert!(shown != unread, "{:?}", denial.fields);
    }
}
use crate::fields::Dialect;

#[test]
fn the_response_of_an_admitted_request_shows_its_enforced_limits_once() {
    let (mut bench, _) = Bench::asked("/x");
    assert!(!bench.exchange.has_to_tell(), "nothing is decided yet");
    bench.reply("200", &body("allow", &[("lax.ip", true, Some(0))]));
    assert!(bench.exchange.has_to_tell());
    let response = bench.respond(Moment::Headers, &[]);
    let fields = vec![
        ("ratelimit-policy", "\"lax.ip\";q=50;w=60".to_string()),
        ("ratelimit", "\"lax.ip\";r=0;t=1".to_string()),
    ];
    assert_eq!(response, Response { fields, ..Response::default() });
    assert_eq!(bench.respond(Moment::Headers, &[]), Response::default());
}

#[test]
fn a_response_is_told_nothing_where_there_is_nothing_to_tell() {
    // No verdict.
    let (mut bench, _) = Bench::asked("/x");
    bench.answer(Answer::Reset);
    assert!(!bench.exchange.has_to_tell());
    // Our own reply comes back to the response callbacks.
    let (mut bench, _) = Bench::asked("/x");
    bench.reply("200", &body("deny", &[("lax.ip", false, Some(9))]));
    assert!(!bench.exchange.has_to_tell());
    assert_eq!(bench.respond(Moment::Headers, &[]), Response::default());
    // Switched off.
    let (mut bench, _) = Bench::asked("/x");
    bench.config.answers.rate_limit_fields = Dialect::Off;
    bench.reply("200", &body("allow", &[("lax.ip", true, Some(0))]));
    assert!(!bench.exchange.has_to_tell());
    // In shadow.
    let mut bench = Bench::new();
    let flag = Flag { mode: Mode::Shadow, share_bp: 10_000, salt: String::new() };
    bench.overrides.flags.insert("lax".to_string(), flag);
    bench.request("/x", &facts());
    bench.reply("200", &body("allow", &[("lax.ip", false, Some(9))]));
    assert!(!bench.exchange.has_to_tell());
}

#[test]
fn draft_03_fields_yield_to_an_upstream_that_is_stricter() {
    let (mut bench, _) = Bench::asked("/x");
    bench.config.answers.rate_limit_fields = Dialect::XDraft03;
    bench.reply("200", &body("allow", &[("lax.ip", true, Some(0))]));
    let response = bench.respond(Moment::Headers, &[]);
    assert_eq!(response.yields_to, Some("x-ratelimit-remaining"));
    assert_eq!(response.writes(None), (response.fields.as_slice(), false));
    assert_eq!(response.writes(Some(b"7")), (response.fields.as_slice(), true));
    assert_eq!(response.writes(Some(b"0")), (&[][..], false));
}
