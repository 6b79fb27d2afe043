//! Owns what the exchange is told of circuit breakers before it asks for leave: what the whole process knows at
//! that moment, not only what this worker last saw. Gives leave where that is all there is to it.

use tidegate_policy::config::{CircuitBreaker, Config};
use tidegate_policy::exchange::{Circuit, Known};

use super::Circuits;
use super::flights::Flight;
use super::known::now_ms;

/// The breakers of one configuration, looked at with each question.
#[derive(Debug)]
pub(crate) struct Fresh<'r> {
    pub(crate) circuits: &'r Circuits,
    pub(crate) config: &'r Config,
    /// Who asks.
    pub(crate) stream: u32,
    /// Now, in µs, if that is known.
    pub(crate) now_us: Option<u64>,
}

// === impl Fresh ===

impl Fresh<'_> {
    /// Whether the part of one that is for each of many refuses, or that of all. Takes no place in the table: who
    /// is not there was never refused.
    fn is_shut_by_itself(
        &self,
        circuit: &Circuit,
        breaker: &CircuitBreaker,
        changes: Option<u64>,
    ) -> bool {
        let many = breaker.many.is_some();
        if many && let Some((state, _)) = self.circuits.for_all(circuit.breaker, changes) {
            return !state.passes();
        }
        let mut known = self.circuits.known.borrow_mut();
        let place = match &circuit.whose {
            _ if !many => known.places().alone(circuit.breaker),
            None => known.places().others(circuit.breaker),
            Some(whose) => {
                now_ms().and_then(|now_ms| known.find(circuit.breaker, whose, false, now_ms))
            }
        };
        place.is_some_and(|place| known.look(place, changes).is_ok_and(|slot| !slot.worker.passes))
    }
}

impl Known for Fresh<'_> {
    fn is_shut(&self, circuit: &Circuit) -> bool {
        let Some(breaker) = self.config.circuit_breakers.get(circuit.breaker) else { return false };
        let changes = self.circuits.changes();
        !self.circuits.needed_pass(self.config, breaker, changes)
            || self.is_shut_by_itself(circuit, breaker, changes)
    }

    fn grants(&self, circuit: &Circuit, grpc: bool) -> bool {
        let Some(breaker) = self.config.circuit_breakers.get(circuit.breaker) else { return true };
        let circuits = self.circuits;
        // Without a count of changes every question reads what is shared: once is enough.
        let Some(changes) = circuits.changes_by(self.now_us) else { return false };
        let known = Some(changes);
        let passes = circuits.needed_pass(self.config, breaker, known);
        let pass = || circuits.known.borrow_mut().pass(circuit, breaker, known);
        let Some(flight) = passes.then(pass).flatten() else {
            circuits.glimpse.set(Some((self.stream, changes)));
            return false;
        };
        circuits.take_off(breaker, self.stream, Flight { grpc, ..flight });
        true
    }
}
