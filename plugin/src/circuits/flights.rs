//! Owns what becomes of requests that have leave: their outcomes, and what follows for the worker and its
//! process.

use std::collections::hash_map::Entry;
use std::rc::Rc;

use tidegate_policy::breaker::Outcome;
use tidegate_policy::breaker::mesh::{Ended, State};
use tidegate_policy::breaker::outcome::{NeedsDetails, Seen};
use tidegate_policy::breaker::worker::Worker;
use tidegate_policy::config::{CircuitBreaker, Config};

use super::known::{Known, now_ms};
use super::marks::Says;
use super::{Circuits, TICK_MS, Told};
use crate::host::{self, Map};
use crate::property::Property;

const DETAILS: &str = "response\0code_details";
/// Where gRPC says what came of a call.
pub(crate) const GRPC_STATUS: &str = "grpc-status";

/// A request on its way.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    /// The breaker in the configuration, and where it lies.
    pub(super) breaker: usize,
    pub(super) place: usize,
    pub(super) whose: Option<Rc<str>>,
    pub(super) generation: u32,
    pub(super) test: Option<u64>,
    /// When it began, if slow calls matter.
    pub(super) since_us: Option<u64>,
    pub(super) grpc: bool,
    pub(super) answer: Part,
}

/// How much of an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing.
    Nothing,
    /// The headers of a gRPC answer, at this time in ms if it is a test's: only its trailers tell.
    Untold(u64),
    /// Headers that say that all is well, at this time in ms if it is a test's.
    Begun(u64),
}

// === impl Circuits ===

impl Circuits {
    /// The request never went to the upstream: a test is given back.
    pub(crate) fn denied(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
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
        (entropy, end): (u32, bool),
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        let mut flights = self.flights.borrow_mut();
        let Some(flight) = flights.get_mut(&stream) else { return };
        let status = host::header(Map::Response, ":status").ok().flatten().unwrap_or_default();
        if !end && self.is_well(config, flight, &status) {
            return;
        }
        drop(flights);
        let Some((flight, breaker)) = self.take_known(config, stream) else { return };
        let code = match flight.grpc {
            true => host::header(Map::Response, GRPC_STATUS).ok().flatten(),
            false => None,
        };
        if flight.grpc && code.is_none() && status == b"200" {
            let since_ms = flight.test.and_then(|_| now_ms()).unwrap_or(0);
            if flight.test.is_some() {
                self.tested.borrow_mut().push(stream);
            }
            let waits = Flight { answer: Part::Untold(since_ms), ..flight };
            self.flights.borrow_mut().insert(stream, waits);
            return;
        }
        let seen = Seen::Answered { status: &status, grpc: flight.grpc.then_some(code.as_deref()) };
        let outcome = self.judged(config, breaker, &flight, seen);
        if outcome != Outcome::Success || end || is_too_slow(breaker, &flight) {
            return self.land(config, flight, outcome, entropy, count);
        }
        // Whether it comes to its end is told later.
        self.began(config, stream, flight);
    }

    /// Whether an answer says at a glance that all is well, as most do: then its end is waited for.
    fn is_well(&self, config: &Config, flight: &mut Flight, status: &[u8]) -> bool {
        let is_plain = !flight.grpc && flight.test.is_none() && flight.since_us.is_none();
        let breaker = config.circuit_breakers.get(flight.breaker).filter(|_| is_plain);
        let seen = Seen::Answered { status, grpc: None };
        let outcome = breaker.map(|breaker| breaker.rules.outcome(seen, false, None));
        if outcome != Some(Ok(Outcome::Success)) {
            return false;
        }
        let generation = flight.generation;
        let is_well = self.with_worker(config, flight, |worker| {
            // Whoever answers ends a row of failures: it has to be the upstream.
            let is_well = !worker.is_in_row(generation);
            if is_well {
                worker.began(generation, false);
            }
            is_well
        });
        if is_well == Some(false) {
            return false;
        }
        flight.answer = Part::Begun(0);
        true
    }

    fn began(&self, config: &Config, stream: u32, flight: Flight) {
        let mut begun = 0;
        if flight.test.is_some() {
            begun = now_ms().unwrap_or(0);
            self.tested.borrow_mut().push(stream);
        } else if let Some(breaker) = config.circuit_breakers.get(flight.breaker) {
            let slow = is_slow(breaker, &flight);
            self.with_worker(config, &flight, |worker| worker.began(flight.generation, slow));
        }
        let flight = Flight { answer: Part::Begun(begun), ..flight };
        self.flights.borrow_mut().insert(stream, flight);
    }

    /// An answer came to its end.
    pub(crate) fn whole(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        let Some(flight) = self.take_if(stream, |flight| matches!(flight.answer, Part::Begun(_)))
        else {
            return;
        };
        if flight.test.is_some() {
            return self.land(config, flight, Outcome::Success, entropy, count);
        }
        self.with_worker(config, &flight, |worker| worker.whole(flight.generation));
    }

    /// An answer came to its end, with trailers. What came of a gRPC call stands in them; one that they say nothing of
    /// is judged as cut off, once its stream is over.
    pub(crate) fn trailed(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        let answer = self.flights.borrow().get(&stream).map(|flight| flight.answer);
        let Some(Part::Untold(_)) = answer else {
            return self.whole(config, stream, entropy, count);
        };
        let code = host::header(Map::ResponseTrailer, GRPC_STATUS).ok().flatten();
        let Some(code) = code else { return };
        let Some((flight, breaker)) = self.take_known(config, stream) else { return };
        let seen = Seen::Answered { status: b"200", grpc: Some(Some(&code)) };
        let outcome = self.judged(config, breaker, &flight, seen);
        self.land(config, flight, outcome, entropy, count);
    }

    /// Tests whose answers began a tick ago and go on: they say enough.
    pub(crate) fn go_on(
        &self,
        config: &Config,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        self.give_up_uploads(config, entropy, count);
        if self.tested.borrow().is_empty() {
            return;
        }
        let Some(now_ms) = now_ms() else { return };
        for stream in self.tested.take() {
            let answer = self.flights.borrow().get(&stream).map(|flight| flight.answer);
            let Some(Part::Begun(begun_ms) | Part::Untold(begun_ms)) = answer else { continue };
            if now_ms.abs_diff(begun_ms) < u64::from(TICK_MS) {
                self.tested.borrow_mut().push(stream);
            } else if let Some(flight) = self.take(stream) {
                self.land(config, flight, Outcome::Success, entropy, count);
            }
        }
    }

    /// The stream is over.
    pub(crate) fn ended(
        &self,
        config: &Config,
        stream: u32,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        let Some((flight, breaker)) = self.take_known(config, stream) else { return };
        let judged = |seen| self.judged(config, breaker, &flight, seen);
        let outcome = match flight.answer {
            // Whose fault that was Envoy's details tell.
            Part::Untold(_) => judged(Seen::CutOff),
            Part::Begun(_) => match judged(Seen::Broken) {
                // The client left, and the headers were good.
                Outcome::Ignored if flight.test.is_some() => Outcome::Success,
                outcome => outcome,
            },
            Part::Nothing => match judged(Seen::Ended) {
                // However it had gone on, it would have been slow: of a test that decides, of others it counts.
                Outcome::Ignored if is_slow(breaker, &flight) => {
                    if flight.test.is_none() {
                        self.with_worker(config, &flight, |worker| {
                            worker.began(flight.generation, true);
                        });
                        return;
                    }
                    match breaker.own.terms.slow_permille {
                        0 => Outcome::Ignored,
                        _ => Outcome::Failure,
                    }
                }
                outcome => outcome,
            },
        };
        self.land(config, flight, outcome, entropy, count);
    }

    /// What an answer says. Of a test, and where a good answer would end a row of failures, it has to be the upstream's.
    fn judged(
        &self,
        config: &Config,
        breaker: &CircuitBreaker,
        flight: &Flight,
        seen: Seen<'_>,
    ) -> Outcome {
        let in_row = || {
            self.with_worker(config, flight, |worker| worker.is_in_row(flight.generation))
                .unwrap_or(false)
        };
        let matters = flight.test.is_some() || in_row();
        let rules = &breaker.rules;
        let known = rules.outcome(seen, matters, None).or_else(|NeedsDetails| {
            let details = host::property(DETAILS).map(Property::bytes).ok().flatten();
            rules.outcome(seen, matters, Some(&details.unwrap_or_default()))
        });
        known.unwrap_or(Outcome::Ignored)
    }

    fn take_known<'c>(
        &self,
        config: &'c Config,
        stream: u32,
    ) -> Option<(Flight, &'c CircuitBreaker)> {
        let flight = self.take(stream)?;
        let breaker = config.circuit_breakers.get(flight.breaker)?;
        Some((flight, breaker))
    }

    pub(super) fn take(&self, stream: u32) -> Option<Flight> {
        self.take_if(stream, |_| true)
    }

    fn take_if(&self, stream: u32, takes: impl FnOnce(&Flight) -> bool) -> Option<Flight> {
        match self.flights.borrow_mut().entry(stream) {
            Entry::Occupied(flight) if takes(flight.get()) => Some(flight.remove()),
            _ => None,
        }
    }

    /// What this worker knows of a request's breaker, if that is still the same one and counts.
    fn with_worker<T>(
        &self,
        config: &Config,
        flight: &Flight,
        change: impl FnOnce(&mut Worker) -> T,
    ) -> Option<T> {
        let breaker = config.circuit_breakers.get(flight.breaker)?;
        if !breaker.depends_on.is_empty() && !self.needed_pass(config, breaker, self.changes()) {
            return None;
        }
        let mut known = self.known.borrow_mut();
        let slot = known.slot(flight.place).filter(|slot| slot.whose == flight.whose)?;
        let had_counted = slot.worker.has_counted();
        let said = change(&mut slot.worker);
        if !had_counted && slot.worker.has_counted() {
            self.counted.borrow_mut().push(flight.place);
        }
        Some(said)
    }

    pub(super) fn land(
        &self,
        config: &Config,
        flight: Flight,
        outcome: Outcome,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        let Some(breaker) = config.circuit_breakers.get(flight.breaker) else { return };
        let slow = !matches!(flight.answer, Part::Begun(_)) && is_slow(breaker, &flight);
        if let Some(id) = flight.test {
            let ended = match outcome {
                // An upstream that answers too slowly does not work yet.
                Outcome::Success if slow && breaker.own.terms.slow_permille > 0 => Ended::Failed,
                Outcome::Success => Ended::Ok,
                Outcome::Failure => Ended::Failed,
                Outcome::Ignored => Ended::GivenBack,
            };
            count(flight.breaker, Told::tested(ended), 1);
            let Some(now_ms) = now_ms() else { return };
            let settled = self.step(flight.place, Some(now_ms), |process| {
                process.settle(&breaker.own, id, ended, now_ms, entropy)
            });
            self.marks.urgent([(flight.place, Says::Ended)]);
            if settled == Ok(true) {
                count(flight.breaker, Told::Closed, 1);
                self.changed();
            }
            return;
        }
        let (generation, consecutive) = (flight.generation, breaker.own.consecutive);
        let trips = self.with_worker(config, &flight, |worker| {
            let is_leaked = worker.is_leaked(generation, outcome);
            let trips = match (flight.answer, outcome) {
                (Part::Begun(_), Outcome::Failure) => worker.broken(generation, consecutive),
                (Part::Begun(_), _) => false,
                _ => worker.count(generation, outcome, slow, consecutive),
            };
            (trips, is_leaked)
        });
        let Some((trips, is_leaked)) = trips else { return };
        if is_leaked {
            self.known.borrow_mut().leak(flight.breaker, 1);
        }
        // Where nothing can come of it, what was counted goes with the tick, as all else does.
        let may_trip = |known: &mut Known| {
            known
                .slot(flight.place)
                .is_some_and(|slot| slot.state == State::Closed && slot.worker.passes)
        };
        if trips
            && may_trip(&mut self.known.borrow_mut())
            && let Some(now_ms) = now_ms()
        {
            let counts = self.known.borrow_mut().counted(flight.place);
            let tripped = self.step(flight.place, Some(now_ms), |process| {
                if let Some((generation, counts)) = counts {
                    process.add(generation, counts);
                }
                process.trip(&breaker.own, flight.generation, now_ms, entropy)
            });
            match tripped {
                Ok(true) => {
                    count(flight.breaker, Told::Tripped, 1);
                    self.urgent.borrow_mut().push(flight.place);
                    self.changed();
                }
                // Another one was faster: what was counted goes with the next report.
                Ok(false) => self.marks.counted(flight.place),
                // Others were each time: what was counted goes with the tick, and the next failure trips it.
                Err(_) => {
                    if let Some(counts) = counts {
                        self.known.borrow_mut().put_back(flight.place, counts);
                    }
                }
            }
        }
    }
}

/// Whether a call took longer than it may, by now.
fn is_slow(breaker: &CircuitBreaker, flight: &Flight) -> bool {
    match (breaker.slow_ms, flight.since_us) {
        (Some(slow_ms), Some(since_us)) => host::now_us()
            .is_ok_and(|now_us| now_us.saturating_sub(since_us) > u64::from(slow_ms) * 1_000),
        _ => false,
    }
}

/// Whether a test's answer came too late to say that its upstream works.
fn is_too_slow(breaker: &CircuitBreaker, flight: &Flight) -> bool {
    flight.test.is_some() && breaker.own.terms.slow_permille > 0 && is_slow(breaker, flight)
}
