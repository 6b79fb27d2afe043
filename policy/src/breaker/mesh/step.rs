//! Owns the step: what an event makes of a record, and what it says.

use alloc::vec::Vec;

use super::window::{add, judged, sums, swept};
use super::{
    BACKOFF_MAX, Batch, Cause, ENTROPY_RANGE, Ended, Event, Holder, LIFE_MS, LOST_MAX, Probe,
    REPORTER_LIFE_MS, REPORTERS_MAX, Record, Reporter, Said, Settled, State, TRIPPED_LIFE_MS,
    Terms, Transition,
};

/// How far a reporter's epoch may be ahead of the clock to be believed, in ms: a day.
const AHEAD_MS_MAX: u64 = 86_400_000;

/// One step. The record is to be written if the second says so, for the time that [`life_ms`] says.
pub fn step(now_ms: u64, held: Option<&Record>, event: &Event<'_>) -> (Said, Option<Record>) {
    let mut taken = Step {
        now_ms,
        fresh: held.is_none(),
        record: held.cloned().unwrap_or_else(|| Record::new(now_ms)),
        transitions: Vec::new(),
        counted: false,
        settled: false,
        permit: None,
        would_open: None,
    };
    // Or whoever looks again and again would be told the same wait again and again.
    let is_corrected = taken.normalise();
    match *event {
        Event::Look => {}
        Event::Sync { terms, holder, seq, batch, entropy } => {
            taken.bound(terms);
            taken.outlive(batch.epoch);
            taken.settle(terms, batch.probe, entropy);
            taken.count(terms, holder, seq, &batch, entropy);
            if batch.ask {
                taken.ask(terms, holder, entropy);
            }
        }
        Event::Order { order, for_ms, entropy } => taken.order(order, for_ms, entropy),
    }
    let is_look = matches!(event, Event::Look);
    let writes = !is_look || is_corrected || !taken.transitions.is_empty();
    let said = taken.said();
    (said, writes.then_some(taken.record))
}

/// How long a record is kept, in ms; `None` = for good.
pub fn life_ms(now_ms: u64, record: &Record) -> Option<u64> {
    if record.state.is_ordered() && record.until_ms == 0 {
        return None;
    }
    Some(LIFE_MS.saturating_add(record.until_ms.saturating_sub(now_ms)))
}

pub(super) struct Step {
    pub(super) now_ms: u64,
    /// There was no record: what was counted so far is this epoch's.
    fresh: bool,
    pub(super) record: Record,
    transitions: Vec<Transition>,
    counted: bool,
    settled: bool,
    permit: Option<(u64, u64)>,
    would_open: Option<Cause>,
}

// === impl Step ===

impl Step {
    /// What time alone does: a clock that stepped back makes no wait longer than it was meant, and an
    /// operator's state ends. Says whether the clock did.
    fn normalise(&mut self) -> bool {
        let now_ms = self.now_ms;
        let record = &mut self.record;
        let is_behind = record.since_ms > now_ms;
        if is_behind {
            if record.until_ms > 0 {
                let meant_ms = record.until_ms.saturating_sub(record.since_ms);
                record.until_ms = now_ms.saturating_add(meant_ms);
            }
            record.since_ms = now_ms;
        }
        for reporter in &mut record.reporters {
            reporter.seen_ms = reporter.seen_ms.min(now_ms);
        }
        let over = record.until_ms > 0 && now_ms >= record.until_ms;
        match record.state {
            State::ForcedOpen if over => {
                self.enter(State::Open, Cause::Expired);
                self.record.until_ms = now_ms;
            }
            State::Disabled | State::MetricsOnly if over => {
                self.enter(State::Closed, Cause::Expired);
            }
            _ => {}
        }
        is_behind
    }

    /// A reporter that knows a later epoch outlived a record that was lost under a clock that went back. It
    /// would take no word of an earlier one.
    fn outlive(&mut self, known: u64) {
        let latest = self.now_ms.saturating_add(AHEAD_MS_MAX);
        if known > self.record.epoch && known <= latest {
            self.record.epoch = known.saturating_add(1);
        }
    }

    fn bound(&mut self, terms: &Terms) {
        let latest_ms = self.now_ms.saturating_add(u64::from(terms.probe_ms));
        if let Some(probe) = &mut self.record.probe {
            probe.until_ms = probe.until_ms.min(latest_ms);
        }
    }

    pub(super) fn enter(&mut self, to: State, cause: Cause) {
        let from = self.record.state;
        let after_ms = self.now_ms.saturating_sub(self.record.since_ms);
        self.transitions.push(Transition { from, to, cause, after_ms });
        let record = &mut self.record;
        record.state = to;
        record.epoch = record.epoch.saturating_add(1).max(self.now_ms);
        record.since_ms = self.now_ms;
        record.until_ms = 0;
        record.successes = 0;
        record.lost = 0;
        record.healed = false;
        record.probe = None;
        record.buckets.clear();
        for reporter in &mut record.reporters {
            reporter.tripped = false;
        }
    }

    fn open(&mut self, terms: &Terms, cause: Cause, entropy: u32) {
        let doublings = self.record.trips.min(terms.backoff).min(BACKOFF_MAX);
        let open_ms = u64::from(terms.open_ms) << doublings;
        if cause != Cause::ProbesLost {
            self.record.trips = self.record.trips.saturating_add(1);
        }
        self.enter(State::Open, cause);
        self.record.until_ms = self.now_ms.saturating_add(jittered_ms(open_ms, entropy));
    }

    fn settle(&mut self, terms: &Terms, ended: Option<Settled>, entropy: u32) {
        let Some(Settled { id, ended }) = ended else { return };
        let live = self.record.probe.is_some_and(|p| p.id == id && self.now_ms < p.until_ms);
        if self.record.state != State::HalfOpen || !live {
            return;
        }
        self.settled = true;
        match ended {
            Ended::GivenBack => self.record.probe = None,
            Ended::Failed => self.open(terms, Cause::ProbeFailed, entropy),
            Ended::Ok => {
                let record = &mut self.record;
                (record.probe, record.lost) = (None, 0);
                record.successes = record.successes.saturating_add(1);
                if record.successes >= terms.successes {
                    record.trips = 0;
                    self.enter(State::Closed, Cause::ProbesSucceeded);
                    self.record.healed = true;
                }
            }
        }
    }

    fn count(&mut self, terms: &Terms, holder: Holder, seq: u64, batch: &Batch, entropy: u32) {
        let now_ms = self.now_ms;
        let record = &mut self.record;
        let known = record.reporters.iter().find(|reporter| reporter.holder == holder);
        let last_seq = known.map_or(0, |reporter| reporter.seq);
        let was_tripped = known.is_some_and(|reporter| reporter.tripped);
        let current = self.fresh || batch.epoch == record.epoch;
        let new = seq > last_seq;
        record.reporters.retain(|reporter| {
            reporter.holder != holder && reporter.seen_ms.saturating_add(REPORTER_LIFE_MS) > now_ms
        });
        while record.reporters.len() >= REPORTERS_MAX {
            record.reporters.remove(0);
        }
        let tripped = if new { current && batch.tripped } else { was_tripped };
        let seq = seq.max(last_seq);
        record.reporters.push(Reporter { holder, seq, seen_ms: now_ms, tripped });
        let usual = &mut record.usual;
        // Of an upstream that is not guarded nothing is known to be usual.
        let learns = matches!(record.state, State::Closed | State::MetricsOnly);
        swept(&mut record.buckets, &terms.window, now_ms, |bucket| {
            if let Some(adaptive) = terms.adaptive.filter(|_| learns) {
                adaptive.learn(usual, &terms.window, bucket);
            }
        });
        if !record.state.passes() {
            // What arrives while it is open was begun before; it says nothing of what comes.
            for reporter in &mut record.reporters {
                reporter.tripped = false;
            }
            return;
        }
        if new && current && batch.calls > 0 {
            self.counted = true;
            add(&mut record.buckets, &terms.window, now_ms, batch);
        }
        let cause = judged(&record.buckets, &record.usual, terms).or_else(|| {
            let is_shut = |reporter: &&Reporter| {
                reporter.tripped && reporter.seen_ms.saturating_add(TRIPPED_LIFE_MS) > now_ms
            };
            let tripped = record.reporters.iter().filter(is_shut).count();
            let needed = usize::from(terms.trip_reporters).min(record.reporters.len()).max(1);
            (tripped >= needed).then_some(Cause::Reporters)
        });
        match (record.state, cause) {
            (State::Closed, Some(cause)) => self.open(terms, cause, entropy),
            (State::MetricsOnly, Some(cause)) => {
                self.would_open = Some(cause);
                record.buckets.clear();
                for reporter in &mut record.reporters {
                    reporter.tripped = false;
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, terms: &Terms, holder: Holder, entropy: u32) {
        let now_ms = self.now_ms;
        match self.record.state {
            State::Open if now_ms >= self.record.until_ms => {
                self.enter(State::HalfOpen, Cause::WaitOver);
                self.grant(terms, holder);
            }
            State::HalfOpen => match self.record.probe {
                None => self.grant(terms, holder),
                // Whoever has it may ask again: its answer was lost.
                Some(probe) if now_ms < probe.until_ms => {
                    if probe.holder == holder {
                        self.permit = Some((probe.id, probe.until_ms.saturating_sub(now_ms)));
                    }
                }
                Some(_) => {
                    let lost = self.record.lost.saturating_add(1);
                    if lost >= LOST_MAX {
                        self.open(terms, Cause::ProbesLost, entropy);
                    } else {
                        (self.record.lost, self.record.successes) = (lost, 0);
                        self.grant(terms, holder);
                    }
                }
            },
            _ => {}
        }
    }

    fn grant(&mut self, terms: &Terms, holder: Holder) {
        let id = self.record.last_probe.saturating_add(1).max(self.now_ms);
        let until_ms = self.now_ms.saturating_add(u64::from(terms.probe_ms));
        self.record.last_probe = id;
        self.record.probe = Some(Probe { id, holder, until_ms });
        self.permit = Some((id, u64::from(terms.probe_ms)));
    }

    fn said(&mut self) -> Said {
        let now_ms = self.now_ms;
        let record = &self.record;
        let left_ms = record.until_ms.saturating_sub(now_ms);
        let wait_ms = match record.state {
            State::Open => Some(left_ms),
            State::HalfOpen => {
                Some(record.probe.map_or(0, |probe| probe.until_ms.saturating_sub(now_ms)))
            }
            _ => (record.until_ms > 0).then_some(left_ms),
        };
        let healed = record.healed && record.state == State::Closed;
        Said {
            state: record.state,
            epoch: record.epoch,
            wait_ms,
            healed_ms: healed.then(|| now_ms.saturating_sub(record.since_ms)),
            counted: self.counted,
            settled: self.settled,
            permit: self.permit,
            transitions: core::mem::take(&mut self.transitions),
            would_open: self.would_open,
            window: sums(&record.buckets),
            usual: record.usual,
            trips: record.trips,
            successes: record.successes,
            fresh: self.fresh,
        }
    }
}

/// A fifth earlier to a fifth later (product row B2).
pub(crate) fn jittered_ms(open_ms: u64, entropy: u32) -> u64 {
    let earliest_ms = open_ms.saturating_mul(4) / 5;
    let spread_ms = open_ms.saturating_mul(2) / 5;
    let later_ms = spread_ms.saturating_mul(u64::from(entropy)) / u64::from(ENTROPY_RANGE);
    earliest_ms.saturating_add(later_ms)
}
