//! A server that reads a message whole and answers with the same verdict each time: what HTTP alone costs with
//! the libraries and the allocator of the gateway. Benchmarks measure the gateway beside it.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tidegate_policy::wire::{MARK_HEADER, MARK_VALUE};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VERDICT: &[u8] = br#"{"v":1,"id":"00000000-0000-4000-8000-000000000001","verdict":"allow","limits":[{"id":"load.caller","allowed":true,"remaining":999999,"next_us":1,"reset_us":1,"retry_us":0}]}"#;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let mut builder = Builder::new(TokioExecutor::new());
    // As the gateway sets them: a timer for each head is part of the price.
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let builder = builder.clone();
        tokio::spawn(async move {
            let answered = service_fn(async |request: Request<Incoming>| {
                let message = request.into_body().collect().await.map(|body| body.to_bytes());
                let verdict = if message.is_ok() { VERDICT } else { b"" };
                Ok::<_, Infallible>(
                    Response::builder()
                        .header("content-type", "application/json")
                        .header(MARK_HEADER, MARK_VALUE)
                        .body(Full::new(Bytes::from_static(verdict)))
                        .unwrap_or_default(),
                )
            });
            // A connection that ends early is the load generator's.
            drop(builder.serve_connection(TokioIo::new(stream), answered).await);
        });
    }
}
