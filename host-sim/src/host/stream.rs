//! One HTTP exchange: what all its filters share, and what one filter's context sees of it. It must not call a plugin.

use super::properties::Properties;
use std::cell::RefCell;
use std::rc::Rc;

use super::headers::HeaderMap;
use super::lints::watch::StreamWatch;

/// Envoy's response flag of a client that closed its connection.
pub(crate) const CLIENT_LEFT: u64 = 1 << 14;

/// Towards the upstream, or towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// The number of an exchange in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) usize);

/// What the filters of one exchange share, whichever VM they live in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Http {
    pub(crate) request: Message,
    pub(crate) response: Message,
    /// Why the response is what it is, as access logs show it.
    pub(crate) details: String,
    /// The response's status as access logs show it.
    pub(crate) code: Option<u64>,
    /// Why, as bits: Envoy's response flags.
    pub(crate) flags: u64,
    /// When the request arrived, since 1970.
    pub(crate) begin_unix_ns: u64,
    /// Known at the end.
    pub(crate) lasted_ns: u64,
    /// How often the request was sent up, or tried to be.
    pub(crate) attempts: u64,
    /// An upstream answered.
    pub(crate) has_upstream: bool,
    /// The client left.
    pub(crate) is_disconnected: bool,
    /// The client speaks HTTP/3.
    pub(crate) is_http3: bool,
    /// The reply went out before the request was read: HTTP/1 closes the connection.
    pub(crate) is_cut_short: bool,
    /// Dotted path to bytes: from the client's connection and from `proxy_set_property`.
    pub(crate) properties: Properties,
}

/// A request or a response on its way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// Whether headers arrived at the first filter.
    pub(crate) started: bool,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
    /// The one buffer that all filters of a direction share; empty once what it held went on.
    pub(crate) buffered: Option<Vec<u8>>,
    /// How much of its body arrived.
    pub(crate) size: u64,
    /// Nothing more will arrive.
    pub(crate) ended: bool,
    /// All of it left the last filter.
    pub(crate) has_left: bool,
    /// What left the last filter.
    pub(crate) sent: Sent,
}

/// What a direction passed on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    pub(crate) headers: Option<HeaderMap>,
    pub(crate) headers_at_ns: Option<u64>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) ended_at_ns: Option<u64>,
    pub(crate) reset: bool,
}

/// What one context may read and write of one direction: Envoy's pointers, set around callbacks.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Set before the headers callback, gone with Continue or a resume.
    pub(crate) headers_open: bool,
    pub(crate) trailers_open: bool,
    /// The chunk of the running body callback.
    pub(crate) chunk: Option<Vec<u8>>,
    /// The running body callback is about the shared buffer.
    pub(crate) sees_buffer: bool,
    /// A resume within the callback took the body out of sight.
    pub(crate) is_body_hidden: bool,
    /// The last body callback asked to buffer: every chunk joins the shared buffer and shows all of it.
    pub(crate) is_buffering: bool,
    /// Whether the last headers or body callback was told of the end.
    pub(crate) is_end: bool,
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
    /// How often the host asked the guest for memory to hand something over.
    pub allocations: u64,
    /// By how much the guest's memory grew; it never shrinks again.
    pub grown_bytes: u64,
    /// Instructions, roughly, host calls included.
    pub fuel: u64,
}

/// A stream context of one VM.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) root: u32,
    pub(crate) http: Rc<RefCell<Http>>,
    pub(crate) request: Side,
    pub(crate) response: Side,
    /// In `on_log`, where headers are readable again.
    pub(crate) logging: bool,
    /// In `on_log`, `on_done` or `on_delete`: the exchange is over.
    pub(crate) ending: bool,
    pub(crate) usage: Usage,
    pub(crate) watch: StreamWatch,
}

// === impl Http ===

impl Http {
    pub(crate) fn message(&mut self, direction: Direction) -> &mut Message {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    /// Whether the client got all it will get.
    pub(crate) fn is_over(&self) -> bool {
        self.response.sent.ended_at_ns.is_some()
    }
}

// === impl Stream ===

impl Stream {
    pub(crate) fn new(id: StreamId, root: u32, http: Rc<RefCell<Http>>) -> Self {
        Self {
            id,
            root,
            http,
            request: Side::default(),
            response: Side::default(),
            logging: false,
            ending: false,
            usage: Usage::default(),
            watch: StreamWatch::default(),
        }
    }

    pub(crate) fn side(&mut self, direction: Direction) -> &mut Side {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }
}

// === impl Usage ===

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        let Self { host_calls, host_bytes, callouts, allocations, grown_bytes, fuel } = other;
        self.host_calls += host_calls;
        self.host_bytes += host_bytes;
        self.callouts += callouts;
        self.allocations += allocations;
        self.grown_bytes += grown_bytes;
        self.fuel += fuel;
    }
}
