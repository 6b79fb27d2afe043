//! Owns how the events that wait become a message: the first of those that are alike as a whole, the others in brief.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::slice;

use crate::audit::testimony::Testimony;
use crate::digits::push_number;
use crate::wire::audit::{AuditNote, BRIEFS_MAX, Brief, EVENTS_MAX, Halves, ID_LEN_MAX, Names};

/// The most bytes of events in one message, about; a message may have 64 KiB.
pub(super) const BATCH_BYTES_MAX: usize = 56 * 1_024;
/// An event is held against so many whole ones of its message, the latest: more would cost what being brief saves.
const LIKE_MAX: usize = 8;

/// An event that is not on record yet.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) at_ms: u64,
    /// Of a count: how many it tells of.
    pub(super) more: u32,
    pub(super) weight: usize,
    pub(super) what: Box<Testimony>,
}

/// The events of one message.
#[derive(Debug, Default)]
pub struct Batch<'w> {
    /// Those that are told as a whole.
    pub events: Vec<AuditNote>,
    /// Those that are like one of them.
    pub briefs: Vec<Brief<Names<'w>>>,
}

/// Which events a message holds, in its order: the whole ones, and behind them the brief ones, each counted up.
#[derive(Debug)]
pub(super) struct Numbers {
    whole: Vec<u64>,
    brief: Vec<u64>,
}

// === impl Waiting ===

impl Waiting {
    /// How many events it tells of.
    pub(super) fn events(&self) -> u64 {
        u64::from(self.more.max(1))
    }

    /// As it is handed over, by whom, now.
    pub(super) fn note(&self, run: &str, now_ms: u64, reads_briefs: bool) -> AuditNote {
        let mut id = String::with_capacity(ID_LEN_MAX);
        id.push_str(run);
        id.push('-');
        push_number(&mut id, self.number);
        self.what.note(id, self.age_ms(now_ms), self.more, reads_briefs)
    }

    fn brief(&self, (like, other): (usize, &Testimony), now_ms: u64) -> Brief<Names<'_>> {
        let (number, age_ms) = (self.number, self.age_ms(now_ms));
        let decision = self.what.decision.map(|id| Halves::between(other.decision, id));
        Brief { like, number, age_ms, decision, names: self.what.subjects() }
    }

    fn age_ms(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(u32::MAX)
    }
}

// === impl Batch ===

impl<'w> Batch<'w> {
    /// Of as many as one message holds, and which those are.
    pub(super) fn of(
        waiting: impl Iterator<Item = &'w Waiting>,
        run: &str,
        now_ms: u64,
        reads_briefs: bool,
    ) -> (Self, Numbers) {
        let (mut batch, mut bytes) = (Self::default(), 0_usize);
        let mut numbers = Numbers { whole: Vec::new(), brief: Vec::new() };
        let mut whole: Vec<&Testimony> = Vec::new();
        for waiting in waiting.take(BRIEFS_MAX) {
            let may_be_brief = reads_briefs && waiting.more == 0;
            let is_like = |(_, whole): &(usize, &&Testimony)| waiting.what.is_like(whole);
            let mut latest = whole.iter().enumerate().rev().take(LIKE_MAX);
            let like = may_be_brief.then(|| latest.find(is_like)).flatten();
            let brief = like.map(|(like, other)| waiting.brief((like, other), now_ms));
            let weight = brief.as_ref().map_or(waiting.weight, |brief| {
                brief.weight().saturating_add(waiting.what.names_weight())
            });
            bytes = bytes.saturating_add(weight);
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            if let Some(brief) = brief {
                numbers.brief.push(waiting.number);
                batch.briefs.push(brief);
            } else if batch.events.len() == EVENTS_MAX {
                break;
            } else {
                numbers.whole.push(waiting.number);
                batch.events.push(waiting.note(run, now_ms, reads_briefs));
                whole.push(&waiting.what);
            }
        }
        (batch, numbers)
    }

    /// How many events it holds.
    pub fn len(&self) -> usize {
        self.events.len().saturating_add(self.briefs.len())
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

// === impl Numbers ===

impl Numbers {
    pub(super) fn one(number: u64) -> Self {
        Self { whole: Vec::from([number]), brief: Vec::new() }
    }

    pub(super) fn has_briefs(&self) -> bool {
        !self.brief.is_empty()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        [&self.whole, &self.brief].iter().any(|numbers| numbers.binary_search(&number).is_ok())
    }

    /// Tells of numbers that are counted up where the message has them.
    pub(super) fn places(&self) -> impl FnMut(u64) -> Option<usize> {
        let (mut whole, mut brief) = (self.whole.iter(), self.brief.iter());
        move |number| {
            let at = place_of(number, &mut whole, self.whole.len());
            at.or_else(|| {
                let at = place_of(number, &mut brief, self.brief.len())?;
                Some(at.saturating_add(self.whole.len()))
            })
        }
    }
}

/// Where a number is among so many, of which these are left; what is below it is passed over.
fn place_of(number: u64, left: &mut slice::Iter<'_, u64>, of: usize) -> Option<usize> {
    while left.as_slice().first().is_some_and(|first| *first <= number) {
        let at = of.saturating_sub(left.len());
        if left.next() == Some(&number) {
            return Some(at);
        }
    }
    None
}
