//! Owns the thread on which a chain is kept: files are written there after each append, and a disk may take seconds for
//! that, in which whoever asks whether the gateway lives has to be answered. Knows no files.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread, and a runtime on it. It ends, whatever is done there, once this is gone.
pub struct Desk {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

// === impl Desk ===

impl Desk {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            // Its sender is only ever dropped.
            let _dropped = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _ends: ends })
    }

    /// What is spawned here is done there.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}
