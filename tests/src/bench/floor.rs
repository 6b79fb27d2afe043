//! Owns the server beside which the gateway is measured: HTTP alone, without a decision.

use std::net::{AddrParseError, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::eventually::eventually;
use crate::parts;
use crate::process::Process;

/// A running one.
pub struct Floor {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process, for the CPU it uses.
    pub process: Process,
    _dir: tempfile::TempDir,
}

// === impl Floor ===

impl Floor {
    /// Starts one and waits until it listens.
    pub async fn start() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let command = Command::new(parts::http_floor());
        let process = Process::start(command, &dir.path().join("floor.log"))
            .map_err(|error| error.to_string())?;
        let addr = eventually(Duration::from_secs(60), "the floor listens", async || {
            process.output().trim().parse().map_err(|error: AddrParseError| error.to_string())
        })
        .await;
        Ok(Self { addr, process, _dir: dir })
    }
}
