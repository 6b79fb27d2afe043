//! Tests of subjects and their spelling.

use super::*;
use crate::config::Config;
use proptest::prelude::*;
use sha2::Digest as _;
use std::format;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

fn facts<'h>(source: &str, headers: &[(&'h str, &'h [u8])]) -> Facts<'h> {
    Facts {
        source_address: Some(source.as_bytes().to_vec()),
        headers: headers.iter().map(|(k, v)| (k.as_bytes(), *v)).collect(),
        ..Facts::default()
    }
}

fn by(place: Place) -> Identity {
    Identity::single(Source { place, trusted: false, is_tenant: false })
}

fn ip_name(source: &str) -> Option<String> {
    let identity = by(Place::Ip { v6_prefix: 64 });
    identity.subject(&facts(source, &[])).map(|s| s.name.as_str().to_string())
}

#[test]
fn addresses_lose_their_port_and_ipv6_its_host_part() {
    let rows = [
        ("192.0.2.7:51234", Some("192.0.2.7")),
        ("192.0.2.7:0", Some("192.0.2.7")),
        ("192.0.2.7", Some("192.0.2.7")),
        ("[2001:db8::1]:443", Some("2001%3Adb8%3A%3A%2F64")),
        ("[2001:db8::ffff]:0", Some("2001%3Adb8%3A%3A%2F64")),
        ("2001:db8:0:1::9", Some("2001%3Adb8%3A0%3A1%3A%3A%2F64")),
        ("[::ffff:192.0.2.7]:1", Some("192.0.2.7")),
        ("", None),
        ("/run/socket", None),
        ("envoy_internal", None),
        ("192.0.2.7:99999", None),
    ];
    for (source, expected) in rows {
        assert_eq!(ip_name(source).as_deref(), expected, "{source}");
    }
}

#[test]
fn a_prefix_of_128_keeps_the_whole_address() {
    let whole = by(Place::Ip { v6_prefix: 128 });
    let name = |s: &str| whole.subject(&facts(s, &[])).map(|s| s.name);
    assert_ne!(name("[2001:db8::1]:1"), name("[2001:db8::2]:1"));
}

type Headers<'a> = &'a [(&'a str, &'a [u8])];

#[test]
fn headers_count_as_bytes_and_a_repeated_one_names_nobody() {
    let by = by(Place::Header("x-key".to_string()));
    let rows: [(Headers<'_>, Option<&str>); 8] = [
        (&[], None),
        (&[("x-key", b"")], None),
        (&[("x-key", b"  ")], None),
        (&[("x-key", b"a\xff")], Some("a%FF")),
        (&[("x-key", b"a"), ("x-other", b"z"), ("x-key", b"b")], None),
        (&[("x-key", b"a"), ("x-key", b"")], None),
        (&[("x-key", b"a,b")], Some("a%2Cb")),
        (&[("x-key", b"a:b{c}|d")], Some("a%3Ab%7Bc%7D%7Cd")),
    ];
    for (headers, expected) in rows {
        let subject = by.subject(&facts("", headers));
        assert_eq!(subject.as_ref().map(|s| s.name.as_str()), expected, "{headers:?}");
    }
}

#[test]
fn long_values_become_digests() {
    let name = SubjectName::from_bytes(&vec![b'x'; 10_000]);
    assert_eq!(name.as_str().len(), 33);
    assert_ne!(name, SubjectName::from_bytes(&vec![b'x'; 10_001]));
    assert_ne!(
        name,
        SubjectName::from_bytes(name.as_str().as_bytes()),
        "a digest cannot be sent by hand"
    );
}

#[test]
fn only_canonical_spellings_are_read() {
    for text in ["", "a:b", "%3a", "%41", "%", "%4", "~abc", "~", "{a}", &"a".repeat(97)] {
        assert!(SubjectName::try_from(text.to_string()).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn spelling_is_injective_and_reads_back(a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
        let (x, y) = (SubjectName::from_bytes(&a), SubjectName::from_bytes(&b));
        prop_assert_eq!(a == b, x == y);
        if !a.is_empty() {
            prop_assert_eq!(SubjectName::try_from(x.as_str().to_string()), Ok(x));
        }
    }

    #[test]
    fn any_address_text_is_survived(text in any::<Vec<u8>>()) {
        let facts = Facts { source_address: Some(text), ..Facts::default() };
        let _subject = by(Place::Ip { v6_prefix: 64 }).subject(&facts);
    }
}

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A configuration with one policy over a template, whose one limit counts `by`.
fn config(more: &str, fields: &str, by: &str) -> Config {
    let document = format!(
        r#"{{"version": 1, "gateway": {{"cluster": "g"}}, {more} "policies": [
          {{"name": "p", "match": {{"path": "/{{org}}/{{id}}/**"}}, {fields}
            "rate_limits": [{{"name": "l", "by": {by}, "limit": 1, "per": "1s"}}]}}]}}"#
    );
    let reading = Config::read(&document);
    reading.config.unwrap_or_else(|| panic!("{document}: {:?}", reading.diagnostics))
}

fn secrets(config: &Config) -> Secrets {
    Secrets::new(config, |_| Some(KEY.to_vec())).expect("the keys are there")
}

/// What the one limit of `config` counts, as `kind:name`.
fn named(config: &Config, facts: &Facts<'_>) -> Option<String> {
    let facts = Facts { secrets: secrets(config), ..facts.clone() };
    let subject = config.policies[0].rate_limits[0].by.subject(&facts)?;
    Some(format!("{}:{}", subject.kind.as_str(), subject.name.as_str()))
}

fn mac(text: &str) -> String {
    use hmac::{KeyInit, Mac};
    let key = hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY).expect("any length");
    let bytes = key.chain_update(text.as_bytes()).finalize().into_bytes();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn signed(id: &str) -> String {
    format!("{id}.{}", mac(&format!("tidegate-id-v1:{id}")))
}

#[test]
fn a_cookie_is_found_among_others_and_a_repeated_one_names_nobody() {
    let config = config("", "", r#"{"cookie": "sid"}"#);
    let rows: [(&[&[u8]], Option<&str>); 18] = [
        (&[b"sid=a"], Some("a")),
        (&[b"x=1; sid=a; y=2"], Some("a")),
        (&[b"x=1;sid=a;y=2"], Some("a")),
        (&[b"x=1", b"sid=a"], Some("a")),
        (&[b"sid = a "], Some("a")),
        (&[b"sid=\"a\""], Some("a")),
        (&[b"sid=a=b"], Some("a%3Db")),
        (&[b"sid=\xff"], Some("%FF")),
        (&[b"sid=\""], Some("%22")),
        (&[b"sid=a; sid=b"], None),
        (&[b"sid=a", b"sid=b"], None),
        (&[b"sid=a; sid"], None),
        (&[b"sid=a; sid="], None),
        (&[b"sid="], None),
        (&[b"sid=\"\""], None),
        (&[b"Sid=a"], None),
        (&[b"xsid=a; sidx=b; x=sid=c"], None),
        (&[b"", b";;;", b"=a", b"sid"], None),
    ];
    for (headers, expected) in rows {
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|value| ("cookie", *value)).collect();
        let expected = expected.map(|name| format!("cookie:{name}"));
        assert_eq!(named(&config, &facts("", &headers)), expected, "{headers:?}");
    }
}

#[test]
fn query_and_path_name_somebody_in_their_one_spelling() {
    let query = config("", "", r#"{"query": "key"}"#);
    let path = config("", "", r#"{"path": "id"}"#);
    let rows: [(&[u8], Option<&str>, Option<&str>); 11] = [
        (b"/o/7/x?key=a", Some("query:a"), Some("path:7")),
        (b"/o/7?key=%61+b", Some("query:a%20b"), Some("path:7")),
        (b"/o/7?%6bey=a", Some("query:a"), Some("path:7")),
        (b"/o/7?key=a&key=a", None, Some("path:7")),
        (b"/o/7?key=&x=1", None, Some("path:7")),
        (b"/o/7?key=%", Some("query:%25"), Some("path:7")),
        (b"/o/7?key=%ff%zz", Some("query:%FF%25zz"), Some("path:7")),
        (b"/o/%37;v=1?key=a#key=b", Some("query:a"), Some("path:7")),
        (b"/o/a%2fb", None, Some("path:a%252Fb")),
        (b"//o/./7", None, Some("path:7")),
        (b"/o", None, None),
    ];
    for (target, by_query, by_path) in rows {
        let facts = Facts { target: Some(target), ..Facts::default() };
        assert_eq!(named(&query, &facts).as_deref(), by_query, "{target:?}");
        assert_eq!(named(&path, &facts).as_deref(), by_path, "{target:?}");
    }
    assert_eq!(named(&path, &Facts::default()), None);
}

#[test]
fn a_claim_is_text_or_a_whole_number() {
    let config = config("", "", r#"{"jwt": {"provider": "m", "claim": "sub"}}"#);
    let property = "metadata\0filter_metadata\0envoy.filters.http.jwt_authn\0m\0sub";
    let number = |n: f64| n.to_le_bytes().to_vec();
    let rows = [
        (b"u-1".to_vec(), Some("u-1")),
        (b"12345678".to_vec(), Some("12345678")),
        ("é".as_bytes().to_vec(), Some("%C3%A9")),
        (number(5.0), Some("5")),
        (number(-5.0), Some("-5")),
        (number(0.0), Some("0")),
        (number(9_007_199_254_740_991.0), Some("9007199254740991")),
        (number(9_007_199_254_740_992.0), None),
        (number(0.5), None),
        (number(f64::NAN), None),
        (number(f64::INFINITY), None),
        (vec![1], None),
        (vec![], None),
        (b"  ".to_vec(), None),
        (b"\x01\0\0\0\x01\0\0\0\0\0\0\0a\0\0".to_vec(), None),
    ];
    for (value, expected) in rows {
        let facts = Facts { properties: [(property, value.clone())].into(), ..Facts::default() };
        let expected = expected.map(|name| format!("jwt:{name}"));
        assert_eq!(named(&config, &facts), expected, "{value:?}");
    }
    assert_eq!(named(&config, &Facts::default()), None);
}

#[test]
fn certificates_and_filter_state_name_somebody_unless_they_are_empty() {
    let mtls = config("", "", r#"{"mtls": "subject"}"#);
    let state = config("", "", r#"{"filter_state": "k"}"#);
    for (value, by_mtls, by_state) in [
        ("CN=a, O=b", Some("mtls:CN%3Da%2C%20O%3Db"), Some("filter_state:CN%3Da%2C%20O%3Db")),
        ("-", Some("mtls:-"), None),
        ("", None, None),
    ] {
        let properties = ["connection\0subject_peer_certificate", "filter_state\0k"]
            .map(|p| (p, value.as_bytes().to_vec()));
        let facts = Facts { properties: properties.into(), ..Facts::default() };
        assert_eq!(named(&mtls, &facts).as_deref(), by_mtls, "{value}");
        assert_eq!(named(&state, &facts).as_deref(), by_state, "{value}");
    }
}

#[test]
fn only_a_signed_id_names_its_device() {
    let config =
        config("", "", r#"{"signed": {"cookie": "did", "key": [{"env": "NEW"}, {"env": "OLD"}]}}"#);
    let good = signed("d-1");
    let upper = good.to_uppercase().replace("D-1", "d-1");
    let rows = [
        (good.clone(), Some("signed:d-1")),
        (upper, Some("signed:d-1")),
        (signed("a.b"), Some("signed:a.b")),
        (signed(""), None),
        ("d-1".to_string(), None),
        ("d-1.".to_string(), None),
        (good.replace("d-1", "d-2"), None),
        (good[..good.len() - 1].to_string(), None),
        (format!("{good}0"), None),
        // One digit of the last byte, and one of the middle.
        (good[..good.len() - 1].to_string() + if good.ends_with('0') { "1" } else { "0" }, None),
        (good.replacen(&good[40..41], if &good[40..41] == "0" { "1" } else { "0" }, 1), None),
        (format!("d-1.{}", "0".repeat(64)), None),
        (format!("d-1.{}", "é".repeat(32)), None),
        // The same key over the bare id: a signature made for something else.
        (format!("d-1.{}", mac("d-1")), None),
    ];
    for (value, expected) in rows {
        let header = format!("did={value}");
        let facts = facts("", &[("cookie", header.as_bytes())]);
        assert_eq!(named(&config, &facts).as_deref(), expected, "{value}");
    }
    // By the older of two keys.
    let keys = |name: &str| Some(if name == "OLD" { KEY } else { &[7; 32] }.to_vec());
    let header = format!("did={good}");
    let secrets = Secrets::new(&config, keys).expect("both keys");
    let facts = Facts { secrets, ..facts("", &[("cookie", header.as_bytes())]) };
    assert!(config.policies[0].rate_limits[0].by.subject(&facts).is_some());
}

#[test]
fn a_fingerprint_needs_its_device_and_keeps_its_parts_apart() {
    let config = config(
        r#""identities": {"did": {"header": "x-did", "trusted": true}},"#,
        "",
        r#"{"fingerprint": {"device_id": "did", "tls": "ja4"}}"#,
    );
    let Place::Fingerprint(fingerprint) =
        &config.policies[0].rate_limits[0].by.parts[0].chain[0][0].place
    else {
        panic!("a fingerprint")
    };
    let text = |headers: &[(&str, &[u8])], tls: &str| {
        let properties = [("filter_state\0tidegate.ja4", tls.as_bytes().to_vec())].into();
        let facts = Facts { properties, ..facts("203.0.113.9:1", headers) };
        fingerprint.value(&facts).map(|bytes| String::from_utf8(bytes).expect("ASCII"))
    };
    let did: (&str, &[u8]) = ("x-did", b"d:1");
    let with_agent = text(&[did, ("user-agent", b"curl/8.0")], "t13d_a").expect("a device");
    let parts: Vec<&str> = with_agent.split(':').collect();
    assert_eq!((parts.len(), parts[0], parts[1].len(), parts[2]), (3, "d%3A1", 16, "t13d_a"));
    let digest = sha2::Sha256::digest(b"curl/8.0");
    assert_eq!(parts[1], digest.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>());
    assert_eq!(text(&[did], "-").as_deref(), Some("d%3A1:-:-"));
    assert_eq!(text(&[did], "").as_deref(), Some("d%3A1:-:-"));
    assert_eq!(text(&[("x-did", b"-")], "").as_deref(), Some("%2D:-:-"));
    assert_eq!(text(&[("user-agent", b"curl/8.0")], "t13d_a"), None, "no device, no fingerprint");
    // The address has no part in it: that is what it is for.
    assert!(!config.policies[0].reads_address);
}

#[test]
fn what_is_missing_goes_its_explicit_way() {
    let ids = r#""identities": {"client": "ip", "tenant": {"header": "x-org", "trusted": true}, "both": ["tenant", {"header": "x-b"}]},"#;
    let full: Headers<'_> = &[("x-org", b"acme")];
    let odd: Headers<'_> = &[("x-org", b"a:b")];
    let ip = "192.0.2.7:1";
    let rows: [(&str, &str, &str, Headers<'_>, Option<&str>); 16] = [
        ("", r#""tenant""#, ip, full, Some("tenant:acme")),
        ("", r#""tenant""#, ip, &[], None),
        ("", r#""tenant""#, ip, odd, None),
        (r#""deny""#, r#""tenant""#, ip, &[], None),
        (r#""shared""#, r#""tenant""#, ip, &[], Some("shared:-")),
        (r#"["client", "shared"]"#, r#""tenant""#, ip, &[], Some("combined:ip.1!192.0.2.7")),
        (r#"["client", "shared"]"#, r#""tenant""#, "", &[], Some("shared:-")),
        (r#"["client"]"#, r#""tenant""#, "", &[], None),
        ("", r#"["tenant", "client"]"#, ip, full, Some("combined:tenant!acme+ip!192.0.2.7")),
        ("", r#"["tenant", "client"]"#, ip, &[], None),
        ("", r#"["tenant", "client"]"#, "", full, None),
        (
            r#"{"tenant": "shared"}"#,
            r#"["tenant", "client"]"#,
            ip,
            &[],
            Some("combined:shared!-+ip!192.0.2.7"),
        ),
        (r#"{"tenant": "shared"}"#, r#"["tenant", "client"]"#, "", &[], None),
        (r#"{"client": "tenant"}"#, r#"["tenant", {"header": "x-b"}]"#, ip, full, None),
        (r#"{"both": ["tenant"]}"#, r#""both""#, ip, full, Some("combined:tenant.1!acme")),
        (r#"{"both": ["client"]}"#, r#""both""#, ip, full, Some("combined:ip.1!192.0.2.7")),
    ];
    for (missing, by, source, headers, expected) in rows {
        let field = match missing {
            "" => String::new(),
            missing => format!(r#""missing_identity": {missing},"#),
        };
        let config = config(ids, &field, by);
        let facts = facts(source, headers);
        assert_eq!(named(&config, &facts).as_deref(), expected, "{missing} {by} {source}");
        let counted = config.policies[0].rate_limits[0].by.counted(&facts);
        let of_tenant = counted.as_ref().is_some_and(|c| c.subject.is_of_tenant());
        let tenant = counted.is_some_and(|c| c.tenant != Tenant::None);
        assert_eq!(
            of_tenant, tenant,
            "{missing} {by}: the tenant is named by the subject or not at all"
        );
        assert_eq!(tenant, expected.is_some_and(|e| e.contains("acme")), "{missing} {by}");
    }
}

#[test]
fn a_stand_in_is_never_taken_for_the_real_one() {
    let ids = r#""identities": {"key": {"header": "x-key", "trusted": true}},"#;
    let config = config(ids, r#""missing_identity": {"key": {"header": "x-other"}},"#, r#""key""#);
    let real = named(&config, &facts("", &[("x-key", b"acme")]));
    let claimed = named(&config, &facts("", &[("x-other", b"acme")]));
    assert_eq!(real.as_deref(), Some("header:acme"));
    assert_eq!(claimed.as_deref(), Some("combined:header.1!acme"));
}

#[test]
fn hidden_subjects_say_nothing_of_their_values() {
    let config = config(r#""hash_subjects": {"env": "K"},"#, "", r#"["ip", {"header": "x-key"}]"#);
    let of = |ip: &str, key: &str| named(&config, &facts(ip, &[("x-key", key.as_bytes())]));
    let one = of("192.0.2.7:1", "alice").expect("somebody");
    let expected = format!(
        "combined:ip!~{}+header!~{}",
        &mac("tidegate-subject-v1:ip:192.0.2.7")[..32],
        &mac("tidegate-subject-v1:header:alice")[..32]
    );
    assert_eq!(one, expected);
    assert_ne!(of("192.0.2.8:1", "alice"), Some(one.clone()));
    assert_ne!(of("192.0.2.7:1", "bob"), Some(one));
}

#[test]
fn a_key_that_is_missing_or_short_is_refused_with_its_field() {
    let hidden = config(r#""hash_subjects": {"env": "K"},"#, "", r#""ip""#);
    let signed = config("", "", r#"{"signed": {"cookie": "did", "key": {"env": "K"}}}"#);
    for (config, field) in
        [(hidden, "hash_subjects"), (signed, "policies[0].rate_limits[0].by.signed.key")]
    {
        let missing = Secrets::new(&config, |_| None).expect_err("no key");
        assert!(
            missing.starts_with(&format!("{field}: the environment variable K is not set; ")),
            "{missing}"
        );
        let short = Secrets::new(&config, |_| Some(b"short".to_vec())).expect_err("too short");
        assert!(
            short.starts_with(&format!("{field}: the environment variable K holds 5 bytes")),
            "{short}"
        );
        assert!(!short.contains("short\""));
    }
}

/// Few letters, so that near misses come up often; all that means something somewhere among them.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            Just(b'a'),
            Just(b'%'),
            Just(b'+'),
            Just(b'!'),
            Just(b':'),
            Just(b'.'),
            Just(b'-'),
            Just(b'~'),
            any::<u8>()
        ],
        0..5,
    )
}

/// What a request names of the three sources of a limit; often the same in several.
fn tuple() -> impl Strategy<Value = [Option<Vec<u8>>; 3]> {
    let one = || prop::option::of(prop_oneof![Just(b"a".to_vec()), value()]);
    [one(), one(), one()]
}

proptest! {
    /// Over every way in which three headers and their stand-ins can be there or missing: two
    /// requests share a subject only if the same places named the same values.
    #[test]
    fn no_two_tuples_share_a_spelling(one in tuple(), other in tuple(), hidden in any::<bool>()) {
        let hide = if hidden { r#""hash_subjects": {"env": "K"},"# } else { "" };
        let ids = r#""identities": {"a": {"header": "a"}, "b": {"header": "b"}, "c": {"header": "c"}, "bc": ["b", "c"]},"#;
        let config = config(
            &format!("{hide}{ids}"),
            r#""missing_identity": {"a": ["bc", "shared"], "b": ["c", "shared"]},"#,
            r#"["a", "b"]"#,
        );
        let see = |tuple: &[Option<Vec<u8>>; 3]| {
            let headers: Vec<(&str, &[u8])> = ["a", "b", "c"]
                .into_iter()
                .zip(tuple)
                .filter_map(|(name, value)| Some((name, value.as_deref()?)))
                .collect();
            let facts = facts("", &headers);
            let subject = named(&config, &facts).expect("shared at last");
            // What was in fact used, by place.
            let has = |name: &str| facts.header(name).map(<[u8]>::to_vec);
            let used = match (has("a"), has("b"), has("c")) {
                (Some(a), Some(b), _) => vec![(0, a), (1, b)],
                (Some(a), None, Some(c)) => vec![(0, a), (2, c)],
                (Some(a), None, None) => vec![(0, a)],
                (None, Some(b), Some(c)) => vec![(1, b), (2, c)],
                (None, Some(b), None) => vec![(1, b)],
                (None, None, Some(c)) => vec![(2, c)],
                (None, None, None) => vec![],
            };
            (subject, used)
        };
        let (one, other) = (see(&one), see(&other));
        prop_assert_eq!(one.0 == other.0, one.1 == other.1, "{:?} {:?}", one, other);
        let name = one.0.split_once(':').expect("kind and name").1.to_string();
        prop_assert!(SubjectName::try_from(name).is_ok(), "the gateway reads what the filter writes");
    }

    /// Whatever a client sends, each source names somebody in a canonical spelling or nobody.
    #[test]
    fn hostile_values_are_survived_by_every_source(
        headers in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..200)), 0..6),
        target in prop::collection::vec(any::<u8>(), 0..80),
        property in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        const NAMES: [&str; 4] = ["cookie", "x-key", "user-agent", "x-did"];
        let target: Vec<u8> = [b"/o/".as_slice(), &target].concat();
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (NAMES[*name], value.as_slice())).collect();
        let key = r#""key": {"env": "K"}"#;
        let fingerprint = r#"{"fingerprint": {"device_id": "did", "tls": "ja4"}}"#;
        let signed = [format!(r#"{{"signed": {{"cookie": "a", {key}}}}}"#), format!(r#"{{"signed": {{"header": "x-key", {key}}}}}"#)];
        let bys = [
            r#""ip""#, r#"{"header": "x-key"}"#, r#"{"cookie": "a"}"#, r#"{"query": "a"}"#, r#"{"path": "id"}"#,
            r#"{"jwt": {"provider": "m", "claim": "c"}}"#, r#"{"mtls": "subject"}"#, r#""ja4""#,
            fingerprint, &signed[0], &signed[1],
        ];
        for by in bys {
            let did = match by == fingerprint {
                true => r#""identities": {"did": {"header": "x-did", "trusted": true}},"#,
                false => "",
            };
            let config = config(did, "", by);
            let properties = config.policies[0].properties.iter().map(|path| (path.as_str(), property.clone()));
            let facts = Facts {
                source_address: Some(property.clone()),
                target: Some(&target),
                properties: properties.collect(),
                ..facts("", &headers)
            };
            if let Some(named) = named(&config, &facts) {
                let name = named.split_once(':').expect("kind and name").1.to_string();
                prop_assert!(SubjectName::try_from(name).is_ok(), "{}: {}", by, named);
            }
        }
    }

    /// A cookie is found where a plain reading of the rules finds it.
    #[test]
    fn cookies_agree_with_a_plain_reading(text in "[as=;\" ]{0,24}") {
        let config = config("", "", r#"{"cookie": "s"}"#);
        let mut values = Vec::new();
        for pair in text.split(';') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if name.trim() == "s" {
                let value = value.trim();
                let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                values.push(inner.unwrap_or(value).to_string());
            }
        }
        let expected = match values.as_slice() {
            [one] if !one.trim().is_empty() => {
                Some(format!("cookie:{}", SubjectName::from_bytes(one.as_bytes()).as_str()))
            }
            _ => None,
        };
        prop_assert_eq!(named(&config, &facts("", &[("cookie", text.as_bytes())])), expected);
    }
}
