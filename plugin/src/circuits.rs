//! Owns a worker's part of circuit breakers: leave for each request, what became of it, and where that
//! is written so that all workers of the process share it. What the octets mean is policy's.
//!
//! While a breaker is closed a request costs one read of a metric, which counts the changes of all
//! breakers in the process, and one read of its answer's status. Only when that number has changed, or
//! a call failed, shared data is read.

mod mesh;
mod shared;
mod told;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::mesh::Ended;
use tidegate_policy::breaker::outcome::Seen;
use tidegate_policy::breaker::process::{Leave, Process};
use tidegate_policy::breaker::worker::Worker;
use tidegate_policy::config::{CircuitBreaker, Config};
use tidegate_policy::exchange::Circuit;

use crate::host::{self, Map};
use crate::property::Property;

pub(crate) use mesh::{Report, TICK_MS};
use shared::{read, step};
pub(crate) use told::Told;

/// Counts the changes of who may call, over all workers and breakers of the process.
const CHANGES: &str = "tidegate_circuit_changes";
const DETAILS: &str = "response\0code_details";
const GRPC_STATUS: &str = "grpc-status";

/// The breakers of one configuration in one worker.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    /// The metric's id; `None` where the host has none, and then every request looks.
    changes: Option<u32>,
    slots: RefCell<Vec<Slot>>,
    /// Requests on their way whose outcome counts, by stream.
    flights: RefCell<BTreeMap<u32, Flight>>,
    /// Breakers by name.
    places: BTreeMap<String, usize>,
    /// This worker among those of the process.
    me: u64,
    /// When this configuration came, in ms: the newest reports.
    rank: u64,
    /// Whether this worker shut its process, and the mesh should hear of it at once.
    urgent: Cell<bool>,
    /// Where the next report goes on.
    next: Cell<usize>,
    /// When it was last called by its tick, in ms.
    ticked_ms: Cell<u64>,
    /// Whether a report is on its way.
    reporting: Cell<bool>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    worker: Worker,
    /// The changes of the process when it last looked.
    seen: Option<u64>,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    breaker: usize,
    generation: u32,
    test: Option<u64>,
    /// When it began, if slow calls matter.
    since_us: Option<u64>,
    grpc: bool,
    /// Its answer came, and only its trailers tell.
    answered: bool,
}

// === impl Circuits ===

impl Circuits {
    /// Nothing is known yet. `me`: 64 random bits.
    pub(crate) fn new(config: &Config, me: u64) -> Self {
        let breakers = &config.circuit_breakers;
        if breakers.is_empty() {
            return Self::default();
        }
        let places = breakers.iter().enumerate().map(|(place, one)| (one.name.clone(), place));
        Self {
            changes: host::define_counter(CHANGES).ok(),
            slots: RefCell::new(vec![Slot::default(); breakers.len()]),
            places: places.collect(),
            me,
            rank: host::now_us().map_or(0, |now_us| now_us / 1_000),
            ..Self::default()
        }
    }

    /// Whether there is anything to do at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Those that this worker last knew to let nothing pass, without looking again.
    pub(crate) fn shut(&self) -> Vec<usize> {
        let slots = self.slots.borrow();
        let is_shut = |slot: &Slot| slot.seen.is_some() && !slot.worker.passes;
        let shut = slots.iter().enumerate().filter(|(_, slot)| is_shut(slot));
        shut.map(|(place, _)| place).collect()
    }

    /// Leave for a request, or how long it should wait, in ms, if that is known.
    pub(crate) fn admit(
        &self,
        config: &Config,
        circuit: Circuit,
        stream: u32,
        (grpc, entropy): (bool, u32),
        count: &mut impl FnMut(usize, Told),
    ) -> Result<(), Option<u64>> {
        let Some(breaker) = config.circuit_breakers.get(circuit.breaker) else { return Ok(()) };
        let changes = self.changes();
        let refuse = |wait_ms: Option<u64>, count: &mut dyn FnMut(usize, Told)| {
            if circuit.enforced {
                return Err(wait_ms);
            }
            count(circuit.breaker, Told::WouldRefuse);
            Ok(())
        };
        if !self.needed_pass(config, breaker, changes) {
            return refuse(None, count);
        }
        let Some(worker) = self.look(circuit.breaker, breaker, changes) else { return Ok(()) };
        let mut flight = Flight {
            breaker: circuit.breaker,
            generation: worker.generation,
            test: None,
            since_us: None,
            grpc,
            answered: false,
        };
        if !worker.passes {
            let Ok(now_us) = host::now_us() else { return Ok(()) };
            let now_ms = now_us / 1_000;
            let alone = mesh::is_alone(now_ms);
            let leave = step(&breaker.name, |process| {
                let leave = process.admit(&breaker.own, now_ms, alone);
                flight.generation = process.generation;
                leave
            });
            match leave {
                Some(Leave::Pass) => {}
                Some(Leave::Test(id)) => {
                    count(circuit.breaker, Told::Test);
                    flight.test = Some(id);
                }
                Some(Leave::Wait(wait_ms)) => refuse(wait_ms, count)?,
                None => refuse(None, count)?,
            }
        }
        if !self.is_let_go(circuit.breaker, breaker, entropy) {
            refuse(None, count)?;
        }
        if breaker.slow_ms.is_some() {
            flight.since_us = host::now_us().ok();
        }
        self.flights.borrow_mut().insert(stream, flight);
        Ok(())
    }

    /// Whether a request is of the share that passes while a breaker that tests closed is let go slowly.
    fn is_let_go(&self, place: usize, breaker: &CircuitBreaker, entropy: u32) -> bool {
        let mut slots = self.slots.borrow_mut();
        let worker = slots.get_mut(place).map(|slot| &mut slot.worker);
        let Some(worker) = worker.filter(|worker| worker.is_ramping(&breaker.own)) else {
            return true;
        };
        let Ok(now_us) = host::now_us() else { return true };
        worker.passes_at(&breaker.own, now_us / 1_000, entropy)
    }

    /// The request never went to the upstream: a test is given back.
    pub(crate) fn denied(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told),
    ) {
        if let Some(flight) = self.take(stream) {
            self.land(config, flight, Outcome::Ignored, entropy, count);
        }
    }

    /// The upstream answers, or Envoy in its place.
    pub(crate) fn answered(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told),
    ) {
        let Some((flight, breaker)) = self.take_known(config, stream) else { return };
        let status = host::header(Map::Response, ":status").ok().flatten().unwrap_or_default();
        let code = match flight.grpc {
            true => host::header(Map::Response, GRPC_STATUS).ok().flatten(),
            false => None,
        };
        if flight.grpc && code.is_none() && status == b"200" {
            let waits = Flight { answered: true, ..flight };
            self.flights.borrow_mut().insert(stream, waits);
            return;
        }
        let seen = Seen::Answered { status: &status, grpc: flight.grpc.then_some(code.as_deref()) };
        self.land(config, flight, judged(breaker, seen), entropy, count);
    }

    /// The stream is over.
    pub(crate) fn ended(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told),
    ) {
        let Some((flight, breaker)) = self.take_known(config, stream) else { return };
        let outcome = if flight.answered {
            let code = host::header(Map::ResponseTrailer, GRPC_STATUS).ok().flatten();
            match code {
                Some(code) => {
                    judged(breaker, Seen::Answered { status: b"200", grpc: Some(Some(&code)) })
                }
                // An answer that was cut off: whose fault that was Envoy's details tell.
                None => judged(breaker, Seen::CutOff),
            }
        } else {
            judged(breaker, Seen::Ended)
        };
        self.land(config, flight, outcome, entropy, count);
    }

    fn take_known<'c>(
        &self,
        config: &'c Config,
        stream: u32,
    ) -> Option<(Flight, &'c CircuitBreaker)> {
        let flight = self.take(stream)?;
        Some((flight, config.circuit_breakers.get(flight.breaker)?))
    }

    fn take(&self, stream: u32) -> Option<Flight> {
        let mut flights = self.flights.borrow_mut();
        if flights.is_empty() { None } else { flights.remove(&stream) }
    }

    fn land(
        &self,
        config: &Config,
        flight: Flight,
        outcome: Outcome,
        entropy: u32,
        count: &mut impl FnMut(usize, Told),
    ) {
        let Some(breaker) = config.circuit_breakers.get(flight.breaker) else { return };
        let slow = match (breaker.slow_ms, flight.since_us) {
            (Some(slow_ms), Some(since_us)) => host::now_us()
                .is_ok_and(|now_us| now_us.saturating_sub(since_us) > u64::from(slow_ms) * 1_000),
            _ => false,
        };
        if let Some(id) = flight.test {
            let (ended, told) = match outcome {
                // An upstream that answers too slowly does not work yet.
                Outcome::Success if slow && breaker.own.terms.slow_permille > 0 => {
                    (Ended::Failed, Told::TestFailed)
                }
                Outcome::Success => (Ended::Ok, Told::TestOk),
                Outcome::Failure => (Ended::Failed, Told::TestFailed),
                Outcome::Ignored => (Ended::GivenBack, Told::TestGivenBack),
            };
            count(flight.breaker, told);
            let Ok(now_us) = host::now_us() else { return };
            let settled = |process: &mut Process| {
                process.settle(&breaker.own, id, ended, now_us / 1_000, entropy)
            };
            if step(&breaker.name, settled) == Some(true) {
                self.changed();
            }
            return;
        }
        if !breaker.depends_on.is_empty() && !self.needed_pass(config, breaker, self.changes()) {
            return;
        }
        let trips = self.slots.borrow_mut().get_mut(flight.breaker).is_some_and(|slot| {
            slot.worker.count(flight.generation, outcome, slow, breaker.own.consecutive)
        });
        if trips && let Ok(now_us) = host::now_us() {
            let counts = self.counted(flight.breaker);
            let tripped = step(&breaker.name, |process| {
                if let Some(counts) = counts {
                    process.add(flight.generation, counts);
                }
                process.trip(&breaker.own, flight.generation, now_us / 1_000, entropy)
            });
            if tripped == Some(true) {
                count(flight.breaker, Told::Tripped);
                self.urgent.set(true);
                self.changed();
            }
        }
    }

    /// What this worker counted, to be handed on.
    fn counted(&self, place: usize) -> Option<tidegate_policy::breaker::process::Counts> {
        self.slots.borrow_mut().get_mut(place).and_then(|slot| slot.worker.take())
    }

    /// Whether all that it depends on let calls pass. There is no circle.
    fn needed_pass(&self, config: &Config, breaker: &CircuitBreaker, changes: Option<u64>) -> bool {
        let mut left = breaker.depends_on.clone();
        let mut seen: Vec<usize> = Vec::new();
        while let Some(place) = left.pop() {
            if seen.contains(&place) {
                continue;
            }
            seen.push(place);
            let Some(needed) = config.circuit_breakers.get(place) else { continue };
            if self.look(place, needed, changes).is_some_and(|worker| !worker.passes) {
                return false;
            }
            left.extend(&needed.depends_on);
        }
        true
    }

    /// What this worker knows of a breaker; looks only if anything changed since it last did.
    fn look(&self, place: usize, breaker: &CircuitBreaker, changes: Option<u64>) -> Option<Worker> {
        let slot = self.slots.borrow().get(place).copied()?;
        if changes.is_some() && slot.seen == changes {
            return Some(slot.worker);
        }
        let process = read(&breaker.name)?;
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(place)?;
        slot.worker.look(&process);
        slot.seen = changes;
        Some(slot.worker)
    }

    fn changes(&self) -> Option<u64> {
        host::metric(self.changes?).ok()
    }

    fn changed(&self) {
        // Where the metric cannot be counted every worker looks with every request.
        if let Some(id) = self.changes {
            let _counted: Result<(), host::Status> = host::increment(id, 1);
        }
    }
}

fn judged(breaker: &CircuitBreaker, seen: Seen<'_>) -> Outcome {
    match breaker.rules.outcome(seen, None) {
        Ok(outcome) => outcome,
        Err(_) => {
            let details = host::property(DETAILS).map(Property::bytes).ok().flatten();
            breaker
                .rules
                .outcome(seen, Some(&details.unwrap_or_default()))
                .unwrap_or(Outcome::Ignored)
        }
    }
}
