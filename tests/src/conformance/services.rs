//! Owns the upstream and the gateways of a scenario on real sockets: they answer by the very rules
//! that the simulator uses, and write down what reached them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_host_sim::{Answer, Fault, HeaderMap, Outcome, Reply, Service, ServiceRequest};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::clients::{lines, map_of, piece};
use super::clock::Clock;
use super::corpus::Case;
use super::record::{Lane, Recorder, shown};
use super::simulated::{RESET, end};
use crate::http1::{Framing, Head, Reader};

/// The services of one scenario. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    tasks: Vec<JoinHandle<()>>,
    _kept: Vec<TcpSocket>,
}

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// What Envoy finds behind a cluster.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Listens(SocketAddr),
    /// Nobody listens there.
    Refuses(SocketAddr),
    HasNoHosts,
    /// A service that a circuit breaker lets nobody reach.
    IsFull(SocketAddr),
}

/// One service, shared by its connections.
#[derive(Clone)]
struct Behind {
    cluster: String,
    is_upstream: bool,
    service: Arc<Mutex<Box<dyn Service + Send>>>,
    seen: Arc<AtomicUsize>,
    clock: Clock,
    out: Recorder,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A bound but not yet running service.
pub(super) struct Bound {
    listeners: Vec<(String, TcpListener)>,
    /// Ports where nobody listens, kept so that nobody else does.
    kept: Vec<TcpSocket>,
    /// By the name of the cluster; the upstream has the empty name.
    pub(super) at: BTreeMap<String, Place>,
}

/// Takes an address for each cluster of a scenario and for its upstream.
pub(super) async fn bind(case: &Case) -> Bound {
    let mut bound = Bound { listeners: Vec::new(), kept: Vec::new(), at: BTreeMap::new() };
    for cluster in case.clusters().into_iter().chain([""]) {
        let fate = match cluster {
            "" => case.scenario.fate_of_upstream(),
            _ => case.scenario.fate_of_cluster(cluster),
        };
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let addr = socket.local_addr().expect("a bound socket");
        let place = match fate {
            Some(Fault::NoHosts) => Place::HasNoHosts,
            Some(Fault::Overflow) => Place::IsFull(addr),
            Some(Fault::Refused) => Place::Refuses(addr),
            _ => Place::Listens(addr),
        };
        if matches!(place, Place::Listens(_)) {
            let listener = socket.listen(BACKLOG).expect("a bound socket listens");
            bound.listeners.push((cluster.to_owned(), listener));
        } else {
            bound.kept.push(socket);
        }
        bound.at.insert(cluster.to_owned(), place);
    }
    bound
}

impl Bound {
    /// Begins to answer.
    pub(super) fn run(self, case: &Case, clock: Clock, out: &Recorder) -> Running {
        let gateway = case.scenario.gateway().expect("rules, as nobody binds a service here");
        let gateway = Arc::new(Mutex::new(gateway));
        let upstream = Arc::new(Mutex::new(case.scenario.upstream()));
        let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        let mut tasks = Vec::new();
        for (cluster, listener) in self.listeners {
            let is_upstream = cluster.is_empty();
            let behind = Behind {
                service: Arc::clone(if is_upstream { &upstream } else { &gateway }),
                seen: Arc::clone(&counts[usize::from(is_upstream)]),
                cluster,
                is_upstream,
                clock,
                out: out.clone(),
            };
            tasks.push(tokio::spawn(accept(listener, behind)));
        }
        Running { tasks, _kept: self.kept }
    }
}

async fn accept(listener: TcpListener, behind: Behind) {
    while let Ok((stream, _)) = listener.accept().await {
        let behind = behind.clone();
        tokio::spawn(async move {
            // How a connection ends is written down where it matters.
            if behind.serve(stream).await.is_err() {}
        });
    }
}

// === impl Behind ===

impl Behind {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (from, mut into) = stream.into_split();
        let mut reader = Reader::new(from);
        while let Some(head) = reader.head().await? {
            let nth = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
            let lane = Lane::Call { is_upstream: self.is_upstream, nth };
            let headers = request_headers(&head);
            self.note(&lane, shown(&headers));
            reader.begin_body(head.framing(Framing::Length(0)));
            let cluster = self.cluster.clone();
            let request = ServiceRequest { cluster, headers, ..ServiceRequest::default() };
            if !self.exchange(&mut reader, &mut into, &lane, request).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One request and its answer; whether the connection goes on.
    async fn exchange(
        &self,
        reader: &mut Reader<OwnedReadHalf>,
        into: &mut OwnedWriteHalf,
        lane: &Lane,
        mut request: ServiceRequest,
    ) -> io::Result<bool> {
        let is_head = request.method() == "HEAD";
        let early = self.service().call_early(0, &request);
        let rest = async {
            let body = reader.body().await;
            match &body {
                Ok((body, trailers)) => self.note(lane, end(body, &map_of(trailers))),
                Err(_) => self.note(lane, RESET.to_owned()),
            }
            body
        };
        if let Some(reply) = early {
            let (body, goes_on) = tokio::join!(rest, self.answer(into, reply, is_head));
            return Ok(body.is_ok() && goes_on?);
        }
        let Ok((body, trailers)) = rest.await else {
            return Ok(false);
        };
        request.body = body;
        request.trailers = map_of(&trailers);
        let reply = self.service().call(0, &request);
        tokio::select! {
            goes_on = self.answer(into, reply, is_head) => goes_on,
            () = reader.closed() => {
                self.note(lane, RESET.to_owned());
                Ok(false)
            }
        }
    }

    fn note(&self, lane: &Lane, text: String) {
        self.out.push(self.clock.now_ms(), lane.clone(), text);
    }

    fn service(&self) -> MutexGuard<'_, Box<dyn Service + Send>> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an answer when it is due, or what a fault makes of it; whether the connection goes on.
    async fn answer(
        &self,
        into: &mut OwnedWriteHalf,
        reply: Reply,
        is_head: bool,
    ) -> io::Result<bool> {
        self.clock.pass(reply.after_ns).await;
        match reply.outcome {
            Outcome::Answer(answer) => {
                self.write(into, &answer, is_head).await?;
                Ok(true)
            }
            Outcome::Fault(Fault::Timeout) => std::future::pending().await,
            Outcome::Fault(Fault::Garbage) => {
                into.write_all(b"\xff\xfe this is no HTTP\r\n\r\n").await?;
                Ok(false)
            }
            Outcome::Fault(Fault::ResetAfterHeaders) => {
                const UNTIL_HEADERS_ARE_SEEN_NS: u64 = 20_000_000;
                into.write_all(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                self.clock.pass(UNTIL_HEADERS_ARE_SEEN_NS).await;
                Ok(false)
            }
            Outcome::Fault(_) => Ok(false),
        }
    }

    async fn write(
        &self,
        into: &mut OwnedWriteHalf,
        answer: &Answer,
        is_head: bool,
    ) -> io::Result<()> {
        let is_chunked = !answer.chunks.is_empty() || answer.trailers.is_some();
        let mut bytes = head(answer, is_chunked);
        if is_head {
            return into.write_all(&bytes).await;
        }
        bytes.extend(piece(&answer.body, is_chunked));
        let mut passed_ns = 0;
        for chunk in &answer.chunks {
            into.write_all(&bytes).await?;
            self.clock.pass(chunk.after_ns.saturating_sub(passed_ns)).await;
            passed_ns = chunk.after_ns;
            bytes = piece(&chunk.data, true);
        }
        if is_chunked {
            bytes.extend(b"0\r\n");
            bytes.extend(answer.trailers.as_ref().map(lines).unwrap_or_default());
            bytes.extend(b"\r\n");
        }
        into.write_all(&bytes).await
    }
}

fn request_headers(head: &Head) -> HeaderMap {
    let mut headers = HeaderMap::default();
    if let Some(host) = head.header("host").filter(|host| !host.is_empty()) {
        headers.add(b":authority", host);
    }
    headers.add(b":path", head.word(1));
    headers.add(b":method", head.word(0));
    for (name, value) in head.headers.iter().filter(|(name, _)| name != "host") {
        headers.add(name.as_bytes(), value.clone());
    }
    headers
}

fn head(answer: &Answer, is_chunked: bool) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} x\r\n", answer.status).into_bytes();
    bytes.extend(lines(&answer.headers));
    let has_no_body = answer.status == 204 || answer.status == 304;
    if is_chunked {
        bytes.extend(b"transfer-encoding: chunked\r\n");
    } else if answer.headers.first(b"content-length").is_none() && !has_no_body {
        bytes.extend(format!("content-length: {}\r\n", answer.body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}
