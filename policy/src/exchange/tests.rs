//! Tests of the exchange: one row per way a request can go.

use super::settle::retry_after_s;
use super::*;
use crate::config::Rung;
use crate::fields::Dialect;
use crate::identity::Facts;
use crate::local_share::ShareAnswer;
use crate::mode::Mode;
use crate::mode::{Flag, Kill};
use crate::reason::Reason;
use crate::scope::{CallerScope, Environment, KeyFormat, Tenant};
use crate::wire::DecideRequest;
use std::format;
use std::string::{String, ToString};
use std::vec;

mod claims;
mod costs;
mod homes;
mod joins;
mod permits;
mod testimony;

impl Known for Vec<usize> {
    fn is_shut(&self, circuit: &Circuit) -> bool {
        self.contains(&circuit.breaker)
    }
}

const ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

fn config() -> Config {
    Config::read(
        r#"{"version": 1, "gateway": {"cluster": "tidegate"}, "policies": [
            {"name": "strict", "match": {"path": "/strict/**"},
             "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"},
                             {"name": "key", "by": {"header": "x-key"}, "limit": 9, "per": "hour"}],
             "on_unavailable": ["deny"]},
            {"name": "lax", "match": {"path": "/**"},
             "rate_limits": [{"name": "ip", "by": "ip", "limit": 50, "per": "minute"}],
             "on_unavailable": ["allow"]}
        ]}"#,
    )
    .config
    .expect("a sound configuration")
}

fn facts() -> Facts<'static> {
    let header = |k: &'static str, v: &'static str| (k.as_bytes(), v.as_bytes());
    Facts {
        source_address: Some(b"192.0.2.1:1".to_vec()),
        headers: vec![
            header("x-key", "k1"),
            header("traceparent", "00-a-b-01"),
            header("x-request-id", "r 1"),
        ],
        ..Facts::default()
    }
}

fn caller() -> CallerScope {
    CallerScope {
        region: None,
        environment: Environment::default(),
        tenant: Tenant::None,
        key_format: KeyFormat::V1,
    }
}

struct Bench {
    config: Config,
    overrides: Overrides,
    exchange: Exchange,
}

impl Bench {
    fn new() -> Self {
        Self { config: config(), overrides: Overrides::default(), exchange: Exchange::default() }
    }

    fn request(&mut self, path: &str, facts: &Facts<'_>) -> Effects {
        let event = Event::Request {
            matched: self.config.on_path(Some(path.as_bytes())).on_host(&self.config, None),
            facts,
            caller: &caller(),
            id: DecisionId::new(ID),
            shut: &Vec::<usize>::new(),
        };
        self.exchange.on(&self.config, &self.overrides, event)
    }

    fn asked(path: &str) -> (Self, DecideRequest) {
        let mut bench = Self::new();
        let effects = bench.request(path, &facts());
        let Act::Ask(message) = effects.act else { panic!("asks the gateway: {effects:?}") };
        (bench, DecideRequest::decode(&message).expect("a message the gateway reads"))
    }

    fn answer(&mut self, answer: Answer<'_>) -> Effects {
        self.exchange.on(&self.config, &self.overrides, Event::Answer { answer, entropy: 0 })
    }

    fn respond(&mut self, moment: Moment, values: &[Option<Vec<u8>>]) -> Response {
        let said = Said { moment, values, now_us: Some(5_000_000) };
        self.exchange.on_response(&self.config, &said)
    }

    fn reply(&mut self, status: &str, body: &str) -> Effects {
        self.answer(Answer::Response {
            marked: true,
            status: status.as_bytes(),
            body: body.as_bytes(),
        })
    }
}

fn decided(policy: usize, outcome: Outcome) -> Signal {
    Signal::Decided { policy, outcome }
}

fn used_up(policy: usize, limit: usize, outcome: Outcome) -> Signal {
    Signal::UsedUp { policy, limit, outcome }
}

fn body(verdict: &str, limits: &[(&str, bool, Option<u64>)]) -> String {
    let limits: Vec<_> = limits
        .iter()
        .map(|(id, allowed, retry_us)| {
            let retry = retry_us.map_or(String::new(), |us| format!(", \"retry_us\": {us}"));
            format!("{{\"id\": \"{id}\", \"allowed\": {allowed}, \"remaining\": 0, \"next_us\": 1, \"reset_us\": 1{retry}}}")
        })
        .collect();
    let id = DecisionId::new(ID);
    format!(
        "{{\"v\": 1, \"id\": \"{id}\", \"verdict\": \"{verdict}\", \"limits\": [{}]}}",
        limits.join(",")
    )
}

#[test]
fn one_message_carries_every_limit_of_every_matching_policy() {
    let (_, message) = Bench::asked("/strict/x");
    let ids: Vec<_> =
        message.limits.iter().map(|l| (l.id.as_str(), l.subject.name.as_str(), l.cost)).collect();
    assert_eq!(
        ids,
        [("strict.ip", "192.0.2.1", 1), ("strict.key", "k1", 1), ("lax.ip", "192.0.2.1", 1)]
    );
    assert_eq!(message.timeout_ms, 45);
    assert_eq!(message.traceparent.as_deref(), Some("00-a-b-01"));
    assert_eq!(message.request_id, None, "only visible ASCII travels");
}

#[test]
fn allow_resumes_and_a_second_answer_changes_nothing() {
    let (mut bench, _) = Bench::asked("/x");
    let allow = body("allow", &[("lax.ip", true, Some(0))]);
    let effects = bench.reply("200", &allow);
    assert_eq!(effects, Effects::of(Act::Resume, vec![decided(1, Outcome::Allowed)]));
    assert_eq!(bench.reply("200", &allow), Effects::of(Act::Pass, vec![]));
    assert!(!bench.exchange.replied());
}

#[test]
fn deny_names_the_limits_and_the_longest_wait() {
    let (mut bench, _) = Bench::asked("/strict/x");
    let states = [
        ("strict.ip", false, Some(2_000_001)),
        ("strict.key", false, Some(11_000_000)),
        ("lax.ip", true, Some(0)),
    ];
    let effects = bench.reply("200", &body("deny", &states));
    let denial = Denial {
        reason: Reason::QuotaExceeded,
        id: DecisionId::new(ID),
        violated: vec!["strict.ip".to_string(), "strict.key".to_string()],
        retry_after_s: Some(11),
        fields: vec![
            (
                "ratelimit-policy",
                "\"strict.ip\";q=5;w=60, \"strict.key\";q=9;w=3600, \"lax.ip\";q=50;w=60"
                    .to_string(),
            ),
            (
                "ratelimit",
                "\"strict.ip\";r=0;t=1, \"strict.key\";r=0;t=1, \"lax.ip\";r=0;t=1".to_string(),
            ),
        ],
        grpc: false,
        worded_by: None,
        detail: None,
        stored_status: None,
        fallback: None,
    };
    let signals = vec![
        decided(0, Outcome::Denied),
        used_up(0, 0, Outcome::Denied),
        used_up(0, 1, Outcome::Denied),
        decided(1, Outcome::NotCharged),
    ];
    let note = effects.note.as_ref().map(ToString::to_string);
    let id = DecisionId::new(ID);
    assert_eq!(
        note,
        Some(format!(
            "verdict=denied reason=quota-exceeded limits=strict.ip,strict.key decision={id}"
        ))
    );
    assert_eq!(
        effects,
        Effects { note: effects.note.clone(), ..Effects::of(Act::Deny(denial), signals) }
    );
    assert!(bench.exchange.replied());
}

#[test]
fn a_lowered_limit_shows_what_is_in_force_and_says_so() {
    let lowered = |limit: u32| {
        body("deny", &[("lax.ip", false, Some(9))])
            .replace("\"next_us\"", &format!("\"limit\": {limit}, \"next_us\""))
    };
    for (limit, quota) in [(12, 12), (50, 50), (u32::MAX, 50)] {
        let (mut bench, _) = Bench::asked("/x");
        let Act::Deny(denial) = bench.reply("200", &lowered(limit)).act else { panic!("denied") };
        assert_eq!(denial.reason, Reason::TemporaryReducedCapacity);
        assert_eq!(denial.fields[0].1, format!("\"lax.ip\";q={quota};w=60"));
    }
}

#[test]
fn a_limit_that_never_admits_promises_no_time() {
    let (mut bench, _) = Bench::asked("/x");
    let effects = bench.reply("200", &body("deny", &[("lax.ip", false, None)]));
    let Act::Deny(denial) = effects.act else { panic!("denied") };
    assert_eq!(denial.retry_after_s, None);
}

#[test]
fn retry_after_is_never_early_and_at_most_a_tenth_late() {
    let rows = [
        (1, 0, 1),
        (1_000_000, 0, 1),
        (1_000_001, 0, 2),
        (12_000_000, 0, 12),
        (12_000_000, u64::MAX, 14),
        (100_000_000, u64::MAX, 110),
        (0, 0, 1),
    ];
    for (wait_us, entropy, expected) in rows {
        assert_eq!(retry_after_s(wait_us, entropy), expected, "{wait_us} {entropy}");
    }
}

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

#[test]
fn a_missing_identity_is_refused_before_anything_is_charged() {
    let mut bench = Bench::new();
    let nameless = Facts { headers: vec![], ..facts() };
    let effects = bench.request("/strict/x", &nameless);
    let Act::Deny(denial) = effects.act else { panic!("denied: {effects:?}") };
    assert_eq!(denial.reason, Reason::ClientIdentityRequired);
    assert_eq!(denial.violated, ["strict.key"]);
    assert_eq!(effects.signals, [decided(0, Outcome::IdentityMissing)]);
}

#[test]
fn every_limit_that_lacks_its_identity_is_named_and_the_first_words_are_taken() {
    let document = r#"{"version": 1, "gateway": {"cluster": "t"}, "policies": [
        {"name": "a", "match": {"path": "/**"}, "rate_limits": [
            {"name": "k", "by": {"header": "x-key"}, "limit": 6, "per": "minute"},
            {"name": "s", "by": {"cookie": "sid"}, "limit": 6, "per": "minute"},
            {"name": "i", "by": "ip", "limit": 6, "per": "minute"}]},
        {"name": "b", "match": {"path": "/**"}, "denied": {"body": "no"}, "rate_limits": [
            {"name": "k", "by": {"header": "x-key"}, "limit": 6, "per": "minute"}]}]}"#;
    let mut bench = Bench { config: Config::read(document).config.expect("sound"), ..Bench::new() };
    let nameless = Facts { headers: vec![], ..facts() };
    let effects = bench.request("/x", &nameless);
    let missing = Outcome::IdentityMissing;
    assert_eq!(effects.signals, [decided(0, missing), decided(1, missing)]);
    let Act::Deny(denial) = effects.act else { panic!("denied") };
    assert_eq!(denial.violated, ["a.k", "a.s", "b.k"]);
    assert_eq!(denial.worded_by, Some(1));
}

#[test]
fn the_kill_switch_lets_everything_pass_without_a_callout() {
    let mut bench = Bench::new();
    bench.overrides.kill = Some(Kill::All);
    assert_eq!(bench.request("/strict/x", &facts()), Effects::of(Act::Pass, vec![]));
}

#[test]
fn a_share_is_told_apart_by_the_identity_that_the_mode_names() {
    let document = r#"{"version": 1, "gateway": {"cluster": "c"}, "policies": [
        {"name": "p", "mode": {"enforce": "50%", "by": {"header": "x-key"}}, "match": {"path": "/**"},
         "rate_limits": [{"name": "ip", "by": "ip", "limit": 5, "per": "minute"}]}]}"#;
    let mut enforced = 0;
    for n in 0..200 {
        let mut bench =
            Bench { config: Config::read(document).config.expect("sound"), ..Bench::new() };
        let key = format!("k{n}");
        let facts = Facts { headers: vec![(b"x-key", key.as_bytes())], ..facts() };
        let Act::Ask(message) = bench.request("/", &facts).act else { panic!("asks") };
        let message = DecideRequest::decode(&message).expect("readable");
        enforced += usize::from(!message.limits[0].shadow);
    }
    assert!((60..140).contains(&enforced), "{enforced} of 200 keys of one address");
}

#[test]
fn a_shadow_policy_is_asked_about_and_never_acts() {
    let shadowed = |bench: &mut Bench| {
        let flag = Flag { mode: Mode::Shadow, share_bp: 10_000, salt: String::new() };
        bench.overrides.flags.insert("strict".to_string(), flag);
    };
    let mut bench = Bench::new();
    shadowed(&mut bench);
    let effects = bench.request("/strict/x", &facts());
    let Act::Ask(message) = effects.act else { panic!("asks") };
    let message = DecideRequest::decode(&message).expect("readable");
    assert_eq!(message.limits.iter().map(|l| l.shadow).collect::<Vec<_>>(), [true, true, false]);
    let states =
        [("strict.ip", false, Some(9)), ("strict.key", true, Some(0)), ("lax.ip", true, Some(0))];
    let effects = bench.reply("200", &body("allow", &states));
    let signals = vec![
        decided(0, Outcome::ShadowDenied),
        used_up(0, 0, Outcome::ShadowDenied),
        decided(1, Outcome::Allowed),
    ];
    assert_eq!((effects.act, effects.signals), (Act::Resume, signals));
    let note = effects.note.expect("what shadow would deny is worth a line").to_string();
    assert!(
        note.starts_with("verdict=would-deny reason=quota-exceeded limits=strict.ip decision=")
    );

    // Only the lax policy has a say when nothing can be had.
    let mut bench = Bench::new();
    shadowed(&mut bench);
    bench.request("/strict/x", &facts());
    assert_eq!(bench.answer(Answer::Reset).act, Act::Resume);
}

#[test]
fn more_limits_than_a_message_carries_go_to_the_ladder() {
    let policy = |n: usize, rung: &str| {
        let limits: Vec<_> = (0..8)
            .map(|l| format!("{{\"name\":\"l{l}\",\"by\":\"ip\",\"limit\":1,\"per\":\"1s\"}}"))
            .collect();
        format!(
            "{{\"name\":\"p{n}\",\"match\":{{\"path\":\"/**\"}},\"rate_limits\":[{}],\"on_unavailable\":[\"{rung}\"]}}",
            limits.join(",")
        )
    };
    for (rung, passes) in [("allow", true), ("deny", false)] {
        let policies: Vec<_> = (0..9).map(|n| policy(n, rung)).collect();
        let document = format!(
            "{{\"version\":1,\"gateway\":{{\"cluster\":\"c\"}},\"policies\":[{}]}}",
            policies.join(",")
        );
        let mut bench =
            Bench { config: Config::read(&document).config.expect("sound"), ..Bench::new() };
        let effects = bench.request("/", &facts());
        assert_eq!(effects.act == Act::Resume, passes, "{effects:?}");
        assert_eq!(effects.signals[0], Signal::Unavailable(Reason::TooManyLimits));
    }
}

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

#[test]
fn grpc_is_told_as_envoy_tells_it() {
    let rows = [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("application/json", false),
    ];
    for (content_type, grpc) in rows {
        let mut facts = facts();
        facts.headers.push((b"content-type", content_type.as_bytes()));
        facts.headers.retain(|(name, _)| *name != b"x-key");
        let Act::Deny(denial) = Bench::new().request("/strict/x", &facts).act else {
            panic!("no identity")
        };
        assert_eq!(denial.grpc, grpc, "{content_type}");
    }
}

/// One policy with two limits on the whole ladder, one that allows in the end, one that denies.
const LADDERS: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate"}, "policies": [
    {"name": "whole", "match": {"path": "/whole/**"}, "rate_limits": [
        {"name": "a", "by": "ip", "limit": 600, "per": "minute"},
        {"name": "b", "by": "ip", "limit": 60, "per": "minute"}]},
    {"name": "open", "match": {"path": "/**"}, "on_unavailable": ["local_share", "allow"],
     "rate_limits": [{"name": "c", "by": "ip", "limit": 60, "per": "minute"}]},
    {"name": "shut", "match": {"path": "/whole/shut"}, "on_unavailable": "deny",
     "rate_limits": [{"name": "d", "by": "ip", "limit": 60, "per": "minute"}]}
]}"#;

/// Falls onto the ladder at `path`, answers the shares, and gives what comes of it.
fn fallen(path: &str, answer: Answer<'_>, shares: &[ShareAnswer]) -> (usize, Effects) {
    let config = Config::read(LADDERS).config.expect("sound");
    let mut bench = Bench { config, ..Bench::new() };
    bench.request(path, &facts());
    let effects = bench.answer(answer);
    let Act::Share(calls) = effects.act else { panic!("asks for shares: {effects:?}") };
    assert!(matches!(effects.signals[..], [Signal::Unavailable(_)]), "{:?}", effects.signals);
    let event = Event::Shares { answers: shares, entropy: 0 };
    (calls.len(), bench.exchange.on(&bench.config, &bench.overrides, event))
}

#[test]
fn the_ladder_is_walked_rung_by_rung_for_each_policy() {
    use ShareAnswer::Taken;
    let spent = |retry_us| ShareAnswer::Spent { retry_us };
    let open = Answer::CircuitOpen { retry_ms: 9_001 };
    let admitted = decided(0, Outcome::LocalShareAllowed);
    let refused = decided(0, Outcome::LocalShareDenied);
    let reduced = Reason::TemporaryReducedCapacity;
    // Path, what fell, shares of a, b, c; signals; denial: reason, violated, Retry-After.
    type Denied = Option<(Reason, &'static [&'static str], Option<u64>)>;
    type Row = (&'static str, Answer<'static>, Vec<ShareAnswer>, Vec<Signal>, Denied);
    let rows: [Row; 6] = [
        (
            "/whole/x",
            Answer::Reset,
            vec![Taken, Taken, Taken],
            vec![admitted, decided(1, Outcome::LocalShareAllowed)],
            None,
        ),
        (
            "/x",
            Answer::Reset,
            vec![spent(Some(5))],
            vec![decided(1, Outcome::DegradedAllowed)],
            None,
        ),
        (
            "/whole/x",
            Answer::Reset,
            vec![Taken, spent(Some(3_000_000)), Taken],
            vec![refused, decided(1, Outcome::LocalShareAllowed)],
            Some((reduced, &["whole.b"], Some(3))),
        ),
        // The gateway may be back before the share is.
        (
            "/whole/x",
            open,
            vec![spent(Some(20_000_000)), spent(Some(10_000_000)), Taken],
            vec![refused, decided(1, Outcome::LocalShareAllowed)],
            Some((reduced, &["whole.a", "whole.b"], Some(10))),
        ),
        (
            "/whole/x",
            Answer::NotSent,
            vec![spent(None), Taken, spent(None)],
            vec![refused, decided(1, Outcome::DegradedAllowed)],
            Some((reduced, &["whole.a"], Some(1))),
        ),
        (
            "/whole/shut",
            Answer::Reset,
            vec![Taken, Taken, Taken],
            vec![
                admitted,
                decided(1, Outcome::LocalShareAllowed),
                decided(2, Outcome::DegradedDenied),
            ],
            Some((Reason::PolicyStoreUnavailable, &["shut"], Some(1))),
        ),
    ];
    for (path, answer, shares, signals, denied) in rows {
        let case = format!("{path} {answer:?} {shares:?}");
        let (calls, effects) = fallen(path, answer, &shares);
        assert_eq!(calls, shares.len(), "{case}");
        let (fell, decided): (Vec<_>, Vec<_>) =
            effects.signals.into_iter().partition(|signal| matches!(signal, Signal::Fell { .. }));
        assert_eq!(decided, signals, "{case}");
        assert_eq!(fell.len(), signals.len(), "{case}");
        match (effects.act, denied) {
            (Act::Resume, None) => {}
            (Act::Deny(denial), Some((reason, violated, retry_after_s))) => {
                assert_eq!(
                    (denial.reason, denial.retry_after_s),
                    (reason, retry_after_s),
                    "{case}"
                );
                assert_eq!(denial.violated, violated, "{case}");
            }
            (act, _) => panic!("{case}: {act:?}"),
        }
    }
}

#[test]
fn the_rung_and_the_reason_stand_in_the_metric_and_in_the_line() {
    use ShareAnswer::{Spent, Taken};
    let fell = |rung| Signal::Fell { rung, reason: Reason::CalloutReset };
    let spent = Spent { retry_us: None };
    let rows: [(_, &[ShareAnswer], &[Signal], _); 3] = [
        (
            "/whole/x",
            &[Taken, Taken, spent],
            &[fell(Rung::LocalShare), fell(Rung::Allow)],
            "verdict=degraded reason=callout-reset rungs=local_share,allow limits=whole,open decision",
        ),
        (
            "/whole/x",
            &[spent, Taken, Taken],
            &[fell(Rung::Deny), fell(Rung::LocalShare)],
            "verdict=denied reason=temporary-reduced-capacity cause=callout-reset rungs=local_share,deny limits=whole.a decision",
        ),
        (
            "/x",
            &[spent],
            &[fell(Rung::Allow)],
            "verdict=degraded reason=callout-reset rungs=allow limits=open decision",
        ),
    ];
    for (path, shares, signals, line) in rows {
        let (_, effects) = fallen(path, Answer::Reset, shares);
        assert!(effects.signals.ends_with(signals), "{path}: {:?}", effects.signals);
        let note = effects.note.expect("a note");
        assert!(!note.has_verdict());
        assert!(note.to_string().starts_with(line), "{note}");
    }
}

#[test]
fn an_open_circuit_says_when_it_makes_sense_to_come_again() {
    let (mut bench, _) = Bench::asked("/strict/x");
    let effects = bench.answer(Answer::CircuitOpen { retry_ms: 9_001 });
    assert_eq!(effects.signals[0], Signal::Unavailable(Reason::CalloutCircuitOpen));
    let Act::Deny(denial) = effects.act else { panic!("denied") };
    assert_eq!((denial.reason, denial.retry_after_s), (Reason::PolicyStoreUnavailable, Some(10)));
}

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

#[test]
fn an_identity_that_is_missing_in_shadow_is_a_denial_that_would_be() {
    let mut bench = Bench::new();
    let flag = Flag { mode: Mode::Shadow, share_bp: 10_000, salt: String::new() };
    bench.overrides.flags.insert("strict".to_string(), flag);
    bench.request("/strict/x", &Facts { headers: vec![], ..facts() });
    let states = [("strict.ip", true, Some(0)), ("lax.ip", true, Some(0))];
    let note = bench.reply("200", &body("allow", &states)).note.expect("a line").to_string();
    let line = "verdict=would-deny reason=client-identity-required limits=strict.key ";
    assert!(note.starts_with(line), "{note}");
}

#[test]
fn the_first_policy_that_denies_and_has_words_of_its_own_gives_them() {
    let states =
        [("strict.ip", false, Some(9)), ("strict.key", true, Some(0)), ("lax.ip", false, Some(9))];
    for (worded, expected) in [(&[0, 1][..], Some(0)), (&[1], Some(1)), (&[], None)] {
        let (mut bench, _) = Bench::asked("/strict/x");
        for policy in worded {
            bench.config.policies[*policy].denied = Some(crate::answers::Denied::default());
        }
        let Act::Deny(denial) = bench.reply("200", &body("deny", &states)).act else {
            panic!("denied")
        };
        assert_eq!(denial.worded_by, expected);
    }
}
