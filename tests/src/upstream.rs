//! Owns the upstream behind Envoy: answers 200, counts what reached it, and sends what it is told
//! to: a request header `x-answer-NAME` comes back as the response header `NAME`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
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
    headers: Arc<Mutex<Vec<HeaderMap>>>,
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
        let headers = Arc::default();
        let task = tokio::spawn(serve(listener, Arc::clone(&seen), Arc::clone(&headers)));
        Ok(Self { addr, seen, headers, task })
    }

    /// How many requests reached it.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Every value of a request header that reached it, in order; of its first thousand requests.
    pub fn saw(&self, name: &str) -> Vec<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let values = headers.iter().flat_map(|headers| headers.get_all(name));
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The first of them: the demo's upstream runs for days.
fn remember(headers: &Mutex<Vec<HeaderMap>>, of: &HeaderMap) {
    const KEPT_MAX: usize = 1_000;
    let mut headers = headers.lock().unwrap_or_else(PoisonError::into_inner);
    if headers.len() < KEPT_MAX {
        headers.push(of.clone());
    }
}

async fn serve(listener: TcpListener, seen: Arc<AtomicUsize>, headers: Arc<Mutex<Vec<HeaderMap>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (seen, headers) = (Arc::clone(&seen), Arc::clone(&headers));
        let answer = service_fn(move |request: Request<Incoming>| {
            let (seen, headers) = (Arc::clone(&seen), Arc::clone(&headers));
            async move {
                seen.fetch_add(1, Ordering::SeqCst);
                remember(&headers, request.headers());
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
