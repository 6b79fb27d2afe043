//! Owns a client that speaks HTTP/2 without TLS, as gRPC clients do within a mesh.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::Answer;

/// Longer than any answer may take that a test waits for.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// `POST path` with a small body, on a connection of its own.
pub async fn post(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    post_body(to, path, headers, b"\0\0\0\0\0").await
}

/// `POST path` with this body, on a connection of its own.
pub async fn post_body(
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> Answer {
    timeout(ANSWER_WITHIN, exchange(to, path, headers, (body, None)))
        .await
        .expect("an answer in time")
        .expect("an answer")
}

/// The same, and the request ends with a trailer.
pub async fn post_with_trailer(
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
    trailer: (&'static str, &'static str),
) -> Answer {
    timeout(ANSWER_WITHIN, exchange(to, path, headers, (body, Some(trailer))))
        .await
        .expect("an answer in time")
        .expect("an answer")
}

async fn exchange(
    to: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    (sent, trailer): (&'static [u8], Option<(&'static str, &'static str)>),
) -> Result<Answer, h2::Error> {
    let stream = TcpStream::connect(to).await.map_err(|_refused| h2::Reason::CONNECT_ERROR)?;
    let (mut send, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let mut request = Request::post(format!("http://test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (response, mut body) = send.send_request(request.body(()).expect("a sound head"), false)?;
    // Who is refused may have its answer before all was read; what else went wrong the response tells.
    let mut unread = body.send_data(Bytes::from_static(sent), trailer.is_none());
    if let (Ok(()), Some((name, value))) = (&unread, trailer) {
        let pair = (HeaderName::from_static(name), HeaderValue::from_static(value));
        unread = body.send_trailers([pair].into_iter().collect());
    }
    let (head, mut body) = match response.await {
        Ok(response) => response.into_parts(),
        Err(error) => return Err(unread.err().unwrap_or(error)),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece?);
    }
    driver.abort();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = head.headers.iter();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
        body: text(&bytes),
        bytes,
    })
}
