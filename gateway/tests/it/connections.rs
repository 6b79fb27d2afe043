//! Connections that ask nothing, and too many of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate_gateway::Cores;
use tidegate_gateway::http::answer::{self, Answer};
use tidegate_gateway::http::connection::{Handler, ServeSettings, serve};
use tidegate_gateway::metrics::{Metrics, SharedMetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::bench::{Caller, Speaks, request};
use tidegate_tests::eventually;

/// What a connection that is to live has to say something within, also while the machine is busy elsewhere.
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// Where none is to live.
const SOON: Duration = Duration::from_millis(300);
/// Generous for a machine that is busy elsewhere.
const PATIENCE: Duration = Duration::from_secs(60);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: g\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub struct Yes;

impl Handler for Yes {
    async fn handle<B>(&self, _request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        answer::plain(StatusCode::OK, "text/plain", "yes")
    }
}

/// Who has no token is refused, but for one path.
struct Guarded;

impl Handler for Guarded {
    async fn handle<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let known = request.headers().contains_key("authorization");
        let status = match known || Self::is_open(request.uri().path()) {
            true => StatusCode::OK,
            false => StatusCode::UNAUTHORIZED,
        };
        answer::plain(status, "text/plain", "yes")
    }

    fn is_open(path: &str) -> bool {
        path == "/open"
    }
}

/// A listener alone; it ends when the sender is dropped.
async fn listen(connections_max: usize) -> (SocketAddr, SharedMetrics, watch::Sender<bool>) {
    listen_with(Yes, connections_max, FIRST_REQUEST, FIRST_REQUEST).await
}

async fn listen_with<H: Handler>(
    handler: H,
    connections_max: usize,
    first_request_timeout: Duration,
    idle_timeout: Duration,
) -> (SocketAddr, SharedMetrics, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    let metrics = Arc::new(Metrics::new());
    let settings = ServeSettings {
        drain_timeout: Duration::from_millis(1),
        handshake_timeout: first_request_timeout,
        first_request_timeout,
        idle_timeout,
        connections_max,
    };
    tokio::spawn(serve(
        listener,
        Arc::new(handler),
        None,
        Arc::new(Cores::here()),
        Arc::clone(&metrics),
        stopped,
        settings,
    ));
    (address, metrics, stop)
}

async fn connect(address: SocketAddr, says: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(says).await.expect("sent");
    stream
}

/// Waits for the other side's end; a reset is one too, when something was left unread.
async fn closed(stream: &mut TcpStream, what: &str) {
    let mut heard = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut heard)).await;
    match ended.unwrap_or_else(|_elapsed| panic!("still open: {what}")) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}"),
    }
}

/// One request on a connection that stays open.
async fn asks(stream: &mut TcpStream) -> Result<(), String> {
    stream.write_all(GET).await.map_err(|error| error.to_string())?;
    let mut heard = Vec::new();
    while !heard.ends_with(b"yes") {
        let read = timeout(PATIENCE, stream.read_buf(&mut heard)).await;
        match read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())? {
            0 => return Err(format!("ended after {:?}", String::from_utf8_lossy(&heard))),
            _more => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_that_asks_nothing_is_closed() {
    let (address, _metrics, _stop) = listen_with(Yes, 8, SOON, SOON).await;
    let (most, _last) = PREFACE.split_at(PREFACE.len() - 1);
    assert_eq!(most.len(), 23);
    let rows: [(&str, &[u8]); 4] =
        [("silence", b""), ("a lone P", b"P"), ("most of a preface", most), ("a preface", PREFACE)];
    for (what, says) in rows {
        let begun = Instant::now();
        let mut stream = connect(address, says).await;
        closed(&mut stream, what).await;
        assert!(begun.elapsed() >= SOON, "{what}: not before its time");
    }
}

#[tokio::test]
async fn a_connection_that_has_asked_may_idle() {
    let (address, _metrics, _stop) = listen(8).await;
    let mut raw = connect(address, b"").await;
    asks(&mut raw).await.expect("an answer");
    let stream = TokioIo::new(connect(address, b"").await);
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.expect("h2");
    tokio::spawn(connection);
    let get = || request(address, Method::GET, "/", None, "");
    assert_eq!(sender.send_request(get()).await.expect("an answer").status(), 200);
    // Opened after the others, so its end says that their first time is over as well.
    let mut silent = connect(address, b"").await;
    closed(&mut silent, "the measure").await;
    asks(&mut raw).await.expect("an answer on the same connection");
    assert_eq!(sender.send_request(get()).await.expect("an answer").status(), 200);
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// A connection of HTTP/2, and what ends with it.
async fn speak_http2(address: SocketAddr) -> (Sender, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(connect(address, b"").await);
    let (sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.expect("h2");
    (sender, tokio::spawn(connection))
}

async fn ends(ended: tokio::task::JoinHandle<hyper::Result<()>>, what: &str) {
    let ended = timeout(PATIENCE, ended).await;
    // As the other side says that it goes, and not by a reset.
    ended.unwrap_or_else(|_elapsed| panic!("still open: {what}")).expect("no panic").expect(what);
}

/// Who has no token would hold a place for ever, by answering PINGs.
#[tokio::test]
async fn a_connection_that_never_showed_a_token_is_told_to_go() {
    let (address, _metrics, _stop) = listen_with(Guarded, 8, FIRST_REQUEST, FIRST_REQUEST).await;
    let get = |path, token| request(address, Method::GET, path, token, "");
    for (path, status) in [("/", 401), ("/open", 200)] {
        let (mut sender, ended) = speak_http2(address).await;
        let answer = sender.send_request(get(path, None)).await.expect("an answer");
        assert_eq!(answer.status(), status);
        ends(ended, path).await;
        drop(sender);
        let head = format!("GET {path} HTTP/1.1\r\nhost: g\r\n\r\n");
        closed(&mut connect(address, head.as_bytes()).await, path).await;
    }
    // A right token once is enough, also after a wrong one.
    let (mut sender, ended) = speak_http2(address).await;
    for token in [None, Some("right")] {
        sender.send_request(get("/", token)).await.expect("an answer");
    }
    let mut silent = connect(address, b"").await;
    closed(&mut silent, "the measure").await;
    assert_eq!(sender.send_request(get("/", None)).await.expect("an answer").status(), 401);
    assert!(!ended.is_finished());
}

#[tokio::test]
async fn probes_keep_their_connection_and_who_was_refused_does_not_by_probing() {
    let (address, _metrics, _stop) = listen_with(Guarded, 8, FIRST_REQUEST, PATIENCE * 60).await;
    let get = |path| request(address, Method::GET, path, None, "");
    let (mut probe, probing) = speak_http2(address).await;
    let (mut refused, ended) = speak_http2(address).await;
    for path in ["/", "/open"] {
        refused.send_request(get(path)).await.expect("an answer");
    }
    probe.send_request(get("/open")).await.expect("an answer");
    ends(ended, "refused once").await;
    assert_eq!(probe.send_request(get("/open")).await.expect("an answer").status(), 200);
    assert!(!probing.is_finished());
}

#[tokio::test]
async fn more_connections_than_the_bound_are_closed_at_once_and_counted() {
    let (address, metrics, _stop) = listen(2).await;
    let mut first = connect(address, b"").await;
    let mut second = connect(address, b"").await;
    for stream in [&mut first, &mut second] {
        asks(stream).await.expect("an answer");
    }
    let mut third = connect(address, b"").await;
    closed(&mut third, "one too many").await;
    assert_eq!(metrics.connections_refused.get(), 1);
    asks(&mut first).await.expect("the others go on");
    drop(second);
    eventually(PATIENCE, "the place is free again", async || {
        asks(&mut TcpStream::connect(address).await.map_err(|error| error.to_string())?).await
    })
    .await;
    let caller = Caller::new(Speaks::Http1);
    drop(first);
    eventually(PATIENCE, "and so is the other", async || {
        caller.try_send(request(address, Method::GET, "/", None, "")).await
    })
    .await;
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

#[tokio::test]
async fn calls_given_up_before_they_were_read_do_not_end_their_connection() {
    const END_STREAM_AND_HEADERS: u8 = 5;
    // GET http://g/ by the static table, and CANCEL.
    let get = b"\x82\x84\x86\x41\x01g";
    let cancel = 8_u32.to_be_bytes();
    let (address, _metrics, _stop) = listen(1).await;
    let mut says = PREFACE.to_vec();
    says.extend(frame(SETTINGS, 0, 0, b""));
    // What an Envoy had out while this process stood still, all of it too late.
    for call in 0..100 {
        says.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 2 * call + 1, get));
        says.extend(frame(RST_STREAM, 0, 2 * call + 1, &cancel));
    }
    says.extend(frame(HEADERS, END_STREAM_AND_HEADERS, 201, get));
    let mut stream = connect(address, &says).await;
    loop {
        let mut head = [0; 9];
        let read = timeout(PATIENCE, stream.read_exact(&mut head)).await;
        read.expect("in time").expect("the connection stays open");
        let [a, b, c, kind, _, id @ ..] = head;
        assert_ne!(kind, GOAWAY, "the connection ends");
        let mut payload =
            vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("short")];
        stream.read_exact(&mut payload).await.expect("the rest");
        if (kind, u32::from_be_bytes(id)) == (HEADERS, 201) {
            return;
        }
    }
}
