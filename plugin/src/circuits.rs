//! Owns a worker's part of circuit breakers: leave for each request, what became of it, and where that
//! is written so that all workers of the process share it. What the octets mean is policy's.
//!
//! While a breaker is closed a request costs one read of a metric, which counts the changes of all
//! breakers in the process (beside a lease one read in 100 µs), and one read of its answer's status; one with a body
//! that of its `content-type`, too.
//! Only when that number has changed, or a call failed, shared data is read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tidegate_policy::breaker::mesh::State;
use tidegate_policy::breaker::places;
use tidegate_policy::breaker::process::{Leave, Process};
use tidegate_policy::breaker::worker::Worker;
use tidegate_policy::config::{CircuitBreaker, Config};
use tidegate_policy::exchange::Circuit;

use crate::host;
use crate::numbered::Numbered;

mod flights;
mod fresh;
mod known;
mod marks;
mod mesh;
mod shared;
mod told;
mod uploads;

pub(crate) use flights::GRPC_STATUS;
use flights::{Flight, Part};
pub(crate) use fresh::Fresh;
use known::{Known, now_ms};
use marks::{Marks, Says, Turn};
use mesh::Keys;
pub(crate) use mesh::{Report, TICK_MS};
use shared::{Lost, step};
pub(crate) use told::Told;
use uploads::Uploads;
pub(crate) use uploads::are_some as are_uploads;

/// Counts the changes of who may call, over all workers and breakers of the process.
const CHANGES: &str = "tidegate_circuit_changes";

/// So long, in µs, a worker goes by the changes that it read, where it knows the time anyhow. One with fewer than
/// 10,000 requests a second reads with each.
const LOOKED_US: u64 = 100;

/// The breakers of one configuration in one worker.
#[derive(Debug, Default)]
pub(crate) struct Circuits {
    /// The metric's id; `None` where the host has none, and then every request looks.
    changes: Option<u32>,
    known: RefCell<Known>,
    /// When the changes were last read by a request that knew the time, in µs, and how many there were.
    looked: Cell<Option<(u64, u64)>>,
    /// The changes that a stream was told of which then asks for leave in the same turn.
    glimpse: Cell<Option<(u32, u64)>>,
    /// Those of which there is something to report.
    marks: Marks,
    keys: Keys,
    /// Those of which this worker counted something that it has not handed on.
    counted: RefCell<Vec<usize>>,
    /// Requests on their way whose outcome counts, by stream.
    flights: RefCell<Numbered<Flight>>,
    /// Tests whose answers began, by stream.
    tested: RefCell<Vec<u32>>,
    /// Tests whose requests are not whole.
    uploads: Uploads,
    /// Breakers by their configured name.
    names: BTreeMap<String, usize>,
    /// This worker among those of the process.
    me: u64,
    /// When this configuration came, in ms: the newest reports.
    rank: u64,
    /// Where this worker shut its process, of which the mesh should hear at once.
    urgent: RefCell<Vec<usize>>,
    /// Of which it was told an earlier epoch than it knows: they are reported on, so that the region says which holds.
    doubted: RefCell<BTreeSet<usize>>,
    /// Where the next report goes on.
    next: Cell<Turn>,
    /// When it was last called by its tick, in ms.
    ticked_ms: Cell<u64>,
    /// Whether a report is on its way.
    reporting: Cell<bool>,
    /// How far it has looked for what others left unsaid, since it first reported.
    swept: Cell<usize>,
}

// === impl Circuits ===

impl Circuits {
    /// Nothing is known yet. `me`: 64 random bits.
    pub(crate) fn new(config: &Config, me: u64) -> Self {
        let breakers = &config.circuit_breakers;
        if breakers.is_empty() {
            return Self::default();
        }
        let known = Known::new(config);
        let names = breakers.iter().enumerate().map(|(place, one)| (one.name.clone(), place));
        let layout: Vec<u8> = breakers
            .iter()
            .flat_map(|one| [one.name.as_bytes(), &one.many.unwrap_or(0).to_le_bytes()].concat())
            .collect();
        let layout = places::hashed(&layout);
        Self {
            changes: host::define_counter(CHANGES).ok(),
            marks: Marks::new(layout, known.places().count()),
            keys: Keys::of(layout),
            known: RefCell::new(known),
            names: names.collect(),
            me,
            rank: now_ms().unwrap_or(0),
            ..Self::default()
        }
    }

    /// Whether there is anything to do at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Requests that were let through to what was dead since this was asked last, by breaker.
    pub(crate) fn leaked(&self) -> BTreeMap<usize, u64> {
        self.known.borrow_mut().leaked()
    }

    /// Leave for a request, or how long it should wait, in ms, if that is known.
    pub(crate) fn admit(
        &self,
        config: &Config,
        circuit: &Circuit,
        stream: u32,
        (grpc, entropy): (bool, u32),
        count: &mut impl FnMut(usize, Told, u64),
    ) -> Result<(), Option<u64>> {
        let Some(breaker) = config.circuit_breakers.get(circuit.breaker) else { return Ok(()) };
        let glimpse = self.glimpse.take().filter(|(of, _)| *of == stream);
        let changes = glimpse.map(|(_, changes)| changes).or_else(|| self.changes());
        let refuse = |wait_ms: Option<u64>, count: &mut dyn FnMut(usize, Told, u64)| {
            if circuit.enforced {
                return Err(wait_ms);
            }
            count(circuit.breaker, Told::WouldRefuse, 1);
            Ok(())
        };
        if !self.needed_pass(config, breaker, changes) {
            return refuse(None, count);
        }
        let for_all = match breaker.many {
            Some(_) => self.for_all(circuit.breaker, changes),
            None => None,
        };
        if let Some((State::ForcedOpen, wait_ms)) = for_all {
            return refuse(Some(wait_ms), count);
        }
        let free = for_all.map(|(state, _)| state);
        let Some((place, whose, worker)) = self.place(circuit, breaker, changes, count) else {
            return Ok(());
        };
        let mut flight = Flight {
            breaker: circuit.breaker,
            place,
            whose,
            generation: worker.generation,
            test: None,
            since_us: None,
            grpc,
            answer: Part::Nothing,
        };
        if !worker.passes && free.is_some() {
            // What it would do is told, and it goes on as it is once all of them are asked again.
            if free == Some(State::MetricsOnly) {
                count(circuit.breaker, Told::WouldRefuse, 1);
            }
        } else if !worker.passes {
            let Some(now_ms) = now_ms() else { return Ok(()) };
            let alone = self.is_alone(now_ms);
            let leave = self.step(place, Some(now_ms), |process| {
                let before = process.wanted;
                let leave = process.admit(&breaker.own, now_ms, alone);
                flight.generation = process.generation;
                let until_ms = process.probe.map_or(0, |probe| probe.until_ms);
                (leave, process.wanted.then_some(before), until_ms)
            });
            if let Ok((_, Some(before), _)) = leave
                && self.known.borrow_mut().asks(place, before, now_ms)
            {
                self.marks.urgent([(place, Says::Asks)]);
            }
            match leave {
                Ok((Leave::Pass, ..)) => {}
                Ok((Leave::Test(id), _, until_ms)) => {
                    count(circuit.breaker, Told::Test, 1);
                    flight.test = Some(id);
                    self.uploads.begin(stream, until_ms);
                }
                Ok((Leave::Wait(wait_ms), ..)) => refuse(wait_ms, count)?,
                Err(_) => refuse(None, count)?,
            }
        }
        if free.is_none() && !self.is_let_go(place, breaker, entropy) {
            refuse(None, count)?;
        }
        self.take_off(breaker, stream, flight);
        Ok(())
    }

    /// A request with leave is on its way.
    fn take_off(&self, breaker: &CircuitBreaker, stream: u32, mut flight: Flight) {
        if breaker.slow_ms.is_some() {
            flight.since_us = host::now_us().ok();
        }
        self.flights.borrow_mut().insert(stream, flight);
    }

    /// Where the breaker of a request lies, whose it is there, and what is known of it.
    fn place(
        &self,
        circuit: &Circuit,
        breaker: &CircuitBreaker,
        changes: Option<u64>,
        count: &mut impl FnMut(usize, Told, u64),
    ) -> Option<(usize, Option<Rc<str>>, Worker)> {
        let mut known = self.known.borrow_mut();
        // Somebody else's by now: it is looked for once more.
        for _ in 0..2 {
            let place = if breaker.many.is_none() {
                known.places().alone(circuit.breaker)?
            } else {
                let others = known.places().others(circuit.breaker)?;
                match &circuit.whose {
                    None => others,
                    Some(whose) => match known.found(circuit.breaker, whose) {
                        Some(place) => place,
                        None => {
                            let now_ms = now_ms()?;
                            known.find(circuit.breaker, whose, true, now_ms).unwrap_or_else(|| {
                                count(circuit.breaker, Told::NoRoom, 1);
                                others
                            })
                        }
                    },
                }
            };
            match known.look(place, changes) {
                Ok(slot) => return Some((place, slot.whose.clone(), slot.worker)),
                Err(Lost::Taken) => known.forget(place),
                Err(Lost::Host) => return None,
            }
        }
        None
    }

    /// What an operator says of all of many, and for how long still, in ms.
    fn for_all(&self, breaker: usize, changes: Option<u64>) -> Option<(State, u64)> {
        let mut known = self.known.borrow_mut();
        let place = known.places().alone(breaker)?;
        let state = known.look(place, changes).ok()?.state;
        if !state.is_ordered() {
            return None;
        }
        let (home, now_ms) = (known.home(place)?, now_ms()?);
        drop(known);
        let process = shared::read(&home).ok()?;
        if let Some(wait_ms) = process.ordered_ms(now_ms).filter(|_| !process.is_ahead(now_ms)) {
            return Some((state, wait_ms));
        }
        // The region says nothing of its end, since nobody reports on all of them.
        let lapse = |process: &mut Process| (process.lapse(now_ms), process.ordered_ms(now_ms));
        let (is_over, wait_ms) = self.step(place, None, lapse).ok()?;
        if is_over {
            self.changed();
        }
        wait_ms.map(|wait_ms| (state, wait_ms))
    }

    /// One step on what all workers share of the breaker in a place.
    fn step<T>(
        &self,
        place: usize,
        used_ms: Option<u64>,
        take: impl FnMut(&mut Process) -> T,
    ) -> Result<T, Lost> {
        let home = self.known.borrow().home(place).ok_or(Lost::Host)?;
        let said = step(&home, used_ms, take);
        if matches!(said, Err(Lost::Taken)) {
            self.known.borrow_mut().forget(place);
        }
        said
    }

    /// Whether a request is of the share that passes while a breaker that tests closed is let go slowly.
    fn is_let_go(&self, place: usize, breaker: &CircuitBreaker, entropy: u32) -> bool {
        let mut known = self.known.borrow_mut();
        let worker = known.slot(place).map(|slot| &mut slot.worker);
        let Some(worker) = worker.filter(|worker| worker.is_ramping(&breaker.own)) else {
            return true;
        };
        let Some(now_ms) = now_ms() else { return true };
        worker.passes_at(&breaker.own, now_ms, entropy)
    }

    /// Whether all that it depends on let calls pass. There is no circle.
    fn needed_pass(&self, config: &Config, breaker: &CircuitBreaker, changes: Option<u64>) -> bool {
        if breaker.depends_on.is_empty() {
            return true;
        }
        let mut known = self.known.borrow_mut();
        let mut left = breaker.depends_on.clone();
        let mut seen: Vec<usize> = Vec::new();
        while let Some(needed) = left.pop() {
            if seen.contains(&needed) {
                continue;
            }
            seen.push(needed);
            let place = known.places().alone(needed);
            let slot = place.map(|place| known.look(place, changes));
            if matches!(slot, Some(Ok(slot)) if !slot.worker.passes)
                && !is_forgotten(&known, config, needed)
            {
                return false;
            }
            left.extend(
                config.circuit_breakers.get(needed).into_iter().flat_map(|n| &n.depends_on),
            );
        }
        true
    }

    fn changes(&self) -> Option<u64> {
        host::metric(self.changes?).ok()
    }

    /// The same for whoever knows the time: what was read within the last `LOOKED_US` counts.
    fn changes_by(&self, now_us: Option<u64>) -> Option<u64> {
        let is_fresh =
            |looked_us| now_us.is_some_and(|now| now.wrapping_sub(looked_us) < LOOKED_US);
        match self.looked.get() {
            Some((looked_us, changes)) if is_fresh(looked_us) => Some(changes),
            _ => {
                let changes = self.changes();
                self.looked.set(now_us.zip(changes));
                changes
            }
        }
    }

    fn changed(&self) {
        self.looked.set(None);
        // Where the metric cannot be counted every worker looks with every request.
        if let Some(id) = self.changes {
            let _counted: Result<(), host::Status> = host::increment(id, 1);
        }
    }
}

/// Whether a breaker that is shut is nobody's to test.
fn is_forgotten(known: &Known, config: &Config, needed: usize) -> bool {
    let home = known.places().alone(needed).and_then(|place| known.home(place));
    let breaker = config.circuit_breakers.get(needed);
    let Some(((home, breaker), now_ms)) = home.zip(breaker).zip(now_ms()) else { return false };
    shared::read(&home).is_ok_and(|process| process.is_forgotten(&breaker.own, now_ms))
}
