//! Owns a way to a real Redis that takes time, as one to another machine does. Loses and reorders
//! nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The way. Ends when it is dropped.
#[derive(Debug)]
pub struct Far {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

// === impl Far ===

impl Far {
    /// To the server behind this socket; there and back takes `round_trip` longer.
    pub async fn start(server: PathBuf, round_trip: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, Duration::ZERO));
                tokio::spawn(carry(from_server, to_client, round_trip));
            }
        });
        Ok(Self { address, accepting })
    }

    /// Its URL for the gateway.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin,
    takes: Duration,
) {
    let (sender, mut arriving) = unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + takes, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    while let Some((due, bytes)) = arriving.recv().await {
        let arrived = tokio::time::timeout_at(due, std::future::pending::<()>()).await;
        arrived.expect_err("nothing else ends the way");
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    reading.abort();
}
