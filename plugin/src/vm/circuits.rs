//! Owns the moments of a stream and of a root at which circuit breakers have a word.

use std::rc::Rc;

use tidegate_policy::config::Config;
use tidegate_policy::exchange::{Act, Circuit, NoLeave};

use super::{Vm, Waiter, or_log};
use crate::circuits::{Circuits, Report, Told, are_uploads};
use crate::host;
use crate::root::Root;

// === impl Vm ===

impl Vm {
    /// Time has gone by: for requests that wait, and for circuit breakers, on which this worker reports if
    /// it is its turn.
    pub(crate) fn tick(&mut self, root: u32) {
        self.tell_late(root);
        self.waited(root);
        self.look_after(root);
        self.beat(root);
        self.hand_over(root);
        self.tick_circuits(root);
        // Last, since it leaves the context of a stream in force, which may be another root's: what is sent then goes
        // with that one.
        self.look_after_joined();
    }

    fn tick_circuits(&mut self, root: u32) {
        let Some(root) = self.roots.get(&root).cloned().flatten() else { return };
        let entropy = self.entropy_low();
        let count = &mut |breaker, told, by| root.count_circuit(breaker, told, by);
        root.circuits.go_on(&root.config, entropy, count);
        for (breaker, by) in root.circuits.leaked() {
            root.count_circuit(breaker, Told::Leaked, by);
        }
        let Some(ids) = self.ids.as_mut() else { return };
        let Some((message, report)) =
            root.circuits.tick(&root.config, &root.caller, ids.decision())
        else {
            return;
        };
        self.report(&root, &message, report);
    }

    /// Reports at once what a stream brought about, on behalf of its root.
    fn report_at_once(&mut self, root: &Rc<Root>, stream: u32) {
        if !root.circuits.is_urgent() {
            return;
        }
        let context = self.streams.get(&stream).map(|stream| stream.root);
        let Some((context, ids)) = context.zip(self.ids.as_mut()) else { return };
        let id = ids.decision();
        if let Some((message, report)) = root.circuits.report_now(&root.config, &root.caller, id) {
            or_log(host::set_effective_context(context), "a circuit cannot be reported at once");
            self.report(root, &message, report);
            or_log(host::set_effective_context(stream), "no context to go on in");
        }
    }

    fn report(&mut self, root: &Rc<Root>, message: &[u8], report: Report) {
        let sent = self.send(root, &root.report_headers, message, Waiter::Circuits(report));
        if let Err((answer, Waiter::Circuits(report))) = sent {
            root.circuits.told(&report, &answer);
        }
    }

    /// The upstream answers, or Envoy in its place.
    pub(super) fn circuit_answered(&mut self, stream: u32, end: bool) {
        self.circuit_moves(stream, |circuits, config, entropy, mut count| {
            circuits.answered(config, stream, (entropy, end), &mut count);
        });
    }

    /// The whole request came.
    pub(crate) fn request_whole(&mut self, stream: u32) {
        if let Some(root) = self.root_of(stream) {
            root.circuits.uploaded(stream);
        }
    }

    /// The upstream's answer came to its end.
    pub(crate) fn answer_whole(&mut self, stream: u32) {
        self.circuit_moves(stream, |circuits, config, entropy, mut count| {
            circuits.whole(config, stream, entropy, &mut count);
        });
    }

    /// The same with trailers.
    pub(super) fn circuit_trailed(&mut self, stream: u32) {
        self.circuit_moves(stream, |circuits, config, entropy, mut count| {
            circuits.trailed(config, stream, entropy, &mut count);
        });
    }

    /// The stream is over.
    pub(super) fn circuit_ended(&mut self, stream: u32) {
        self.circuit_moves(stream, |circuits, config, entropy, mut count| {
            circuits.ended(config, stream, entropy, &mut count);
        });
    }

    /// A stream has come further: what that says of its upstream, and whether the mesh should hear of it at once.
    fn circuit_moves(
        &mut self,
        stream: u32,
        moves: impl FnOnce(&Circuits, &Config, u32, &mut dyn FnMut(usize, Told, u64)),
    ) {
        let Some(root) = self.root_of(stream).filter(|root| !root.circuits.is_empty()) else {
            return;
        };
        let entropy = self.entropy_low();
        let count = &mut |breaker, told, by| root.count_circuit(breaker, told, by);
        moves(&root.circuits, &root.config, entropy, count);
        self.report_at_once(&root, stream);
    }

    /// The request is answered here: it never goes to the upstream.
    pub(super) fn circuit_denied(&mut self, root: &Root, stream: u32) {
        if !root.circuits.is_empty() {
            let entropy = self.entropy_low();
            let count = &mut |breaker, told, by| root.count_circuit(breaker, told, by);
            root.circuits.denied(&root.config, stream, entropy, count);
        }
    }

    /// Asks a request's circuit breaker for leave.
    pub(super) fn ask_circuit(
        &mut self,
        root: &Root,
        circuit: &Circuit,
        stream: u32,
        grpc: bool,
    ) -> Result<(), NoLeave> {
        let count = &mut |breaker, told, by| root.count_circuit(breaker, told, by);
        let drawn = (grpc, self.entropy_low());
        let said = root.circuits.admit(&root.config, circuit, stream, drawn, count);
        if are_uploads() && !self.streams.get(&stream).is_some_and(|known| known.has_body) {
            root.circuits.uploaded(stream);
        }
        said.map_err(|wait_ms| {
            let now_us = host::now_us().ok();
            NoLeave { wait_ms, now_us, held: self.held_for(stream, circuit.breaker) }
        })
    }

    /// Bits to spread waits by.
    fn entropy_low(&mut self) -> u32 {
        u32::try_from(self.entropy() >> 32).unwrap_or(0)
    }
}

/// Counts what became of a request that had no leave.
pub(super) fn refused(root: &Root, breaker: usize, act: &Act) {
    let told = if matches!(act, Act::Hold { .. }) { Told::Held } else { Told::Refused };
    root.count_circuit(breaker, told, 1);
}
