//! Owns how a VM sends a message to the gateway, behind the breaker that guards the way.

use std::rc::Rc;

use tidegate_policy::exchange::Answer;

use super::{Call, Vm, Waiter};
use crate::host;
use crate::root::Root;

// === impl Vm ===

impl Vm {
    /// Asks for a request, which is held.
    pub(super) fn ask(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        message: &[u8],
        timeout_ms: u32,
    ) -> Result<(), Answer<'static>> {
        let waiter = Waiter::Stream(stream);
        let sent = self.send_within(root, &root.call_headers, message, waiter, timeout_ms);
        sent.map_err(|(answer, _)| answer)
    }

    /// Sends a message, or says what became of it at once.
    pub(super) fn send(
        &mut self,
        root: &Rc<Root>,
        headers: &[u8],
        message: &[u8],
        waiter: Waiter,
    ) -> Result<(), (Answer<'static>, Waiter)> {
        self.send_within(root, headers, message, waiter, root.config.gateway.timeout_ms)
    }

    fn send_within(
        &mut self,
        root: &Rc<Root>,
        headers: &[u8],
        message: &[u8],
        waiter: Waiter,
        timeout_ms: u32,
    ) -> Result<(), (Answer<'static>, Waiter)> {
        let ticket = match root.admit(self.entropy()) {
            Ok(ticket) => ticket,
            Err(retry_ms) => return Err((Answer::CircuitOpen { retry_ms }, waiter)),
        };
        let gateway = &root.config.gateway;
        match host::http_call(&gateway.cluster, headers, message, timeout_ms) {
            Ok(token) => {
                self.calls.insert(token, Call { waiter, root: Rc::clone(root), ticket });
                Ok(())
            }
            Err(_refused) => {
                root.settle(ticket, &Answer::NotSent, self.entropy());
                Err((Answer::NotSent, waiter))
            }
        }
    }
}
