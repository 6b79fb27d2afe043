//! Owns clients: an HTTP/1 client that sends any bytes from any loopback address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::http1::{Framing, Reader};

/// Longer than any answer may take that a test waits for.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
    /// The body, octet for octet.
    pub bytes: Vec<u8>,
}

// === impl Answer ===

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Opens a connection from a local address (`127.0.0.2` is another client than `127.0.0.1`).
pub async fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

/// `GET path`, or nothing if nobody answers.
pub async fn try_get(to: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = connect(to, None).await.ok()?;
    exchange(&mut stream, get_request(path, "").as_bytes()).await.ok()
}

/// `GET path`, on a connection of its own.
pub async fn get(to: SocketAddr, path: &str) -> Answer {
    get_from(to, None, path, "").await
}

/// `GET path` from a local address, with more header lines (each ending in CRLF).
pub async fn get_from(to: SocketAddr, from: Option<IpAddr>, path: &str, headers: &str) -> Answer {
    let mut stream = connect(to, from).await.expect("a listener");
    raw(&mut stream, get_request(path, headers).as_bytes()).await
}

/// `POST path` with a body, on a connection of its own; header lines end in CRLF.
pub async fn post(to: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    let len = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n{body}"
    );
    let mut stream = connect(to, None).await.expect("a listener");
    raw(&mut stream, request.as_bytes()).await
}

/// Reads one answer to what was sent before.
pub async fn answer(stream: &mut TcpStream) -> Answer {
    raw(stream, b"").await
}

/// Sends bytes as they are and reads one answer.
pub async fn raw<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Answer {
    timeout(ANSWER_WITHIN, exchange(stream, bytes))
        .await
        .expect("an answer in time")
        .expect("an answer")
}

/// Sends bytes and reads one answer, if one comes at all.
pub async fn try_raw(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Answer> {
    let answer = timeout(ANSWER_WITHIN, exchange(stream, bytes)).await;
    answer.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Sends bytes and reads nothing.
pub async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("a listener");
}

/// Sends a request by HEAD and reads the answer, which has no body whatever length it announces.
pub async fn head(stream: &mut TcpStream, bytes: &[u8]) -> Answer {
    let answer = async {
        stream.write_all(bytes).await?;
        answer_head(&mut Reader::new(stream)).await
    };
    timeout(ANSWER_WITHIN, answer).await.expect("an answer in time").expect("an answer").0
}

/// The bytes of a `GET`, with more header lines (each ending in CRLF).
pub fn get_request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n")
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
) -> io::Result<Answer> {
    // An answer may come before the whole request is taken, and end the connection with it.
    let sent = stream.write_all(bytes).await;
    match read(stream).await {
        Ok(answer) => Ok(answer),
        Err(error) => sent.and(Err(error)),
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Answer> {
    let mut reader = Reader::new(stream);
    let (mut answer, framing) = answer_head(&mut reader).await?;
    reader.begin_body(framing);
    let (body, _) = reader.body().await?;
    answer.body = text(body.clone());
    answer.bytes = body;
    Ok(answer)
}

/// An answer without its body, and how that is framed.
async fn answer_head<R: AsyncRead + Unpin>(
    reader: &mut Reader<R>,
) -> io::Result<(Answer, Framing)> {
    let head = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.word(1).parse();
    let status = status.map_err(|error| io::Error::other(format!("{error}: {:?}", head.start)))?;
    let framing = head.framing(Framing::UntilClose);
    let headers = head.headers.into_iter().map(|(name, value)| (name, text(value))).collect();
    Ok((Answer { status, headers, body: String::new(), bytes: Vec::new() }, framing))
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8_lossy(&value).into_owned()
}
