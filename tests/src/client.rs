//! Owns clients: an HTTP/1 client that sends any bytes from any loopback address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

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

/// Sends bytes as they are and reads one answer.
pub async fn raw(stream: &mut TcpStream, bytes: &[u8]) -> Answer {
    timeout(ANSWER_WITHIN, exchange(stream, bytes))
        .await
        .expect("an answer in time")
        .expect("an answer")
}

fn get_request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n")
}

async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Answer> {
    // An answer may come before the whole request is taken, and end the connection with it.
    let sent = stream.write_all(bytes).await;
    match read(stream).await {
        Ok(answer) => Ok(answer),
        Err(error) => sent.and(Err(error)),
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        more(stream, &mut bytes).await?;
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let status = status.ok_or_else(|| io::Error::other(format!("no status line in {head:?}")))?;
    let mut answer = Answer { status, headers, body: String::new() };
    let mut body = bytes.split_off(head_end + 4);
    match answer.header("content-length").and_then(|v| v.parse::<usize>().ok()) {
        Some(length) => {
            while body.len() < length {
                more(stream, &mut body).await?;
            }
        }
        None if answer.header("transfer-encoding") == Some("chunked") => {
            body = chunked(stream, body).await?;
        }
        None => {
            stream.read_to_end(&mut body).await?;
        }
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Reads a chunked body (RFC 9112 §7.1) whose beginning is `bytes`.
async fn chunked(stream: &mut TcpStream, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line_end = bytes[at..].windows(2).position(|w| w == b"\r\n").map(|end| at + end);
        if let Some(end) = line_end {
            let line = String::from_utf8_lossy(&bytes[at..end]);
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let chunk = end + 2;
            if bytes.len() >= chunk + size + 2 {
                body.extend_from_slice(&bytes[chunk..chunk + size]);
                at = chunk + size + 2;
                if size == 0 {
                    return Ok(body);
                }
                continue;
            }
        }
        more(stream, &mut bytes).await?;
    }
}
