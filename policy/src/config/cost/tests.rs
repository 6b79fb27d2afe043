//! Tests of the fields of a cost: what is read, and one mistake a row.

use super::*;
use crate::config::{Config, Reading};
use std::string::ToString;
use std::vec::Vec;

fn read(cost: &str) -> Reading {
    Config::read(&format!(
        r#"{{"version": 1, "gateway": {{"cluster": "c"}}, "policies": [
            {{"name": "p", "match": {{"path": "/**"}},
             "rate_limits": [{{"name": "l", "by": "ip", "limit": 60, "per": "1m", "burst": 20, "cost": {cost}}}]}}]}}"#
    ))
}

#[test]
fn every_source_is_read_with_its_defaults() {
    let header = |name: &str| RequestSource::Header(name.into());
    let response = |source, reserve, max| Cost::Response(ResponseCost { source, reserve, max });
    let rows = [
        ("5", Cost::Fixed(5)),
        (
            r#"{"header": "X-Cost"}"#,
            Cost::Request(RequestCost { source: header("x-cost"), default: 1, max: 20 }),
        ),
        (
            r#"{"header": "x", "default": 3, "max": 4}"#,
            Cost::Request(RequestCost { source: header("x"), default: 3, max: 4 }),
        ),
        (
            r#"{"query": "n"}"#,
            Cost::Request(RequestCost {
                source: RequestSource::Query("n".into()),
                default: 1,
                max: 20,
            }),
        ),
        (
            r#"{"body_bytes": "1KiB"}"#,
            Cost::Body(BodyCost { unit_bytes: 1024, unknown: 20, max: None }),
        ),
        (
            r#"{"body_bytes": "1GiB", "max": 7}"#,
            Cost::Body(BodyCost { unit_bytes: 1 << 30, unknown: 7, max: Some(7) }),
        ),
        (
            r#"{"response_header": "x-t", "reserve": 9, "max": 5000}"#,
            response(ResponseSource::Header("x-t".into()), 9, 5000),
        ),
        (r#"{"response_trailer": "x-t"}"#, response(ResponseSource::Trailer("x-t".into()), 1, 20)),
        (
            r#"{"response_metadata": {"namespace": "ns", "key": "k"}}"#,
            response(ResponseSource::Metadata("metadata\0filter_metadata\0ns\0k".into()), 1, 20),
        ),
    ];
    for (text, cost) in rows {
        let reading = read(text);
        assert_eq!(reading.diagnostics, [], "{text}");
        let config = reading.config.expect("sound");
        assert_eq!(config.policies[0].rate_limits[0].cost, cost, "{text}");
    }
}

#[test]
fn each_mistake_gets_its_own_sentence() {
    let rows = [
        ("0", "cost: 0 is no valid number here; write a whole number from 1 to 1000000000"),
        (
            "21",
            "cost: a cost of 21 never fits into a burst of 20; write at most 20, or raise the burst",
        ),
        ("{}", "cost: a cost has exactly one source; write a number of units"),
        (r#"{"header": "a", "query": "b"}"#, "cost: a cost has exactly one source"),
        (r#"{"header": "a b"}"#, "cost.header: \"a b\" is no header name"),
        (r#"{"header": "a\r\nb"}"#, "is no header name"),
        (r#"{"query": ""}"#, "cost.query: \"\" is no parameter name"),
        (
            r#"{"header": "a", "default": 9, "max": 8}"#,
            "cost: default is 9, of which at most 8 ever fits; keep default within max (8) and burst (20)",
        ),
        (
            r#"{"response_header": "a", "reserve": 21, "max": 50}"#,
            "cost: reserve is 21, of which at most 20 ever fits",
        ),
        (r#"{"body_bytes": "1KiB", "unknown": 21}"#, "cost: unknown is 21"),
        (r#"{"body_bytes": "1KB"}"#, "cost.body_bytes: \"1KB\" is no size; did you mean \"1KiB\"?"),
        (
            r#"{"body_bytes": "0B"}"#,
            "cost.body_bytes: \"0B\" is no size; write a size from 1B to 1GiB",
        ),
        (r#"{"body_bytes": "5GiB"}"#, "cost.body_bytes: \"5GiB\" is no size"),
        (r#"{"body_bytes": "99999999999B"}"#, "is no size"),
        (r#"{"body_bytes": 1024}"#, "cost.body_bytes: 1024 is no text"),
        (
            r#"{"response_metadata": {"namespace": "a b", "key": "k"}}"#,
            "cost.response_metadata.namespace: \"a b\" is no namespace",
        ),
        (r#"{"response_metadata": {"namespace": "a"}}"#, "cost.response_metadata.key: missing"),
        (r#""5""#, "cost: \"5\" is no table; write a number of units"),
    ];
    for (text, expected) in rows {
        let reading = read(text);
        let found: Vec<_> = reading.diagnostics.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|line| line.starts_with("error: ") && line.contains(expected)),
            "{text}: {found:#?}"
        );
        assert_eq!(reading.config, None, "{text}");
    }
}

#[test]
fn a_number_that_its_source_has_no_use_for_is_doubted() {
    let reading = read(r#"{"body_bytes": "1KiB", "reserve": 2}"#);
    let found: Vec<_> = reading.diagnostics.iter().map(ToString::to_string).collect();
    let doubt = "warning: policies[0].rate_limits[0].cost.reserve: reserve changes nothing beside body_bytes; beside body_bytes stand unknown and max";
    assert!(found.iter().any(|line| line.starts_with(doubt)), "{found:?}");
    assert!(reading.config.is_some());
}

#[test]
fn a_cost_that_can_never_be_admitted_is_doubted() {
    let reading = read(r#"{"header": "x-cost", "max": 1000000}"#);
    let found: Vec<_> = reading.diagnostics.iter().map(ToString::to_string).collect();
    assert!(found.iter().any(|line| line.contains("is never admitted")), "{found:?}");
    assert!(reading.config.is_some());
}
