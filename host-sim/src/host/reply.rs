//! Local replies: how Envoy renders them and where they run. It must not know why one is sent.

use super::headers::HeaderMap;
use super::inline::{self, Kind};
use super::iterate::Piece;
use super::process::Process;
use super::stream::{Direction, StreamId};
use crate::abi::pairs::Pairs;

/// A reply that the proxy itself sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalReply {
    pub(crate) status: u32,
    pub(crate) details: String,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Pairs,
    /// None where the plugin left it to the HTTP status.
    pub(crate) grpc_status: Option<u32>,
}

impl LocalReply {
    /// A plain-text reply of the proxy's own.
    pub(crate) fn text(status: u32, body: &str, details: &str) -> Self {
        Self {
            status,
            details: details.to_owned(),
            body: body.as_bytes().to_vec(),
            headers: Pairs::new(),
            grpc_status: None,
        }
    }

    /// What a request gets whose VM is dead.
    pub(crate) fn failed_stream() -> Self {
        const UNAVAILABLE: u32 = 14;
        Self { grpc_status: Some(UNAVAILABLE), ..Self::text(503, "", "wasm_fail_stream") }
    }

    /// The headers and the body that go to the client.
    pub(crate) fn render(&self, request: &HeaderMap) -> (HeaderMap, Vec<u8>) {
        if is_grpc(request) { self.render_grpc() } else { self.render_http(request) }
    }

    fn render_http(&self, request: &HeaderMap) -> (HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::default();
        headers.add(b":status", self.status.to_string());
        for (key, value) in &self.headers {
            inline::add(&mut headers, Some(Kind::Response), key, value.clone());
        }
        if self.body.is_empty() {
            headers.remove(b"content-length");
            headers.remove(b"content-type");
        } else {
            headers.replace(b"content-length", self.body.len().to_string());
            if headers.first(b"content-type").is_none() {
                headers.add(b"content-type", "text/plain");
            }
        }
        let is_head = request.first(b":method") == Some(b"HEAD");
        (headers, if is_head { Vec::new() } else { self.body.clone() })
    }

    /// gRPC clients get 200 and the status in headers alone.
    fn render_grpc(&self) -> (HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::default();
        headers.add(b":status", "200");
        for (key, value) in &self.headers {
            inline::add(&mut headers, Some(Kind::Response), key, value.clone());
        }
        headers.replace(b"content-type", "application/grpc");
        let grpc_status = self.grpc_status.unwrap_or_else(|| grpc_status_of_http(self.status));
        headers.replace(b"grpc-status", grpc_status.to_string());
        if !self.body.is_empty() {
            headers.replace(b"grpc-message", percent_encoded(&self.body));
        }
        (headers, Vec::new())
    }
}

impl Process {
    /// A reply instead of the upstream's answer: through the response callbacks while there is no response yet, straight
    /// to the client while its headers wait, and a reset once they are out.
    pub(super) fn send_local_reply(&mut self, id: StreamId, reply: LocalReply) {
        if self.is_gone(id) {
            return;
        }
        let Some(chain) = self.chain(id) else {
            return;
        };
        // What runs right now goes no further.
        if chain.calls.request {
            chain.request_aborted = true;
        } else if chain.calls.response {
            chain.response_aborted = true;
        }
        let waits_for_callback = chain.calls.request;
        let is_encoded = chain.is_encoded;
        let mut http = chain.http.borrow_mut();
        reply.details.clone_into(&mut http.details);
        let has_response = http.response.started;
        drop(http);
        if !has_response && waits_for_callback {
            chain.prepared.get_or_insert(reply);
        } else if !has_response {
            self.send_through_filters(id, &reply);
        } else if !is_encoded {
            self.send_past_filters(id, &reply);
        } else {
            self.reset(id, &reply.details);
        }
    }

    /// The reply that the last request callback left.
    pub(super) fn send_prepared_reply(&mut self, id: StreamId) {
        if let Some(reply) = self.chain(id).and_then(|chain| chain.prepared.take()) {
            self.send_through_filters(id, &reply);
        }
    }

    fn send_through_filters(&mut self, id: StreamId, reply: &LocalReply) {
        let Some((headers, body)) = self.render(id, reply) else {
            return;
        };
        self.response_headers(id, headers, body.is_empty());
        if !body.is_empty() {
            self.response_data(id, body, true);
        }
    }

    fn send_past_filters(&mut self, id: StreamId, reply: &LocalReply) {
        let Some((headers, body)) = self.render(id, reply) else {
            return;
        };
        self.with_http(id, |http| {
            http.response.headers = headers;
            http.response.buffered = None;
        });
        if let Some(chain) = self.chain(id) {
            chain.is_local_complete = true;
        }
        let has_body = !body.is_empty();
        self.leave_headers(id, Direction::Response, !has_body);
        if has_body {
            self.leave_data(id, Direction::Response, Piece::Chunk(body), true);
        }
    }

    fn render(&mut self, id: StreamId, reply: &LocalReply) -> Option<(HeaderMap, Vec<u8>)> {
        let chain = self.chain(id)?;
        chain.has_replied = true;
        let mut http = chain.http.borrow_mut();
        http.code = Some(u64::from(reply.status));
        Some(reply.render(&http.request.headers))
    }
}

/// As gRPC wants a message in a header: what is not printable ASCII, and the percent sign itself.
fn percent_encoded(text: &[u8]) -> String {
    let encoded = text.iter().map(|byte| match byte {
        b' '..=b'~' if *byte != b'%' => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn is_grpc(request: &HeaderMap) -> bool {
    let kind = request.first(b"content-type").unwrap_or_default();
    kind == b"application/grpc"
        || kind.starts_with(b"application/grpc+")
        || kind.starts_with(b"application/grpc;")
}

/// gRPC's own table for proxies.
pub(super) fn grpc_status_of_http(status: u32) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pairs: &[(&str, &str)]) -> HeaderMap {
        HeaderMap::from_pairs(
            pairs.iter().map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        )
    }

    #[test]
    fn a_body_brings_length_and_type_and_head_drops_only_the_body() {
        let reply = LocalReply::text(429, "slow", "d");
        let (headers, body) = reply.render(&request(&[(":method", "GET")]));
        assert_eq!(
            headers,
            request(&[(":status", "429"), ("content-length", "4"), ("content-type", "text/plain")])
        );
        assert_eq!(body, b"slow");
        let (headers, body) = reply.render(&request(&[(":method", "HEAD")]));
        assert_eq!(headers.text("content-length").as_deref(), Some("4"));
        assert!(body.is_empty());
    }

    #[test]
    fn a_grpc_client_gets_200_and_the_status_in_headers() {
        let reply = LocalReply::text(429, "slow", "d");
        let (headers, body) = reply.render(&request(&[("content-type", "application/grpc+proto")]));
        assert_eq!(headers.text(":status").as_deref(), Some("200"));
        assert_eq!(headers.text("grpc-status").as_deref(), Some("14"));
        assert_eq!(headers.text("grpc-message").as_deref(), Some("slow"));
        assert!(body.is_empty());
    }
}
