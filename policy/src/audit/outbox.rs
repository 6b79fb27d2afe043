//! Owns the events of one filter's worker until the gateway acknowledges them: bounded, in order, each with an
//! id that it keeps when it is sent again. Knows neither hosts nor clocks; what is lost is counted.
//!
//! Source: product row D2. A message at a time is on its way; one that fails is tried again with longer and
//! longer waits. An event is as old as the last tick before it: the path of a request reads no clock.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::tally::{Places, Tally};
use super::testimony::Testimony;
use super::{Action, Thinning};
use crate::wire::DecisionId;
use crate::wire::audit::{AuditNote, EVENTS_MAX, Kept};

/// The most events that wait.
pub const WAITING_MAX: usize = 1_024;
/// The most bytes of events that wait, about.
pub const WAITING_BYTES_MAX: usize = 512 * 1_024;
/// The most bytes of events in one message, about; a message may have 64 KiB.
const BATCH_BYTES_MAX: usize = 40 * 1_024;
/// The most firsts and kinds of one window: fewer than the gateway's, this is one worker.
pub const PLACES: Places = Places { firsts: 256, kinds: 64 };
/// So long events are gathered for one message.
const GATHER_MS: u64 = 500;
/// From a failure to the next try: at least, and at most after many failures.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 30_000;
/// An answer that has not come by then will not: its root is gone.
const FLIGHT_MS_MAX: u64 = 30_000;

/// The events of one worker.
#[derive(Debug)]
pub struct Outbox {
    /// 32 hex digits that no other worker has.
    run: String,
    made: u64,
    /// When the last tick was, in ms.
    now_ms: u64,
    tally: Tally<Testimony>,
    /// Of the tally's marks.
    seed: u64,
    waiting: VecDeque<Waiting>,
    bytes: usize,
    flight: Option<Flight>,
    due_ms: u64,
    wait_ms: u64,
    /// Lost, and not yet told to the chain.
    untold: u64,
    counts: Counts,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    at_ms: u64,
    /// Of a count: how many it tells of.
    more: u32,
    weight: usize,
    what: Testimony,
}

#[derive(Debug)]
struct Flight {
    id: DecisionId,
    /// So many from the front are on their way.
    count: usize,
    sent_ms: u64,
}

/// What became of events, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// On record.
    pub kept: u64,
    /// Never to be: the gateway keeps no chain, or cannot read them.
    pub refused: u64,
    /// There was no room for them.
    pub lost: u64,
}

/// What the gateway says of a message.
#[derive(Debug)]
pub enum Said<'a> {
    /// Of each of its events, in order.
    Each(&'a [Kept]),
    /// Nothing: it is sent again.
    Nothing,
    /// That it cannot be read: again would be no better.
    Unreadable,
}

// === impl Waiting ===

impl Waiting {
    /// How many events it tells of.
    fn events(&self) -> u64 {
        u64::from(self.more.max(1))
    }
}

// === impl Outbox ===

impl Outbox {
    /// An empty one; `run` are 128 bits that no other worker has.
    pub fn new(run: u128, now_ms: u64) -> Self {
        let seed = u64::try_from(run >> 64).unwrap_or_default();
        let seed = seed ^ u64::try_from(run & u128::from(u64::MAX)).unwrap_or_default();
        Self {
            run: format!("{run:032x}"),
            made: 0,
            now_ms,
            tally: Tally::new(PLACES, seed),
            seed,
            waiting: VecDeque::new(),
            bytes: 0,
            flight: None,
            due_ms: 0,
            wait_ms: RETRY_MS,
            untold: 0,
            counts: Counts::default(),
        }
    }

    /// Takes an event in.
    pub fn record(&mut self, what: Testimony) {
        let is_counted =
            what.thinning() == Thinning::First && !self.tally.is_first(&what, self.now_ms);
        if is_counted {
            return;
        }
        if let Some(what) = self.push(what, 0) {
            match what.thinning() {
                // It is counted with its kind; only who it was is lost.
                Thinning::First => self.tally.count(&what),
                Thinning::Each => self.lose(1),
            }
        }
    }

    /// Time has gone by.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        if let Some(flight) = &self.flight
            && now_ms.abs_diff(flight.sent_ms) > FLIGHT_MS_MAX
        {
            self.flight = None;
        }
        // A clock that was set back must not stop the sending.
        self.due_ms = self.due_ms.min(now_ms.saturating_add(RETRY_MS_MAX));
        let empty = Tally::new(PLACES, self.seed);
        let mut tally = core::mem::replace(&mut self.tally, empty);
        tally
            .turn(now_ms, |what, more, _| self.push(what, u32::try_from(more).unwrap_or(u32::MAX)));
        self.tally = tally;
        if self.untold > 0 {
            let text = format!("{} events of a filter found no room", self.untold);
            if self.push(Testimony::own(Action::Loss, "ok", text), 0).is_none() {
                self.untold = 0;
            }
        }
    }

    /// Whether it is time for a message: there is enough for a whole one, or something has waited.
    pub fn is_ripe(&self) -> bool {
        let has_waited = |first: &Waiting| self.now_ms.abs_diff(first.at_ms) >= GATHER_MS;
        self.waiting.len() >= EVENTS_MAX || self.waiting.front().is_some_and(has_waited)
    }

    /// The events of the next message, whose id this is; `None` if there is nothing to send now.
    pub fn batch(&mut self, id: DecisionId) -> Option<Vec<AuditNote>> {
        if self.waiting.is_empty() || self.flight.is_some() || self.now_ms < self.due_ms {
            return None;
        }
        let (now_ms, mut bytes, mut notes) = (self.now_ms, 0_usize, Vec::new());
        for waiting in self.waiting.iter().take(EVENTS_MAX) {
            bytes = bytes.saturating_add(waiting.weight);
            if bytes > BATCH_BYTES_MAX && !notes.is_empty() {
                break;
            }
            let age_ms = now_ms.saturating_sub(waiting.at_ms);
            let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
            let name = format!("{}-{}", self.run, waiting.number);
            notes.push(waiting.what.note(name, age_ms, waiting.more));
        }
        self.flight = Some(Flight { id, count: notes.len(), sent_ms: now_ms });
        Some(notes)
    }

    /// What the gateway says of the message with this id; of another one than was sent last, nothing is heard.
    /// Whether a whole message more waits, and is to be sent at once.
    pub fn answered(&mut self, id: DecisionId, said: Said<'_>) -> bool {
        let Some(flight) = self.flight.take_if(|flight| flight.id == id) else { return false };
        let sent: Vec<Waiting> =
            (0..flight.count).filter_map(|_| self.waiting.pop_front()).collect();
        let mut again = Vec::new();
        for (index, waiting) in sent.into_iter().enumerate() {
            let fate = match &said {
                Said::Each(each) => each.get(index).copied().unwrap_or(Kept::Later),
                Said::Nothing => Kept::Later,
                Said::Unreadable => Kept::Refused,
            };
            match fate {
                Kept::Later => again.push(waiting),
                Kept::Kept | Kept::Refused => {
                    self.bytes = self.bytes.saturating_sub(waiting.weight);
                    let count = match fate {
                        Kept::Kept => &mut self.counts.kept,
                        _ => &mut self.counts.refused,
                    };
                    *count = count.saturating_add(waiting.events());
                }
            }
        }
        let goes_well = again.len() < flight.count;
        for waiting in again.into_iter().rev() {
            self.waiting.push_front(waiting);
        }
        if goes_well {
            (self.due_ms, self.wait_ms) = (0, RETRY_MS);
        } else {
            self.due_ms = self.now_ms.saturating_add(self.wait_ms);
            self.wait_ms = self.wait_ms.saturating_mul(2).min(RETRY_MS_MAX);
        }
        goes_well && self.waiting.len() >= EVENTS_MAX
    }

    /// Whoever holds it goes, and nobody takes it over: what still waits is lost.
    pub fn close(&mut self) {
        let waiting = core::mem::take(&mut self.waiting);
        let events: u64 = waiting.iter().map(Waiting::events).sum();
        let lost = events.saturating_add(self.tally.counted_events());
        (self.bytes, self.flight, self.tally) = (0, None, Tally::new(PLACES, self.seed));
        self.counts.lost = self.counts.lost.saturating_add(lost);
    }

    /// What became of events since this was asked last.
    pub fn counts(&mut self) -> Counts {
        core::mem::take(&mut self.counts)
    }

    /// How many events wait, those on their way among them.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes an event in, or gives it back: there is no room.
    fn push(&mut self, what: Testimony, more: u32) -> Option<Testimony> {
        let weight = what.weight();
        let bytes = self.bytes.saturating_add(weight);
        if self.waiting.len() >= WAITING_MAX || bytes > WAITING_BYTES_MAX {
            return Some(what);
        }
        self.bytes = bytes;
        self.made = self.made.saturating_add(1);
        let (number, at_ms) = (self.made, self.now_ms);
        self.waiting.push_back(Waiting { number, at_ms, more, weight, what });
        None
    }

    fn lose(&mut self, count: u64) {
        self.untold = self.untold.saturating_add(count);
        self.counts.lost = self.counts.lost.saturating_add(count);
    }
}

#[cfg(test)]
mod tests;
