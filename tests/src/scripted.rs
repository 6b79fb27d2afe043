//! Owns a gateway that misbehaves as told, over HTTP/2 and HTTP/1: what the real one cannot be
//! made to do. Its genuine verdicts come from the same wire types.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response};
use tidegate_policy::wire::{
    self, DecideReply, DecideRequest, LimitState, SettleReply, SettleRequest, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http1::{Framing, Reader};

/// What to do with a callout.
#[derive(Debug, Clone)]
pub enum Script {
    /// The gateway's genuine verdict.
    Verdict(Verdict),
    /// The genuine verdict without the mark.
    Unmarked(Verdict),
    /// The genuine verdict on another decision.
    OtherDecision,
    /// Any answer.
    Answer {
        /// The status.
        status: u16,
        /// Whether it carries the mark.
        marked: bool,
        /// The body.
        body: &'static str,
    },
    /// The genuine verdict after a while.
    Late(Duration),
    /// Admits everything and settles nothing, over HTTP/2.
    SettlesNothing,
    /// Never answers.
    Hang,
    /// Ends the connection instead of answering.
    Close,
    /// HTTP/2: RST_STREAM instead of an answer. HTTP/1: as `Close`.
    ResetStream,
    /// The head of a genuine answer, then a reset in place of its body.
    ResetAfterHeaders,
    /// HTTP/2: GOAWAY with an error instead of an answer. HTTP/1: as `Close`.
    GoAway,
    /// Bytes that are no HTTP.
    Garbage,
}

/// A running scripted gateway.
#[derive(Debug)]
pub struct Scripted {
    /// Where it listens.
    pub addr: SocketAddr,
    script: watch::Sender<Script>,
    seen: Seen,
    task: JoinHandle<()>,
}

/// What came.
#[derive(Debug, Clone, Default)]
struct Seen {
    count: Arc<AtomicUsize>,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    settled: Arc<Mutex<Vec<SettleRequest>>>,
}

impl Seen {
    fn note(&self, message: &[u8]) {
        self.messages.lock().expect("nobody panicked").push(message.to_vec());
    }
}

// === impl Scripted ===

impl Scripted {
    /// Starts one on a free port.
    pub async fn start(http2: bool, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener");
        let seen = Seen::default();
        let (script, scripts) = watch::channel(script);
        let task = tokio::spawn(accept(listener, http2, scripts, seen.clone()));
        Self { addr, script, seen, task }
    }

    /// Does something else from now on; connections that are open end.
    pub fn set(&self, script: Script) {
        self.script.send_replace(script);
    }

    /// How many callouts came.
    pub fn seen(&self) -> usize {
        self.seen.count.load(Ordering::SeqCst)
    }

    /// What was settled, over HTTP/2.
    pub fn settled(&self) -> Vec<SettleRequest> {
        self.seen.settled.lock().expect("nobody panicked").clone()
    }

    /// The last question that came whole.
    pub fn last(&self) -> DecideRequest {
        let messages = self.seen.messages.lock().expect("nobody panicked");
        let last = messages.last().expect("a callout");
        DecideRequest::decode(last).expect("the filter's message")
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, http2: bool, scripts: watch::Receiver<Script>, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        let (mut scripts, seen) = (scripts.clone(), seen.clone());
        let script = scripts.borrow_and_update().clone();
        tokio::spawn(async move {
            let serve = async {
                // How a connection ends is the script's doing.
                match http2 {
                    true => if serve_h2(stream, script, seen).await.is_err() {},
                    false => if serve_h1(stream, script, seen).await.is_err() {},
                }
            };
            tokio::select! {
                () = serve => {}
                _ = scripts.changed() => {}
            }
        });
    }
}

/// The gateway's genuine answer to a message.
pub fn verdict(message: &[u8], verdict: Verdict) -> Vec<u8> {
    let asked = DecideRequest::decode(message).expect("the filter's message");
    let allowed = verdict == Verdict::Allow;
    let state = |id: &str| LimitState {
        id: id.to_owned(),
        allowed,
        remaining: u64::from(allowed),
        next_us: 1_000_000,
        reset_us: 1_000_000,
        retry_us: Some(if allowed { 0 } else { 7_000_000 }),
        limit: None,
        unread: false,
        charged_us: None,
    };
    let limits = asked.limits.iter().map(|limit| state(&limit.id)).collect();
    let (v, id) = (wire::VERSION, asked.id);
    wire::encode(&DecideReply {
        v,
        id,
        verdict,
        limits,
        claim: None,
        leases: Vec::new(),
        octets: Vec::new(),
    })
}

/// Settlements are taken, whatever the script.
fn settle(message: &[u8], seen: &Seen) -> Vec<u8> {
    let message = SettleRequest::decode(message).expect("the filter's message");
    let reply = SettleReply { v: wire::VERSION, id: message.id, limits: Vec::new(), finish: None };
    seen.settled.lock().expect("nobody panicked").push(message);
    wire::encode(&reply)
}

/// Status, mark and body of the scripts that answer at all.
fn answer(script: &Script, message: &[u8]) -> (u16, bool, Vec<u8>) {
    match script {
        Script::Verdict(v) => (200, true, verdict(message, *v)),
        Script::Unmarked(v) => (200, false, verdict(message, *v)),
        Script::OtherDecision => {
            let mut asked = DecideRequest::decode(message).expect("the filter's message");
            asked.id = wire::DecisionId::new(1);
            (200, true, verdict(&wire::encode(&asked), Verdict::Allow))
        }
        Script::Answer { status, marked, body } => (*status, *marked, body.as_bytes().to_vec()),
        _ => (200, true, verdict(message, Verdict::Allow)),
    }
}

async fn serve_h2(mut stream: TcpStream, script: Script, seen: Seen) -> Result<(), h2::Error> {
    if matches!(script, Script::Garbage) {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).await.is_ok() {
            seen.count.fetch_add(1, Ordering::SeqCst);
            if stream.write_all(b"\xff\xfe this is no frame \x00\x01").await.is_err() {}
        }
        return Ok(());
    }
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        seen.count.fetch_add(1, Ordering::SeqCst);
        match script {
            Script::Close => return Ok(()),
            Script::GoAway => connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM),
            _ => {
                let (script, seen) = (script.clone(), seen.clone());
                tokio::spawn(async move {
                    if answer_h2(request, respond, script, seen).await.is_err() {}
                });
            }
        }
    }
    Ok(())
}

async fn answer_h2(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Script,
    seen: Seen,
) -> Result<(), h2::Error> {
    let is_settlement = request.uri().path() == wire::SETTLE_PATH;
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        message.extend_from_slice(&piece?);
    }
    if !is_settlement {
        seen.note(&message);
    }
    match &script {
        Script::Hang => std::future::pending().await,
        Script::Late(wait) => tokio::time::sleep(*wait).await,
        Script::ResetStream => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => {}
    }
    let (status, marked, body) = match is_settlement {
        true if matches!(script, Script::SettlesNothing) => {
            (503, true, br#"{"v":1,"reason":"store-timeout"}"#.to_vec())
        }
        true => (200, true, settle(&message, &seen)),
        false => answer(&script, &message),
    };
    let mut head = Response::builder().status(status).header("content-type", "application/json");
    if marked {
        head = head.header(wire::MARK_HEADER, wire::MARK_VALUE);
    }
    let head = head.body(()).expect("a sound head");
    let mut send = respond.send_response(head, false)?;
    if matches!(script, Script::ResetAfterHeaders) {
        // A reset at once would overtake the head, which is then never sent.
        tokio::time::sleep(Duration::from_millis(200)).await;
        send.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    send.send_data(Bytes::from(body), true)
}

async fn serve_h1(stream: TcpStream, script: Script, seen: Seen) -> io::Result<()> {
    let (from, mut stream) = stream.into_split();
    let mut reader = Reader::new(from);
    while let Some(head) = reader.head().await? {
        reader.begin_body(head.framing(Framing::Length(0)));
        let (message, _) = reader.body().await?;
        seen.note(&message);
        seen.count.fetch_add(1, Ordering::SeqCst);
        match &script {
            Script::Hang => std::future::pending().await,
            Script::Late(wait) => tokio::time::sleep(*wait).await,
            Script::Close | Script::ResetStream | Script::GoAway => return Ok(()),
            Script::Garbage => return stream.write_all(b"\xff\xfe this is no HTTP\r\n\r\n").await,
            _ => {}
        }
        let (status, marked, body) = answer(&script, &message);
        let mark = if marked {
            format!("{}: {}\r\n", wire::MARK_HEADER, wire::MARK_VALUE)
        } else {
            String::new()
        };
        let head = format!("HTTP/1.1 {status} x\r\n{mark}content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        if matches!(script, Script::ResetAfterHeaders) {
            return Ok(());
        }
        stream.write_all(&body).await?;
    }
    Ok(())
}
