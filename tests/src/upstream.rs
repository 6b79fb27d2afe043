//! Owns the upstream behind Envoy: answers 200, counts what reached it, and sends what it is told
//! to: a request header `x-answer-NAME` comes back as the response header `NAME`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running upstream.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

// === impl Upstream ===

impl Upstream {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        Self::bind("127.0.0.1:0").await.expect("a free port")
    }

    /// Starts one on a given address.
    pub async fn bind(addr: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, Arc::clone(&seen)));
        Ok(Self { addr, seen, task })
    }

    /// How many requests reached it.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let seen = Arc::clone(&seen);
        let answer = service_fn(move |request: Request<Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                seen.fetch_add(1, Ordering::SeqCst);
                let told: Vec<_> = request
                    .headers()
                    .iter()
                    .filter_map(|(name, value)| {
                        let name = name.as_str().strip_prefix("x-answer-")?;
                        Some((HeaderName::try_from(name).ok()?, value.clone()))
                    })
                    .collect();
                let path = request.uri().path().to_owned();
                // The body is read whole, so that the connection stays usable.
                let size =
                    request.into_body().collect().await.map(|b| b.to_bytes().len()).unwrap_or(0);
                let body = format!("upstream: {path} {size}\n");
                let mut response = Response::new(Full::new(Bytes::from(body)));
                for (name, value) in told {
                    response.headers_mut().append(name, value);
                }
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().max_headers(512);
            // A client that leaves is no concern of the upstream's.
            if builder.serve_connection(TokioIo::new(stream), answer).await.is_err() {}
        });
    }
}
