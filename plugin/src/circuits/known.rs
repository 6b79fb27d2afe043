//! Owns what one worker knows of each breaker, and how it finds the place of one that is for each of many.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidegate_policy::breaker::kept::{Kept, room};
use tidegate_policy::breaker::mesh::State;
use tidegate_policy::breaker::places::{BUCKET, Lies, OTHERS, Places, PlacesKey};
use tidegate_policy::breaker::process::{Counts, Process};
use tidegate_policy::breaker::worker::Worker;
use tidegate_policy::config::{CircuitBreaker, Config};
use tidegate_policy::exchange::Circuit;

use super::flights::{Flight, Part};
use super::shared::{Home, Lost, TRIES_MAX, kept, put, read};
use crate::host;

/// A test that is wanted for that long after it was marked may be marked where nobody reads, in ms.
const ASKED_AGAIN_MS: u64 = 1_000;
const PLACES_KEY: &str = "tidegate.circuits.places";

/// What one worker knows.
#[derive(Debug, Default)]
pub(super) struct Known {
    places: Places,
    /// The names that stand in the keys, one for each breaker of the configuration.
    names: Vec<String>,
    /// By place; most were never looked at.
    slots: Vec<Option<Box<Slot>>>,
    /// Where somebody's lies, by breaker.
    found: Vec<BTreeMap<Rc<str>, usize>>,
    /// Requests that were let through to what was dead, by breaker, until they are counted.
    leaked: BTreeMap<usize, u64>,
}

/// What is known of one breaker.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// Whose it is, in a table.
    pub(super) whose: Option<Rc<str>>,
    pub(super) worker: Worker,
    /// Where it stands, as it last looked.
    pub(super) state: State,
    /// The changes of the process when it last looked.
    pub(super) seen: Option<u64>,
    /// When this worker last saw to it that somebody reports that a test is wanted, in ms.
    asked_ms: Option<u64>,
}

// === impl Known ===

impl Known {
    pub(super) fn new(config: &Config) -> Self {
        let breakers = &config.circuit_breakers;
        let many = breakers.iter().any(|breaker| breaker.many.is_some());
        let places = Places::of(breakers, if many { places_key() } else { PlacesKey::default() });
        Self {
            slots: vec![None; places.count()],
            names: breakers.iter().map(|breaker| breaker.name.clone()).collect(),
            found: vec![BTreeMap::new(); breakers.len()],
            leaked: BTreeMap::new(),
            places,
        }
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn slot(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)?.as_deref_mut()
    }

    /// The place of somebody's, as far as this worker knows.
    pub(super) fn found(&self, breaker: usize, whose: &str) -> Option<usize> {
        self.found.get(breaker)?.get(whose).copied()
    }

    /// Where a place's part lies in shared data, and whose it has to be.
    pub(super) fn home(&self, place: usize) -> Option<Home> {
        let (breaker, lies) = self.places.at(place)?;
        let name = self.names.get(breaker)?;
        let whose = self.slots.get(place)?.as_deref().and_then(|slot| slot.whose.clone());
        let key = match lies {
            Lies::Alone => format!("tidegate.circuit.{name}"),
            Lies::Others => format!("tidegate.circuit.{name}.{OTHERS}"),
            Lies::Somebody(_) if whose.is_none() => return None,
            Lies::Somebody(_) => self.key(place)?,
        };
        Some(Home { key, whose })
    }

    /// Looks at a place, but only if anything changed since it last did.
    pub(super) fn look(&mut self, place: usize, changes: Option<u64>) -> Result<&mut Slot, Lost> {
        let fresh = self.slots.get(place).and_then(Option::as_deref);
        if changes.is_none() || fresh.is_none_or(|slot| slot.seen != changes) {
            let process = read(&self.home(place).ok_or(Lost::Host)?)?;
            self.take_in(place, None, &process, changes);
        }
        self.slot(place).ok_or(Lost::Host)
    }

    /// A request that goes on since its breaker lets all of them pass. `None` where it does not, where only a share
    /// passes, or where there is more to be found out.
    pub(super) fn pass(
        &mut self,
        circuit: &Circuit,
        breaker: &CircuitBreaker,
        changes: Option<u64>,
    ) -> Option<Flight> {
        let mut place = self.places.alone(circuit.breaker)?;
        if breaker.many.is_some() {
            if self.look(place, changes).ok()?.state.is_ordered() {
                return None;
            }
            place = match &circuit.whose {
                None => self.places.others(circuit.breaker)?,
                Some(whose) => self.found(circuit.breaker, whose)?,
            };
        }
        let Slot { whose, worker, .. } = self.look(place, changes).ok()?;
        let passes = worker.passes && !worker.is_ramping(&breaker.own);
        let (whose, generation) = (whose.clone(), worker.generation);
        passes.then_some(Flight {
            breaker: circuit.breaker,
            place,
            whose,
            generation,
            test: None,
            since_us: None,
            grpc: false,
            answer: Part::Nothing,
        })
    }

    fn take_in(
        &mut self,
        place: usize,
        whose: Option<Rc<str>>,
        process: &Process,
        changes: Option<u64>,
    ) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let slot = slot.get_or_insert_with(|| {
            let (worker, state) = (Worker::default(), process.state);
            Box::new(Slot { whose, worker, state, seen: None, asked_ms: None })
        });
        let leaked = slot.worker.look(process);
        (slot.state, slot.seen) = (process.state, changes);
        if leaked > 0
            && let Some((breaker, _)) = self.places.at(place)
        {
            self.leak(breaker, u64::from(leaked));
        }
    }

    /// Whether it has to be marked that a test is wanted. `before`: it was wanted before. Whoever marked that may be gone,
    /// with a configuration of other places, so that nobody reads it: what goes on for longer than a few ticks is marked
    /// again.
    pub(super) fn asks(&mut self, place: usize, before: bool, now_ms: u64) -> bool {
        let Some(slot) = self.slot(place) else { return !before };
        let asked_ms = *slot.asked_ms.get_or_insert(now_ms);
        let asks = !before || now_ms.abs_diff(asked_ms) >= ASKED_AGAIN_MS;
        if asks {
            slot.asked_ms = Some(now_ms);
        }
        asks
    }

    /// Notes requests that were let through to what was dead.
    pub(super) fn leak(&mut self, breaker: usize, by: u64) {
        let leaked = self.leaked.entry(breaker).or_default();
        *leaked = leaked.saturating_add(by);
    }

    /// What was noted, by breaker.
    pub(super) fn leaked(&mut self) -> BTreeMap<usize, u64> {
        core::mem::take(&mut self.leaked)
    }

    /// It is somebody else's by now.
    pub(super) fn forget(&mut self, place: usize) {
        let slot = self.slots.get_mut(place).and_then(Option::take);
        let whose = slot.and_then(|slot| slot.whose);
        if let Some((whose, (breaker, _))) = whose.zip(self.places.at(place))
            && let Some(found) = self.found.get_mut(breaker)
        {
            found.remove(&whose);
        }
    }

    /// What lies in a place of a table becomes known, whoever put it there.
    pub(super) fn adopt(&mut self, place: usize) -> Option<Process> {
        let (kept, _) = kept(&self.key(place)?)?;
        let Kept { whose, process, .. } = kept?;
        self.know(place, &whose);
        Some(process)
    }

    fn know(&mut self, place: usize, whose: &Rc<str>) {
        let known = self.slots.get(place).and_then(Option::as_deref);
        if known.is_some_and(|slot| slot.whose.as_ref() == Some(whose)) {
            return;
        }
        self.forget(place);
        let Some((breaker, _)) = self.places.at(place) else { return };
        if let Some(found) = self.found.get_mut(breaker)
            && let Some(before) = found.insert(Rc::clone(whose), place)
            && let Some(slot) = self.slots.get_mut(before)
        {
            *slot = None;
        }
        self.take_in(place, Some(Rc::clone(whose)), &Process::default(), None);
    }

    /// Finds somebody's place; takes one, if `takes`, where there is room: an empty one, or of those who
    /// were not seen for long the one that was seen last.
    pub(super) fn find(
        &mut self,
        breaker: usize,
        whose: &Rc<str>,
        takes: bool,
        now_ms: u64,
    ) -> Option<usize> {
        if let Some(place) = self.found(breaker, whose) {
            return Some(place);
        }
        for _ in 0..TRIES_MAX {
            let ways = self.ways(breaker, whose)?;
            let here = ways.iter().find(|(_, kept, _)| is_of(kept.as_ref(), whose));
            if let Some((place, ..)) = here {
                self.know(*place, whose);
                return Some(*place);
            }
            let lying: Vec<Option<&Kept>> = ways.iter().map(|(_, kept, _)| kept.as_ref()).collect();
            let (place, _, cas) = *takes.then(|| ways.get(room(&lying, now_ms)?)).flatten()?;
            let process = Process::default();
            let fresh = Kept { used_ms: now_ms, whose: Rc::clone(whose), process };
            if put(&self.key(place)?, Some(&fresh), cas) {
                let place = self.first(breaker, whose)?;
                self.know(place, whose);
                return Some(place);
            }
        }
        None
    }

    /// Two workers may have taken two places at once: the first one counts.
    fn first(&self, breaker: usize, whose: &Rc<str>) -> Option<usize> {
        let ways = self.ways(breaker, whose)?;
        let mut own = ways.iter().filter(|(_, kept, _)| is_of(kept.as_ref(), whose));
        let (first, ..) = own.next()?;
        for (place, _, cas) in own.filter(|(place, ..)| place != first) {
            put(&self.key(*place)?, None, *cas);
        }
        Some(*first)
    }

    /// What lies where somebody's may lie.
    fn ways(&self, breaker: usize, whose: &str) -> Option<Vec<(usize, Option<Kept>, u32)>> {
        let buckets = self.places.buckets(breaker, whose)?;
        let mut ways = Vec::with_capacity(buckets.len().saturating_mul(BUCKET));
        for place in buckets.into_iter().flat_map(|start| start..start.saturating_add(BUCKET)) {
            let (kept, cas) = kept(&self.key(place)?)?;
            ways.push((place, kept, cas));
        }
        Some(ways)
    }

    fn key(&self, place: usize) -> Option<String> {
        let (breaker, lies) = self.places.at(place)?;
        let Lies::Somebody(index) = lies else { return None };
        Some(format!("tidegate.circuit.{}.{index}", self.names.get(breaker)?))
    }

    /// What this worker counted in a place, to be handed on.
    pub(super) fn counted(&mut self, place: usize) -> Option<(u32, Counts)> {
        let worker = &mut self.slot(place)?.worker;
        let counts = worker.take()?;
        Some((worker.generation, counts))
    }

    /// That could not be handed on.
    pub(super) fn put_back(&mut self, place: usize, (generation, counts): (u32, Counts)) {
        if let Some(slot) = self.slot(place) {
            slot.worker.put_back(generation, counts);
        }
    }
}

fn is_of(kept: Option<&Kept>, whose: &Rc<str>) -> bool {
    kept.is_some_and(|kept| kept.whose == *whose)
}

/// What all workers of the process know and nobody outside: who comes first draws it. Where the host gives no
/// randomness or shares nothing the places can be foreseen.
fn places_key() -> PlacesKey {
    let held = |octets: &[u8]| PlacesKey::try_from(octets).ok();
    let Ok((octets, cas)) = host::shared(PLACES_KEY) else { return PlacesKey::default() };
    if let Some(key) = held(&octets) {
        return key;
    }
    let mut key = PlacesKey::default();
    if getrandom::fill(&mut key).is_err() {
        return PlacesKey::default();
    }
    match host::set_shared(PLACES_KEY, &key, cas) {
        Ok(true) => key,
        // Another worker was faster.
        _ => {
            host::shared(PLACES_KEY).ok().and_then(|(octets, _)| held(&octets)).unwrap_or_default()
        }
    }
}

/// Now, in ms by the host's clock.
pub(super) fn now_ms() -> Option<u64> {
    host::now_us().ok().map(|now_us| now_us / 1_000)
}
