//! Tests of soft limits: they are told, and deny nobody.

use super::*;

fn soft(bench: &mut Bench, policy: usize, limit: usize) {
    bench.config.policies[policy].rate_limits[limit].soft = true;
}

#[test]
fn a_soft_limit_tells_the_upstream_and_denies_nobody() {
    let mut bench = Bench::new();
    soft(&mut bench, 0, 1);
    let Act::Ask(message) = bench.request("/strict/x", &facts()).act else { panic!("asks") };
    let message = DecideRequest::decode(&message).expect("readable");
    assert_eq!(message.limits.iter().map(|l| l.shadow).collect::<Vec<_>>(), [false, true, false]);
    let states =
        [("strict.ip", true, Some(0)), ("strict.key", false, Some(9)), ("lax.ip", true, Some(0))];
    let effects = bench.reply("200", &body("allow", &states));
    assert_eq!((&effects.act, effects.soft.as_deref()), (&Act::Resume, Some("strict.key")));
    let signals = [
        decided(0, Outcome::Allowed),
        decided(0, Outcome::SoftExceeded),
        used_up(0, 1, Outcome::SoftExceeded),
        decided(1, Outcome::Allowed),
    ];
    assert_eq!(effects.signals, signals);
    let note = effects.note.expect("a line").to_string();
    assert!(note.starts_with("verdict=soft-limit reason=quota-exceeded limits=strict.key "));
    let shown = bench.respond(Moment::Headers, &[]).fields;
    assert!(!shown[1].1.contains("strict.key"), "what never denies a client is not shown to it");
}

#[test]
fn a_policy_of_soft_limits_has_no_say_where_there_is_no_verdict() {
    let mut bench = Bench::new();
    soft(&mut bench, 0, 0);
    soft(&mut bench, 0, 1);
    bench.request("/strict/x", &facts());
    let effects = bench.answer(Answer::Reset);
    assert_eq!(effects.act, Act::Resume, "strict says deny, and has nothing that may");
    // Nor does it need to know who comes.
    let nameless = Facts { headers: vec![], ..facts() };
    let mut bench = Bench::new();
    soft(&mut bench, 0, 1);
    assert!(matches!(bench.request("/strict/x", &nameless).act, Act::Ask(_)));
}

#[test]
fn a_soft_limit_in_shadow_is_counted_and_tells_nobody() {
    let mut bench = Bench::new();
    soft(&mut bench, 1, 0);
    let flag = Flag { mode: Mode::Shadow, share_bp: 10_000, salt: String::new() };
    bench.overrides.flags.insert("lax".to_string(), flag);
    bench.request("/x", &facts());
    let effects = bench.reply("200", &body("allow", &[("lax.ip", false, Some(9))]));
    assert_eq!((effects.soft, effects.note), (None, None));
    let soft = Outcome::SoftExceeded;
    assert_eq!(effects.signals, [decided(1, soft), used_up(1, 0, soft)]);
}
