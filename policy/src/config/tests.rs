//! Tests of the configuration: what is read, and that every problem is told at once.

use super::*;
use crate::identity::{Place, Source};
use crate::matching::{FieldMatch, Want};
use crate::mode::Mode;
use proptest::prelude::*;
use std::format;
use std::string::ToString;

mod fuzz;

const SOUND: &str = r#"{
  "version": 1,
  "gateway": {"cluster": "tidegate", "timeout": "40ms", "token": {"env": "TIDEGATE_TOKEN"}},
  "policies": [
    {
      "name": "api",
      "match": {"path": "/api/**", "methods": ["GET", "POST"]},
      "rate_limits": [
        {"name": "per-client", "by": "ip", "limit": 5, "per": "minute"},
        {"name": "per-key", "by": {"header": "X-Api-Key"}, "limit": 100, "per": "1h", "burst": 10}
      ],
      "on_unavailable": ["allow"]
    }
  ]
}"#;

fn problems(document: &str) -> Vec<String> {
    Config::read(document).diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_document_is_read_whole() {
    let reading = Config::read(SOUND);
    assert_eq!(reading.diagnostics, []);
    let config = reading.config.expect("no diagnostics");
    assert_eq!(config.gateway.timeout_ms, 40);
    assert_eq!(config.gateway.token_env.as_deref(), Some("TIDEGATE_TOKEN"));
    let policy = &config.policies[0];
    assert_eq!(policy.on_unavailable, [Rung::Allow]);
    let by = |place, trusted| Identity::single(Source { place, trusted, is_tenant: false });
    assert_eq!(policy.rate_limits[0].by, by(Place::Ip { v6_prefix: 64 }, true));
    assert_eq!(policy.rate_limits[0].quota, Quota::new(5, 60_000_000, 5).expect("sound"));
    assert_eq!(policy.rate_limits[1].id, "api.per-key");
    assert_eq!(policy.rate_limits[1].by, by(Place::Header("x-api-key".to_string()), false));
    assert_eq!(policy.rate_limits[1].quota.burst(), 10);
}

#[test]
fn every_problem_is_told_at_once_with_field_value_and_remedy() {
    let document = r#"{
  "version": 2,
  "gateway": {"cluster": "", "timeout": "45"},
  "policies": [
    {"name": "Api", "match": {"path": "api", "methods": ["get"]},
     "rate_limits": [
       {"name": "x", "by": "ipp", "limit": 0, "per": "minut"},
       {"name": "x", "by": {"header": ":path"}, "limit": 1e3, "per": "1h", "burst": -1}
     ],
     "on_unavailable": ["leese", "denny"]}
  ]
}"#;
    let expected = [
        "error: version: 2 is newer than this filter, which reads version 1; deploy the newer filter first, or write a version that this one reads (line 2, column 14)",
        "error: gateway.cluster: \"\" is no cluster name; write 1 to 255 visible ASCII characters (line 3, column 26)",
        "error: gateway.timeout: \"45\" is no duration; write 45ms, or another duration from 1ms to 1m (line 3, column 41)",
        "error: policies[0].name: \"Api\" is no name; write 1 to 63 of a-z 0-9 _ - (line 5, column 14)",
        "error: policies[0].match.path: \"api\" is no path pattern; begin with / (line 5, column 39)",
        "error: policies[0].match.methods[0]: \"get\" is no method; did you mean \"GET\"? Methods are written in capitals (line 5, column 58)",
        "error: policies[0].rate_limits[0].by: \"ipp\" is no identity; did you mean \"ip\"? (line 7, column 28)",
        "error: policies[0].rate_limits[0].limit: 0 admits no request at all; write 1 or more; to refuse every request give its route a direct_response in Envoy (line 7, column 44)",
        "error: policies[0].rate_limits[0].per: \"minut\" is no duration; did you mean \"minute\"? (or 30s, 5m, 1h) (line 7, column 54)",
        "error: policies[0].rate_limits[1].name: the name \"x\" is taken; give each its own: names are part of keys and metrics (line 8, column 17)",
        "error: policies[0].rate_limits[1].by.header: \":path\" is no header name; write a header's name such as \"x-api-key\"; :path and the like are no identity (line 8, column 39)",
        "error: policies[0].rate_limits[1].limit: 1e3 is no valid number here; write a whole number from 1 to 1000000000 (line 8, column 58)",
        "error: policies[0].rate_limits[1].burst: -1 is no valid number here; write a whole number from 1 to 1000000000 (line 8, column 85)",
        "error: policies[0].on_unavailable[0]: \"leese\" is no rung; did you mean \"lease\"? (line 10, column 25)",
        "error: policies[0].on_unavailable[1]: \"denny\" is no rung; did you mean \"deny\"? (line 10, column 34)",
    ];
    assert_eq!(problems(document), expected);
    assert_eq!(Config::read(document).config, None);
}

#[test]
fn a_rich_match_and_a_share_are_read_whole() {
    let document = SOUND.replace(
        r#""match": {"path": "/api/**", "methods": ["GET", "POST"]}"#,
        r#""priority": 3, "mode": {"enforce": "12.5%"},
           "match": {"host": ["api.example.com", "*.example.org"], "path": "/v1/orders/{id}",
             "headers": {"X-Tier": "gold", "x-bot": {"absent": true}}, "query": {"v": {"prefix": "2"}}}"#,
    );
    let reading = Config::read(&document);
    assert_eq!(reading.diagnostics, []);
    let policy = &reading.config.expect("no diagnostics").policies[0];
    assert_eq!(policy.rollout, Rollout { mode: Mode::Enforce, share_bp: 1_250 });
    let fields = |fields: &[FieldMatch]| {
        fields.iter().map(|f| (f.name.clone(), f.want.clone())).collect::<Vec<_>>()
    };
    assert_eq!(
        fields(&policy.matcher.headers),
        [
            ("x-tier".to_string(), Want::Equals("gold".to_string())),
            ("x-bot".to_string(), Want::Absent)
        ]
    );
    assert_eq!(fields(&policy.matcher.query), [("v".to_string(), Want::Prefix("2".to_string()))]);
    assert_eq!(policy.matcher.hosts.as_ref().map(Vec::len), Some(2));
}

#[test]
fn a_window_has_no_burst_and_an_algorithm_has_one_of_two_names() {
    let with = |field: &str| SOUND.replacen("\"burst\": 10", field, 1);
    let window = Config::read(&with("\"algorithm\": \"window\"")).config.expect("sound");
    let limits = &window.policies[0].rate_limits;
    assert_eq!(limits[0].algorithm, Algorithm::Gcra, "the default");
    assert_eq!((limits[1].algorithm, limits[1].quota.burst()), (Algorithm::Window, 100));
    for (field, expected) in [
        (
            "\"burst\": 10, \"algorithm\": \"window\"",
            "policies[0].rate_limits[1].burst: a window admits its limit and no burst besides; leave burst out",
        ),
        (
            "\"algorithm\": \"fixed\"",
            "policies[0].rate_limits[1].algorithm: \"fixed\" is no algorithm; write \"gcra\" (a bucket, with a burst) or \"window\"",
        ),
    ] {
        let reading = Config::read(&with(field));
        let found: Vec<String> = reading.diagnostics.iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|text| text.contains(expected)), "{found:?}");
    }
}

#[test]
fn each_mistake_in_a_match_gets_its_own_sentence() {
    let rows = [
        (
            r#""host": "API.example.com:443", "path": "/x""#,
            "policies[0].match.host: \"API.example.com:443\" is no host pattern; hosts are compared without their port; leave it out",
        ),
        (
            r#""host": "https://x", "path": "/x""#,
            "policies[0].match.host: \"https://x\" is no host pattern; hosts are compared in lower case, without port and scheme; write \"https\"",
        ),
        (
            r#""host": [], "path": "/x""#,
            "policies[0].match.host: no host, so the policy would never match; write \"api.example.com\", \"*.example.com\", or a list of them",
        ),
        (
            r#""path": "/x/a{id}""#,
            "policies[0].match.path: \"/x/a{id}\" is no path pattern; a template is a whole segment, {name} of a-z 0-9 _, and each name stands once",
        ),
        (
            r#""path": "/x", "route": {}"#,
            "policies[0].match.route: 0 conditions; write 1 to 16, or leave route out",
        ),
        (r#""path": "/x", "route": {"name": 7}"#, "policies[0].match.route.name: 7 is no table"),
        (
            r#""path": "/x", "route": {"metadata": {"ns": {"k": {"presnt": true}}}}"#,
            "policies[0].match.route.metadata.ns.k: not exactly one condition",
        ),
        (
            r#""path": "/x", "route": {"metadata": {"ns": {"a\u0000b": "x"}}}"#,
            "policies[0].match.route.metadata.ns.a b: \"a\\0b\" is no name in metadata; ",
        ),
        (
            r#""path": "/x", "path_regex": "/y""#,
            "policies[0].match: path and path_regex stand side by side; keep one of them",
        ),
        (
            r#""path_regex": "(a""#,
            "policies[0].match.path_regex: \"(a\" is no regular expression that can be used; ",
        ),
        (
            r#""path": "/x", "headers": {":path": "/"}"#,
            "policies[0].match.headers.:path: \":path\" is no header name; ",
        ),
        (
            r#""path": "/x", "headers": {"a": "1", "a": "2"}"#,
            "policies[0].match.headers.a: the field stands twice; keep one of them",
        ),
        (
            r#""path": "/x", "headers": {}"#,
            "policies[0].match.headers: 0 conditions; write 1 to 16, or leave the field out",
        ),
        (
            r#""path": "/x", "query": {"a": {"present": false}}"#,
            "policies[0].match.query.a.present: false is no condition; write true",
        ),
        (
            r#""path": "/x", "query": {"a": {"present": true, "prefix": "x"}}"#,
            "policies[0].match.query.a: not exactly one condition; ",
        ),
        (r#""path": "/x", "query": {"a": 1}"#, "policies[0].match.query.a: 1 is no table; "),
    ];
    for (fields, expected) in rows {
        let document = SOUND.replace(r#""path": "/api/**", "methods": ["GET", "POST"]"#, fields);
        let found = problems(&document);
        assert!(
            found.iter().any(|line| line.starts_with(&format!("error: {expected}"))),
            "{fields}: {found:#?}"
        );
    }
}

#[test]
fn each_mistake_in_a_mode_gets_its_own_sentence() {
    for (mode, expected) in [
        (r#""shadw""#, "\"shadw\" is no mode; did you mean \"shadow\"?"),
        (r#"{"enforce": "10"}"#, "enforce: \"10\" is no percentage; write a percentage from"),
        (r#"{"enforce": "101%"}"#, "enforce: \"101%\" is no percentage"),
        (r#"{"enforce": "1%", "shadow": "1%"}"#, "not exactly one share"),
        (r#"{}"#, "not exactly one share"),
        (r#"7"#, "7 is no table"),
        (r#"false"#, "false is no mode; write \"off\" in quotes"),
    ] {
        let document =
            SOUND.replace(r#""name": "api""#, &format!(r#""name": "api", "mode": {mode}"#));
        let found = problems(&document);
        assert!(found.iter().any(|line| line.contains(expected)), "{mode}: {found:#?}");
    }
}

#[test]
fn each_mistake_gets_its_own_sentence() {
    let rows = [
        ("\"version\": 1,", "", "version: missing; write \"version\": 1"),
        (
            "\"version\": 1",
            "\"version\": 1, \"version\": 1",
            "version: the field stands twice; keep one of them",
        ),
        ("\"cluster\": \"tidegate\", ", "", "gateway.cluster: missing; name the Envoy cluster"),
        ("40ms", "0s", "gateway.timeout: \"0s\" is out of range"),
        ("40ms", "2m", "gateway.timeout: \"2m\" is out of range"),
        ("TIDEGATE_TOKEN", "9", "gateway.token.env: \"9\" is no name of an environment variable"),
        (
            "{\"env\": \"TIDEGATE_TOKEN\"}",
            "\"secret\"",
            "gateway.token: a secret is written out; write {\"env\"",
        ),
        (
            "/api/**",
            "/a/x{id}",
            "policies[0].match.path: \"/a/x{id}\" is no path pattern; a template is a whole segment",
        ),
        ("/api/**", "/a//b", "requests are normalised before they are compared; write \"/a/b\""),
        ("{\"header\": \"X-Api-Key\"}", "{\"header\": \"Host\"}", "Envoy makes :authority of it"),
        (
            "[\"GET\", \"POST\"]",
            "[]",
            "policies[0].match.methods: no method, so the policy would never match",
        ),
        (
            "\"by\": \"ip\"",
            "\"by\": {\"ip\": {}, \"header\": \"x\"}",
            "policies[0].rate_limits[0].by: an identity has exactly one source",
        ),
        (
            "\"by\": \"ip\"",
            "\"by\": {\"ip\": {\"v6_prefix\": 0}}",
            "policies[0].rate_limits[0].by.ip.v6_prefix: 0 is no valid number here",
        ),
        (
            "\"by\": \"ip\"",
            "\"by\": [\"ip\", [\"ip\"]]",
            "policies[0].rate_limits[0].by[1]: a list within a list; write one list of names",
        ),
        (
            "\"limit\": 5",
            "\"limit\": 99999999999999999999",
            "policies[0].rate_limits[0].limit: 99999999999999999999 is no valid number here",
        ),
        (
            "\"limit\": 5",
            "\"limit\": 1000000000",
            "policies[0].rate_limits[0].limit: 1000000000 per 60000 ms with a burst of 1000000000 cannot be kept; at most 1,000,000 per second",
        ),
        (
            "\"per\": \"1h\", \"burst\": 10",
            "\"per\": \"300d\", \"burst\": 1000000",
            "cannot be kept; the burst must refill within 10 years",
        ),
        ("[\"allow\"]", "[]", "policies[0].on_unavailable: no rung"),
        (
            "[\"allow\"]",
            "[\"allow\", \"deny\"]",
            "policies[0].on_unavailable[1]: a rung after \"allow\" is never reached; leave it out",
        ),
        (
            "[\"allow\"]",
            "[\"lease\", \"local_share\", \"lease\"]",
            "policies[0].on_unavailable[2]: the rung stands twice; keep the first",
        ),
        ("[\"allow\"]", "true", "policies[0].on_unavailable: true is no list; write [\"lease\""),
        (
            "\"version\": 1,",
            "\"version\": 1, \"local_share\": {\"fraction\": \"0%\"},",
            "local_share.fraction: a share of nothing admits nothing; leave \"local_share\" out",
        ),
        (
            "\"version\": 1,",
            "\"version\": 1, \"local_share\": {\"envoys\": 0},",
            "local_share.envoys: 0 is no valid number here; write a whole number from 1 to 100000",
        ),
        (
            "\"name\": \"api\"",
            "\"name\": \"a\\u0000\"",
            "policies[0].name: \"a\\u0000\" is no name",
        ),
    ];
    for (from, to, expected) in rows {
        let document = SOUND.replacen(from, to, 1);
        assert_ne!(document, SOUND, "{from}");
        let found = problems(&document);
        assert!(found.iter().any(|p| p.contains(expected)), "{from} → {to}: {found:?}");
        assert_eq!(Config::read(&document).config, None, "{from} → {to}");
    }
}

#[test]
fn an_unknown_field_warns_and_does_not_take_the_mesh_down() {
    let document = SOUND.replacen("\"burst\"", "\"brust\"", 1);
    let found = problems(&document);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("warning: policies[0].rate_limits[1].brust: unknown field, ignored; did you mean \"burst\"?"), "{found:?}");
    assert!(Config::read(&document).config.is_some());
}

#[test]
fn of_very_many_problems_a_hundred_are_told_errors_first() {
    let policy = |n: usize| {
        format!(
            "{{\"name\":\"p{n}\",\"later\":1,\"match\":{{\"path\":\"/**\"}},\"rate_limits\":[{{\"name\":\"l\",\"by\":\"ip\",\"limit\":1,\"per\":\"1s\"}}]}}"
        )
    };
    let policies: Vec<_> = (0..5_000).map(policy).collect();
    let document = format!(
        "{{\"version\":1,\"gateway\":{{\"cluster\":\"c\"}},\"policies\":[{},{{}}]}}",
        policies.join(",")
    );
    let found = problems(&document);
    assert_eq!(found.len(), 100);
    assert!(found.iter().any(|p| p.contains("policies[5000].name: missing")), "{found:?}");
    assert!(found.iter().any(|p| p.contains("and 4903 problems more")), "{found:?}");
}

#[test]
fn what_is_no_document_is_refused_with_its_place() {
    let rows = [
        ("", "EOF while parsing"),
        ("{", "EOF while parsing"),
        ("[]", "configuration: [] is no table"),
        ("{\"version\": 1} x", "trailing characters"),
        ("{\"version\": 01}", "invalid number"),
        ("\u{0}", "expected value"),
    ];
    for (document, expected) in rows {
        let found = problems(document);
        assert!(found.iter().any(|p| p.contains(expected)), "{document:?}: {found:?}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(problems(&deep)[0].contains("nested too deeply"));
    let deeper = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(problems(&deeper)[0].contains("nested too deeply"));
    let long = format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX));
    assert!(problems(&long)[0].contains("keep it below"));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in ".{0,200}") {
        let reading = Config::read(&text);
        prop_assert!(reading.config.is_none());
        prop_assert!(!reading.diagnostics.is_empty());
    }

    #[test]
    fn a_sound_document_with_any_cut_or_flip_is_survived(at in 0..SOUND.len(), byte in 0u8..128) {
        let mut bytes = SOUND.as_bytes().to_vec();
        bytes[at] = byte;
        let text = std::string::String::from_utf8(bytes).expect("ASCII for ASCII");
        let reading = Config::read(&text);
        prop_assert_eq!(reading.config.is_none(), reading.diagnostics.iter().any(|d| d.severity == Severity::Error));
        Config::read(&SOUND[..at]);
    }
}

#[test]
fn a_ladder_is_read_in_order_and_has_a_default() {
    use Rung::{Allow, Deny, Lease, LocalShare};
    let rows: [(&str, &[Rung]); 4] = [
        ("\"deny\"", &[Deny]),
        ("[\"local_share\"]", &[LocalShare]),
        ("[\"lease\", \"local_share\", \"allow\"]", &[Lease, LocalShare, Allow]),
        ("null", &[Lease, LocalShare, Deny]),
    ];
    for (written, rungs) in rows {
        let reading = Config::read(&SOUND.replace("[\"allow\"]", written));
        assert_eq!(reading.config.expect("sound").policies[0].on_unavailable, rungs, "{written}");
    }
}

#[test]
fn the_guard_and_the_share_have_the_products_numbers_and_others() {
    let shortest = SOUND.replacen(", \"timeout\": \"40ms\"", "", 1);
    let config = Config::read(&shortest).config.expect("sound");
    assert_eq!(config.gateway.timeout_ms, 45);
    let breaker = config.gateway.breaker;
    assert_eq!((breaker.failures, breaker.open_ms, breaker.successes), (5, 10_000, 3));
    assert_eq!((config.local_share.fraction_bp, config.local_share.envoys), (5_000, 10));
    let document = SOUND
        .replace(
            "\"version\": 1,",
            "\"version\": 1, \"local_share\": {\"fraction\": \"80%\", \"envoys\": 3},",
        )
        .replacen(
            "\"cluster\":",
            "\"breaker\": {\"failures\": 2, \"open\": \"5s\", \"successes\": 1}, \"cluster\":",
            1,
        );
    let config = Config::read(&document).config.expect("sound");
    let breaker = config.gateway.breaker;
    assert_eq!((breaker.failures, breaker.open_ms, breaker.successes), (2, 5_000, 1));
    assert_eq!((config.local_share.fraction_bp, config.local_share.envoys), (8_000, 3));
}

#[test]
fn a_circuit_breaker_has_the_products_numbers_where_nothing_is_said() {
    use crate::breaker::mesh::{Terms, Window};
    use crate::breaker::process::Own;
    let document = r#"{"version": 1, "gateway": {"cluster": "g"}, "policies": [
        {"name": "p", "match": {"path": "/p"}, "circuit_breaker": {}}]}"#;
    let config = Config::read(document).config.expect("a sound document");
    let breaker = &config.circuit_breakers[0];
    let Own { terms, consecutive, ramp_ms } = breaker.own;
    let Terms { window, min_calls, failure_permille, slow_permille, adaptive, .. } = terms;
    assert_eq!((window, min_calls, failure_permille), (Window::Ms(10_000), 20, 500));
    assert_eq!((slow_permille, adaptive, consecutive, ramp_ms), (0, None, 5, 0));
    assert_eq!((terms.open_ms, terms.backoff, terms.successes), (10_000, 0, 3));
    assert_eq!((terms.probe_ms, terms.trip_reporters), (16_000, 2));
    assert_eq!((breaker.slow_ms, breaker.many, breaker.hold.is_some()), (None, None, false));
    assert!(breaker.fallback.is_none() && breaker.depends_on.is_empty());
}

#[test]
fn in_a_strict_document_an_unknown_field_is_an_error_that_points_at_its_name() {
    let lax = SOUND.replacen("\"burst\"", "\"brust\"", 1);
    for (strict, severity) in [("true", Severity::Error), ("false", Severity::Warning)] {
        let document =
            lax.replacen("\"version\": 1", &format!("\"version\": 1, \"strict\": {strict}"), 1);
        let reading = Config::read(&document);
        let [found] = reading.diagnostics.as_slice() else { panic!("{:?}", reading.diagnostics) };
        assert_eq!(found.severity, severity);
        assert_eq!(&document[found.span.clone()], "\"brust\"");
        assert_eq!(reading.config.is_some(), strict == "false");
    }
    let twice = lax.replacen("\"brust\": 10", "\"bu\\\"rst\": 1, \"bu\\\"rst\": 2", 1);
    let reading = Config::read(&twice);
    let last = reading.diagnostics.last().expect("a problem");
    assert_eq!(&twice[last.span.clone()], "\"bu\\\"rst\"");
}

#[test]
fn a_limit_is_defined_once_and_used_by_name() {
    let document = r#"{"version": 1, "gateway": {"cluster": "c"},
        "limits": {"per-client": {"by": "ip", "limit": 60, "per": "minute", "burst": 5}},
        "policies": [
            {"name": "a", "match": {"path": "/a"}, "rate_limits": ["per-client"]},
            {"name": "b", "match": {"path": "/b"}, "rate_limits": ["per-client",
                {"name": "own", "by": "ip", "limit": 9, "per": "hour"}]}]}"#;
    let reading = Config::read(document);
    assert_eq!(reading.diagnostics, []);
    let policies = reading.config.expect("sound").policies;
    let ids = |policy: &crate::config::Policy| {
        policy.rate_limits.iter().map(|limit| limit.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&policies[0]), ["a.per-client"]);
    assert_eq!(ids(&policies[1]), ["b.per-client", "b.own"]);
    assert_eq!(policies[0].rate_limits[0].quota, policies[1].rate_limits[0].quota);

    // A mistake in it is told once, however many policies name it, and where it stands.
    let wrong = document.replace("\"minute\"", "\"minut\"");
    let found = problems(&wrong);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("error: limits.per-client.per: \"minut\" is no duration"));
    let unknown = problems(&document.replacen("[\"per-client\"]", "[\"per-clint\"]", 1));
    let expected = "error: policies[0].rate_limits[0]: \"per-clint\" is no limit; did you mean \"per-client\"?";
    assert!(unknown[0].starts_with(expected), "{unknown:?}");
    let twice =
        problems(&document.replacen("[\"per-client\"]", "[\"per-client\", \"per-client\"]", 1));
    assert!(twice[0].contains("the name \"per-client\" is taken"), "{twice:?}");
    let unused = problems(&document.replace("\"per-client\",", "").replacen(
        "[\"per-client\"]",
        "[{\"name\": \"l\", \"by\": \"ip\", \"limit\": 9, \"per\": \"hour\"}]",
        1,
    ));
    assert!(
        unused
            .iter()
            .any(|p| p.starts_with("warning: limits.per-client: no policy uses the limit")),
        "{unused:?}"
    );
}
