//! Where a host call on shared state waits until the scheduler lets its VM go on. It must not know who else waits.

use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender};

/// One VM thread's end of its line to the scheduler.
#[derive(Clone)]
pub(crate) struct Turnstile(Rc<Ends>);

struct Ends {
    waiting: Sender<Stop>,
    go: Receiver<()>,
}

/// Why a seat handed the turn back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// A host call on shared state is about to be made.
    AtCall,
    /// The job is done.
    Done,
}

/// The host calls whose order between VMs can be seen. Time, logs and a stream's own state cannot.
const SHARED: [&str; 11] = [
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_register_shared_queue",
    "proxy_resolve_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue",
    "proxy_get_metric",
    "proxy_http_call",
    "proxy_grpc_call",
    "proxy_grpc_send",
    "proxy_grpc_close",
];

impl Turnstile {
    pub(crate) fn new(waiting: Sender<Stop>, go: Receiver<()>) -> Self {
        Self(Rc::new(Ends { waiting, go }))
    }

    /// Waits before a call whose order matters. Without a scheduler at the other end nobody waits.
    pub(crate) fn pass(&self, call: &str) {
        if SHARED.contains(&call) && self.0.waiting.send(Stop::AtCall).is_ok() {
            // An error means that the run is over; the call then goes on to its end.
            if self.0.go.recv().is_err() {}
        }
    }
}
