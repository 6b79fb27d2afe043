//! Owns the one fault fixture: a relay between any two parts (Envoy and gateway, gateway and
//! Redis) that passes, delays, stops, cuts or garbles what goes through it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Passes everything on.
    None,
    /// Holds every piece back for that long, in both directions.
    Delay(Duration),
    /// Keeps connections open and passes nothing on.
    Stop,
    /// Ends every connection, and each new one at once.
    Cut,
    /// Answers whatever comes with bytes that mean nothing, and ends the connection.
    Garbage,
}

/// Where the relay leads.
#[derive(Debug, Clone)]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub addr: SocketAddr,
    fault: watch::Sender<Fault>,
    task: JoinHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

// === impl Relay ===

impl Relay {
    /// Starts one on a free port.
    pub async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener");
        let (fault, seen) = watch::channel(Fault::None);
        let task = tokio::spawn(accept(listener, target, seen));
        Self { addr, fault, task }
    }

    /// Changes what it does, for the connections that are open too.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: Target, fault: watch::Receiver<Fault>) {
    while let Ok((near, _)) = listener.accept().await {
        let (target, fault) = (target.clone(), fault.clone());
        tokio::spawn(async move {
            // Either side ending is what a relay is for.
            if relay(near, target, fault).await.is_err() {}
        });
    }
}

async fn relay(near: TcpStream, target: Target, fault: watch::Receiver<Fault>) -> io::Result<()> {
    near.set_nodelay(true)?;
    if *fault.borrow() == Fault::Cut {
        return Ok(());
    }
    let far: Box<dyn Stream> = match target {
        Target::Tcp(addr) => Box::new(TcpStream::connect(addr).await?),
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = tokio::io::split(far);
    let mut cut = fault.clone();
    tokio::select! {
        ended = pass(near_read, far_write, fault.clone(), false) => ended,
        ended = pass(far_read, near_write, fault, true) => ended,
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => Ok(()),
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut fault: watch::Receiver<Fault>,
    is_answer: bool,
) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let size = from.read(&mut piece).await?;
        if size == 0 {
            return Ok(());
        }
        let now = *fault.borrow();
        match now {
            Fault::None | Fault::Cut => {}
            Fault::Delay(wait) => tokio::time::sleep(wait).await,
            Fault::Stop => {
                if fault.wait_for(|fault| *fault != Fault::Stop).await.is_err() {
                    return Ok(());
                }
            }
            Fault::Garbage if is_answer => {
                to.write_all(b"\xff\x00\xfe\x01 this means nothing \r\n\r\n").await?;
                return Ok(());
            }
            Fault::Garbage => {}
        }
        to.write_all(&piece[..size]).await?;
    }
}
