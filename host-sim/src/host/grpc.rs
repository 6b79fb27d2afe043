//! gRPC calls and streams of one VM: what is refused at once, what is open, what has to be told. It must not know how a service answers.
//!
//! A service sees a call or a stream as one HTTP request, once the plugin has ended its side: the length-prefixed messages
//! are the body. A stream that the plugin never ends is never answered.

use std::collections::BTreeMap;

use super::clock::Event;
use super::grpc_answer::{GrpcNews, UNAVAILABLE, news_of, within};
use super::headers::HeaderMap;
use super::root_news::RootNews;
use super::service::{Fault, Outcome, ServiceRequest};
use super::vm::Vm;
use super::vm_state::VmState;
use crate::abi::codes::Status;
use crate::abi::protobuf::Message;

/// One message and one answer, or many of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrpcKind {
    Call = 1,
    Stream = 2,
}

/// A call or stream as the plugin asks for it.
pub(crate) struct GrpcOpening {
    pub(crate) kind: GrpcKind,
    /// The name of a cluster, or Envoy's GrpcService message.
    pub(crate) target: Vec<u8>,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) metadata: HeaderMap,
    /// A call's message.
    pub(crate) message: Option<Vec<u8>>,
    /// Zero waits for ever; streams have none.
    pub(crate) timeout_ms: u32,
}

/// What of gRPC a VM holds.
#[derive(Default)]
pub(crate) struct Grpc {
    calls: u32,
    streams: u32,
    open: BTreeMap<u32, Open>,
    /// What the running callback may read.
    pub(crate) initial: Option<HeaderMap>,
    pub(crate) message: Option<Vec<u8>>,
    pub(crate) trailing: Option<HeaderMap>,
}

struct Open {
    root: u32,
    /// Gone once the plugin ended its side.
    request: Option<ServiceRequest>,
    is_closed_here: bool,
    is_closed_there: bool,
}

/// Where a call shall go.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Cluster(String),
    /// A message that names no service; Envoy ends itself on it.
    Nothing,
}

const NS_PER_MS: u64 = 1_000_000;

// === impl GrpcKind ===

impl GrpcKind {
    fn of(token: u32) -> Option<Self> {
        match token & 3 {
            1 => Some(Self::Call),
            2 => Some(Self::Stream),
            _ => None,
        }
    }
}

// === impl GrpcOpening ===

impl GrpcOpening {
    pub(crate) fn summary(&self) -> String {
        let Self { service, method, timeout_ms, .. } = self;
        let target = String::from_utf8_lossy(&self.target);
        format!("{} {service}/{method}, {timeout_ms} ms", target.escape_debug())
    }

    /// Bytes that are no GrpcService message are the name of a cluster.
    fn target(&self) -> Target {
        const ENVOY_GRPC: u64 = 1;
        const GOOGLE_GRPC: u64 = 2;
        const NAME: u64 = 1;
        let Some(message) = Message::parse(&self.target) else {
            return Target::Cluster(String::from_utf8_lossy(&self.target).into_owned());
        };
        let inner = message.find_bytes(ENVOY_GRPC).or_else(|| message.find_bytes(GOOGLE_GRPC));
        let name = inner.and_then(|inner| Some(Message::parse(inner)?.text(NAME)?.to_owned()));
        name.map_or(Target::Nothing, Target::Cluster)
    }

    fn is_named_by_message(&self) -> bool {
        Message::parse(&self.target).is_some()
    }

    /// The request as the service gets it, with what Envoy adds.
    fn into_request(self, cluster: String) -> ServiceRequest {
        let mut headers = HeaderMap::default();
        headers.add(b":method", "POST");
        headers.add(b":path", format!("/{}/{}", self.service, self.method));
        headers.add(b":authority", cluster.clone());
        headers.add(b":scheme", "http");
        headers.add(b"te", "trailers");
        if self.kind == GrpcKind::Call {
            headers.add(b"grpc-timeout", format!("{}m", self.timeout_ms));
        }
        headers.add(b"content-type", "application/grpc");
        for (key, value) in self.metadata.pairs() {
            headers.add(key, value.clone());
        }
        headers.replace(b"x-envoy-internal", "true");
        if self.timeout_ms > 0 {
            headers.replace(b"x-envoy-expected-rq-timeout-ms", self.timeout_ms.to_string());
        }
        let body = self.message.map(|message| framed(&message)).unwrap_or_default();
        ServiceRequest { cluster, headers, body, trailers: HeaderMap::default() }
    }
}

/// A message with its prefix: not compressed, and its length.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(message);
    framed
}

// === impl Grpc ===

impl Grpc {
    /// Numbers as HTTP callouts have them, with the kind in the low bits.
    fn next_token(&mut self, kind: GrpcKind) -> u32 {
        let count = match kind {
            GrpcKind::Call => &mut self.calls,
            GrpcKind::Stream => &mut self.streams,
        };
        *count = count.wrapping_add(4);
        *count | kind as u32
    }

    fn find(&mut self, root: u32, token: u32) -> Result<(GrpcKind, &mut Open), Status> {
        let kind = GrpcKind::of(token).ok_or(Status::BadArgument)?;
        let open = self.open.get_mut(&token).filter(|open| open.root == root);
        Ok((kind, open.ok_or(Status::NotFound)?))
    }
}

impl VmState {
    /// Opens a call or a stream. A token is used up also where this fails.
    pub(crate) fn grpc_open(&mut self, opening: GrpcOpening) -> Result<u32, Status> {
        let kind = opening.kind;
        let Target::Cluster(cluster) = opening.target() else {
            self.crash("a gRPC call whose GrpcService names no service");
            return Err(Status::InternalFailure);
        };
        let is_known = self.shared.borrow().network.knows(&cluster) && !cluster.is_empty();
        if !is_known && !opening.is_named_by_message() {
            return Err(Status::ParseFailure);
        }
        let token = self.grpc.next_token(kind);
        let root = self.root_of(self.current);
        if !is_known {
            self.tell(root, 0, RootNews::Grpc { token, news: GrpcNews::no_cluster() });
            return Err(Status::InternalFailure);
        }
        let timeout_ns = u64::from(opening.timeout_ms) * NS_PER_MS;
        let request = opening.into_request(cluster);
        let open = Open { root, request: None, is_closed_here: false, is_closed_there: false };
        self.grpc.open.insert(token, open);
        if let Some(stream) = self.stream_mut() {
            stream.usage.callouts += 1;
        }
        match kind {
            GrpcKind::Call => self.ask_service(root, token, request, timeout_ns),
            GrpcKind::Stream => {
                if let Some(open) = self.grpc.open.get_mut(&token) {
                    open.request = Some(request);
                }
            }
        }
        Ok(token)
    }

    /// What is sent after the plugin ended its side goes nowhere, without an error.
    pub(crate) fn grpc_send(
        &mut self,
        token: u32,
        message: &[u8],
        end: bool,
    ) -> Result<(), Status> {
        if GrpcKind::of(token) != Some(GrpcKind::Stream) {
            return Err(Status::BadArgument);
        }
        let root = self.root_of(self.current);
        let (_, open) = self.grpc.find(root, token)?;
        if let Some(request) = &mut open.request {
            request.body.extend(framed(message));
        }
        if end {
            self.end_side(root, token);
        }
        Ok(())
    }

    /// A call is given up; a stream is ended on this side and still hears what comes.
    pub(crate) fn grpc_close(&mut self, token: u32) -> Result<(), Status> {
        let root = self.root_of(self.current);
        let (kind, open) = self.grpc.find(root, token)?;
        if kind == GrpcKind::Call || open.is_closed_there {
            self.grpc.open.remove(&token);
        } else {
            open.is_closed_here = true;
            self.end_side(root, token);
        }
        Ok(())
    }

    pub(crate) fn grpc_cancel(&mut self, token: u32) -> Result<(), Status> {
        let root = self.root_of(self.current);
        self.grpc.find(root, token)?;
        self.grpc.open.remove(&token);
        Ok(())
    }

    fn end_side(&mut self, root: u32, token: u32) {
        let request = self.grpc.open.get_mut(&token).and_then(|open| open.request.take());
        if let Some(request) = request {
            self.ask_service(root, token, request, 0);
        }
    }

    fn ask_service(&mut self, root: u32, token: u32, request: ServiceRequest, timeout_ns: u64) {
        let Some(kind) = GrpcKind::of(token) else {
            return;
        };
        let reply = {
            let mut shared = self.shared.borrow_mut();
            let (now_ns, now_unix_ns) = (shared.now_ns, shared.now_unix_ns());
            shared.network.call(now_ns, now_unix_ns, request)
        };
        if let Outcome::Fault(Fault::NoHosts | Fault::Overflow) = reply.outcome {
            self.crash("a gRPC call to a cluster that refuses at once (no hosts, circuit breaker)");
            return;
        }
        let Some((after_ns, answer)) = within(reply, timeout_ns) else {
            return;
        };
        for news in news_of(kind, answer) {
            self.tell(root, after_ns, RootNews::Grpc { token, news });
        }
    }

    /// Ends the run: Envoy's process would not survive this.
    fn crash(&mut self, what: &str) {
        let why = format!("{what}: Envoy's whole process crashes on this");
        self.shared.borrow_mut().crash = Some(why);
    }

    pub(crate) fn tell(&mut self, root: u32, after_ns: u64, news: RootNews) {
        let vm = self.vm;
        self.shared.borrow_mut().after(after_ns, Event::Root { vm, root, news });
    }
}

impl Vm {
    /// Something came in for a call or stream; what was given up hears nothing.
    pub(super) fn grpc_news(&mut self, root: u32, token: u32, news: GrpcNews) {
        let state = self.state_mut();
        let is_known = state.grpc.find(root, token).is_ok();
        let Some(kind) = GrpcKind::of(token).filter(|_| is_known || news.is_refusal()) else {
            return;
        };
        match news {
            GrpcNews::Initial(headers) => self.grpc_initial(root, token, headers),
            GrpcNews::Message(message) => self.grpc_message(root, token, message, kind),
            GrpcNews::Trailing(trailers) => self.grpc_trailing(root, token, trailers),
            GrpcNews::Close { status, message } => {
                self.grpc_closed(root, token, status, message, kind);
            }
            GrpcNews::Refused(message) => {
                self.grpc_closed(root, token, UNAVAILABLE, message, kind);
            }
        }
    }

    fn grpc_initial(&mut self, root: u32, token: u32, headers: HeaderMap) {
        let count = headers.count();
        self.state_mut().grpc.initial = Some(headers);
        let function = self.exports.grpc_initial.clone();
        let name = "proxy_on_grpc_receive_initial_metadata";
        self.call(name, root, function, (root, token, count), || {
            format!("token {token}, {count} headers")
        });
        self.state_mut().grpc.initial = None;
    }

    /// The answer to a call ends it; nothing else is told of a call that went well.
    fn grpc_message(&mut self, root: u32, token: u32, message: Vec<u8>, kind: GrpcKind) {
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        self.state_mut().grpc.message = Some(message);
        let function = self.exports.grpc_receive.clone();
        self.call("proxy_on_grpc_receive", root, function, (root, token, len), || {
            format!("token {token}, {len} bytes")
        });
        let grpc = &mut self.state_mut().grpc;
        grpc.message = None;
        if kind == GrpcKind::Call {
            grpc.open.remove(&token);
        }
    }

    fn grpc_trailing(&mut self, root: u32, token: u32, trailers: HeaderMap) {
        let count = trailers.count();
        self.state_mut().grpc.trailing = Some(trailers);
        let function = self.exports.grpc_trailing.clone();
        let name = "proxy_on_grpc_receive_trailing_metadata";
        self.call(name, root, function, (root, token, count), || {
            format!("token {token}, {count} trailers")
        });
        self.state_mut().grpc.trailing = None;
    }

    fn grpc_closed(&mut self, root: u32, token: u32, status: u32, message: String, kind: GrpcKind) {
        let state = self.state_mut();
        state.callouts.last_status = (status, message);
        if let Some(open) = state.grpc.open.get_mut(&token) {
            open.is_closed_there = true;
        }
        let function = self.exports.grpc_close.clone();
        self.call("proxy_on_grpc_close", root, function, (root, token, status), || {
            format!("token {token}, status {status}")
        });
        let state = self.state_mut();
        // The code stays, as it does after a callout.
        state.callouts.last_status.1.clear();
        let is_closed_here = state.grpc.open.get(&token).is_some_and(|open| open.is_closed_here);
        if kind == GrpcKind::Call || is_closed_here {
            state.grpc.open.remove(&token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bytes: &[u8]) -> Target {
        GrpcOpening {
            kind: GrpcKind::Call,
            target: bytes.to_vec(),
            service: String::new(),
            method: String::new(),
            metadata: HeaderMap::default(),
            message: None,
            timeout_ms: 0,
        }
        .target()
    }

    #[test]
    fn a_target_is_a_cluster_by_name_or_by_message() {
        assert_eq!(target(b"gateway"), Target::Cluster("gateway".to_owned()));
        assert_eq!(target(b"\x0a\x06\x0a\x04grpc"), Target::Cluster("grpc".to_owned()));
        assert_eq!(target(b"\x0a\x00"), Target::Cluster(String::new()));
        assert_eq!(target(b"\x12\x06\x0a\x04host"), Target::Cluster("host".to_owned()));
        assert_eq!(target(b""), Target::Nothing);
    }
}
