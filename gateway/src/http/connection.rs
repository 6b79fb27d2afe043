//! Owns sockets: accepting, the two protocols' limits and timeouts, panics, and the graceful end.
//! Knows nothing of what is asked or answered, nor of certificates.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::answer::{self, Answer};
use super::handshake::{HANDSHAKE_TIMEOUT, Tls};
use super::shown::{Next, Shown};
use crate::clock::whole_us;
use crate::cores::{Cores, Place};
use crate::metrics::SharedMetrics;
use crate::throttle::Throttle;

/// A connection that has asked nothing after that long is closed: it may be silent, or dribble the
/// opening of HTTP/2, for which hyper keeps no time.
pub const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection on which nobody asked for what wants a token is closed when it has asked nothing for that long:
/// longer than probes wait for their next one.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Per listener. Far more than a fleet of Envoys opens; what comes beyond is closed at once.
pub const CONNECTIONS_MAX: usize = 4_096;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// More than one Envoy opens at once; each stream holds a body of at most 64 KiB, or
/// 136 KiB where an answer is stored.
const STREAMS_MAX: u32 = 1_024;
/// Calls that were given up before they were looked at: after a pause of this process these are all that an
/// Envoy had out, and its connection must not end for it.
const RESETS_MAX: usize = STREAMS_MAX as usize;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1_024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const LOG_INTERVAL_US: u64 = 10_000_000;

/// How a listener treats its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeSettings {
    /// How long what is under way may take to finish at the end.
    pub drain_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may ask nothing at its beginning, or show nobody who is known.
    pub first_request_timeout: Duration,
    /// How long it may ask nothing after what anybody may ask for.
    pub idle_timeout: Duration,
    /// How many connections may be open.
    pub connections_max: usize,
}

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle<B>(&self, request: Request<B>) -> impl Future<Output = Answer> + Send
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static;

    /// Whether anybody may ask for that path: its answer does not say that the caller is known.
    fn is_open(_path: &str) -> bool {
        false
    }
}

/// Serves until `stop` says so (or its sender is gone), then finishes what is under way for at most
/// the drain timeout. Returns whether everything was finished. With `tls` there is no plain HTTP. Each
/// connection lives on one of the cores, with all that it asks.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    tls: Option<Tls>,
    cores: Arc<Cores>,
    metrics: SharedMetrics,
    mut stop: watch::Receiver<bool>,
    settings: ServeSettings,
) -> bool {
    let builder = builder();
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    let complaints = Complaints::new();
    let tls = tls.map(Arc::new);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that whoever could say stop is gone.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error, &complaints).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            metrics.connections_refused.inc();
            complaints.full(settings.connections_max);
            continue;
        };
        let connection = Connection {
            handler: Arc::clone(&handler),
            metrics: Arc::clone(&metrics),
            shown: Shown::new(),
            settings,
            place: cores.place(),
            _permit: permit,
        };
        let tls = tls.clone().map(|tls| (tls, settings.handshake_timeout));
        connection.spawn(stream, tls, stop.clone(), &builder);
    }
    drop(listener);
    let all = u32::try_from(settings.connections_max).unwrap_or(u32::MAX);
    tokio::time::timeout(settings.drain_timeout, permits.acquire_many(all)).await.is_ok()
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

async fn pause_after(error: &io::Error, complaints: &Complaints) {
    // These concern one client only.
    let theirs = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
    ];
    if !theirs.contains(&error.kind()) {
        complaints.broken(error);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// What goes wrong with accepting goes wrong many times a second: the log gets the first of each
/// interval and how many more there were.
struct Complaints {
    start: Instant,
    broken: Throttle,
    full: Throttle,
}

struct Connection<H> {
    handler: Arc<H>,
    metrics: SharedMetrics,
    shown: Shown,
    settings: ServeSettings,
    place: Place,
    _permit: OwnedSemaphorePermit,
}

// === impl ServeSettings ===

impl ServeSettings {
    /// What holds outside tests.
    pub fn new(drain_timeout: Duration) -> Self {
        Self {
            drain_timeout,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            first_request_timeout: FIRST_REQUEST_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

// === impl Complaints ===

impl Complaints {
    fn new() -> Self {
        let throttle = || Throttle::new(1, LOG_INTERVAL_US);
        Self { start: Instant::now(), broken: throttle(), full: throttle() }
    }

    fn now_us(&self) -> u64 {
        whole_us(self.start.elapsed())
    }

    fn broken(&self, error: &io::Error) {
        if let Some(more) = self.broken.admit(self.now_us()) {
            tracing::error!(%error, more, "cannot accept connections");
        }
    }

    fn full(&self, connections_max: usize) {
        if let Some(more) = self.full.admit(self.now_us()) {
            tracing::error!(connections_max, more, "too many connections: closed a new one");
        }
    }
}

// === impl Connection ===

impl<H: Handler> Connection<H> {
    fn spawn(
        self,
        stream: TcpStream,
        tls: Option<(Arc<Tls>, Duration)>,
        mut stop: watch::Receiver<bool>,
        builder: &Builder<TokioExecutor>,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let moved = match stream.into_std() {
            Ok(moved) => moved,
            Err(error) => return tracing::error!(%error, "a connection cannot be handed to a core"),
        };
        let builder = builder.clone();
        let core = self.place.core();
        core.spawn(async move {
            let stream = match TcpStream::from_std(moved) {
                Ok(stream) => stream,
                Err(error) => return tracing::error!(%error, "a core cannot watch a connection"),
            };
            let Some((tls, within)) = tls else {
                return self.converse(stream, &builder, stop).await;
            };
            let stream = tokio::select! {
                stream = tls.accept(stream, within) => stream,
                // Nothing was asked yet, so nothing is cut off.
                _ = stop.wait_for(|stop| *stop) => None,
            };
            if let Some(stream) = stream {
                self.converse(stream, &builder, stop).await;
            }
        });
    }

    /// Answers until one side ends the connection.
    async fn converse<S>(
        self,
        stream: S,
        builder: &Builder<TokioExecutor>,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Arc::new(self);
        let served = {
            let connection = Arc::clone(&connection);
            let service = service_fn(move |request: Request<Incoming>| {
                connection.shown.asked.store(true, Ordering::Relaxed);
                let connection = Arc::clone(&connection);
                // On the heap, because hyper moves a stream's future several times before it
                // runs.
                Box::pin(async move { Ok::<_, Infallible>(connection.answer(request).await) })
            });
            builder.serve_connection(TokioIo::new(stream), service).into_owned()
        };
        let patience = connection.settings.first_request_timeout;
        let mut served = pin!(served);
        let mut stopped = pin!(stop.wait_for(|stop| *stop));
        let (mut stopping, mut going) = (false, false);
        let mut due = Some(connection.shown.born + patience);
        let ended = loop {
            tokio::select! {
                // First, so that a request that has arrived by now counts.
                biased;
                ended = &mut served => break ended,
                // An error means that whoever could say stop is gone.
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    served.as_mut().graceful_shutdown();
                }
                () = until(due), if due.is_some() => match connection.next() {
                    Next::Stays => due = None,
                    Next::Waits(until) => due = Some(until),
                    Next::Goes if !going => {
                        going = true;
                        served.as_mut().graceful_shutdown();
                        due = Some(Instant::now() + patience);
                    }
                    Next::Goes => return tracing::debug!("a connection did not go"),
                    Next::Ends => return tracing::debug!("a connection asked nothing"),
                },
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    fn next(&self) -> Next {
        self.shown.next(self.settings.idle_timeout)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut leaving = Leaving { metrics: &self.metrics, answered: false };
        let open = H::is_open(request.uri().path());
        let answer = match caught(self.handler.handle(request)).await {
            Some(answer) => answer,
            None => {
                self.metrics.panics.inc();
                tracing::error!(critical = true, "a handler panicked");
                answer::panicked()
            }
        };
        leaving.answered = true;
        self.shown.note(open, answer.status());
        answer
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// Counts the requests whose caller left: hyper then drops the handler.
struct Leaving<'a> {
    metrics: &'a SharedMetrics,
    answered: bool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.gone.inc();
        }
    }
}

/// The future's output, or `None` if it panicked.
pub(super) async fn caught<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(move |context| {
        // The handler's state is dropped after a panic and never looked at again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => {
                drop(panic);
                Poll::Ready(None)
            }
        }
    })
    .await
}
