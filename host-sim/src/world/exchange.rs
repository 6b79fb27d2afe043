//! What a client saw of its request. It must not know how it came about.

use crate::host::headers::HeaderMap;
use crate::host::stream::{Http, Usage};

/// A request and what its client got.
#[derive(Debug, Clone, Default)]
pub struct Exchange {
    /// The client's name.
    pub client: String,
    /// 1 for the client's first request.
    pub nth: usize,
    /// The worker that had it.
    pub worker: usize,
    /// When it was sent, since the run began.
    pub sent_at_ns: u64,
    /// The status, once response headers reached the client.
    pub status: Option<u16>,
    /// Response headers with `:status`.
    pub headers: HeaderMap,
    /// When the response's headers reached the client.
    pub headers_at_ns: Option<u64>,
    /// The body that reached the client.
    pub body: Vec<u8>,
    /// Response trailers.
    pub trailers: Option<HeaderMap>,
    /// When the response was complete or cut.
    pub ended_at_ns: Option<u64>,
    /// The connection broke before the response was complete.
    pub is_reset: bool,
    /// The client left.
    pub is_disconnected: bool,
    /// Why a local reply was sent, as access logs show it.
    pub details: String,
    /// Host calls made for this request.
    pub usage: Usage,
}

impl Exchange {
    /// What the client of a live or ended exchange has.
    pub(crate) fn take_from(&mut self, http: &Http, usage: Usage) {
        let sent = &http.response.sent;
        if let Some(headers) = &sent.headers {
            self.status = headers.text(":status").and_then(|status| status.parse().ok());
            self.headers = headers.clone();
            self.headers_at_ns = sent.headers_at_ns;
            if http.is_cut_short {
                self.headers.replace(b"connection", "close");
            }
        }
        self.body.clone_from(&sent.body);
        self.trailers.clone_from(&sent.trailers);
        self.ended_at_ns = sent.ended_at_ns;
        self.is_reset = sent.reset;
        self.is_disconnected = http.is_disconnected;
        self.details.clone_from(&http.details);
        self.usage = usage;
    }
}
