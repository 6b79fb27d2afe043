//! The names of which Envoy's header maps keep one value: what is added to it is joined by a comma. It must not know who adds.
//!
//! The lists were read off Envoy 1.40, by adding each name twice.

use std::borrow::Cow;

use super::headers::HeaderMap;

/// Which list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

const OF_BOTH: [&str; 14] = [
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "keep-alive",
    "proxy-connection",
    "proxy-status",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-request-id",
];

const OF_REQUESTS: [&str; 42] = [
    ":authority",
    ":method",
    ":path",
    ":protocol",
    ":scheme",
    "accept",
    "accept-encoding",
    "authorization",
    "expect",
    "grpc-timeout",
    "if-match",
    "origin",
    "pragma",
    "referer",
    "te",
    "user-agent",
    "x-client-trace-id",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
];

const OF_RESPONSES: [&str; 15] = [
    ":status",
    "access-control-allow-origin",
    "date",
    "etag",
    "grpc-message",
    "grpc-status",
    "location",
    "server",
    "vary",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-ratelimited",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-envoy-upstream-service-time",
];

/// The name under which a map keeps a header; requests know `host` as another name of `:authority`.
pub(crate) fn canonical(kind: Option<Kind>, key: &[u8]) -> Cow<'_, [u8]> {
    if kind == Some(Kind::Request) && key.eq_ignore_ascii_case(b"host") {
        return Cow::Borrowed(b":authority");
    }
    Cow::Borrowed(key)
}

/// Adds a value as Envoy's map of that kind does; other maps keep every value.
pub(crate) fn add(headers: &mut HeaderMap, kind: Option<Kind>, key: &[u8], value: Vec<u8>) {
    let key = canonical(kind, key).to_ascii_lowercase();
    let old = headers.first(&key).filter(|_| is_single(kind, &key));
    match old.map(|old| [old, b",", value.as_slice()].concat()) {
        Some(joined) => headers.overwrite(&key, joined),
        None => headers.add(&key, value),
    }
}

/// Makes of a map what adding its pairs one by one would have made; most maps are that already.
pub(crate) fn join(headers: &mut HeaderMap, kind: Kind) {
    let pairs = headers.pairs();
    let is_odd = |at: usize, key: &[u8]| {
        let is_alias = canonical(Some(kind), key) != key;
        is_alias || pairs.iter().skip(at + 1).any(|(other, _)| other == key)
    };
    if pairs.iter().enumerate().any(|(at, (key, _))| is_odd(at, key)) {
        *headers = joined(kind, headers.pairs());
    }
}

/// The map that comes of adding these pairs one by one.
pub(crate) fn joined(kind: Kind, pairs: &[(Vec<u8>, Vec<u8>)]) -> HeaderMap {
    let mut headers = HeaderMap::default();
    for (key, value) in pairs {
        add(&mut headers, Some(kind), key, value.clone());
    }
    headers
}

fn is_single(kind: Option<Kind>, key: &[u8]) -> bool {
    let is_in = |names: &[&str]| names.iter().any(|name| name.as_bytes() == key);
    match kind {
        Some(Kind::Request) => is_in(&OF_BOTH) || is_in(&OF_REQUESTS),
        Some(Kind::Response) => is_in(&OF_BOTH) || is_in(&OF_RESPONSES),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(kind: Option<Kind>, key: &str) -> Vec<String> {
        let mut headers = HeaderMap::default();
        for value in ["1", "2"] {
            add(&mut headers, kind, key.as_bytes(), value.into());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        headers.pairs().iter().map(|(k, v)| format!("{}={}", text(k), text(v))).collect()
    }

    #[test]
    fn only_maps_that_need_it_are_joined_anew() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            HeaderMap::from_pairs(pairs)
        };
        let rows = [
            (vec![("accept", "1"), ("x-a", "2")], vec![("accept", "1"), ("x-a", "2")]),
            (
                vec![("accept", "1"), ("x-a", "2"), ("accept", "3")],
                vec![("accept", "1,3"), ("x-a", "2")],
            ),
            (vec![("x-a", "1"), ("x-a", "2")], vec![("x-a", "1"), ("x-a", "2")]),
            (vec![("host", "h")], vec![(":authority", "h")]),
        ];
        for (before, after) in rows {
            let mut headers = map(&before);
            join(&mut headers, Kind::Request);
            assert_eq!(headers, map(&after));
        }
    }

    #[test]
    fn single_headers_are_joined_and_others_stand_twice() {
        let (request, response) = (Some(Kind::Request), Some(Kind::Response));
        assert_eq!(twice(request, "Accept"), ["accept=1,2"]);
        assert_eq!(twice(request, "Host"), [":authority=1,2"]);
        assert_eq!(twice(response, "host"), ["host=1", "host=2"]);
        assert_eq!(twice(request, "server"), ["server=1", "server=2"]);
        assert_eq!(twice(response, "server"), ["server=1,2"]);
        assert_eq!(twice(request, "cookie"), ["cookie=1", "cookie=2"]);
        assert_eq!(twice(None, "accept"), ["accept=1", "accept=2"]);
    }
}
