//! Owns sockets: accepting, the two protocols' limits and timeouts, panics, and the graceful end.
//! Knows nothing of what is asked or answered.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::answer::{self, Answer};
use crate::metrics::SharedMetrics;

/// A connection on which nothing is ever said is closed after that long.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// More than one Envoy opens at once; each stream holds a body of at most 64 KiB.
const STREAMS_MAX: u32 = 1_024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1_024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an accept that failed for want of file descriptors, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle<B>(&self, request: Request<B>) -> impl Future<Output = Answer> + Send
    where
        B: Body<Data = Bytes> + Send,
        B::Error: std::error::Error + Send + Sync + 'static;
}

/// Serves until `stop` says so (or its sender is gone), then finishes what is under way for at most
/// `drain_timeout`. Returns whether everything was finished.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    metrics: SharedMetrics,
    mut stop: watch::Receiver<bool>,
    drain_timeout: Duration,
) -> bool {
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that whoever could say stop is gone.
            _ = stop.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection =
                    Connection { handler: Arc::clone(&handler), metrics: Arc::clone(&metrics) };
                connection.spawn(stream, &builder, &graceful);
            }
            Err(error) => pause_after(&error).await,
        }
    }
    drop(listener);
    tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_ok()
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}

async fn pause_after(error: &io::Error) {
    // These concern one client only.
    let theirs = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
    ];
    if !theirs.contains(&error.kind()) {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

struct Connection<H> {
    handler: Arc<H>,
    metrics: SharedMetrics,
}

// === impl Connection ===

impl<H: Handler> Connection<H> {
    fn spawn(
        self,
        stream: TcpStream,
        builder: &Builder<TokioExecutor>,
        graceful: &GracefulShutdown,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let watcher = graceful.watcher();
        let builder = builder.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.readable()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return tracing::debug!(%error, "a connection broke"),
                Err(_elapsed) => return tracing::debug!("a connection stayed silent"),
            }
            let connection = Arc::new(self);
            let service = service_fn(move |request: Request<Incoming>| {
                let connection = Arc::clone(&connection);
                // On the heap, because hyper moves a stream's future several times before it runs.
                Box::pin(async move { Ok::<_, Infallible>(connection.answer(request).await) })
            });
            let served = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(served).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut leaving = Leaving { metrics: &self.metrics, answered: false };
        let answer = match caught(self.handler.handle(request)).await {
            Some(answer) => answer,
            None => {
                self.metrics.panics.inc();
                tracing::error!(critical = true, "a handler panicked");
                answer::panicked()
            }
        };
        leaving.answered = true;
        answer
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
async fn caught<F: Future>(future: F) -> Option<F::Output> {
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
