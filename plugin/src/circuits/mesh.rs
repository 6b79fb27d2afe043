//! Owns what passes between a process and the mesh: who of the workers reports, what they say together,
//! and what the gateway's answer changes.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidegate_policy::breaker::mesh::{Batch, Settled};
use tidegate_policy::breaker::places::{Lies, OTHERS};
use tidegate_policy::breaker::process::ALONE_MS;
use tidegate_policy::config::{CircuitBreaker, Config};
use tidegate_policy::exchange::Answer;
use tidegate_policy::scope::CallerScope;
use tidegate_policy::wire::breaker::{
    BreakerName, BreakerReport, BreakerState, BreakersPart, BreakersReply, BreakersRequest,
    ProcessId, REPORTS_MAX,
};
use tidegate_policy::wire::{DecisionId, VERSION, encode};

use super::Circuits;
use super::known::now_ms;
use super::marks::Says;
use super::shared::{Lost, TRIES_MAX};
use crate::host;

/// How often each worker hands on what it counted, and one of them reports.
pub(crate) const TICK_MS: u32 = 250;
/// Who reports stays so for three ticks.
const LEAD_MS: u64 = 750;
/// How many breakers a worker hands on at most with one tick; it goes on counting the others.
const HANDED_MAX: usize = 512;
/// How many places it looks at with one tick for what others left unsaid.
const SWEPT_MAX: usize = 512;

/// Where the workers of a process agree on who reports, and on when the gateway was heard of last.
#[derive(Debug, Default)]
pub(super) struct Keys {
    leader: String,
    heard: String,
}

/// Who this process is to the mesh, whichever configurations report for it, and its last report's number.
const PROCESS: &str = "tidegate.circuits.process";

/// A report on its way.
#[derive(Debug)]
pub(crate) struct Report {
    id: DecisionId,
    sent_ms: u64,
    /// Up to where the process had heard of changes.
    since: u64,
    /// What it tells of, by name: where it lies, the end of a test, and of which epoch.
    told: BTreeMap<BreakerName, (usize, Option<Settled>, u64)>,
}

/// Who reports for the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Leader {
    worker: u64,
    rank: u64,
    until_ms: u64,
    seq: u64,
    since: u64,
    process: u64,
}

/// The next report's number, above `seq` and all of this process, and as whom it is sent: as `process` if that was never said.
fn numbered(process: u64, seq: u64) -> Option<(u64, u64)> {
    for _ in 0..TRIES_MAX {
        let (octets, cas) = host::shared(PROCESS).ok()?;
        let held = octets.split_first_chunk().zip(octets.last_chunk());
        let held = held
            .map(|((process, _), last)| (u64::from_le_bytes(*process), u64::from_le_bytes(*last)));
        let (process, last) = held.unwrap_or((process, 0));
        let seq = seq.max(last).saturating_add(1);
        let octets = [process.to_le_bytes(), seq.to_le_bytes()].concat();
        if host::set_shared(PROCESS, &octets, cas).ok()? {
            return Some((process, seq));
        }
    }
    None
}

// === impl Leader ===

impl Leader {
    fn to_bytes(self) -> Vec<u8> {
        [self.worker, self.rank, self.until_ms, self.seq, self.since, self.process]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    fn from_bytes(octets: &[u8]) -> Option<Self> {
        let mut numbers = octets.chunks_exact(8).map(|eight| {
            eight.iter().rev().fold(0_u64, |number, octet| (number << 8) | u64::from(*octet))
        });
        let leader = Self {
            worker: numbers.next()?,
            rank: numbers.next()?,
            until_ms: numbers.next()?,
            seq: numbers.next()?,
            since: numbers.next()?,
            process: numbers.next()?,
        };
        numbers.next().is_none().then_some(leader)
    }
}

// === impl Keys ===

impl Keys {
    /// `layout` tells layouts of places apart: who reports does so for the marks of one.
    pub(super) fn of(layout: u64) -> Self {
        let key = |what| format!("tidegate.circuits.{what}.{layout:016x}");
        Self { leader: key("leader"), heard: key("heard") }
    }
}

// === impl Circuits ===

impl Circuits {
    /// Whether the gateway was not heard of lately. A configuration that is new waits for its first answer for as long: what
    /// the one before was told is still so.
    pub(super) fn is_alone(&self, now_ms: u64) -> bool {
        let heard = host::shared(&self.keys.heard)
            .ok()
            .and_then(|(octets, _)| octets.first_chunk().map(|eight| u64::from_le_bytes(*eight)));
        now_ms.abs_diff(heard.unwrap_or(self.rank)) > ALONE_MS
    }

    /// Hands on what this worker counted. If it is the one that reports, says what to send.
    pub(crate) fn tick(
        &self,
        config: &Config,
        caller: &CallerScope,
        id: DecisionId,
    ) -> Option<(Vec<u8>, Report)> {
        if self.is_empty() {
            return None;
        }
        let now_ms = now_ms()?;
        // While requests wait the ticks are shorter than these need; a clock that stepped back counts.
        let passed_ms = now_ms.checked_sub(self.ticked_ms.get());
        if passed_ms
            .is_some_and(|passed_ms| passed_ms < u64::from(TICK_MS) - u64::from(TICK_MS) / 10)
        {
            return None;
        }
        self.ticked_ms.set(now_ms);
        self.hand_on(now_ms);
        let leader = self.may_lead(now_ms, false)?;
        self.sweep();
        let (places, next) = self.marks.take(REPORTS_MAX, self.next.get());
        self.next.set(next);
        Some(self.report(config, caller, id, (now_ms, leader), places))
    }

    /// Whether this worker has something to say that should not wait for a tick.
    pub(crate) fn is_urgent(&self) -> bool {
        !self.urgent.borrow().is_empty()
    }

    /// What to send at once, whoever reports otherwise.
    pub(crate) fn report_now(
        &self,
        config: &Config,
        caller: &CallerScope,
        id: DecisionId,
    ) -> Option<(Vec<u8>, Report)> {
        let places = self.urgent.take();
        let now_ms = now_ms()?;
        let Some(leader) = self.may_lead(now_ms, true) else {
            for place in places {
                self.marks.later(place, Some(Says::Asks));
            }
            return None;
        };
        Some(self.report(config, caller, id, (now_ms, leader), places))
    }

    /// As what this worker may report now, if it may. The last report is given up by its timeout, which is
    /// shorter than any gateway is waited for.
    fn may_lead(&self, now_ms: u64, urgent: bool) -> Option<Leader> {
        if self.reporting.get() { None } else { self.lead(now_ms, urgent) }
    }

    fn report(
        &self,
        config: &Config,
        caller: &CallerScope,
        id: DecisionId,
        (now_ms, leader): (u64, Leader),
        places: Vec<usize>,
    ) -> (Vec<u8>, Report) {
        let mut reports = Vec::new();
        let (mut told, mut lapsed) = (BTreeMap::new(), false);
        for place in places {
            let Some((breaker, name)) = self.named(config, place) else { continue };
            let is_doubted = self.doubted.borrow_mut().remove(&place);
            let said = self.step(place, None, |process| {
                let (before, said) = (process.generation, process.report(&breaker.own, now_ms));
                lapsed |= process.generation != before;
                let epoch = process.epoch;
                let asks = || is_doubted.then(|| Batch { epoch, ..Batch::default() });
                (said.or_else(asks), Says::of(process))
            });
            // Until the gateway has heard of it, and for as long as there is more to say. Others may have been faster.
            let says = said.as_ref().map_or(Some(Says::Ended), |(_, says)| *says);
            self.marks.later(place, says);
            let Ok((Some(batch), _)) = said else { continue };
            told.insert(name.clone(), (place, batch.probe, batch.epoch));
            reports.push(BreakerReport { name, terms: breaker.own.terms, batch });
        }
        if lapsed {
            self.changed();
        }
        let message = BreakersRequest {
            v: VERSION,
            id,
            scope: caller.clone(),
            timeout_ms: config.gateway.timeout_ms,
            breakers: BreakersPart {
                process: ProcessId(leader.process.to_be_bytes()),
                seq: leader.seq,
                since: leader.since,
                reports,
            },
        };
        self.reporting.set(true);
        (encode(&message), Report { id, sent_ms: now_ms, since: leader.since, told })
    }

    /// Takes what became of a report.
    pub(crate) fn told(&self, report: &Report, answer: &Answer<'_>) {
        self.reporting.set(false);
        let Answer::Response { marked: true, status: b"200", body } = answer else { return };
        let Ok(reply) = BreakersReply::decode(body, report.id) else { return };
        let mut changed = false;
        for state in &reply.breakers.states {
            let said = report.told.get(&state.name);
            let place =
                said.map(|(place, ..)| *place).or_else(|| self.place_of(state, report.sent_ms));
            let Some(place) = place else { continue };
            let heard = said.and_then(|(_, ended, _)| *ended);
            let told = self.step(place, None, |process| {
                if let Some((.., epoch)) = said {
                    process.disbelieved(*epoch, state);
                }
                let is_doubted = said.is_none() && process.doubts(state);
                let changes = process.told(state, heard, report.sent_ms);
                (changes, Says::of(process), is_doubted)
            });
            if let Ok((changes, says, is_doubted)) = told {
                changed |= changes;
                self.marks.later(place, says.or(is_doubted.then_some(Says::Asks)));
                if is_doubted {
                    self.doubted.borrow_mut().insert(place);
                }
            }
        }
        if changed {
            self.changed();
        }
        if let Ok((_, cas)) = host::shared(&self.keys.heard) {
            let _written: Result<bool, host::Status> =
                host::set_shared(&self.keys.heard, &report.sent_ms.to_le_bytes(), cas);
        }
        self.heard_until(report.since, reply.breakers.cursor);
    }

    /// Hands on what this worker counted.
    fn hand_on(&self, now_ms: u64) {
        let places: Vec<usize> = {
            let mut counted = self.counted.borrow_mut();
            let most = counted.len().min(HANDED_MAX);
            counted.drain(..most).collect()
        };
        for place in places {
            let counts = self.known.borrow_mut().counted(place);
            let Some((generation, counts)) = counts else { continue };
            match self.step(place, Some(now_ms), |process| process.add(generation, counts)) {
                Ok(()) => self.marks.counted(place),
                // Others were faster each time: it goes with the next tick.
                Err(Lost::Host) => {
                    self.known.borrow_mut().put_back(place, (generation, counts));
                    self.counted.borrow_mut().push(place);
                }
                Err(Lost::Taken) => {}
            }
        }
        self.marks.flush();
    }

    /// Finds what others left unsaid: once, in pieces, when this worker first reports.
    fn sweep(&self) {
        let from = self.swept.get();
        let count = self.known.borrow().places().count();
        let to = from.saturating_add(SWEPT_MAX).min(count);
        self.swept.set(to);
        let unsaid = (from..to).filter_map(|place| {
            let mut known = self.known.borrow_mut();
            let process = match known.places().at(place) {
                Some((_, Lies::Somebody(_))) => known.adopt(place),
                _ => known.home(place).and_then(|home| super::shared::read(&home).ok()),
            }?;
            let counted = (process.counts.calls > 0).then_some(Says::Asks);
            Some((place, Says::of(&process).or(counted)?))
        });
        let unsaid: Vec<(usize, Says)> = unsaid.collect();
        self.marks.urgent(unsaid);
    }

    /// The breaker in a place, with its full name.
    fn named<'c>(
        &self,
        config: &'c Config,
        place: usize,
    ) -> Option<(&'c CircuitBreaker, BreakerName)> {
        let mut known = self.known.borrow_mut();
        let (index, lies) = known.places().at(place)?;
        let breaker = config.circuit_breakers.get(index)?;
        let name = match lies {
            Lies::Alone => BreakerName::of(&breaker.name, None),
            Lies::Others => BreakerName::of(&breaker.name, Some(OTHERS)),
            Lies::Somebody(_) => {
                // Another worker may have put it there.
                known.adopt(place)?;
                let whose = known.slot(place)?.whose.clone()?;
                BreakerName::of(&breaker.name, Some(&whose))
            }
        };
        Some((breaker, name?))
    }

    /// Where a breaker lies of which the region tells unasked. One that is shut gets a place of its own before
    /// its first request comes.
    fn place_of(&self, state: &BreakerState, now_ms: u64) -> Option<usize> {
        let breaker = *self.names.get(state.name.configured())?;
        let mut known = self.known.borrow_mut();
        match state.name.whose() {
            None => known.places().alone(breaker),
            Some(OTHERS) => {
                known.places().others(breaker).filter(|_| known.places().is_of_many(breaker))
            }
            Some(whose) => known.find(breaker, &Rc::from(whose), !state.state.passes(), now_ms),
        }
    }

    /// Whether this worker reports now, and as what. While an old configuration drains its workers tick
    /// on: the newest leads.
    fn lead(&self, now_ms: u64, urgent: bool) -> Option<Leader> {
        let (octets, cas) = host::shared(&self.keys.leader).ok()?;
        let held = Leader::from_bytes(&octets);
        let mut leader = held.unwrap_or(Leader { process: self.me, ..Leader::default() });
        let live = now_ms < leader.until_ms && leader.until_ms.saturating_sub(now_ms) <= LEAD_MS;
        if leader.worker == self.me || !live || leader.rank < self.rank {
            leader.worker = self.me;
            leader.rank = self.rank;
            leader.until_ms = now_ms.saturating_add(LEAD_MS);
        } else if !urgent {
            return None;
        }
        (leader.process, leader.seq) = numbered(leader.process, leader.seq)?;
        host::set_shared(&self.keys.leader, &leader.to_bytes(), cas).ok()?.then_some(leader)
    }

    /// The next report goes on there. It goes back only if the region's list did: it then says less than it was told.
    fn heard_until(&self, told: u64, cursor: u64) {
        for _ in 0..TRIES_MAX {
            let Ok((octets, cas)) = host::shared(&self.keys.leader) else { return };
            let goes =
                |held: &Leader| held.since < cursor || (cursor < told && cursor < held.since);
            let Some(leader) = Leader::from_bytes(&octets).filter(goes) else { return };
            let leader = Leader { since: cursor, ..leader };
            if host::set_shared(&self.keys.leader, &leader.to_bytes(), cas) != Ok(false) {
                return;
            }
        }
    }
}
