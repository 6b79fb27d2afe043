//! One HTTP stream as its filter sees it: two directions, what is held, what is visible, what was passed on. It must not call the plugin.

use std::collections::BTreeMap;

use super::headers::HeaderMap;

/// Towards the upstream, or towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// How far a direction is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    #[default]
    Flowing,
    /// Nothing passes, callbacks still come.
    Single,
    /// Nothing passes and no callback comes.
    All,
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Whether headers arrived at the filter.
    pub(crate) started: bool,
    pub(crate) headers: HeaderMap,
    /// Envoy's pointer: set before the headers callback, gone with Continue or a resume.
    pub(crate) headers_open: bool,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) trailers_open: bool,
    /// Whether the trailers callback had its turn, so that trailers may pass.
    pub(crate) trailers_done: bool,
    /// In the body callback that ends the stream, writing a trailer creates the map.
    pub(crate) trailers_creatable: bool,
    /// Bytes that wait and that no callback sees.
    pub(crate) held: Vec<u8>,
    /// Bytes that get_buffer sees: this chunk, after what was buffered.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) stop: Stop,
    /// Nothing more will arrive.
    pub(crate) ended: bool,
    /// What left the filter.
    pub(crate) sent: Sent,
}

/// What a direction passed on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) headers_at_ns: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) ended_at_ns: Option<u64>,
    pub(crate) reset: bool,
}

/// Host calls and the bytes they moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls from the plugin into the host.
    pub host_calls: u64,
    /// Bytes copied into or out of guest memory.
    pub host_bytes: u64,
    /// HTTP callouts sent.
    pub callouts: u64,
}

/// A stream and its context in one VM.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) root: u32,
    pub(crate) request: Side,
    pub(crate) response: Side,
    /// Grows when a reply or a reset makes the action of the running callback void.
    pub(crate) epoch: u32,
    pub(crate) details: String,
    /// The host stopped calling the plugin for this stream: it was failed or reset.
    pub(crate) detached: bool,
    /// A local reply was sent; the upstream's answer, if any, is not wanted any more.
    pub(crate) replied: bool,
    /// The reply went out before the request was read: HTTP/1 closes the connection.
    pub(crate) is_cut_short: bool,
    /// In `on_log`, where headers are readable again.
    pub(crate) logging: bool,
    pub(crate) usage: Usage,
    /// Dotted path to bytes: from the client's connection and from `proxy_set_property`.
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(root: u32, properties: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            root,
            request: Side::default(),
            response: Side::default(),
            epoch: 0,
            details: String::new(),
            detached: false,
            replied: false,
            is_cut_short: false,
            logging: false,
            usage: Usage::default(),
            properties,
        }
    }

    pub(crate) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Whether the client got all it will get.
    pub(crate) fn is_over(&self) -> bool {
        self.response.sent.ended_at_ns.is_some() || self.response.sent.reset
    }

    /// Ends the stream without the plugin's word: the client's connection breaks.
    pub(crate) fn reset(&mut self, now_ns: u64, details: &str) {
        if self.details.is_empty() {
            details.clone_into(&mut self.details);
        }
        self.epoch += 1;
        self.detached = true;
        self.response.sent.reset = true;
        self.response.sent.ended_at_ns = Some(now_ns);
    }

    /// Fails the stream because its VM is dead: 503 without a body, or a reset once headers are out.
    pub(crate) fn fail(&mut self, now_ns: u64) {
        const DETAILS: &str = "wasm_fail_stream";
        if self.response.sent.headers.is_some() {
            self.reset(now_ns, DETAILS);
            return;
        }
        self.epoch += 1;
        self.detached = true;
        self.replied = true;
        DETAILS.clone_into(&mut self.details);
        let mut headers = HeaderMap::default();
        headers.add(b":status", "503");
        self.response.replace_unsent(headers, Vec::new(), now_ns);
    }
}

// === impl Side ===

impl Side {
    /// The end may be told only when no trailers follow.
    pub(crate) fn body_ends_stream(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    /// Hides the body again; what it holds waits.
    pub(crate) fn hide_body(&mut self) {
        if let Some(body) = self.body.take() {
            self.held.extend(body);
        }
    }

    /// Passes the headers on, if they still wait.
    pub(crate) fn pass_headers(&mut self, now_ns: u64) {
        if self.sent.headers.is_none() {
            self.sent.headers = Some(self.headers.clone());
            self.sent.headers_at_ns = now_ns;
        }
    }

    /// Passes on everything the filter let go.
    pub(crate) fn flush(&mut self, now_ns: u64) {
        self.stop = Stop::Flowing;
        self.hide_body();
        self.pass_headers(now_ns);
        self.sent.body.append(&mut self.held);
        if let (Some(trailers), true) = (&self.trailers, self.trailers_done) {
            self.sent.trailers = Some(trailers.clone());
            self.sent.ended_at_ns = Some(now_ns);
        } else if self.body_ends_stream() {
            self.sent.ended_at_ns = Some(now_ns);
        }
    }

    /// Sends this instead of whatever waits, without any callback.
    pub(crate) fn replace_unsent(&mut self, headers: HeaderMap, body: Vec<u8>, now_ns: u64) {
        *self = Self { started: true, headers, held: body, ended: true, ..Self::default() };
        self.flush(now_ns);
    }
}
