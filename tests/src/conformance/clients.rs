//! Owns the clients of a timeline on real sockets: each request has a connection of its own, sends
//! what the timeline says when it says it, and writes down what it gets.

use std::io;
use std::net::SocketAddr;

use tidegate_host_sim::{ClientAct, ClientView, HeaderMap};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::clock::Clock;
use super::record::{Lane, Recorder, shown};
use super::simulated::{LEFT, RESET, end, so_far};
use crate::client::connect;
use crate::http1::{Framing, Head, Piece, Reader};

/// What a client's request came to, beside what was written down.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) lane: Lane,
    /// Its port, by which the access log is read; none if it never connected.
    pub(super) port: Option<u16>,
    /// When its connection's work was over; nothing if it still waits.
    pub(super) ended_ms: Option<f64>,
}

/// Plays one request until `until_ns`.
pub(super) async fn play(
    view: ClientView,
    to: SocketAddr,
    clock: Clock,
    until_ns: u64,
    out: Recorder,
) -> Played {
    let lane = Lane::Client { name: view.client.clone(), nth: view.nth };
    let mut played = Played { lane: lane.clone(), port: None, ended_ms: None };
    let Some((first_ns, _)) = view.steps.first() else {
        return played;
    };
    clock.until(*first_ns).await;
    let stream = match connect(to, None).await {
        Ok(stream) => stream,
        // An Envoy that died is a result.
        Err(error) => {
            out.push(clock.now_ms(), lane, format!("cannot connect: {}", error.kind()));
            return played;
        }
    };
    stream.set_nodelay(true).expect("a socket option");
    played.port = Some(stream.local_addr().expect("a connected socket").port());
    let (from, into) = stream.into_split();
    let is_head = view.steps.iter().any(|(_, action)| match action {
        ClientAct::Headers { headers, .. } => headers.first(b":method") == Some(b"HEAD"),
        _ => false,
    });
    let leaves = view.steps.iter().any(|(_, action)| matches!(action, ClientAct::Disconnect));
    let mut body = Vec::new();
    let on_head = |head: &Head| {
        let headers = shown(&map_of(&head.headers));
        out.push(clock.now_ms(), lane.clone(), format!("gets {} {headers}", head.word(1)));
    };
    let ended = tokio::select! {
        ended = read(from, is_head, on_head, &mut body) => Some(ended),
        () = write(into, view.steps, clock, leaves) => None,
        () = clock.until(until_ns) => None,
    };
    let at_ms = clock.now_ms();
    let (at_ms, text) = match ended {
        Some(Ok(trailers)) => (at_ms, end(&body, &trailers)),
        Some(Err(_)) => (at_ms, RESET.to_owned()),
        None if leaves => (f64::MAX, LEFT.to_owned()),
        None => {
            out.push(f64::MAX, lane, so_far(&body));
            return played;
        }
    };
    played.ended_ms = Some(at_ms);
    out.push(at_ms, lane.clone(), text);
    played
}

/// Headers of the wire as a header map.
pub(super) fn map_of(headers: &[(String, Vec<u8>)]) -> HeaderMap {
    let pairs = headers.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone()));
    HeaderMap::from_pairs(pairs.collect())
}

/// Reads one response; what came stays where it was put when the reading is given up.
async fn read(
    from: OwnedReadHalf,
    is_head: bool,
    on_head: impl FnOnce(&Head),
    body: &mut Vec<u8>,
) -> io::Result<HeaderMap> {
    let mut reader = Reader::new(from);
    let seen = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let has_body = !is_head && !["204", "304"].contains(&seen.word(1));
    let framing = if has_body { seen.framing(Framing::UntilClose) } else { Framing::Length(0) };
    reader.begin_body(framing);
    on_head(&seen);
    loop {
        match reader.piece().await? {
            Piece::Data(data) => body.extend(data),
            Piece::End(trailers) => return Ok(map_of(&trailers)),
        }
    }
}

/// Writes what the timeline says; returns only if the client leaves.
async fn write(mut into: OwnedWriteHalf, steps: Vec<(u64, ClientAct)>, clock: Clock, leaves: bool) {
    let mut is_chunked = false;
    let mut at = 0;
    while let Some((at_ns, _)) = steps.get(at) {
        clock.until(*at_ns).await;
        let mut bytes = Vec::new();
        // What happens at one moment goes out in one piece.
        let now = steps[at..].iter().take_while(|(other_ns, _)| other_ns == at_ns);
        for (_, action) in now {
            at += 1;
            match action {
                ClientAct::Headers { headers, end } => {
                    is_chunked = !end && headers.first(b"content-length").is_none();
                    bytes.extend(head(headers, is_chunked));
                }
                ClientAct::Data { bytes: data, end } => {
                    bytes.extend(piece(data, is_chunked));
                    if is_chunked && *end {
                        bytes.extend(b"0\r\n\r\n");
                    }
                }
                ClientAct::Trailers(trailers) => {
                    bytes.extend(b"0\r\n");
                    bytes.extend(lines(trailers));
                    bytes.extend(b"\r\n");
                }
                ClientAct::Disconnect => return,
            }
        }
        // A server may answer and close before it has read all; the reader tells.
        if into.write_all(&bytes).await.is_err() {
            break;
        }
    }
    if !leaves {
        std::future::pending::<()>().await;
    }
}

fn head(headers: &HeaderMap, is_chunked: bool) -> Vec<u8> {
    let part = |name: &str| headers.first(name.as_bytes()).unwrap_or_default();
    let mut bytes = [part(":method"), b" ", part(":path"), b" HTTP/1.1\r\nhost: "].concat();
    bytes.extend(part(":authority"));
    bytes.extend(b"\r\n");
    bytes.extend(lines(headers));
    if is_chunked {
        bytes.extend(b"transfer-encoding: chunked\r\n");
    }
    bytes.extend(b"\r\n");
    bytes
}

/// Header lines without pseudo headers.
pub(super) fn lines(headers: &HeaderMap) -> Vec<u8> {
    let plain = headers.pairs().iter().filter(|(name, _)| !name.starts_with(b":"));
    plain.flat_map(|(name, value)| [name, b": ".as_slice(), value, b"\r\n"].concat()).collect()
}

/// A piece of a body as the wire has it.
pub(super) fn piece(data: &[u8], is_chunked: bool) -> Vec<u8> {
    if !is_chunked || data.is_empty() {
        return data.to_vec();
    }
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
