//! Tests of subjects and their spelling.

use super::*;
use proptest::prelude::*;
use std::string::ToString;
use std::vec;

fn facts<'h>(source: &str, headers: &[(&'h str, &'h [u8])]) -> Facts<'h> {
    Facts {
        source_address: Some(source.as_bytes().to_vec()),
        headers: headers.iter().map(|(k, v)| (k.as_bytes(), *v)).collect(),
    }
}

fn ip_name(source: &str) -> Option<String> {
    let identity = Identity::Ip { v6_prefix: 64 };
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
    let whole = Identity::Ip { v6_prefix: 128 };
    let name = |s: &str| whole.subject(&facts(s, &[])).map(|s| s.name);
    assert_ne!(name("[2001:db8::1]:1"), name("[2001:db8::2]:1"));
}

type Headers<'a> = &'a [(&'a str, &'a [u8])];

#[test]
fn headers_count_as_bytes_and_a_repeated_one_names_nobody() {
    let by = Identity::Header { name: "x-key".to_string() };
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
        let facts = Facts { source_address: Some(text), headers: vec![] };
        let _subject = Identity::Ip { v6_prefix: 64 }.subject(&facts);
    }
}
