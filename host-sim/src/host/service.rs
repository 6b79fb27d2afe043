//! What lies behind a cluster: the trait an in-process service implements. It must not know plugins or scenarios.

use super::headers::HeaderMap;

/// A service behind a cluster, in virtual time: it never sleeps and never reads a clock.
///
/// A call is answered at once, with the delay after which the caller shall see the answer.
pub trait Service {
    /// Answers one request that was sent at `now_unix_ns`.
    fn call(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Reply;

    /// An upstream that answers when the request's headers are there, before its body; nothing waits for all of it.
    fn call_early(&mut self, now_unix_ns: u64, request: &ServiceRequest) -> Option<Reply> {
        let _too_early = (now_unix_ns, request);
        None
    }
}

/// A whole request to a service or an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRequest {
    /// The cluster it was sent to; empty for the route's upstream.
    pub cluster: String,
    /// Headers with pseudo-headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers, often none.
    pub trailers: HeaderMap,
}

/// What a service does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How long the caller waits.
    pub after_ns: u64,
    /// What it then sees.
    pub outcome: Outcome,
    /// How often a request had been sent by then, retries of Envoy's included; 1 without any.
    pub tries: u64,
}

/// An answer, or what goes wrong instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A complete HTTP answer.
    Answer(Answer),
    /// No answer.
    Fault(Fault),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers without `:status`.
    pub headers: HeaderMap,
    /// The body that comes with the headers.
    pub body: Vec<u8>,
    /// More of the body, later.
    pub chunks: Vec<Chunk>,
    /// Trailers, if the answer ends with them.
    pub trailers: Option<HeaderMap>,
}

/// A later piece of an answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// After the answer's headers.
    pub after_ns: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What a network does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection is refused; Envoy makes a 503 of it.
    Refused,
    /// Nothing answers until the caller's timeout; Envoy makes a 504 of it.
    Timeout,
    /// What comes is no HTTP; Envoy makes a 502 of it.
    Garbage,
    /// The connection closes before any header; Envoy makes a 503 of it.
    ResetBeforeHeaders,
    /// The stream is reset after the headers: no headers, no body, status 11.
    ResetAfterHeaders,
    /// The cluster has no hosts: the dispatch itself fails.
    NoHosts,
    /// The cluster's circuit breaker is full: the dispatch itself fails.
    Overflow,
}

impl ServiceRequest {
    /// The method, or nothing.
    pub fn method(&self) -> String {
        self.headers.text(":method").unwrap_or_default()
    }

    /// The path with its query, or nothing.
    pub fn path(&self) -> String {
        self.headers.text(":path").unwrap_or_default()
    }
}

impl Reply {
    /// An answer without delay.
    pub fn now(answer: Answer) -> Self {
        Self { after_ns: 0, outcome: Outcome::Answer(answer), tries: 1 }
    }

    /// Until all of it is there.
    pub(crate) fn lasts_ns(&self) -> u64 {
        let last_ns = match &self.outcome {
            Outcome::Answer(answer) => answer.chunks.last().map_or(0, |chunk| chunk.after_ns),
            Outcome::Fault(_) => 0,
        };
        self.after_ns.saturating_add(last_ns)
    }
}

impl Answer {
    /// An answer of a status and a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: HeaderMap::default(),
            body: body.into(),
            chunks: Vec::new(),
            trailers: None,
        }
    }
}
