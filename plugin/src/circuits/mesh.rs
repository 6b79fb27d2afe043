//! Owns what passes between a process and the mesh: who of the workers reports, what they say together,
//! and what the gateway's answer changes.

use std::collections::BTreeMap;

use tidegate_policy::breaker::mesh::Settled;
use tidegate_policy::config::Config;
use tidegate_policy::exchange::Answer;
use tidegate_policy::scope::CallerScope;
use tidegate_policy::wire::breaker::{
    BreakerName, BreakerReport, BreakersPart, BreakersReply, BreakersRequest, ProcessId,
    REPORTS_MAX,
};
use tidegate_policy::wire::{DecisionId, VERSION, encode};

use super::Circuits;
use super::shared::{TRIES_MAX, step};
use crate::host;

/// How often each worker hands on what it counted, and one of them reports.
pub(crate) const TICK_MS: u32 = 250;
/// Who reports stays so for three ticks.
const LEAD_MS: u64 = 750;
/// A gateway that did not answer for that long does not.
const ALONE_MS: u64 = 2_000;
const LEADER: &str = "tidegate.circuits.leader";
const HEARD: &str = "tidegate.circuits.heard";

/// A report on its way.
#[derive(Debug)]
pub(crate) struct Report {
    id: DecisionId,
    sent_ms: u64,
    /// The tests' ends that it tells, by breaker.
    ended: BTreeMap<usize, Settled>,
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

/// Whether the gateway was not heard of lately.
pub(super) fn is_alone(now_ms: u64) -> bool {
    let heard = host::shared(HEARD)
        .ok()
        .and_then(|(octets, _)| octets.first_chunk().map(|eight| u64::from_le_bytes(*eight)));
    heard.is_none_or(|heard_ms| now_ms.abs_diff(heard_ms) > ALONE_MS)
}

// === impl Circuits ===

impl Circuits {
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
        let now_ms = host::now_us().ok()? / 1_000;
        // While requests wait the ticks are shorter than these need; a clock that stepped back counts.
        let passed_ms = now_ms.checked_sub(self.ticked_ms.get());
        if passed_ms
            .is_some_and(|passed_ms| passed_ms < u64::from(TICK_MS) - u64::from(TICK_MS) / 10)
        {
            return None;
        }
        self.ticked_ms.set(now_ms);
        self.hand_on(config);
        self.report(config, caller, id, now_ms, false)
    }

    /// Whether this worker has something to say that should not wait for a tick; once.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.take()
    }

    /// What to send at once, whoever reports otherwise.
    pub(crate) fn report_now(
        &self,
        config: &Config,
        caller: &CallerScope,
        id: DecisionId,
    ) -> Option<(Vec<u8>, Report)> {
        let now_ms = host::now_us().ok()? / 1_000;
        self.report(config, caller, id, now_ms, true)
    }

    fn report(
        &self,
        config: &Config,
        caller: &CallerScope,
        id: DecisionId,
        now_ms: u64,
        urgent: bool,
    ) -> Option<(Vec<u8>, Report)> {
        // The last report is given up by its timeout, which is shorter than any gateway is waited for.
        let leader = if self.reporting.get() { None } else { self.lead(now_ms, urgent) }?;
        let mut reports = Vec::new();
        let mut ended = BTreeMap::new();
        let count = config.circuit_breakers.len();
        for offset in 0..count {
            let place = (self.next.get().saturating_add(offset)) % count.max(1);
            if reports.len() >= REPORTS_MAX {
                self.next.set(place);
                break;
            }
            let Some(breaker) = config.circuit_breakers.get(place) else { continue };
            let said = step(&breaker.name, |process| process.report(&breaker.own, now_ms));
            let Some(batch) = said.flatten() else { continue };
            let Some(name) = BreakerName::new(&breaker.name) else { continue };
            ended.extend(batch.probe.map(|probe| (place, probe)));
            reports.push(BreakerReport { name, terms: breaker.own.terms, batch });
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
        Some((encode(&message), Report { id, sent_ms: now_ms, ended }))
    }

    /// Takes what became of a report.
    pub(crate) fn told(&self, config: &Config, report: &Report, answer: &Answer<'_>) {
        self.reporting.set(false);
        let Answer::Response { marked: true, status: b"200", body } = answer else { return };
        let Ok(reply) = BreakersReply::decode(body, report.id) else { return };
        let mut changed = false;
        for state in &reply.breakers.states {
            let Some(place) = self.places.get(state.name.as_str()) else { continue };
            let Some(breaker) = config.circuit_breakers.get(*place) else { continue };
            let heard = report.ended.get(place).copied();
            let told = |process: &mut super::Process| process.told(state, heard, report.sent_ms);
            changed |= step(&breaker.name, told) == Some(true);
        }
        if changed {
            self.changed();
        }
        if let Ok((_, cas)) = host::shared(HEARD) {
            let _written: Result<bool, host::Status> =
                host::set_shared(HEARD, &report.sent_ms.to_le_bytes(), cas);
        }
        self.heard_until(reply.breakers.cursor);
    }

    fn hand_on(&self, config: &Config) {
        for (place, breaker) in config.circuit_breakers.iter().enumerate() {
            let generation = self.slots.borrow().get(place).map(|slot| slot.worker.generation);
            if let Some((generation, counts)) = generation.zip(self.counted(place)) {
                step(&breaker.name, |process| process.add(generation, counts));
            }
        }
    }

    /// Whether this worker reports now, and as what. While an old configuration drains its workers tick
    /// on: the newest leads.
    fn lead(&self, now_ms: u64, urgent: bool) -> Option<Leader> {
        let (octets, cas) = host::shared(LEADER).ok()?;
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
        leader.seq = leader.seq.saturating_add(1);
        host::set_shared(LEADER, &leader.to_bytes(), cas).ok()?.then_some(leader)
    }

    fn heard_until(&self, cursor: u64) {
        for _ in 0..TRIES_MAX {
            let Ok((octets, cas)) = host::shared(LEADER) else { return };
            let Some(leader) = Leader::from_bytes(&octets).filter(|held| held.since < cursor)
            else {
                return;
            };
            let leader = Leader { since: cursor, ..leader };
            if host::set_shared(LEADER, &leader.to_bytes(), cas) != Ok(false) {
                return;
            }
        }
    }
}
