//! What an exchange tells of itself: the attributes of request, response, connection and upstream. It must not know who asks.

use super::headers::HeaderMap;
use super::reply::grpc_status_of_http;
use super::stream::{Http, Stream};
use crate::abi::values::encode_map;

/// An exchange as one context sees it at this moment.
pub(crate) struct Attributes<'a> {
    http: &'a Http,
    /// Envoy reads headers through the pointers that the context has; they go with Continue or a resume.
    request: Option<&'a HeaderMap>,
    response: Option<&'a HeaderMap>,
    is_over: bool,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of(stream: &Stream, http: &'a Http) -> Self {
        let is_open = |side_open: bool| side_open || stream.logging;
        Self {
            http,
            request: is_open(stream.request.headers_open).then_some(&http.request.headers),
            response: is_open(stream.response.headers_open)
                .then_some(&http.response.headers)
                .filter(|_| http.response.started),
            is_over: stream.logging,
        }
    }

    /// An attribute's bytes by its dotted path.
    pub(crate) fn get(&self, dotted: &str) -> Option<Vec<u8>> {
        let (group, name) = dotted.split_once('.')?;
        match group {
            "request" => self.of_request(name),
            "response" => self.of_response(name),
            "connection" => of_connection(name),
            "destination" => of_destination(name),
            "upstream" => self.of_upstream(name),
            _ => None,
        }
    }

    fn of_request(&self, name: &str) -> Option<Vec<u8>> {
        match name {
            "protocol" if self.http.is_http3 => return Some(b"HTTP/3".to_vec()),
            "protocol" => return Some(b"HTTP/1.1".to_vec()),
            "time" => return Some(number(self.http.begin_unix_ns)),
            "size" => return Some(number(self.http.request.size)),
            "total_size" => {
                let headers = u64::try_from(self.http.request.headers.byte_size()).ok()?;
                return Some(number(self.http.request.size.saturating_add(headers)));
            }
            "duration" => return self.is_over.then(|| number(self.http.lasted_ns)),
            _ => {}
        }
        let headers = self.request?;
        let header = |key: &str| headers.first(key.as_bytes()).map(<[u8]>::to_vec);
        if let Some(key) = name.strip_prefix("headers.") {
            return header(key);
        }
        match name {
            "headers" => Some(encode_map(headers.pairs().iter().cloned())),
            "path" => header(":path"),
            "url_path" => Some(split_path(headers)?.0.into_bytes()),
            "query" => Some(split_path(headers)?.1.into_bytes()),
            "host" => header(":authority"),
            "scheme" => header(":scheme"),
            "method" => header(":method"),
            "id" => header("x-request-id"),
            "useragent" => header("user-agent"),
            "referer" => header("referer"),
            _ => None,
        }
    }

    fn of_response(&self, name: &str) -> Option<Vec<u8>> {
        if let Some(key) = name.strip_prefix("headers.") {
            return self.response?.first(key.as_bytes()).map(<[u8]>::to_vec);
        }
        match name {
            "headers" => Some(encode_map(self.response?.pairs().iter().cloned())),
            "code" => Some(number(self.http.code?)),
            "code_details" => {
                Some(self.http.details.clone().into_bytes()).filter(|details| !details.is_empty())
            }
            "flags" => Some(number(self.http.flags)),
            "grpc_status" => Some(number(self.grpc_status()?)),
            "size" => Some(number(u64::try_from(self.http.response.sent.body.len()).ok()?)),
            _ => None,
        }
    }

    /// The answer's own, or what its HTTP status means to gRPC.
    fn grpc_status(&self) -> Option<u64> {
        let written = self.response.and_then(|headers| headers.text("grpc-status"));
        if let Some(written) = written {
            return written.parse().ok();
        }
        let code = u32::try_from(self.http.code?).unwrap_or(u32::MAX);
        Some(grpc_status_of_http(code).into())
    }

    fn of_upstream(&self, name: &str) -> Option<Vec<u8>> {
        const PORT: u64 = 8080;
        if name == "request_attempt_count" {
            return Some(number(self.http.attempts));
        }
        if !self.http.has_upstream {
            return None;
        }
        match name {
            "address" => Some(format!("127.0.0.1:{PORT}").into_bytes()),
            "port" => Some(number(PORT)),
            "transport_failure_reason" => Some(Vec::new()),
            _ => None,
        }
    }
}

/// Connections here are plain ones.
fn of_connection(name: &str) -> Option<Vec<u8>> {
    match name {
        "mtls" => Some(vec![0]),
        "id" => Some(number(1)),
        "requested_server_name" => Some(Vec::new()),
        _ => None,
    }
}

fn of_destination(name: &str) -> Option<Vec<u8>> {
    const PORT: u64 = 10_000;
    match name {
        "address" => Some(format!("127.0.0.1:{PORT}").into_bytes()),
        "port" => Some(number(PORT)),
        _ => None,
    }
}

fn number(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

fn split_path(headers: &HeaderMap) -> Option<(String, String)> {
    let path = headers.text(":path")?;
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    Some((path.to_owned(), query.to_owned()))
}
