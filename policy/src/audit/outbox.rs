//! Owns the events of one filter's worker until the gateway acknowledges them: bounded, in order, each with an
//! id that it keeps when it is sent again. Knows neither hosts nor clocks; what is lost is counted.
//!
//! Source: product row D2. A message at a time is on its way; one that fails is tried again with longer and
//! longer waits. An event is as old as the last tick before it: the path of a request reads no clock.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

mod batch;
mod said;

pub use batch::Batch;
pub use said::Said;

use self::batch::{Numbers, Waiting};
use super::tally::{Places, Tally};
use super::testimony::Testimony;
use super::{Action, Thinning};
use crate::wire::DecisionId;
use crate::wire::audit::{AuditNote, BRIEFS_MAX, EVENTS_MAX, Kept};

/// The most events that wait.
pub const WAITING_MAX: usize = 4_096;
/// The most bytes of events that wait, about.
pub const WAITING_BYTES_MAX: usize = 2 * 1_024 * 1_024;
/// The most firsts and kinds of one window: fewer than the gateway's, this is one worker.
pub const PLACES: Places = Places { firsts: 256, kinds: 64 };
/// So long events are gathered for one message.
const GATHER_MS: u64 = 500;
/// From a failure to the next try: at least, and at most after many failures.
const RETRY_MS: u64 = 1_000;
const RETRY_MS_MAX: u64 = 30_000;
/// So long all events are told as a whole after a message with brief ones was not answered: where a gateway is being upgraded
/// many might not be, and each costs a wait.
const WHOLE_MS: u64 = 60_000;
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
    /// One of events that nothing waits for, and the urgent ones.
    flights: Vec<Flight>,
    due_ms: u64,
    wait_ms: u64,
    /// Lost, and not yet told to the chain.
    untold: u64,
    counts: Counts,
    /// Whether the gateway that answered last reads briefs. Another one may hear the next message: what it does not answer
    /// for is sent again.
    reads_briefs: bool,
    /// Until then all are told as a whole.
    whole_until_ms: u64,
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    id: DecisionId,
    /// Not kept beside each event: recording one costs a request as it is.
    numbers: Numbers,
    sent_ms: u64,
    /// Whether a decision waits for it.
    is_urgent: bool,
    /// Whether some that waited by then found no room in it.
    is_cut: bool,
}

/// What became of an event that its decision waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Urgent {
    /// It is to be sent at once, and stays here until it is acknowledged.
    Send(Box<AuditNote>),
    /// The like of it was told: it is counted, and nothing waits for that.
    Counted,
    /// There is no room for it.
    NoRoom,
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
            flights: Vec::new(),
            due_ms: 0,
            wait_ms: RETRY_MS,
            untold: 0,
            counts: Counts::default(),
            reads_briefs: false,
            whole_until_ms: 0,
        }
    }

    /// Takes an event in.
    pub fn record(&mut self, what: impl Into<Box<Testimony>>) {
        let what = what.into();
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

    /// Takes an event in that is told each time, however often the like of it is.
    pub fn record_each(&mut self, what: Box<Testimony>) {
        if self.push(what, 0).is_some() {
            self.lose(1);
        }
    }

    /// Time has gone by.
    pub fn tick(&mut self, now_ms: u64) {
        // A clock that was set back makes nothing younger: for what is old the gateway looks further back, since it may have
        // been sent before.
        let back_ms = self.now_ms.saturating_sub(now_ms);
        if back_ms > 0 {
            let waiting = self.waiting.iter_mut().map(|waiting| &mut waiting.at_ms);
            let flights = self.flights.iter_mut().map(|flight| &mut flight.sent_ms);
            waiting.chain(flights).for_each(|at_ms| *at_ms = at_ms.saturating_sub(back_ms));
        }
        self.now_ms = now_ms;
        self.flights.retain(|flight| now_ms.abs_diff(flight.sent_ms) <= FLIGHT_MS_MAX);
        // A clock that was set back must not stop the sending.
        self.due_ms = self.due_ms.min(now_ms.saturating_add(RETRY_MS_MAX));
        self.whole_until_ms = self.whole_until_ms.min(now_ms.saturating_add(WHOLE_MS));
        let empty = Tally::new(PLACES, self.seed);
        let mut tally = core::mem::replace(&mut self.tally, empty);
        tally.turn(now_ms, |what, more, _| {
            self.push(Box::new(what), u32::try_from(more).unwrap_or(u32::MAX)).map(|what| *what)
        });
        self.tally = tally;
        if self.untold > 0 {
            let text = format!("{} events of a filter found no room", self.untold);
            if self.push(Box::new(Testimony::own(Action::Loss, "ok", text)), 0).is_none() {
                self.untold = 0;
            }
        }
    }

    /// Whether it is time for a message: there is enough for a whole one, or something has waited.
    pub fn is_ripe(&self) -> bool {
        let has_waited = |first: &Waiting| self.now_ms.abs_diff(first.at_ms) >= GATHER_MS;
        let is_here = |waiting: &&Waiting| !self.is_away(waiting.number);
        self.is_whole() || self.waiting.iter().find(is_here).is_some_and(has_waited)
    }

    /// Whether a message that holds as many as any does is to be sent at once, by whoever brought the last of them about: a
    /// busy worker has more than one of them from tick to tick.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.is_whole()
            && self.now_ms >= self.due_ms
            && self.flights.iter().all(|flight| flight.is_urgent)
    }

    fn is_whole(&self) -> bool {
        let whole = if self.tells_briefs() { BRIEFS_MAX } else { EVENTS_MAX };
        self.waiting.len() >= whole
    }

    fn tells_briefs(&self) -> bool {
        self.reads_briefs && self.now_ms >= self.whole_until_ms
    }

    /// The events of the next message, whose id this is; `None` if there is nothing to send now.
    pub fn batch(&mut self, id: DecisionId) -> Option<Batch<'_>> {
        if self.flights.iter().any(|flight| !flight.is_urgent) || self.now_ms < self.due_ms {
            return None;
        }
        // On their way by now are urgent ones alone, an event in each.
        let (sent_ms, away) = (self.now_ms, self.flights.len());
        let here = self.waiting.iter().filter(|waiting| !self.is_away(waiting.number));
        let (batch, numbers) = Batch::of(here, &self.run, sent_ms, self.tells_briefs());
        if batch.is_empty() {
            return None;
        }
        let is_cut = batch.len() < self.waiting.len().saturating_sub(away);
        self.flights.push(Flight { id, numbers, sent_ms, is_urgent: false, is_cut });
        Some(batch)
    }

    /// What the gateway says of the message with this id; of another one than was sent last, nothing is heard.
    /// Whether a whole message more waits, and is to be sent at once.
    pub fn answered(&mut self, id: DecisionId, said: Said<'_>) -> bool {
        let Some(flight) = self.landed(id, false) else { return false };
        if let Said::Each { briefs, .. } = said {
            self.reads_briefs = briefs;
        } else if flight.numbers.has_briefs() {
            self.whole_until_ms = self.now_ms.saturating_add(WHOLE_MS);
        }
        let goes_well = self.acknowledge(&flight, &said);
        if goes_well {
            (self.due_ms, self.wait_ms) = (0, RETRY_MS);
        } else {
            self.due_ms = self.now_ms.saturating_add(self.wait_ms);
            self.wait_ms = self.wait_ms.saturating_mul(2).min(RETRY_MS_MAX);
        }
        goes_well && (flight.is_cut || self.is_whole())
    }

    /// Takes in an event that its decision waits for, to be sent at once in a message with this id. `is_void`: without a
    /// record the decision is none, so that nothing is told of one that finds no room.
    pub fn record_urgent(&mut self, what: Box<Testimony>, id: DecisionId, is_void: bool) -> Urgent {
        let is_first = what.thinning() == Thinning::First;
        if is_first && !self.tally.is_first(&what, self.now_ms) {
            return Urgent::Counted;
        }
        let sent_ms = self.now_ms;
        match self.push(what, 0) {
            None => match self.waiting.back() {
                Some(waiting) => {
                    let numbers = Numbers::one(waiting.number);
                    self.flights.push(Flight {
                        id,
                        numbers,
                        sent_ms,
                        is_urgent: true,
                        is_cut: false,
                    });
                    Urgent::Send(Box::new(waiting.note(&self.run, sent_ms, false)))
                }
                None => Urgent::NoRoom,
            },
            Some(what) => {
                match (is_first, is_void) {
                    (true, true) => self.tally.forget(&what),
                    (true, false) => self.tally.count(&what),
                    (false, true) => {}
                    (false, false) => self.lose(1),
                }
                Urgent::NoRoom
            }
        }
    }

    /// What the gateway says of the urgent message with this id; whether its event is on record. If not it waits like the
    /// others. `is_void`: its decision is refused then, and the next one like it is told for itself again.
    pub fn urgent_answered(&mut self, id: DecisionId, said: Said<'_>, is_void: bool) -> bool {
        let Some(flight) = self.landed(id, true) else { return false };
        let is_its = |waiting: &&Waiting| flight.numbers.contains(waiting.number);
        let Some(waiting) = self.waiting.iter().find(is_its) else { return false };
        let is_kept = matches!(said, Said::Each { kept: [Kept::Kept, ..], .. });
        if is_void && !is_kept && waiting.what.thinning() == Thinning::First {
            self.tally.forget(&waiting.what);
        }
        self.acknowledge(&flight, &said);
        is_kept
    }

    /// The urgent message with this id never left, and its decision is refused: what it would have told of is not so.
    pub fn withdraw(&mut self, id: DecisionId) {
        let Some(flight) = self.landed(id, true) else { return };
        let is_its = |waiting: &Waiting| flight.numbers.contains(waiting.number);
        let Some(place) = self.waiting.iter().position(is_its) else { return };
        let Some(waiting) = self.waiting.remove(place) else { return };
        self.bytes = self.bytes.saturating_sub(waiting.weight);
        if waiting.what.thinning() == Thinning::First {
            self.tally.forget(&waiting.what);
        }
    }

    /// Lets go of what is on record or never will be; whether anything is.
    fn acknowledge(&mut self, flight: &Flight, said: &Said<'_>) -> bool {
        let (bytes, counts, mut is_any) = (&mut self.bytes, &mut self.counts, false);
        let mut place_of = flight.numbers.places();
        self.waiting.retain(|waiting| {
            let Some(index) = place_of(waiting.number) else { return true };
            let fate = match said {
                Said::Each { kept, .. } => kept.get(index).copied().unwrap_or(Kept::Later),
                Said::Nothing => Kept::Later,
                Said::Unreadable => Kept::Refused,
            };
            let count = match fate {
                Kept::Later => return true,
                Kept::Kept => &mut counts.kept,
                Kept::Refused => &mut counts.refused,
            };
            *count = count.saturating_add(waiting.events());
            *bytes = bytes.saturating_sub(waiting.weight);
            is_any = true;
            false
        });
        is_any
    }

    /// The answer to a message, if one is waited for; what is not acknowledged then waits again.
    fn landed(&mut self, id: DecisionId, is_urgent: bool) -> Option<Flight> {
        let is_it = |flight: &Flight| flight.id == id && flight.is_urgent == is_urgent;
        let place = self.flights.iter().position(is_it)?;
        Some(self.flights.remove(place))
    }

    fn is_away(&self, number: u64) -> bool {
        self.flights.iter().any(|flight| flight.numbers.contains(number))
    }

    /// Whoever holds it goes, and nobody takes it over: what still waits is lost.
    pub fn close(&mut self) {
        let waiting = core::mem::take(&mut self.waiting);
        let events: u64 = waiting.iter().map(Waiting::events).sum();
        let lost = events.saturating_add(self.tally.counted_events());
        (self.bytes, self.flights, self.tally) = (0, Vec::new(), Tally::new(PLACES, self.seed));
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
    fn push(&mut self, what: Box<Testimony>, more: u32) -> Option<Box<Testimony>> {
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
