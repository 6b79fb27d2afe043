//! Owns the calls of a VM to the gateway, behind the breaker that guards the way: how they are sent, and whose
//! their answers are.

use std::rc::Rc;

use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::alone::Ticket;
use tidegate_policy::exchange::{Answer, Effects, Event};

use super::together::is_unknown;
use super::{Call, Open, Vm, Waiter};
use crate::callout;
use crate::host::{self, Level};
use crate::path;
use crate::root::Root;

/// Where a message goes.
#[derive(Clone, Copy)]
pub(super) struct To {
    /// The home region's gateways, by its index; `None` is this region's own.
    pub(super) home: Option<usize>,
    /// How long the answer is waited for, in ms.
    pub(super) timeout_ms: u32,
}

/// A message that was sent: its token, whose gateway was asked, and leave for it.
pub(super) struct Sent {
    token: u32,
    called: (Option<usize>, Ticket),
}

// === impl To ===

impl To {
    /// A gateway, which may take as long as the configuration says.
    pub(super) fn of(root: &Root, home: Option<usize>) -> Self {
        let config = &root.config;
        let there = home.and_then(|index| config.homes.get(index));
        let timeout_ms = there.map_or(config.gateway.timeout_ms, |home| home.timeout_ms);
        Self { home, timeout_ms }
    }
}

// === impl Vm ===

impl Vm {
    /// An answer, or that there is none; and what waited for it beside.
    pub(crate) fn call_response(&mut self, token: u32, headers: usize, body_size: usize) {
        self.telling = self.calls.get(&token).and_then(|call| call.told_by);
        self.call_answered(token, headers, body_size);
        self.telling = None;
        self.wake();
    }

    fn call_answered(&mut self, token: u32, headers: usize, body_size: usize) {
        let Some(Call { waiter, root, called, .. }) = self.calls.remove(&token) else {
            return;
        };
        let response = (headers > 0).then(|| callout::response(body_size)).flatten();
        let answer = match &response {
            None => Answer::Reset,
            Some(r) => Answer::Response { marked: r.marked, status: &r.status, body: &r.body },
        };
        let outcome = match &waiter {
            Waiter::Together(_) if is_unknown(&answer) => Outcome::Ignored,
            _ => path::outcome(&answer),
        };
        root.settle(called, outcome, self.entropy());
        let stream = match waiter {
            Waiter::Stream(stream) => stream,
            Waiter::Alone(stream) => return self.told_alone(&root, stream, answer),
            Waiter::Together(party) => return self.told_together(&root, &party, answer),
            Waiter::Stored(stream, end) => {
                return self.settled(&root, end, &answer, Some(stream));
            }
            Waiter::Settlement(settlement) => {
                return self.settled(&root, settlement, &answer, None);
            }
            Waiter::Circuits(report) => return root.circuits.told(&report, &answer),
            Waiter::Events(id, count) => return self.events_told(&root, (id, count), &answer),
            Waiter::Record { stream, id, is_void } => {
                return self.recorded(&root, (stream, id, is_void), &answer);
            }
            Waiter::Sync(id, flights) => return self.synced(&root, id, &flights, &answer),
        };
        self.tell(&root, stream, answer);
    }

    /// Tells a request that is held what became of its question.
    pub(super) fn tell(&mut self, root: &Root, stream: u32, answer: Answer<'_>) {
        self.answered(stream, &answer);
        let Some(open) = self.take_open(stream) else {
            // The client left; the gateway's answer has nobody to go to.
            root.counters.borrow_mut().late_answer(&root.config);
            return;
        };
        let mut open = *open;
        let event = Event::Answer { answer, entropy: self.entropy() };
        let effects = open.exchange.on(&root.config, &root.overrides, event);
        if let Err(status) = host::set_effective_context(stream) {
            host::log(
                Level::Error,
                &format!("tidegate: no context {stream} to answer: host status {}", status.0),
            );
            open.taken.give_back();
            return;
        }
        self.carry_out(stream, open, effects, true);
    }

    /// Puts the question of a request, which is then held; or what follows from it where nobody can be asked. Not a part of
    /// what decides inside Envoy, which it would make slower.
    #[inline(never)]
    pub(super) fn put(&mut self, stream: u32, open: &mut Open, message: &[u8]) -> Option<Effects> {
        let to = To {
            home: open.exchange.home(&open.root.config),
            timeout_ms: open.exchange.timeout_ms(&open.root.config),
        };
        let asked = match open.exchange.is_brief() && to.home.is_none() {
            true => self.ask_together(stream, &open.root, message),
            false => self.ask(stream, &open.root, message, to),
        };
        let Err(answer) = asked else {
            if open.exchange.is_timed()
                && let Ok(now_us) = host::now_us()
            {
                open.exchange.sent(now_us);
            }
            return None;
        };
        self.answered(stream, &answer);
        let event = Event::Answer { answer, entropy: self.entropy() };
        Some(open.exchange.on(&open.root.config, &open.root.overrides, event))
    }

    /// Asks for a request, which is held.
    pub(super) fn ask(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        message: &[u8],
        to: To,
    ) -> Result<(), Answer<'static>> {
        let waiter = Waiter::Stream(stream);
        let sent = self.send_to(root, &root.call_headers, message, waiter, to);
        sent.map_err(|(answer, _)| answer)
    }

    /// Sends a message to this region's gateway, or says what became of it at once.
    pub(super) fn send(
        &mut self,
        root: &Rc<Root>,
        headers: &[u8],
        message: &[u8],
        waiter: Waiter,
    ) -> Result<(), (Answer<'static>, Waiter)> {
        self.send_to(root, headers, message, waiter, To::of(root, None))
    }

    pub(super) fn send_to(
        &mut self,
        root: &Rc<Root>,
        headers: &[u8],
        message: &[u8],
        waiter: Waiter,
        to: To,
    ) -> Result<(), (Answer<'static>, Waiter)> {
        match self.call(root, headers, message, to) {
            Ok(sent) => {
                self.wait_for(root, sent, waiter);
                Ok(())
            }
            Err(answer) => Err((answer, waiter)),
        }
    }

    /// Sends a message; then [`Vm::wait_for`] says who waits for its answer.
    pub(super) fn call(
        &mut self,
        root: &Rc<Root>,
        headers: &[u8],
        message: &[u8],
        to: To,
    ) -> Result<Sent, Answer<'static>> {
        let ticket = match root.admit(to.home) {
            Ok(ticket) => ticket,
            Err(retry_ms) => return Err(Answer::CircuitOpen { retry_ms }),
        };
        let called = (to.home, ticket);
        match host::http_call(root.cluster(to.home), headers, message, to.timeout_ms) {
            Ok(token) => Ok(Sent { token, called }),
            Err(_refused) => {
                root.settle(called, Outcome::Failure, self.entropy());
                Err(Answer::NotSent)
            }
        }
    }

    pub(super) fn wait_for(
        &mut self,
        root: &Rc<Root>,
        Sent { token, called }: Sent,
        waiter: Waiter,
    ) {
        let (root, told_by) = (Rc::clone(root), self.telling);
        self.calls.insert(token, Call { waiter, root, called, told_by });
    }
}
