//! Tests of costs: every source with what it may be told, row by row.

use super::*;
use proptest::prelude::*;

fn header() -> Cost {
    let source = RequestSource::Header("x-cost".into());
    Cost::Request(RequestCost { source, default: 2, max: 50 })
}

fn facts<'h>(headers: &[(&'h str, &'h str)]) -> Facts<'h> {
    let headers = headers.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes())).collect();
    Facts { headers, ..Facts::default() }
}

fn priced(units: u32, malformed: bool) -> Priced {
    Priced { units, malformed }
}

#[test]
fn a_header_says_what_a_request_costs_within_bounds() {
    let rows = [
        ("7", priced(7, false)),
        (" 7 ", priced(7, false)),
        ("50", priced(50, false)),
        ("51", priced(50, false)),
        ("99999999999999999999999", priced(50, false)),
        ("007", priced(7, false)),
        // Nothing is free where nothing is left.
        ("0", priced(1, false)),
        ("", priced(50, true)),
        ("-1", priced(50, true)),
        ("+1", priced(50, true)),
        ("1.5", priced(50, true)),
        ("1e1", priced(50, true)),
        ("7, 1", priced(50, true)),
        ("ten", priced(50, true)),
        ("\u{0661}", priced(50, true)),
    ];
    for (value, expected) in rows {
        assert_eq!(header().before(&facts(&[("x-cost", value)])), expected, "{value:?}");
    }
    assert_eq!(header().before(&facts(&[])), priced(2, false), "the default");
    let twice = facts(&[("x-cost", "1"), ("x-cost", "1")]);
    assert_eq!(header().before(&twice), priced(50, true), "readers differ in which they take");
}

#[test]
fn a_parameter_says_it_too() {
    let source = RequestSource::Query("n".into());
    let cost = Cost::Request(RequestCost { source, default: 2, max: 50 });
    for (target, expected) in [
        ("/x?n=7", priced(7, false)),
        ("/x?a=1&%6e=%37", priced(7, false)),
        ("/x", priced(2, false)),
        ("/x?n=1&n=2", priced(50, true)),
        ("/x?n", priced(50, true)),
        ("/x#n=7", priced(2, false)),
    ] {
        let facts = Facts { target: Some(target.as_bytes()), ..Facts::default() };
        assert_eq!(cost.before(&facts), expected, "{target}");
    }
    assert_eq!(cost.before(&Facts::default()), priced(2, false));
}

#[test]
fn a_body_costs_by_its_announced_length() {
    let body = |max| Cost::Body(BodyCost { unit_bytes: 1024, unknown: 30, max });
    // Content-Length, whether a body follows, the cap, the cost.
    let rows = [
        (Some("0"), true, None, 1),
        (Some("1"), true, None, 1),
        (Some("1024"), true, None, 1),
        (Some("1025"), true, None, 2),
        (Some("1048576"), true, None, 1024),
        (Some("1048576"), true, Some(100), 100),
        (Some("18446744073709551615"), true, None, u32::MAX),
        (None, false, None, 1),
        (None, true, None, 30),
        (None, true, Some(100), 30),
        // Envoy refuses these before any filter sees them; if not, their length is unknown.
        (Some("-1"), true, None, 30),
        (Some("1, 1"), true, None, 30),
    ];
    for (length, has_body, max, units) in rows {
        let length: Vec<_> = length.iter().map(|length| ("content-length", *length)).collect();
        let facts = Facts { has_body, ..facts(&length) };
        assert_eq!(body(max).before(&facts), priced(units, false), "{length:?} {has_body}");
    }
}

#[test]
fn an_answer_says_it_in_digits_or_as_the_hosts_double() {
    let source = ResponseSource::Header("x-tokens".into());
    let cost = ResponseCost { source, reserve: 10, max: 500 };
    let rows: [(Option<&[u8]>, Option<Priced>); 13] = [
        (None, None),
        (Some(b"0"), Some(priced(0, false))),
        (Some(b"120"), Some(priced(120, false))),
        (Some(b"501"), Some(priced(500, false))),
        (Some(b"12345678"), Some(priced(500, false))),
        (Some(b""), Some(priced(10, true))),
        (Some(b"many"), Some(priced(10, true))),
        (Some(b"-5"), Some(priced(10, true))),
        (Some(&120f64.to_le_bytes()), Some(priced(120, false))),
        (Some(&0f64.to_le_bytes()), Some(priced(0, false))),
        (Some(&119.2f64.to_le_bytes()), Some(priced(120, false))),
        (Some(&(-1f64).to_le_bytes()), Some(priced(10, true))),
        (Some(&f64::NAN.to_le_bytes()), Some(priced(10, true))),
    ];
    for (value, expected) in rows {
        assert_eq!(cost.said(value), expected, "{value:?}");
    }
    assert_eq!(Cost::Response(cost).before(&Facts::default()), priced(10, false));
}

proptest! {
    #[test]
    fn whatever_is_said_stays_within_bounds(value in prop::collection::vec(any::<u8>(), 0..24)) {
        let fields = [(&b"x-cost"[..], &value[..])];
        let facts = Facts { headers: fields.to_vec(), ..Facts::default() };
        let Priced { units, .. } = header().before(&facts);
        prop_assert!((1..=50).contains(&units));
        let source = ResponseSource::Trailer("x".into());
        let cost = ResponseCost { source, reserve: 10, max: 500 };
        prop_assert!(cost.said(Some(&value)).is_some_and(|said| said.units <= 500));
    }
}
