//! Owns an upstream that does work: it counts every run, takes its time where a test says so, and answers
//! each run with something that no other run is answered with.
//!
//! ```text
//! x-run: wait     the answer waits until the test opens the gate
//! x-run: cut      a part of the answer, and the connection's end
//! x-run: drop     no answer, and the connection's end
//! x-run: long     an answer of 100,000 octets
//! x-run: gzip     an answer that says it is compressed
//! x-run: untyped  an answer that does not say what it is
//! x-run: events   a stream of events: one at once, the last when the test opens the gate
//! x-run: trap     an answer that makes the filter of a test trap
//! x-run: grpc-N   a gRPC message, and N as the call's status in trailers
//! x-run: mute     a gRPC message, and no status
//! x-run: cost-N   N in the trailer x-cost
//! x-run: bare-N   no message, and N as the call's status in trailers
//! x-run: STATUS   an answer with this status
//! ```

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

type Body = BoxBody<Bytes, std::io::Error>;

/// A running upstream.
#[derive(Debug)]
pub struct Orders {
    /// Where it listens.
    pub addr: SocketAddr,
    runs: Arc<AtomicUsize>,
    gate: watch::Sender<bool>,
    task: JoinHandle<()>,
}

// === impl Orders ===

impl Orders {
    /// Starts one on a free port, with its gate closed.
    pub async fn start() -> Self {
        Self::bind("127.0.0.1:0").await
    }

    /// Starts one on a given address.
    pub async fn bind(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).await.expect("a free address");
        let addr = listener.local_addr().expect("an address");
        let runs = Arc::new(AtomicUsize::new(0));
        let (gate, opens) = watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&runs), opens));
        Self { addr, runs, gate, task }
    }

    /// How many requests began to run.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Lets those go on that wait, and all that come.
    pub fn open(&self) {
        self.gate.send_replace(true);
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, runs: Arc<AtomicUsize>, gate: watch::Receiver<bool>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (runs, gate) = (Arc::clone(&runs), gate.clone());
        let run = service_fn(move |request| run(request, Arc::clone(&runs), gate.clone()));
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // What is cut is cut on purpose.
            if builder.serve_connection(TokioIo::new(stream), run).await.is_err() {}
        });
    }
}

async fn run(
    request: Request<Incoming>,
    runs: Arc<AtomicUsize>,
    mut gate: watch::Receiver<bool>,
) -> Result<Response<Body>, std::io::Error> {
    let nth = runs.fetch_add(1, Ordering::SeqCst) + 1;
    let how = request.headers().get("x-run").and_then(|value| value.to_str().ok());
    let how = how.unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?;
    let trailers = body.trailers().map_or(0, |trailers| trailers.len());
    let body = body.to_bytes();
    if how == "wait" && gate.wait_for(|open| *open).await.is_err() {
        return Err(std::io::Error::other("the test is over"));
    }
    if how == "drop" {
        return Err(std::io::Error::other("dropped"));
    }
    let mut bytes = format!("run {nth}: ").into_bytes();
    bytes.extend(0..=255);
    if how == "long" {
        bytes.resize(100_000, b'x');
    }
    let content_type = match how.as_str() {
        "events" => "text/event-stream",
        "mute" => "application/grpc",
        call if call.starts_with("grpc-") || call.starts_with("bare-") => "application/grpc",
        _ => "application/octet-stream",
    };
    let bare = how.strip_prefix("bare-");
    let call = how.strip_prefix("grpc-").or(bare).map(str::to_owned);
    let is_call = call.is_some() || how == "mute";
    let status = how.parse().unwrap_or(if is_call { 200_u16 } else { 201 });
    let response = match how.as_str() {
        "untyped" => Response::builder(),
        _ => Response::builder().header("content-type", content_type),
    };
    let response = response
        .status(status)
        .header("location", format!("/orders/{nth}"))
        .header("x-order", nth.to_string())
        .header("x-received", body.len())
        .header("x-trailers", trailers)
        .header("set-cookie", format!("run={nth}"));
    let response = match how.as_str() {
        // Octets that are no gzip: nobody on the way may look.
        "gzip" => response.header("content-encoding", "gzip"),
        "trap" => response.header("x-tidegate-trap", "now"),
        _ => response,
    };
    let body: Body = if how == "cut" {
        let part = Ok(Frame::data(Bytes::from(bytes)));
        let end = Err(std::io::Error::other("cut"));
        BoxBody::new(Parts::of(vec![end, part]))
    } else if let Some(code) = call {
        let code = code.parse().map_err(std::io::Error::other)?;
        let trailers =
            Frame::trailers([(HeaderName::from_static("grpc-status"), code)].into_iter().collect());
        let message = bare.is_none().then(|| Ok(Frame::data(Bytes::from(bytes))));
        BoxBody::new(Parts::of([Ok(trailers)].into_iter().chain(message).collect()))
    } else if let Some(cost) = how.strip_prefix("cost-") {
        let cost = cost.parse().map_err(std::io::Error::other)?;
        let told =
            Frame::trailers([(HeaderName::from_static("x-cost"), cost)].into_iter().collect());
        BoxBody::new(Parts::of(vec![Ok(told), Ok(Frame::data(Bytes::from(bytes)))]))
    } else if how == "events" {
        let opened = Box::pin(async move { gate.wait_for(|open| *open).await.is_ok() });
        BoxBody::new(Events { first: Some("data: first\n\n"), opened: Some(opened) })
    } else {
        Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed()
    };
    response.body(body).map_err(std::io::Error::other)
}

/// An event at once, and one when the gate is open.
struct Events {
    first: Option<&'static str>,
    opened: Option<Pin<Box<dyn Future<Output = bool> + Send + Sync>>>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let event = match (self.first.take(), &mut self.opened) {
            (Some(first), _) => first,
            (None, Some(opened)) => {
                std::task::ready!(opened.as_mut().poll(context));
                self.opened = None;
                "data: last\n\n"
            }
            (None, None) => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(event.as_bytes())))))
    }
}

/// Pieces of a body, the last one first.
struct Parts {
    pieces: Vec<Result<Frame<Bytes>, std::io::Error>>,
    has_paused: bool,
}

impl Parts {
    fn of(pieces: Vec<Result<Frame<Bytes>, std::io::Error>>) -> Self {
        Self { pieces, has_paused: false }
    }
}

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        // What came before is sent only where nothing follows at once; an error would take it away.
        let is_cut = matches!(self.pieces.last(), Some(Err(_)));
        if is_cut && !core::mem::replace(&mut self.has_paused, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.pieces.pop())
    }
}
