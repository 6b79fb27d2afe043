//! Tests of endpoints: what is one, what is two, and what is none.

use super::*;
use proptest::prelude::*;
use std::string::ToString;

fn of(target: &str) -> Result<String, BadEndpoint> {
    Endpoint::of(b"POST", target.as_bytes(), None).map(|endpoint| endpoint.0)
}

#[test]
fn one_endpoint_has_one_spelling() {
    let uuid = "/o/8e03978e-40d5-43e8-bc93-6894a57f9324";
    let pairs = [
        ("/v1/orders/17/refund", "/v1/orders/4711/refund", "POST /v1/orders/:int/refund"),
        ("/v1/orders?x=1", "/v1/orders", "POST /v1/orders"),
        ("/v1/orders#top", "/v1/orders/", "POST /v1/orders"),
        ("//v1///orders", "/v1/orders", "POST /v1/orders"),
        ("/v1/./orders", "/v1/x/../orders", "POST /v1/orders"),
        ("/../../v1", "/v1", "POST /v1"),
        ("/v1;a=b/orders;v=2", "/v1/orders", "POST /v1/orders"),
        ("/%76%31/orders", "/v1/orders", "POST /v1/orders"),
        ("/caf%c3%a9", "/café", "POST /caf%C3%A9"),
        ("/a%2bb", "/a%2Bb", "POST /a%2Bb"),
        (uuid, "/o/00000000-0000-4000-8000-00000000000A", "POST /o/:uuid"),
        ("/o/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/o/01bx5zzkbkactav9wevgemmvrz", "POST /o/:ulid"),
        ("/o/507f1f77bcf86cd799439011", "/o/0123456789AB", "POST /o/:hex"),
        ("/d/2026-11-21", "/d/1999-01-01", "POST /d/:date"),
        ("/c/cus_Nf1abc2def", "/c/cs_test_a1b2c3d4", "POST /c/:pid"),
        ("/t/aB3dE6gH9jK2mN5pQ", "/t/Zx9-Yw8_Vu7-Ts6-Rq", "POST /t/:tok"),
        ("http://host/a/1", "/a/2", "POST /a/:int"),
        ("", "", "no path"),
        ("/", "/.", "POST /"),
    ];
    for (one, other, expected) in pairs {
        if expected == "no path" {
            assert_eq!(of(one), Err(BadEndpoint::NoPath));
            continue;
        }
        assert_eq!(of(one).as_deref(), Ok(expected), "{one}");
        assert_eq!(of(other).as_deref(), Ok(expected), "{other}");
    }
}

#[test]
fn different_endpoints_stay_apart() {
    let pairs = [
        ("/v1/orders", "/v1/Orders"),
        ("/v1/orders/1", "/v1/orders/1/refund"),
        ("/v1/line_items", "/v1/line_item"),
        ("/a%2Bb", "/a+b"),
        ("/o/:int", "/o/7"),
        ("/o/cafebabecafe", "/o/deadbeefdead"),
        ("/o/2026-1-1", "/o/2026-11-21"),
        ("/o/averylongwordwithoutdigits", "/o/anotherlongwordwithoutdigit"),
        ("/o/{id}", "/o/%7Bid"),
    ];
    for (one, other) in pairs {
        assert_ne!(of(one).expect(one), of(other).expect(other), "{one} {other}");
    }
    let get = Endpoint::of(b"PUT", b"/v1/orders", None).expect("an endpoint");
    assert_ne!(Ok(get.0), of("/v1/orders"), "the method is part of it");
}

#[test]
fn what_servers_read_differently_is_refused() {
    let long = std::format!("/{}", "a".repeat(PATH_LEN_MAX));
    let deep = "/a".repeat(SEGMENTS_MAX + 1);
    let rows = [
        ("/a%2Fb", BadEndpoint::Ambiguous(b'/')),
        ("/a%5cb", BadEndpoint::Ambiguous(b'\\')),
        ("/a\\b", BadEndpoint::Ambiguous(b'\\')),
        ("/a%00b", BadEndpoint::Ambiguous(0)),
        ("/a%0ab", BadEndpoint::Ambiguous(b'\n')),
        ("/a\u{7f}", BadEndpoint::Ambiguous(0x7f)),
        ("/a%", BadEndpoint::Escape),
        ("/a%4", BadEndpoint::Escape),
        ("/a%zz", BadEndpoint::Escape),
        ("/x/..;%2f/login", BadEndpoint::Ambiguous(b'/')),
        ("*", BadEndpoint::NoPath),
        (&long, BadEndpoint::TooLong),
        (&deep, BadEndpoint::TooDeep),
    ];
    for (target, expected) in rows {
        assert_eq!(of(target), Err(expected), "{target}");
        let template = Endpoint::of(b"POST", target.as_bytes(), Some("/t"));
        if expected != BadEndpoint::TooDeep {
            assert_eq!(template, Err(expected), "{target}: a template does not make it sound");
        }
        assert!(!expected.to_string().is_empty());
    }
    let at_most = [&long[..PATH_LEN_MAX], &deep[..deep.len() - 2], "/a?x=%zz%2F"];
    for target in at_most {
        assert!(of(target).is_ok(), "{target}");
    }
    for method in ["", "A B", "POST:", &"X".repeat(33)] {
        let endpoint = Endpoint::of(method.as_bytes(), b"/a", None);
        assert_eq!(endpoint, Err(BadEndpoint::Method), "{method}");
    }
}

#[test]
fn a_template_wins_and_is_no_guess_of_another() {
    let by_template = |target: &str| {
        let template = Some("/v1/orders/{id}/refund");
        Endpoint::of(b"POST", target.as_bytes(), template).map(|endpoint| endpoint.0)
    };
    let expected = "POST /v1/orders/{id}/refund";
    for target in ["/v1/orders/summer-sale/refund", "/v1/orders/17/refund?x"] {
        assert_eq!(by_template(target).as_deref(), Ok(expected));
    }
    assert_ne!(of("/v1/orders/{id}/refund").as_deref(), Ok(expected), "braces of a client's");
    assert_ne!(of("/v1/orders/%7Bid%7D/refund").as_deref(), Ok(expected));
}

proptest! {
    #[test]
    fn any_request_has_a_sound_endpoint_or_none(
        method in any::<Vec<u8>>(), target in any::<Vec<u8>>(), template in proptest::option::of("/[ -~é]{0,9}")
    ) {
        let template = template.as_deref();
        for method in [method.as_slice(), b"POST"] {
            if let Ok(endpoint) = Endpoint::of(method, &target, template) {
                prop_assert_eq!(Endpoint::try_from(endpoint.0.clone()), Ok(endpoint));
            }
        }
    }

    #[test]
    fn an_endpoint_of_no_ids_is_its_own(path in "(/[a-z:%é{}]{1,5}){1,4}") {
        if let Ok(once) = of(&path) {
            let again = of(once.strip_prefix("POST ").expect("a method"));
            prop_assert_eq!(again, Ok(once));
        }
    }
}
