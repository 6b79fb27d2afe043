//! Tests of what is taken for a verdict, and what for none.

use super::*;

#[test]
fn nothing_but_a_genuine_verdict_is_taken_for_one() {
    let allow = body("allow", &[("lax.ip", true, Some(0))]);
    let other = allow.replace("0123", "9999");
    let contradiction = body("allow", &[("lax.ip", false, Some(5))]);
    let short = body("allow", &[]);
    let another_limit = body("allow", &[("strict.ip", true, Some(0))]);
    let newer = allow.replace("\"v\": 1", "\"v\": 2");
    let refusal = |reason: &str| format!("{{\"v\": 1, \"reason\": \"{reason}\", \"status\": 503}}");
    let marked = |status: &'static str, body: &str| (true, status, body.to_string());
    let rows = [
        ((false, "200", allow.clone()), Reason::CalloutUnmarked),
        ((false, "503", "upstream connect error".to_string()), Reason::CalloutUnmarked),
        ((false, "429", refusal("service-overloaded")), Reason::CalloutUnmarked),
        (marked("200", ""), Reason::CalloutMalformed),
        (marked("200", &other), Reason::CalloutMalformed),
        (marked("200", &contradiction), Reason::CalloutMalformed),
        (marked("200", &short), Reason::CalloutMalformed),
        (marked("200", &another_limit), Reason::CalloutMalformed),
        (marked("200", &newer), Reason::CalloutMalformed),
        (marked("500", "x"), Reason::CalloutMalformed),
        (marked("500", &allow), Reason::CalloutMalformed),
        (marked("503", &refusal("no-such-reason")), Reason::CalloutMalformed),
        (marked("503", &refusal("store-timeout")), Reason::StoreTimeout),
        (marked("401", &refusal("unauthorized")), Reason::Unauthorized),
    ];
    for ((marked, status, body), reason) in rows {
        let (mut lax, _) = Bench::asked("/x");
        let answer =
            || Answer::Response { marked, status: status.as_bytes(), body: body.as_bytes() };
        let effects = lax.answer(answer());
        let signals = vec![
            Signal::Unavailable(reason),
            decided(1, Outcome::DegradedAllowed),
            Signal::Fell { rung: Rung::Allow, reason },
        ];
        assert_eq!((&effects.act, &effects.signals), (&Act::Resume, &signals), "{status} {body}");
        let note =
            effects.note.expect("an admission without a verdict is worth a line").to_string();
        let line = format!("verdict=degraded reason={reason} rungs=allow limits=lax decision=");
        assert!(note.starts_with(&line), "{note}");

        let (mut strict, _) = Bench::asked("/strict/x");
        let effects = strict.answer(answer());
        let Act::Deny(denial) = effects.act else { panic!("{status} {body}: {effects:?}") };
        assert_eq!(
            (denial.reason, denial.retry_after_s),
            (Reason::PolicyStoreUnavailable, Some(1))
        );
        assert_eq!(denial.violated, ["strict"]);
        let note = effects.note.expect("a line").to_string();
        let line = format!(
            "verdict=denied reason=policy-store-unavailable cause={reason} rungs=allow,deny limits=strict decision="
        );
        assert!(note.starts_with(&line), "{note}");
    }
}

#[test]
fn a_callout_that_was_not_sent_or_was_reset_goes_to_the_ladder() {
    for (answer, reason) in
        [(Answer::NotSent, Reason::CalloutNotSent), (Answer::Reset, Reason::CalloutReset)]
    {
        let (mut bench, _) = Bench::asked("/x");
        let effects = bench.answer(answer);
        assert_eq!(effects.act, Act::Resume);
        assert_eq!(effects.signals[0], Signal::Unavailable(reason));
    }
}

#[test]
fn overload_is_a_verdict_and_the_ladder_does_not_run() {
    let (mut bench, _) = Bench::asked("/x");
    let effects = bench.reply("429", "{\"v\": 1, \"reason\": \"service-overloaded\"}");
    let Act::Deny(denial) = effects.act else { panic!("denied although the policy says allow") };
    assert_eq!((denial.reason, denial.retry_after_s), (Reason::ServiceOverloaded, Some(5)));
    assert_eq!(effects.signals[1], decided(1, Outcome::Overloaded));
}
