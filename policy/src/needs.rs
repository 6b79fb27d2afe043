//! Owns what a request has to be read for: which of its header fields the policies that its path leads
//! to look at. What none of them looks at is read only for those who have to be told of it.

use crate::breaker::by::By;
use crate::config::Policy;

/// What has to be read of a request, beside its path, before its policies can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// `:authority`.
    pub host: bool,
    /// `:method`.
    pub method: bool,
    /// Any other header field.
    pub headers: bool,
}

// === impl Needs ===

impl Needs {
    /// Those of one policy.
    pub(crate) fn of(policy: &Policy) -> Self {
        let limits = &policy.rate_limits;
        let mut sources = limits
            .iter()
            .map(|limit| &limit.by)
            .chain(&policy.rollout_by)
            .flat_map(|identity| identity.sources());
        let headers = !policy.matcher.headers.is_empty()
            // A key is a header.
            || policy.idempotency.is_some()
            || policy.circuit_by.as_ref().is_some_and(By::reads_headers)
            || limits.iter().any(|limit| limit.cost.reads_headers())
            || sources.any(|source| source.place.reads_headers());
        let matcher = &policy.matcher;
        Self { host: matcher.hosts.is_some(), method: matcher.methods.is_some(), headers }
    }

    /// Those of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            host: self.host || other.host,
            method: self.method || other.method,
            headers: self.headers || other.headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::format;

    /// One row for everything that reads a header field, and for what does not.
    #[test]
    fn whoever_looks_at_a_header_needs_the_headers() {
        let nothing = Needs::default();
        let headers = Needs { headers: true, ..nothing };
        let limit = |by: &str| {
            format!(r#""rate_limits": [{{"name": "l", "by": {by}, "limit": 1, "per": "1s"}}]"#)
        };
        let rows = [
            (limit(r#""ip""#), nothing),
            (limit(r#"{"query": "k"}"#), nothing),
            (limit(r#"{"path": "id"}"#), nothing),
            (limit(r#"{"header": "x-k"}"#), headers),
            (limit(r#"{"cookie": "k"}"#), headers),
            (limit(r#"["ip", {"header": "x-k"}]"#), headers),
            (limit(r#"{"signed": {"cookie": "k", "key": {"env": "K"}}}"#), headers),
            (limit(r#""fp""#), headers),
            (
                format!(r#"{}, "missing_identity": {{"q": ["c", "shared"]}}"#, limit(r#""q""#)),
                headers,
            ),
            (
                format!(
                    r#"{}, "mode": {{"enforce": "10%", "by": {{"header": "x-k"}}}}"#,
                    limit(r#""ip""#)
                ),
                headers,
            ),
            (r#""circuit_breaker": {}"#.into(), nothing),
            (r#""circuit_breaker": {"by": "route"}"#.into(), nothing),
            (r#""circuit_breaker": {"by": "q"}"#.into(), nothing),
            (r#""circuit_breaker": {"by": "c"}"#.into(), headers),
        ];
        for (fields, expected) in rows {
            let document = format!(
                r#"{{"version": 1, "gateway": {{"cluster": "g"}},
                    "identities": {{"c": {{"cookie": "c"}}, "q": {{"query": "k"}},
                    "fp": {{"fingerprint": {{"device_id": {{"signed": {{"cookie": "did", "key": {{"env": "K"}}}}}}}}}}}},
                    "policies": [{{"name": "p", "match": {{"path": "/{{id}}"}}, {fields}}}]}}"#
            );
            let reading = Config::read(&document);
            let config = reading.config.unwrap_or_else(|| panic!("{:?}", reading.diagnostics));
            assert_eq!(Needs::of(&config.policies[0]), expected, "{fields}");
        }
    }
}
