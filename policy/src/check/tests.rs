//! Tests of what is said before a document is deployed.

use super::*;
use std::format;

const SOUND: &str = r#"{"version": 1, "gateway": {"cluster": "tidegate", "token": {"env": "T"}}, "policies": [
  {"name": "api", "match": {"path": "/api/**"}, "rate_limits": [{"name": "l", "by": "ip", "limit": 5, "per": "minute"}]}]}"#;

const FACTS: &str = r#"{
  "filter": {"at": "/f", "failure_policy": "FAIL_RELOAD", "allow_on_headers_stop_iteration": true, "env": ["T"], "configuration_type": "StringValue"},
  "connection_manager": {"at": "/m", "stream_idle_timeout_ms": 30000, "use_remote_address": true},
  "routes": [{"at": "/r", "timeout_ms": 15000}, {"at": "/s", "timeout_ms": 0}, {"at": "/t"}],
  "clusters": [{"at": "/c", "name": "tidegate", "connect_timeout_ms": 30}, {"at": "/d", "name": "upstream"}],
  "clusters_complete": true, "from": "a later version"}"#;

fn lines(document: &str, facts: &str) -> Vec<String> {
    let line = |found: &Found| {
        let place = found.at.as_deref().unwrap_or(&found.field);
        format!("{} {place}: {}; {}", found.severity, found.problem, found.remedy)
    };
    found(document, facts).iter().map(line).collect()
}

fn one(found: &[String], expected: &str) {
    let [line] = found else { panic!("not one for {expected:?}: {found:#?}") };
    assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
}

#[test]
fn a_sound_document_in_a_sound_file_gives_nothing() {
    assert_eq!(lines(SOUND, ""), [""; 0]);
    assert_eq!(lines(SOUND, FACTS), [""; 0]);
    assert_eq!(check(SOUND, FACTS), r#"{"version":1,"diagnostics":[]}"#);
}

#[test]
fn what_reading_says_is_said_too_with_its_place() {
    let document = SOUND.replace("minute", "minut");
    let answer = check(&document, FACTS);
    let start = document.find("\"minut\"").expect("there");
    let expected = format!(
        r#"{{"version":1,"diagnostics":[{{"severity":"error","field":"policies[0].rate_limits[0].per","problem":"\"minut\" is no duration","remedy":"did you mean \"minute\"? (or 30s, 5m, 1h)","span":[{start},{}]}}]}}"#,
        start + 7
    );
    assert_eq!(answer, expected);
}

#[test]
fn each_trap_of_an_envoy_file_gets_its_own_sentence() {
    let rows = [
        (
            "\"FAIL_RELOAD\"",
            "\"FAIL_OPEN\"",
            "warning /f: after a failure of the VM every request passes undecided",
        ),
        (
            "\"failure_policy\": \"FAIL_RELOAD\", ",
            "",
            "warning /f: after a failure of the VM its worker refuses every request",
        ),
        (
            "\"allow_on_headers_stop_iteration\": true",
            "\"allow_on_headers_stop_iteration\": false",
            "warning /f: allow_on_headers_stop_iteration is not on",
        ),
        (
            "\"env\": [\"T\"]",
            "\"env\": [\"U\"]",
            "error gateway.token: the environment variable T does not reach the filter's VM; write vm_config",
        ),
        ("\"StringValue\"", "\"Struct\"", "warning /f: the configuration is a Struct"),
        ("30000", "0", "warning /m: stream_idle_timeout is off"),
        (
            "\"stream_idle_timeout_ms\": 30000, ",
            "",
            "warning /m: stream_idle_timeout is not written, so it is 5 minutes",
        ),
        (
            "\"use_remote_address\": true",
            "\"use_remote_address\": false",
            "warning /m: use_remote_address is not on, and a limit counts by ip",
        ),
        (
            "15000",
            "45",
            "warning /r: the route's timeout (45 ms) is not longer than gateway.timeout",
        ),
        (
            "\"name\": \"tidegate\"",
            "\"name\": \"other\"",
            "error gateway.cluster: the Envoy file has no cluster \"tidegate\": no request would get a verdict; it has other, upstream",
        ),
        (
            "\"connect_timeout_ms\": 30}",
            "\"connect_timeout_ms\": 45}",
            "warning /c: connect_timeout of cluster \"tidegate\" (45 ms) is not shorter than gateway.timeout (45 ms)",
        ),
        (
            ", \"connect_timeout_ms\": 30",
            "",
            "warning /c: connect_timeout of cluster \"tidegate\" (5000 ms, Envoy's default)",
        ),
    ];
    for (from, to, expected) in rows {
        let facts = FACTS.replacen(from, to, 1);
        assert_ne!(facts, FACTS, "{from}");
        one(&lines(SOUND, &facts), expected);
    }
    let part = FACTS
        .replace("\"name\": \"tidegate\"", "\"name\": \"other\"")
        .replace("\"clusters_complete\": true", "\"clusters_complete\": false");
    assert_eq!(lines(SOUND, &part), [""; 0], "other clusters may come from elsewhere");
    let homes = r#""homes": {"regions": {"north": {"cluster": "upstream"}, "south": {"cluster": "nowhere"}}, "default": "south"}, "policies""#;
    let away = SOUND.replacen("\"policies\"", homes, 1);
    let near = FACTS
        .replace("\"name\": \"upstream\"", "\"name\": \"upstream\", \"connect_timeout_ms\": 99");
    one(
        &lines(&away, &near),
        "error homes.regions.south.cluster: the Envoy file has no cluster \"nowhere\"",
    );
    one(&lines(SOUND, "[1"), "warning : the facts about the Envoy file cannot be read");
}

/// A document of these policies: fields of `match`, and further fields.
fn policies(apply: &str, rows: &[(&str, &str)]) -> String {
    let policy = |(n, (matcher, more)): (usize, &(&str, &str))| {
        format!(
            r#"{{"name": "p{n}", "match": {{{matcher}}}, {more} "rate_limits": [{{"name": "l", "by": "ip", "limit": 5, "per": "minute"}}]}}"#
        )
    };
    let policies: Vec<String> = rows.iter().enumerate().map(policy).collect();
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "c"}}, "apply": "{apply}", "policies": [{}]}}"#,
        policies.join(", ")
    )
}

#[test]
fn under_first_a_policy_behind_a_wider_one_is_never_reached() {
    let reached = |wide: &str, narrow: &str| {
        let found = lines(&policies("first", &[(wide, ""), (narrow, "")]), "");
        assert_eq!(lines(&policies("all", &[(wide, ""), (narrow, "")]), ""), [""; 0]);
        if !found.is_empty() {
            one(
                &found,
                "warning policies[1].match: policy \"p1\" is never reached: \"p0\" comes before it",
            );
        }
        found.is_empty()
    };
    let path = |text: &str| format!("\"path\": \"{text}\"");
    let rows = [
        (path("/**"), path("/api"), false),
        (path("/api/**"), path("/api/x"), false),
        (path("/api/**"), path("/api"), false),
        (path("/api/{id}"), path("/api/x"), false),
        (path("/api/{id}"), path("/api/{name}"), false),
        (path("/api/{id}"), path("/api/"), true),
        (path("/api/x"), path("/api/{id}"), true),
        (path("/api/{id}"), path("/api/x/**"), true),
        (path("/api/x/**"), path("/api/**"), true),
        (path("/apis/**"), path("/api/x"), true),
        (path("/**"), "\"path_regex\": \"/a+\"".to_string(), false),
        ("\"path_regex\": \"/a+\"".to_string(), "\"path_regex\": \"/a+\"".to_string(), false),
        ("\"path_regex\": \"/a*\"".to_string(), path("/a"), true),
        ("\"path\": \"/**\", \"methods\": [\"GET\"]".to_string(), path("/a"), true),
        (
            "\"path\": \"/**\", \"methods\": [\"GET\", \"PUT\"]".to_string(),
            "\"path\": \"/a\", \"methods\": [\"PUT\"]".to_string(),
            false,
        ),
        (
            "\"path\": \"/**\", \"host\": \"*.x.org\"".to_string(),
            "\"path\": \"/a\", \"host\": [\"a.x.org\", \"*.b.x.org\"]".to_string(),
            false,
        ),
        (
            "\"path\": \"/**\", \"host\": \"*.x.org\"".to_string(),
            "\"path\": \"/a\", \"host\": [\"a.x.org\", \"x.org\"]".to_string(),
            true,
        ),
        (
            "\"path\": \"/**\", \"host\": \"*.x.org\"".to_string(),
            "\"path\": \"/a\", \"host\": \"ax.org\"".to_string(),
            true,
        ),
        ("\"path\": \"/**\", \"headers\": {\"a\": \"1\"}".to_string(), path("/a"), true),
        (
            "\"path\": \"/**\", \"headers\": {\"a\": \"1\"}".to_string(),
            "\"path\": \"/a\", \"headers\": {\"b\": \"1\", \"a\": \"1\"}".to_string(),
            false,
        ),
    ];
    for (wide, narrow, expected) in rows {
        assert_eq!(reached(&wide, &narrow), expected, "{wide} before {narrow}");
    }
}

#[test]
fn priority_decides_what_comes_before() {
    let found = lines(
        &policies("first", &[("\"path\": \"/a\"", ""), ("\"path\": \"/**\"", "\"priority\": 1,")]),
        "",
    );
    one(
        &found,
        "warning policies[0].match: policy \"p0\" is never reached: \"p1\" comes before it",
    );
}

#[test]
fn a_limit_beside_a_tighter_one_over_the_same_never_refuses() {
    let beside = |limit: u32, per: &str, burst: u32, by: &str| {
        let more = format!(
            "\"rate_limits\": [{{\"name\": \"m\", \"by\": {by}, \"limit\": {limit}, \"per\": \"{per}\", \"burst\": {burst}}}, "
        );
        lines(&SOUND.replace("\"rate_limits\": [", &more), "")
    };
    let told =
        "warning policies[0].rate_limits[0]: limit \"m\" never refuses: \"l\" counts the same";
    one(&beside(10, "minute", 5, "\"ip\""), told);
    one(&beside(1, "second", 60, "\"ip\""), told);
    one(&beside(5, "minute", 5, "\"ip\""), "warning policies[0].rate_limits[1]: limit \"l\" never");
    one(&beside(5, "minute", 4, "\"ip\""), "warning policies[0].rate_limits[1]: limit \"l\" never");
    assert_eq!(beside(10, "minute", 4, "\"ip\""), [""; 0]);
    assert_eq!(beside(60, "hour", 60, "\"ip\""), [""; 0]);
    assert_eq!(beside(10, "minute", 10, "{\"ip\": {\"v6_prefix\": 48}}"), [""; 0]);
    let soft = SOUND.replace(
        "\"rate_limits\": [",
        "\"rate_limits\": [{\"name\": \"m\", \"by\": \"ip\", \"limit\": 2, \"per\": \"minute\", \"soft\": true}, ",
    );
    assert_eq!(lines(&soft, ""), [""; 0]);
}

#[test]
fn idempotency_is_seen_beside_flag_and_routes() {
    let own = r#""identities": {"tenant": {"jwt": {"provider": "main", "claim": "org"}}}, "policies": [
      {"name": "pay", "match": {"path": "/pay"}, "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "10s"}},"#;
    let document = SOUND.replace("\"policies\": [", own);
    let facts = FACTS.replace("{\"at\": \"/s\", \"timeout_ms\": 0}, ", "");
    one(
        &lines(&document, &facts),
        "warning policies[0].idempotency.upstream_timeout: 10000 ms is shorter than a route's timeout (15000 ms)",
    );
    one(
        &lines(&document.replace("10s", "1h"), FACTS),
        "warning policies[0].idempotency.upstream_timeout: 3600000 ms is shorter than that of a route, which has none",
    );
    // A configuration ranks its policies; what is said of one points at where it stands.
    let last = document.replacen("{\"name\": \"pay\"", "{\"name\": \"first\", \"priority\": 9, \"match\": {\"path\": \"/other\"}, \"idempotency\": {\"key\": \"required\", \"tenant\": \"tenant\", \"upstream_timeout\": \"20s\"}}, {\"name\": \"pay\", \"priority\": 10", 1);
    one(
        &lines(&last, &facts),
        "warning policies[1].idempotency.upstream_timeout: 10000 ms is shorter than a route's timeout (15000 ms)",
    );
    assert_eq!(lines(&document.replace("10s", "15s"), &facts), [""; 0]);
    let off = facts.replace(
        "\"allow_on_headers_stop_iteration\": true",
        "\"allow_on_headers_stop_iteration\": false",
    );
    let found = lines(&document.replace("10s", "15s"), &off);
    assert!(
        found.iter().any(|line| line.starts_with("error /f: policy pay has idempotency")),
        "{found:?}"
    );
}

#[test]
fn what_is_held_has_to_fit_into_the_listener_s_buffer() {
    let own = r#""identities": {"tenant": {"jwt": {"provider": "main", "claim": "org"}}}, "policies": [
      {"name": "pay", "match": {"path": "/pay"}, "idempotency": {"key": "required", "tenant": "tenant", "upstream_timeout": "15s"}},"#;
    let document = SOUND.replace("\"policies\": [", own);
    let smaller = document.replace("\"15s\"", "\"15s\", \"hash\": {\"max\": \"16KiB\"}");
    let larger = document.replace("\"15s\"", "\"15s\", \"hash\": {\"max\": \"2MiB\"}");
    let fast = smaller.replace("\"15s\"", "\"15s\", \"response\": \"fast\"");
    let facts = |limit: &str| {
        let listener = format!("{{\"listener\": {{\"at\": \"/l\"{limit}}}, ");
        FACTS.replace("{\"at\": \"/s\", \"timeout_ms\": 0}, ", "").replacen('{', &listener, 1)
    };
    let of = |bytes: u32| facts(&format!(", \"per_connection_buffer_limit_bytes\": {bytes}"));
    one(
        &lines(&document, &of(262_143)),
        "warning /l: per_connection_buffer_limit_bytes (262143 bytes) is below idempotency.hash.max of policy pay (262144 bytes): Envoy itself answers a longer request 413; write at least 262144",
    );
    one(
        &lines(&larger, &facts("")),
        "warning /l: per_connection_buffer_limit_bytes (1048576 bytes, Envoy's default) is below idempotency.hash.max",
    );
    one(
        &lines(&smaller, &of(32_768)),
        "warning /l: per_connection_buffer_limit_bytes (32768 bytes) is below idempotency.store.body of policy pay (65536 bytes): Envoy itself answers 500 in place of a longer answer",
    );
    for (document, facts) in [
        (&document, of(262_144)),
        (&document, facts("")),
        (&fast, of(32_768)),
        (&SOUND.to_owned(), of(1)),
    ] {
        assert_eq!(lines(document, &facts), [""; 0]);
    }
}

/// What stands around a policy with idempotency, and the word that is said of it.
#[test]
fn what_envoy_does_behind_a_key_is_told() {
    let document = SOUND.replace(
        r#""version": 1,"#,
        r#""version": 1, "identities": {"t": {"header": "x-t", "trusted": true}},"#,
    );
    let keyed = document.replace(
        r#""rate_limits": ["#,
        r#""idempotency": {"key": "optional", "tenant": "t", "upstream_timeout": "15s", "hash": {"max": "64KiB"}}, "rate_limits": ["#,
    );
    let facts = |retry_on: &str, more: &str| {
        FACTS
            .replace(
                r#"{"at": "/s", "timeout_ms": 0}"#,
                &format!(r#"{{"at": "/s", "retry_on": "{retry_on}"}}"#),
            )
            .replace(
                r#""use_remote_address": true"#,
                &format!(r#""use_remote_address": true{more}"#),
            )
    };
    for (retry_on, expected) in [
        ("", None),
        ("connect-failure, refused-stream,reset-before-request", None),
        (
            "connect-failure,5xx",
            Some("warning /s: retry_on has \"5xx\", and policy api has idempotency"),
        ),
        ("reset", Some("warning /s: retry_on has \"reset\"")),
    ] {
        let found = lines(&keyed, &facts(retry_on, ""));
        match expected {
            Some(expected) => one(&found, expected),
            None => assert_eq!(found, [""; 0], "{retry_on}"),
        }
    }
    let hedges = |keyed: &str, is_on: bool| {
        let told = format!(r#""retry_on": "connect-failure", "hedges": {is_on}"#);
        lines(keyed, &facts("", "").replace(r#""retry_on": """#, &told))
    };
    one(
        &hedges(&keyed, true),
        "warning /s: hedge_on_per_try_timeout is on, and policy api has idempotency",
    );
    assert_eq!((hedges(&keyed, false), hedges(SOUND, true)), (Vec::new(), Vec::new()));
    let rewrites = facts("", r#", "rewrites_local_replies": true"#);
    one(&lines(&keyed, &rewrites), "warning /m: local_reply_config has mappers or a body_format");
    assert_eq!(lines(SOUND, &facts("5xx", r#", "rewrites_local_replies": true"#)), [""; 0]);
}

#[test]
fn a_weaker_policy_before_one_that_requires_a_key_is_told() {
    let policies = |first: &str, second: &str, path: &str| {
        let of = |name: &str, path: &str, key: &str| {
            format!(
                r#"{{"name": "{name}", "match": {{"path": "{path}"}},
                "idempotency": {{"tenant": "t", "upstream_timeout": "15s", {key}}}}}"#
            )
        };
        let policies = [of("wide", "/v1/**", first), of("narrow", path, second)].join(",");
        format!(
            r#"{{"version": 1, "gateway": {{"cluster": "tidegate"}},
            "identities": {{"t": {{"header": "x-t", "trusted": true}}}}, "policies": [{policies}]}}"#
        )
    };
    let (optional, required) = (r#""key": "optional""#, r#""key": "required""#);
    for weaker in [optional, r#""key": "required", "mode": "shadow""#] {
        let found = lines(&policies(weaker, required, "/v1/pay"), "");
        one(&found, "warning policies[1].idempotency: policy \"wide\" comes before it");
    }
    for (first, second, path) in [
        (required, required, "/v1/pay"),
        (optional, optional, "/v1/pay"),
        (optional, required, "/v2/pay"),
        (r#""key": "off""#, required, "/v1/pay"),
        (r#""key": "optional", "mode": "off""#, required, "/v1/pay"),
        (r#""key": "optional", "methods": ["PUT"]"#, required, "/v1/pay"),
    ] {
        assert_eq!(lines(&policies(first, second, path), ""), [""; 0], "{first} {second}");
    }
}
