//! Tests of the fields that say what clients get to see: one mistake a row, each with its sentence.

use super::*;
use crate::config::{Config, Reading};
use std::string::ToString;

fn read(document: &str, policy: &str) -> Reading {
    Config::read(&format!(
        r#"{{"version": 1, "gateway": {{"cluster": "c"}}, {document} "policies": [
            {{"name": "p", "match": {{"path": "/**"}}, {policy}
             "rate_limits": [{{"name": "l", "by": "ip", "limit": 1, "per": "1s"}}]}}]}}"#
    ))
}

#[test]
fn each_mistake_gets_its_own_sentence() {
    let rows = [
        (
            r#""rate_limit_fields": "draft10","#,
            "",
            "rate_limit_fields: \"draft10\" is no dialect; did you mean \"draft-10\"?",
        ),
        (
            r#""rate_limit_fields": false,"#,
            "",
            "rate_limit_fields: false is no dialect; write \"off\" in quotes",
        ),
        (
            r#""problems": {"base": "/problems/"},"#,
            "",
            "problems.base: \"/problems/\" is no base of problem types; write an absolute URI",
        ),
        (
            r#""problems": {"base": "https://a/b"},"#,
            "",
            "problems.base: a reason follows the base, so that types would begin https://a/bquota-exceeded; end it in / or #: \"https://a/b/\"",
        ),
        (r#""problems": {"base": "https://a/\r\nx: y/"},"#, "", "is no base of problem types"),
        (
            r#""problems": {"registered": 1},"#,
            "",
            "problems.registered: 1 is no truth value; write true or false",
        ),
        (
            "",
            r#""denied": {"body": "in {{retry_aftr}} s"},"#,
            "policies[0].denied.body: {{retry_aftr}} stands for nothing; did you mean {{retry_after}}?",
        ),
        (
            "",
            r#""denied": {"body": "{{user}}"},"#,
            "policies[0].denied.body: {{user}} stands for nothing; known are reason, retry_after, policy, limit, decision_id, status",
        ),
        ("", r#""denied": {"body": "{{reason"},"#, "policies[0].denied.body: \"{{\" is not closed"),
        (
            "",
            r#""denied": {"body": " "},"#,
            "policies[0].denied.body: a body of 0 bytes, blanks left aside",
        ),
        (
            "",
            r#""denied": {"content_type": "application/json", "body": "{{reason}}"},"#,
            "policies[0].denied.body: application/json, but the body is no JSON once it is filled in: ",
        ),
        (
            "",
            r#""denied": {"content_type": "text/html\r\nx-evil: 1", "body": "x"},"#,
            "policies[0].denied.content_type: ",
        ),
        (
            "",
            r#""denied": {"content_type": "html", "body": "x"},"#,
            "policies[0].denied.content_type: \"html\" is no content type; ",
        ),
        (
            "",
            r#""denied": {"status": {"service-overloaded": 500}},"#,
            "policies[0].denied.status.service-overloaded: 500 is no status of this denial; write 429 or 503",
        ),
        (
            "",
            r#""denied": {"status": {"client-identity-required": 401}},"#,
            "policies[0].denied.status.client-identity-required: 401 is no status of this denial; write 403 or 400",
        ),
        (
            "",
            r#""denied": {"status": {"client-identity-required": 404}},"#,
            "404 is no valid number here",
        ),
        (
            "",
            r#""denied": {"status": {"idempotency-conflict": 410}},"#,
            "policies[0].denied.status.idempotency-conflict: 410 is no status of this denial; write 422 or 409 or 400",
        ),
    ];
    for (document, policy, expected) in rows {
        let reading = read(document, policy);
        let found: Vec<_> = reading.diagnostics.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|line| line.starts_with("error: ") && line.contains(expected)),
            "{document} {policy}: {found:#?}"
        );
        assert_eq!(reading.config, None);
    }
}

#[test]
fn what_says_nothing_is_doubted() {
    for policy in [r#""denied": {},"#, r#""denied": {"content_type": "text/html"},"#] {
        let reading = read("", policy);
        let found: Vec<_> = reading.diagnostics.iter().map(ToString::to_string).collect();
        let doubt =
            "warning: policies[0].denied: without a body the usual problem document is sent";
        assert!(found.iter().any(|line| line.starts_with(doubt)), "{found:?}");
        assert!(reading.config.is_some());
    }
}

#[test]
fn sixteen_kibibytes_are_a_body_and_more_are_not() {
    for (size, sound) in [(16 * 1024, true), (16 * 1024 + 1, false)] {
        let body = "x".repeat(size);
        let reading = read("", &format!(r#""denied": {{"body": "{body}"}},"#));
        assert_eq!(reading.config.is_some(), sound);
    }
}
