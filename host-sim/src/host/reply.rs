//! Local replies: how Envoy renders them and where they run. It must not know why one is sent.

use super::headers::HeaderMap;
use super::stream::{Direction, Stop};
use super::vm::Vm;
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

    /// The headers and the body that go to the client.
    pub(crate) fn render(&self, request: &HeaderMap) -> (HeaderMap, Vec<u8>) {
        if is_grpc(request) { self.render_grpc() } else { self.render_http(request) }
    }

    fn render_http(&self, request: &HeaderMap) -> (HeaderMap, Vec<u8>) {
        let mut headers = HeaderMap::default();
        headers.add(b":status", self.status.to_string());
        for (key, value) in &self.headers {
            headers.add(key, value.clone());
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
        headers.add(b"content-type", "application/grpc");
        for (key, value) in &self.headers {
            headers.add(key, value.clone());
        }
        let grpc_status = self.grpc_status.unwrap_or_else(|| grpc_status_of_http(self.status));
        headers.replace(b"grpc-status", grpc_status.to_string());
        if !self.body.is_empty() {
            headers.replace(b"grpc-message", self.body.clone());
        }
        (headers, Vec::new())
    }
}

impl Vm {
    /// A local reply: through the response callbacks while the request is under way, instead of the upstream's answer after that.
    pub(crate) fn reply(&mut self, context: u32, reply: &LocalReply) {
        let now_ns = self.state().now_ns();
        let Some(stream) =
            self.stream(context).filter(|stream| !stream.detached && !stream.is_over())
        else {
            return;
        };
        if stream.response.sent.headers.is_some() {
            stream.reset(now_ns, &reply.details);
            return;
        }
        let (headers, body) = reply.render(&stream.request.headers);
        // The rest of the request's body is not read any more.
        stream.is_cut_short = !stream.request.ended;
        stream.epoch += 1;
        stream.replied = true;
        reply.details.clone_into(&mut stream.details);
        stream.request.stop = Stop::All;
        if stream.response.started {
            stream.response.replace_unsent(headers, body, now_ns);
            return;
        }
        self.arrive_headers(context, Direction::Response, headers, body.is_empty());
        if !body.is_empty() {
            self.arrive_data(context, Direction::Response, body, true);
        }
    }
}

fn is_grpc(request: &HeaderMap) -> bool {
    let kind = request.first(b"content-type").unwrap_or_default();
    kind == b"application/grpc"
        || kind.starts_with(b"application/grpc+")
        || kind.starts_with(b"application/grpc;")
}

/// gRPC's own table for proxies.
fn grpc_status_of_http(status: u32) -> u32 {
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
