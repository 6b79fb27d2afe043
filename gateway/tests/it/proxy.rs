//! Owns a way to Redis that can go wrong: between the gateway (TCP) and a real server (socket).

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Connections that exist swallow everything; new ones forward.
    SwallowOld,
    /// So do the first connection and all new ones.
    SwallowFirstAndNew,
    /// What the server says is replaced.
    Garbage,
}

/// The way. Ends with the test.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    server: watch::Sender<PathBuf>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (mode, seen) = watch::channel(Mode::Forward);
        let (server, leads_to) = watch::channel(server);
        let accepting = tokio::spawn(async move {
            let mut is_first = true;
            while let Ok((client, _)) = listener.accept().await {
                let path = leads_to.borrow().clone();
                if let Ok(server) = UnixStream::connect(path).await {
                    tokio::spawn(carry(client, server, seen.clone(), is_first));
                    is_first = false;
                }
            }
        });
        Self { address, mode, server, accepting }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Connections that exist stay with their server; new ones go to this one.
    pub fn lead_to(&self, server: PathBuf) {
        self.server.send_replace(server);
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, server: UnixStream, mode: watch::Receiver<Mode>, is_first: bool) {
    let born = (*mode.borrow(), is_first);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        pump(from_client, to_server, mode.clone(), born, false),
        pump(from_server, to_client, mode, born, true),
    );
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: watch::Receiver<Mode>,
    (born, is_first): (Mode, bool),
    spoils: bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *mode.borrow();
        let written = match now {
            Mode::SwallowOld if born != Mode::SwallowOld => Ok(()),
            Mode::SwallowFirstAndNew if is_first || born == now => Ok(()),
            Mode::Garbage if spoils => to.write_all(b"\x00*what?\r\n").await,
            _ => to.write_all(&buffer[..read]).await,
        };
        if written.is_err() {
            break;
        }
    }
    // The other side sees the end as well.
    if to.shutdown().await.is_err() {
        println!("the other side was gone first");
    }
}
