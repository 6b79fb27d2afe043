//! Owns a thread with a runtime of its own. Knows nothing of what is done there.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread. It ends, whatever is done there, once this is gone.
pub struct OwnThread {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

// === impl OwnThread ===

impl OwnThread {
    /// Starts it under a name, and calls `first` there before anything else is done.
    pub fn start(name: String, first: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        thread::Builder::new().name(name).spawn(move || {
            first();
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
