//! Owns what of an answer is kept: its status, the headers that may be kept, its body, and the octets
//! in which headers are recorded. Knows neither records nor stores.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// What is kept by default: what the body is, and where what was made lies.
pub const HEADERS_KEPT: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-disposition",
    "etag",
    "last-modified",
    "link",
    "location",
];
/// The most bytes of all kept headers together, names included.
pub const HEADERS_LEN_MAX: usize = 8 * 1024;
/// The same as they are recorded: sealed they are a little longer.
const RECORDED_LEN_MAX: usize = HEADERS_LEN_MAX + 128;
/// The most bytes of a body that is kept, unless the policy says otherwise.
pub const BODY_LEN_MAX: usize = 64 * 1024;

/// Never kept, whatever a policy lists: credentials and sessions of one client, what belongs to one
/// connection (RFC 9110 §7.6.1) or one answer, and what the next hop makes itself.
const NEVER: [&str; 31] = [
    "age",
    "authentication-info",
    "authorization",
    "b3",
    "baggage",
    "connection",
    "content-length",
    "cookie",
    "date",
    "idempotent-replayed",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "retry-after",
    "server",
    "set-cookie",
    "set-cookie2",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "via",
    "www-authenticate",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-request-id",
];
/// Families that are never kept: of tracing, of proxies, of budgets that go on counting, and our own.
const NEVER_BEGINNING: [&str; 6] =
    [":", "x-b3-", "x-envoy-", "x-ratelimit-", "ratelimit", "x-tidegate-"];

/// Which headers are kept; by default [`HEADERS_KEPT`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRule {
    more: Vec<String>,
}

/// A header that a policy lists and that is never kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverKept {
    /// Its name.
    pub name: String,
}

/// The headers of a stored answer, in their order. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredHeaders(Vec<(Vec<u8>, Vec<u8>)>);

/// An answer that was stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredAnswer {
    /// The upstream's status.
    pub status: u16,
    /// Its headers, as far as they are kept.
    pub headers: StoredHeaders,
    /// Its body, any octets; `None` if it was not kept.
    pub body: Option<Vec<u8>>,
}

// === impl HeaderRule ===

impl HeaderRule {
    /// [`HEADERS_KEPT`] and `more`.
    pub fn with(more: &[&str]) -> Result<Self, NeverKept> {
        let more: Vec<String> = more.iter().map(|name| name.to_ascii_lowercase()).collect();
        match more.iter().find(|name| never(name.as_bytes())) {
            Some(name) => Err(NeverKept { name: name.clone() }),
            None => Ok(Self { more }),
        }
    }

    /// Whether a header is kept.
    pub fn keeps(&self, name: &[u8]) -> bool {
        let listed = |kept: &str| kept.as_bytes().eq_ignore_ascii_case(name);
        !never(name)
            && (HEADERS_KEPT.into_iter().any(listed) || self.more.iter().any(|kept| listed(kept)))
    }

    /// What is kept of an answer's headers; `None` if that is more than [`HEADERS_LEN_MAX`]. Part of
    /// them would be another answer.
    pub fn kept<'h>(
        &self,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Option<StoredHeaders> {
        let kept = headers.into_iter().filter(|(name, _)| self.keeps(name));
        let kept = kept.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        StoredHeaders::new(kept.collect())
    }
}

fn never(name: &[u8]) -> bool {
    let begins = |family: &str| {
        let start = name.get(..family.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(family.as_bytes()))
    };
    NEVER.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
        || NEVER_BEGINNING.into_iter().any(begins)
}

// === impl StoredHeaders ===

impl StoredHeaders {
    /// `None` if they have more than [`HEADERS_LEN_MAX`] octets as recorded.
    pub fn new(headers: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Self> {
        let len = headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>();
        (len <= HEADERS_LEN_MAX).then_some(Self(headers))
    }

    /// Each header's name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// As they are recorded: for each the lengths of name and value, two octets each (big-endian), the
    /// name, the value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in &self.0 {
            for part in [name, value] {
                // Bounded by HEADERS_LEN_MAX.
                bytes.extend(u16::try_from(part.len()).unwrap_or_default().to_be_bytes());
            }
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// Those of an answer that is sealed: one, of any octets.
    pub fn sealed(name: &[u8], value: Vec<u8>) -> Self {
        Self(Vec::from([(name.to_owned(), value)]))
    }

    /// Exactly what [`Self::to_bytes`] writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut headers = Vec::new();
        while !rest.is_empty() {
            let (lens, after) = rest.split_first_chunk::<4>()?;
            let [a, b, c, d] = *lens;
            let (name_len, value_len) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let (name, after) = after.split_at_checked(usize::from(name_len))?;
            let (value, after) = after.split_at_checked(usize::from(value_len))?;
            headers.push((name.to_owned(), value.to_owned()));
            rest = after;
        }
        (bytes.len() <= RECORDED_LEN_MAX).then_some(Self(headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn what_belongs_to_one_client_or_one_connection_is_never_kept() {
        let rule = HeaderRule::with(&["X-Order-Id"]).expect("may be kept");
        for name in
            ["Content-Type", "location", "ETAG", "x-order-id", "X-ORDER-ID", "content-encoding"]
        {
            assert!(rule.keeps(name.as_bytes()), "{name}");
        }
        assert!(!HeaderRule::default().keeps(b"x-order-id"), "only where it is listed");
        let never = [
            "Set-Cookie",
            "set-cookie",
            "Authorization",
            "www-authenticate",
            "Connection",
            "keep-alive",
            "Transfer-Encoding",
            "te",
            "trailer",
            "upgrade",
            "proxy-authorization",
            "date",
            "content-length",
            "traceparent",
            "X-B3-SpanId",
            "b3",
            "Baggage",
            "uber-trace-id",
            "X-Amzn-Trace-Id",
            "x-cloud-trace-context",
            "Idempotent-Replayed",
            "x-request-id",
            "X-Envoy-Upstream-Service-Time",
            ":status",
            "RateLimit-Policy",
            "x-ratelimit-remaining",
            "x-tidegate-decision",
            "retry-after",
            "age",
        ];
        for name in never {
            assert!(!rule.keeps(name.as_bytes()), "{name}");
            let listed = HeaderRule::with(&[name]);
            assert_eq!(listed, Err(NeverKept { name: name.to_ascii_lowercase() }));
        }
    }

    #[test]
    fn kept_headers_stay_in_order_and_too_many_are_none() {
        let rule = HeaderRule::default();
        let headers: [(&[u8], &[u8]); 4] = [
            (b"Link", b"</a>"),
            (b"Set-Cookie", b"s=1"),
            (b"link", b"\xff\0"),
            (b"content-type", b"text/plain"),
        ];
        let kept = rule.kept(headers).expect("few");
        let expected = vec![
            (b"link".to_vec(), b"</a>".to_vec()),
            (b"link".to_vec(), b"\xff\0".to_vec()),
            (b"content-type".to_vec(), b"text/plain".to_vec()),
        ];
        assert_eq!(kept, StoredHeaders(expected));
        let long = vec![b'x'; HEADERS_LEN_MAX];
        assert_eq!(rule.kept([(b"etag".as_slice(), long.as_slice())]), None);
        let fits = &long[8..];
        assert!(rule.kept([(b"etag".as_slice(), fits)]).is_some());
    }

    proptest! {
        #[test]
        fn headers_are_read_back(headers in any::<Vec<(Vec<u8>, Vec<u8>)>>()) {
            if let Some(headers) = StoredHeaders::new(headers) {
                prop_assert_eq!(StoredHeaders::from_bytes(&headers.to_bytes()), Some(headers));
            }
        }

        #[test]
        fn any_bytes_are_headers_or_none(bytes in any::<Vec<u8>>()) {
            if let Some(headers) = StoredHeaders::from_bytes(&bytes) {
                prop_assert_eq!(headers.to_bytes(), bytes);
            }
        }
    }
}
