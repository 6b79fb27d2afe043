//! Owns an upstream over HTTP/1 that does as it is told, octet for octet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Answers 200.
    Works,
    /// Answers 500.
    Fails,
    /// Answers 200 and 500 in turn.
    HalfFails,
    /// Ends each connection without an answer, also those that are open.
    Dies,
    /// Ends the connection within the body of a 200.
    Cuts,
    /// Begins a 200 and says no more until it does something else, then the rest.
    Pauses,
    /// Says nothing until it does something else, then answers 200.
    Hangs,
}

/// A running one.
#[derive(Debug)]
pub struct Puppet {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<AtomicUsize>,
    octets: Arc<AtomicUsize>,
    does: watch::Sender<Does>,
    task: JoinHandle<()>,
}

// === impl Puppet ===

impl Puppet {
    /// Starts one on a free port.
    pub async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener");
        let (seen, (does, told)) = (Arc::new(AtomicUsize::new(0)), watch::channel(does));
        let octets = Arc::new(AtomicUsize::new(0));
        let counted = (Arc::clone(&seen), Arc::clone(&octets));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (told, (seen, octets)) = (told.clone(), counted.clone());
                // A client that leaves is no concern of the upstream's.
                tokio::spawn(async move { serve(stream, told, &seen, &octets).await.ok() });
            }
        });
        Self { addr, seen, octets, does, task }
    }

    /// Requests that reached it.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// How many octets of bodies it got.
    pub fn octets(&self) -> usize {
        self.octets.load(Ordering::SeqCst)
    }

    /// From now on it does that.
    pub fn now(&self, does: Does) {
        self.does.send_replace(does);
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    mut told: watch::Receiver<Does>,
    seen: &AtomicUsize,
    octets: &AtomicUsize,
) -> io::Result<()> {
    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
    const FAILED: &[u8] = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";
    let mut died = told.clone();
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            tokio::select! {
                read = stream.read_u8() => head.push(read?),
                dead = died.wait_for(|does| *does == Does::Dies), if head.is_empty() => {
                    return dead.map(drop).map_err(io::Error::other);
                }
            }
        }
        let nth = seen.fetch_add(1, Ordering::SeqCst);
        let mut body = vec![0; announced(&head)];
        stream.read_exact(&mut body).await?;
        octets.fetch_add(body.len(), Ordering::SeqCst);
        let does = *told.borrow_and_update();
        match does {
            Does::Works => stream.write_all(WHOLE).await?,
            Does::HalfFails if nth.is_multiple_of(2) => stream.write_all(WHOLE).await?,
            Does::Fails | Does::HalfFails => stream.write_all(FAILED).await?,
            Does::Dies => return Ok(()),
            Does::Cuts => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
            }
            Does::Pauses => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf").await?;
                told.wait_for(|does| *does != Does::Pauses).await.map_err(io::Error::other)?;
                stream.write_all(b"done").await?;
            }
            Does::Hangs => {
                told.wait_for(|does| *does != Does::Hangs).await.map_err(io::Error::other)?;
                stream.write_all(WHOLE).await?;
            }
        }
    }
}

/// How many octets of a body are to follow.
fn announced(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}
