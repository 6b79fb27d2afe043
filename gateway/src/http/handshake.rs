//! Owns the beginning of a connection under TLS: its time, and how failures are told apart, counted
//! and logged. Knows neither files nor what is asked afterwards.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::Error as TlsError;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::whole_us;
use crate::metrics::{CauseLabel, SharedMetrics};
use crate::secret::Watched;
use crate::throttle::Throttle;
use crate::tls::TlsFiles;

/// A handshake takes a few milliseconds; an Envoy gives up on it after its connect timeout.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const LOG_INTERVAL_US: u64 = 10_000_000;

/// Takes connections in under the certificate that is in force when they come.
pub struct Tls {
    files: Arc<Watched<TlsFiles>>,
    metrics: SharedMetrics,
    start: Instant,
    complaints: Throttle,
}

/// Why a handshake failed: what an operator does about it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The client took too long.
    Timeout,
    /// The client went away, as probes of a port do.
    Gone,
    /// The client does not speak TLS.
    NoTls,
    /// The client has no certificate, or none that counts here.
    ClientCertificate,
    /// The client said no; most likely it does not trust our certificate.
    Refused,
    /// Anything else, such as no protocol in common.
    Other,
}

// === impl Tls ===

impl Tls {
    /// With the files' certificate.
    pub fn new(files: Arc<Watched<TlsFiles>>, metrics: SharedMetrics) -> Self {
        let complaints = Throttle::new(1, LOG_INTERVAL_US);
        Self { files, metrics, start: Instant::now(), complaints }
    }

    /// The connection under TLS, or nothing if the client failed at it.
    pub async fn accept(
        &self,
        stream: TcpStream,
        within: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let peer = stream.peer_addr();
        let acceptor = TlsAcceptor::from(self.files.current());
        let error = match timeout(within, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        let cause = Cause::of(&error);
        self.metrics.handshake_failures.get_or_create(&CauseLabel { cause: cause.as_str() }).inc();
        let now_us = whole_us(self.start.elapsed());
        // Who only looks whether the port is open is no news.
        if cause != Cause::Gone
            && let Some(more) = self.complaints.admit(now_us)
        {
            let cause = cause.as_str();
            tracing::warn!(?peer, cause, %error, more, "a TLS handshake failed");
        } else {
            tracing::debug!(?peer, cause = cause.as_str(), %error, "a TLS handshake failed");
        }
        None
    }
}

// === impl Cause ===

impl Cause {
    fn of(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Timeout;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(TlsError::NoCertificatesPresented | TlsError::InvalidCertificate(_)) => {
                Self::ClientCertificate
            }
            Some(TlsError::AlertReceived(_)) => Self::Refused,
            Some(TlsError::InvalidMessage(_)) => Self::NoTls,
            Some(_) => Self::Other,
            None => Self::Gone,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Gone => "gone",
            Self::NoTls => "no_tls",
            Self::ClientCertificate => "client_certificate",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}
