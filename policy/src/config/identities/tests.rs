//! Tests of what a document may say of identities, and of what it is told when it may not.

use crate::config::Config;
use crate::identity::{Carrier, Fingerprint, Place, SubjectKind};
use std::boxed::Box;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// A document with `more` at its top and a policy with `fields` and one limit by `by`.
fn document(more: &str, fields: &str, by: &str) -> String {
    format!(
        r#"{{"version": 1, "gateway": {{"cluster": "g"}}, {more} "policies": [
          {{"name": "p", "match": {{"path": "/v1/{{org}}/orders/{{id}}"}}, {fields}
            "rate_limits": [{{"name": "l", "by": {by}, "limit": 1, "per": "1s"}},
                            {{"name": "ip", "by": "ip", "limit": 1, "per": "1s"}}]}}]}}"#
    )
}

fn problems(document: &str) -> Vec<String> {
    Config::read(document).diagnostics.iter().map(ToString::to_string).collect()
}

fn sound(document: &str) -> Config {
    let reading = Config::read(document);
    assert_eq!(reading.diagnostics, [], "{document}");
    reading.config.expect("no diagnostics")
}

fn property(path: &str) -> String {
    path.replace('|', "\0")
}

#[test]
fn every_source_is_read() {
    let jwt = |rest: &str| {
        property(&format!("metadata|filter_metadata|envoy.filters.http.jwt_authn|{rest}"))
    };
    let rows = [
        (r#""ip""#.to_string(), Place::Ip { v6_prefix: 64 }, true),
        (r#"{"ip": {"v6_prefix": 48}}"#.to_string(), Place::Ip { v6_prefix: 48 }, true),
        (r#"{"header": "X-Key"}"#.to_string(), Place::Header("x-key".to_string()), false),
        (r#"{"header": "x", "trusted": true}"#.to_string(), Place::Header("x".to_string()), true),
        (r#"{"header": "x", "trusted": false}"#.to_string(), Place::Header("x".to_string()), false),
        (r#"{"cookie": "Sid"}"#.to_string(), Place::Cookie("Sid".to_string()), false),
        (r#"{"query": "api_key"}"#.to_string(), Place::Query("api_key".to_string()), false),
        (
            r#"{"jwt": {"provider": "main", "claim": "sub"}}"#.to_string(),
            Place::Jwt { property: jwt("main|sub") },
            true,
        ),
        (
            r#"{"jwt": {"provider": "main", "claim": ["org", "id"]}}"#.to_string(),
            Place::Jwt { property: jwt("main|org|id") },
            true,
        ),
        (
            r#"{"mtls": "uri_san"}"#.to_string(),
            Place::Mtls { property: property("connection|uri_san_peer_certificate") },
            true,
        ),
        (
            r#"{"mtls": "sha256"}"#.to_string(),
            Place::Mtls { property: property("connection|sha256_peer_certificate_digest") },
            true,
        ),
        (
            r#"{"filter_state": "edge.client"}"#.to_string(),
            Place::FilterState { property: property("filter_state|edge.client") },
            false,
        ),
        (
            r#""ja4""#.to_string(),
            Place::FilterState { property: property("filter_state|tidegate.ja4") },
            false,
        ),
        (
            r#"{"signed": {"cookie": "did", "key": {"env": "K"}}}"#.to_string(),
            Place::Signed {
                carrier: Carrier::Cookie("did".to_string()),
                keys: ["K".to_string()].into(),
            },
            true,
        ),
        (
            r#"{"signed": {"header": "x-did", "key": [{"env": "NEW"}, {"env": "OLD"}]}}"#
                .to_string(),
            Place::Signed {
                carrier: Carrier::Header("x-did".to_string()),
                keys: ["NEW".to_string(), "OLD".to_string()].into(),
            },
            true,
        ),
        (
            r#"{"fingerprint": {"device_id": {"mtls": "sha256"}, "tls": "ja3"}}"#.to_string(),
            Place::Fingerprint(Box::new(Fingerprint {
                device: Place::Mtls {
                    property: property("connection|sha256_peer_certificate_digest"),
                },
                tls: Some(Place::FilterState { property: property("filter_state|tidegate.ja3") }),
            })),
            false,
        ),
    ];
    for (written, place, trusted) in rows {
        let config = sound(&document("", "", &written).replace(
            r#"{"name": "ip", "by": "ip""#,
            r#"{"name": "ip", "by": {"ip": {"v6_prefix": 1}}"#,
        ));
        let by = &config.policies[0].rate_limits[0].by;
        let source = &by.parts[0].chain[0][0];
        assert_eq!((&source.place, source.trusted), (&place, trusted), "{written}");
        // The same under a name.
        let named = document(&format!(r#""identities": {{"who": {written}}},"#), "", r#""who""#);
        assert_eq!(&sound(&named).policies[0].rate_limits[0].by, by, "{written}");
    }
}

#[test]
fn a_part_of_the_path_is_found_in_the_match() {
    let config = sound(&document("", "", r#"{"path": "id"}"#));
    let place = &config.policies[0].rate_limits[0].by.parts[0].chain[0][0].place;
    let Place::Path(part) = place else { panic!("{place:?}") };
    assert_eq!((part.name.as_str(), part.segment), ("id", 3));
}

#[test]
fn the_keys_of_signed_ids_and_the_properties_are_gathered_once() {
    let config = sound(&document(
        r#""hash_subjects": {"env": "SUBJECTS"},
           "identities": {"did": {"signed": {"cookie": "did", "key": {"env": "K"}}},
                          "who": {"jwt": {"provider": "m", "claim": "sub"}}},"#,
        r#""missing_identity": {"did": ["who", "shared"]}, "mode": {"enforce": "10%", "by": "who"},"#,
        r#""did""#,
    ));
    assert_eq!(config.hash_subjects.as_deref(), Some("SUBJECTS"));
    let keys: Vec<_> = config.signing_keys.into_iter().collect();
    assert_eq!(keys, [("K".to_string(), "identities.did.signed.key".to_string())]);
    let jwt = property("metadata|filter_metadata|envoy.filters.http.jwt_authn|m|sub");
    assert_eq!(config.policies[0].properties, [jwt]);
    assert!(config.policies[0].reads_address);
    assert!(config.policies[0].rate_limits[0].by.parts[0].shared);
}

#[test]
fn combinations_fallbacks_and_the_tenant_are_put_together() {
    let identities = r#""identities": {"client": "ip", "org": {"jwt": {"provider": "m", "claim": "org"}}, "both": ["tenant", "client"]}, "tenant": "org","#;
    let missing = r#""missing_identity": {"both": ["client", "shared"], "ip": "deny"},"#;
    let config = sound(&document(identities, missing, r#""both""#));
    let [part] = config.policies[0].rate_limits[0].by.parts.as_slice() else { panic!("one part") };
    let tenants: Vec<Vec<bool>> =
        part.chain.iter().map(|one| one.iter().map(|source| source.is_tenant).collect()).collect();
    assert_eq!(tenants, [Vec::from([true, false]), Vec::from([false])]);
    assert!(part.shared);

    let identities = identities.replace(r#", "both": ["tenant", "client"]"#, "");
    let listed = sound(&document(&identities, "", r#"["org", "client"]"#));
    let parts = &listed.policies[0].rate_limits[0].by.parts;
    assert_eq!(parts.len(), 2);
    assert!(parts[0].chain[0][0].is_tenant, "by its own name as by \"tenant\"");
    // An identity that is called "tenant" names it without another word.
    let implied = r#""identities": {"tenant": {"header": "x-org", "trusted": true}},"#;
    let implied = sound(&document(implied, "", r#""tenant""#));
    assert!(implied.policies[0].rate_limits[0].by.parts[0].chain[0][0].is_tenant);
}

#[test]
fn each_mistake_gets_its_own_sentence() {
    let ids = |text: &str| format!(r#""identities": {{{text}}},"#);
    let client = ids(r#""client": "ip""#);
    let limit = "error: policies[0].rate_limits[0].by";
    let rows: [(String, &str, &str, String); 31] = [
        (
            client.clone(),
            "",
            r#""clinet""#,
            format!("{limit}: \"clinet\" is no identity; did you mean \"client\"?"),
        ),
        (
            client.clone(),
            "",
            r#""nobody""#,
            format!("{limit}: \"nobody\" is no identity; known here: client, ip, ja3, ja4"),
        ),
        (
            String::new(),
            "",
            r#""tenant""#,
            format!("{limit}: no identity names the tenant; add \"tenant\" to identities"),
        ),
        (String::new(), "", "[]", format!("{limit}: no identity, so nobody would be counted")),
        (String::new(), "", r#"["ip", "ip"]"#, format!("{limit}: one source stands twice")),
        (
            String::new(),
            "",
            r#"["ip", {"header": "a"}, {"header": "b"}, {"header": "c"}, {"header": "d"}]"#,
            format!("{limit}: 5 sources count together; combine at most 4"),
        ),
        (
            String::new(),
            "",
            r#"{"header": "a", "cookie": "b"}"#,
            format!("{limit}: an identity has exactly one source; write one of ip, header,"),
        ),
        (
            String::new(),
            "",
            r#"{"trusted": true}"#,
            format!("{limit}: an identity has exactly one source"),
        ),
        (
            String::new(),
            "",
            r#"{"header": "cookie"}"#,
            format!("{limit}.header: a whole cookie header changes"),
        ),
        (
            String::new(),
            "",
            r#"{"cookie": "a b"}"#,
            format!("{limit}.cookie: \"a b\" is no cookie name"),
        ),
        (
            String::new(),
            "",
            r#"{"query": ""}"#,
            format!("{limit}.query: \"\" is no parameter name"),
        ),
        (
            String::new(),
            "",
            r#"{"filter_state": "a\u0000b"}"#,
            format!("{limit}.filter_state: \"a\\u0000b\" is no filter state key"),
        ),
        (
            String::new(),
            "",
            r#"{"jwt": {"provider": "m", "claim": []}}"#,
            format!("{limit}.jwt.claim: 0 names; write 1 to 4"),
        ),
        (String::new(), "", r#"{"jwt": {"provider": "m"}}"#, format!("{limit}.jwt.claim: missing")),
        (
            String::new(),
            "",
            r#"{"mtls": "uri-san"}"#,
            format!(
                "{limit}.mtls: \"uri-san\" is no part of a certificate; did you mean \"uri_san\"?"
            ),
        ),
        (
            String::new(),
            "",
            r#"{"path": "user"}"#,
            format!("{limit}: the path of match has no part {{user}}; it has {{org}}, {{id}}"),
        ),
        (
            String::new(),
            "",
            r#"{"path": "{id}"}"#,
            format!(
                "{limit}.path: \"{{id}}\" is no part of a path; write the name in the template without braces"
            ),
        ),
        (
            String::new(),
            "",
            r#"{"ip": {}, "trusted": false}"#,
            format!("{limit}.trusted: this source is trusted by nature"),
        ),
        (
            String::new(),
            "",
            r#"{"header": "a", "trusted": 1}"#,
            format!("{limit}.trusted: 1 is no truth value"),
        ),
        (
            String::new(),
            "",
            r#"{"signed": {"cookie": "a", "header": "b", "key": {"env": "K"}}}"#,
            format!("{limit}.signed: a signed id stands in exactly one place"),
        ),
        (
            String::new(),
            "",
            r#"{"signed": {"cookie": "a"}}"#,
            format!("{limit}.signed.key: missing; write {{\"env\": \"DEVICE_KEY\"}}"),
        ),
        (
            ids(r#""did": {"cookie": "did"}"#),
            "",
            r#"{"fingerprint": {"device_id": "did"}}"#,
            format!("{limit}.fingerprint.device_id: a client chooses this device id"),
        ),
        (
            String::new(),
            "",
            r#"{"fingerprint": {"device_id": {"cookie": "did"}}}"#,
            format!(
                "{limit}.fingerprint.device_id: an identity has exactly one source; write one of signed, jwt, mtls"
            ),
        ),
        (
            String::new(),
            "",
            r#"{"fingerprint": {"device_id": "ip"}}"#,
            format!("{limit}.fingerprint: a fingerprint is made of neither addresses"),
        ),
        (
            ids(r#""a": ["b"], "b": ["c", "ip"], "c": "a""#),
            "",
            r#""a""#,
            "identities stand for one another in a circle: a → b → c → a".to_string(),
        ),
        (
            ids(r#""ip": {"header": "a"}"#),
            "",
            r#""ip""#,
            "error: identities.ip: \"ip\" means something already".to_string(),
        ),
        (
            ids(r#""A b": "ip""#),
            "",
            r#""ip""#,
            "error: identities.A b: \"A b\" is no name".to_string(),
        ),
        (
            ids(r#""tenant": {"header": "x-org"}"#),
            "",
            r#""tenant""#,
            "error: identities.tenant: a client chooses this, and with it whose limits it uses up"
                .to_string(),
        ),
        (
            ids(r#""org": ["ip", {"header": "a", "trusted": true}]"#) + r#""tenant": "org","#,
            "",
            r#""org""#,
            "error: identities.org: a combination names no tenant".to_string(),
        ),
        (
            client.clone() + r#""tenant": "clint","#,
            "",
            r#""client""#,
            "error: tenant: \"clint\" is no name of an identity; did you mean \"client\"?"
                .to_string(),
        ),
        (
            ids(r#""tenant": "ip", "org": "ip""#) + r#""tenant": "org","#,
            "",
            r#""org""#,
            "error: tenant: an identity is called \"tenant\", and this is another".to_string(),
        ),
    ];
    for (more, fields, by, expected) in rows {
        let text = document(&more, fields, by);
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains(&expected)), "{text}\n{expected}\n{found:#?}");
        assert_eq!(Config::read(&text).config, None, "{text}");
    }
}

#[test]
fn what_is_missing_is_said_in_one_way_only() {
    let ids = r#""identities": {"client": "ip", "key": {"header": "x-key", "trusted": true}},"#;
    let field = "error: policies[0].missing_identity";
    let rows = [
        (r#""shard""#, format!("{field}: \"shard\" is no identity")),
        (r#"[]"#, format!("{field}: 0 steps")),
        (
            r#"["shared", "client"]"#,
            format!("{field}[0]: what follows is never reached; write \"shared\" last"),
        ),
        (r#"["client", "ip"]"#, format!("{field}[1]: it was tried before")),
        (r#"{"key": ["key"]}"#, format!("{field}.key: an identity cannot stand in for itself")),
        (r#"{"key": 7}"#, format!("{field}.key: 7 is no table")),
        (
            r#"["client", {"header": "a"}, {"header": "b"}, {"header": "c"}, {"header": "d"}]"#,
            format!("{field}: 5 identities; write at most 4"),
        ),
    ];
    for (written, expected) in rows {
        let text = document(ids, &format!(r#""missing_identity": {written},"#), r#""key""#);
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains(&expected)), "{expected}\n{found:#?}");
        assert_eq!(Config::read(&text).config, None, "{text}");
    }
    let text =
        document(ids, r#""missing_identity": {"kei": "deny", "key": "client"},"#, r#""key""#);
    assert_eq!(problems(&text).len(), 1);
    assert!(
        problems(&text)[0].starts_with(
            "warning: policies[0].missing_identity.kei: no limit of this policy counts by \"kei\""
        ),
        "{:?}",
        problems(&text)
    );
}

#[test]
fn too_many_stand_ins_together_are_refused() {
    let ids = r#""identities": {"three": [{"header": "a"}, {"header": "b"}, {"header": "c"}]},"#;
    let text =
        document(ids, r#""missing_identity": "three","#, r#"[{"header": "x"}, {"header": "y"}]"#);
    let found = problems(&text);
    let expected = "6 sources may count together, with what stands in for them; combine at most 4";
    assert!(found.iter().any(|p| p.contains(expected)), "{found:#?}");
}

#[test]
fn what_a_client_chooses_alone_warns() {
    let alone = |by: &str| {
        format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "policies": [{{"name": "p", "match": {{"path": "/x/{{id}}"}},
              "rate_limits": [{{"name": "l", "by": {by}, "limit": 1, "per": "1s"}}]}}]}}"#
        )
    };
    let rows = [
        (r#"{"header": "x-key"}"#, true),
        (r#"["ip", {"header": "x-key"}]"#, true),
        (r#"{"path": "id"}"#, true),
        (r#""ja4""#, true),
        (r#"{"fingerprint": {"device_id": {"mtls": "sha256"}}}"#, true),
        (r#"{"header": "x-key", "trusted": true}"#, false),
        (r#"["ip", {"header": "x-key", "trusted": true}]"#, false),
        (r#"{"mtls": "sha256"}"#, false),
    ];
    for (by, warns) in rows {
        let found = problems(&alone(by));
        let expected =
            "warning: policies[0].rate_limits[0].by: clients choose what they are counted by here";
        assert_eq!(found.iter().any(|p| p.starts_with(expected)), warns, "{by}: {found:?}");
        assert!(Config::read(&alone(by)).config.is_some());
        // A limit beside it that nobody can escape is the remedy.
        let beside = document("", "", by).replace("/v1/{org}/orders/{id}", "/x/{id}");
        assert!(!problems(&beside).iter().any(|p| p.starts_with(expected)), "{by}");
    }
}

#[test]
fn what_stands_in_for_a_trusted_identity_counts_as_well() {
    let text = |missing: &str| {
        format!(
            r#"{{"version": 1, "gateway": {{"cluster": "g"}}, "policies": [{{"name": "p", "match": {{"path": "/**"}},
              "missing_identity": {missing}, "rate_limits": [{{"name": "l", "by": {{"mtls": "sha256"}}, "limit": 1, "per": "1s"}}]}}]}}"#
        )
    };
    for (missing, warnings) in [
        (r#""deny""#, 0),
        (r#"["ip", "shared"]"#, 0),
        (r#"[{"header": "x-key"}]"#, 1),
        (r#"["ip", "ja3"]"#, 1),
    ] {
        assert_eq!(problems(&text(missing)).len(), warnings, "{missing}");
    }
}

#[test]
fn the_tenant_may_be_written_out_at_the_top() {
    let config = sound(&document(
        r#""tenant": {"jwt": {"provider": "m", "claim": "org"}},"#,
        "",
        r#"["tenant", "ip"]"#,
    ));
    let parts = &config.policies[0].rate_limits[0].by.parts;
    assert_eq!(parts[0].chain[0][0].kind(), SubjectKind::Tenant);
    let untrusted = document(r#""tenant": {"header": "x-org"},"#, "", r#""ip""#);
    let found = problems(&untrusted);
    assert!(
        found.iter().any(|p| p.starts_with("error: tenant: a client chooses this")),
        "{found:?}"
    );
}

#[test]
fn an_identity_that_nothing_uses_warns() {
    let text =
        document(r#""identities": {"client": "ip", "spare": {"header": "x"}},"#, "", r#""client""#);
    assert_eq!(problems(&text).len(), 1);
    assert!(
        problems(&text)[0]
            .starts_with("warning: identities.spare: nothing uses the identity \"spare\"")
    );
}

#[test]
fn a_mode_for_one_mechanism_and_by_an_identity_is_read() {
    use crate::mode::{Mode, Rollout};
    let ids = r#""identities": {"client": {"header": "x-c", "trusted": true}},"#;
    let rows = [
        (r#""shadow""#, Rollout::whole(Mode::Shadow), false),
        (r#"{"rate_limits": "shadow"}"#, Rollout::whole(Mode::Shadow), false),
        (
            r#"{"rate_limits": {"enforce": "5%"}}"#,
            Rollout { mode: Mode::Enforce, share_bp: 500 },
            false,
        ),
        (
            r#"{"enforce": "10%", "by": "client"}"#,
            Rollout { mode: Mode::Enforce, share_bp: 1_000 },
            true,
        ),
        (
            r#"{"rate_limits": {"shadow": "10%", "by": ["client", "ip"]}}"#,
            Rollout { mode: Mode::Shadow, share_bp: 1_000 },
            true,
        ),
    ];
    for (mode, rollout, by) in rows {
        let config = sound(&document(ids, &format!(r#""mode": {mode},"#), r#""client""#));
        let policy = &config.policies[0];
        assert_eq!((policy.rollout, policy.rollout_by.is_some()), (rollout, by), "{mode}");
    }
    let wrong = [
        (r#"{"by": "client"}"#, "not exactly one share"),
        (
            r#"{"shadow": "1%", "rate_limits": "off"}"#,
            "policies[0].mode.rate_limits: a mode for all mechanisms stands beside it",
        ),
        (r#"{"rate_limits": "off", "by": "client"}"#, "a mode for all mechanisms stands beside it"),
        (
            r#"{"rate_limits": {"rate_limits": "off"}}"#,
            "policies[0].mode.rate_limits: not exactly one share",
        ),
        (r#"{"enforce": "10%", "by": "clientt"}"#, "did you mean \"client\"?"),
        (r#"{"enforce": "10%", "by": {"path": "nope"}}"#, "the path of match has no part {nope}"),
    ];
    for (mode, expected) in wrong {
        let text = document(ids, &format!(r#""mode": {mode},"#), r#""client""#);
        let found = problems(&text);
        assert!(found.iter().any(|p| p.contains(expected)), "{mode}: {found:?}");
        assert_eq!(Config::read(&text).config, None);
    }
}
