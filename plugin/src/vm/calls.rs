//! Owns the calls of a VM to the gateway, behind the breaker that guards the way: how they are sent, and whose
//! their answers are.

use std::rc::Rc;

use tidegate_policy::exchange::{Answer, Event};

use super::{Call, Open, Vm, Waiter};
use crate::callout;
use crate::host::{self, Level};
use crate::root::Root;

// === impl Vm ===

impl Vm {
    /// An answer, or that there is none.
    pub(crate) fn call_response(&mut self, token: u32, headers: usize, body_size: usize) {
        let Some(Call { waiter, root, ticket }) = self.calls.remove(&token) else {
            return;
        };
        let response = (headers > 0).then(|| callout::response(body_size)).flatten();
        let answer = match &response {
            None => Answer::Reset,
            Some(r) => Answer::Response { marked: r.marked, status: &r.status, body: &r.body },
        };
        root.settle(ticket, &answer, self.entropy());
        let stream = match waiter {
            Waiter::Stream(stream) => stream,
            Waiter::Stored(stream, end) => {
                return self.settled(&root, end, &answer, Some(stream));
            }
            Waiter::Settlement(settlement) => {
                return self.settled(&root, settlement, &answer, None);
            }
            Waiter::Circuits(report) => return root.circuits.told(&report, &answer),
            Waiter::Events(id, count) => return self.events_told(&root, (id, count), &answer),
            Waiter::Sync(id, flights) => return self.synced(&root, id, &flights, &answer),
        };
        self.answered(stream, &answer);
        let Some(Open { mut exchange, .. }) = self.take_open(stream) else {
            // The client left; the gateway's answer has nobody to go to.
            root.counters.borrow_mut().late_answer(&root.config);
            return;
        };
        let event = Event::Answer { answer, entropy: self.entropy() };
        let effects = exchange.on(&root.config, &root.overrides, event);
        if let Err(status) = host::set_effective_context(stream) {
            host::log(
                Level::Error,
                &format!("tidegate: no context {stream} to answer: host status {}", status.0),
            );
            return;
        }
        self.carry_out(stream, &root, exchange, effects, true);
    }

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

    pub(super) fn send_within(
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
