//! Tests of the exchange: one row per way a request can go.

use super::settle::retry_after_s;
use super::*;
use crate::config::Rung;
use crate::identity::Facts;
use crate::local_share::ShareAnswer;
use crate::mode::Mode;
use crate::mode::{Flag, Kill};
use crate::reason::Reason;
use crate::scope::{CallerScope, Environment, KeyFormat, Tenant};
use crate::wire::{DecideRequest, SettleRequest};
use std::format;
use std::string::{String, ToString};
use std::vec;

mod claims;
mod costs;
mod homes;
mod joins;
mod ladder;
mod leasing;
mod permits;
mod records;
mod responses;
mod soft;
mod testimony;
mod verdicts;

impl Known for Vec<usize> {
    fn is_shut(&self, circuit: &Circuit) -> bool {
        self.contains(&circuit.breaker)
    }

    fn grants(&self, _circuit: &Circuit, _grpc: bool) -> bool {
        false
    }
}

const ID: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
/// What a request is offered that has waited.
const FRESH: DecisionId = DecisionId::new(ID + 1);

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
            known: &Vec::<usize>::new(),
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
        is_paid: false,
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
        Effects { note: effects.note.clone(), ..Effects::of(Act::Deny(Box::new(denial)), signals) }
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
    // Nor do others beside it, however long they are waited for; one that admits says nothing.
    for (key, expected) in [(None, None), (Some(3_000_000), Some(7))] {
        let (mut bench, _) = Bench::asked("/strict/x");
        let states = [
            ("strict.ip", false, Some(7_000_000)),
            ("strict.key", false, key),
            ("lax.ip", true, None),
        ];
        let effects = bench.reply("200", &body("deny", &states));
        let Act::Deny(denial) = effects.act else { panic!("denied") };
        assert_eq!(denial.retry_after_s, expected);
    }
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
