//! Owns the lists of breakers of which there is something to report: a bit for each, in one value of
//! shared data, so that who reports looks at those alone.
//!
//! ```text
//! asks │ counts │ ends
//! ```
//!
//! Ends of tests come first: a test is a lease, and all others wait for its end. Whoever stands among the ends stands
//! among those who ask, too: a filter of before, which shares the value while one replaces the other, cuts off the ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use tidegate_policy::breaker::process::Process;

use super::shared::TRIES_MAX;
use crate::host;

/// Of what is reported at once so much is kept for counts: those who ask must not keep an outage from being noticed.
const COUNTS_MIN: usize = 32;
/// The lists, by where they stand.
const ASKS: usize = 0;
const COUNTS: usize = 1;
const ENDS: usize = 2;
const LISTS: usize = 3;

/// Where the next report goes on: among who asks, who counted, and whose test ended.
pub(super) type Turn = [usize; LISTS];

/// What there is to report beside counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// A test is wanted, or was given, or its process tripped.
    Asks,
    /// A test ended.
    Ended,
}

/// The marks of one layout of places.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Empty where there are no places.
    key: String,
    /// Octets of each of the lists.
    len: usize,
    /// Counted places that this worker has not marked yet.
    pending: RefCell<BTreeSet<usize>>,
    /// Those with more than counts to report, for the next tick.
    later: RefCell<BTreeMap<usize, Says>>,
}

// === impl Says ===

impl Says {
    /// What a process has to say, if anything.
    pub(super) fn of(process: &Process) -> Option<Self> {
        match process.ended {
            Some(_) => Some(Self::Ended),
            None => process.is_pending().then_some(Self::Asks),
        }
    }
}

// === impl Marks ===

impl Marks {
    /// `layout` tells layouts apart: while a configuration is replaced there may be two.
    pub(super) fn new(layout: u64, places: usize) -> Self {
        let key = format!("tidegate.circuits.marks.{layout:016x}");
        Self { key, len: places.div_ceil(8), ..Self::default() }
    }

    /// There are counts to report. Written by [`Marks::flush`].
    pub(super) fn counted(&self, place: usize) {
        self.pending.borrow_mut().insert(place);
    }

    /// What there will still be to report, or that there will be no more. Written by [`Marks::flush`].
    pub(super) fn later(&self, place: usize, says: Option<Says>) {
        let mut later = self.later.borrow_mut();
        match says {
            Some(says) => later.insert(place, says),
            None => later.remove(&place),
        };
    }

    /// There is more than counts to report. Written at once.
    pub(super) fn urgent(&self, places: impl AsRef<[(usize, Says)]>) {
        if places.as_ref().is_empty() {
            return;
        }
        let is_written = self.change(|lists| {
            for (place, says) in places.as_ref() {
                self.mark(lists, *place, *says);
            }
        });
        if !is_written {
            self.later.borrow_mut().extend(places.as_ref().iter().copied());
        }
    }

    /// Writes what was counted.
    pub(super) fn flush(&self) {
        let (mut pending, mut later) = (self.pending.borrow_mut(), self.later.borrow_mut());
        if pending.is_empty() && later.is_empty() {
            return;
        }
        let start = self.first(COUNTS);
        let is_written = self.change(|lists| {
            for place in pending.iter() {
                set(lists, start.saturating_add(*place), true);
            }
            for (place, says) in later.iter() {
                self.mark(lists, *place, *says);
            }
        });
        if is_written {
            pending.clear();
            later.clear();
        }
    }

    /// Takes out at most so many, going on at `turn`: ends of tests first and then who asks, but for the parts that are
    /// kept for who asks and for counts where there are any. Says where to go on.
    pub(super) fn take(&self, max: usize, turn: Turn) -> (Vec<usize>, Turn) {
        let (mut taken, mut ended) = (Vec::new(), turn);
        self.change(|lists| {
            taken.clear();
            ended = turn;
            let kept = max.saturating_sub(COUNTS_MIN);
            // Ends that nobody hears of, since their part of the store is away, leave room for who asks elsewhere.
            for (list, most) in
                [(ENDS, kept / 2), (ASKS, kept), (COUNTS, max), (ENDS, max), (ASKS, max)]
            {
                let Some(next) = ended.get_mut(list) else { continue };
                *next = self.take_from(lists, list, *next, most, &mut taken);
            }
        });
        (taken, ended)
    }

    /// Takes out of a list until there are `most`. Says where to go on.
    fn take_from(
        &self,
        lists: &mut [u8],
        list: usize,
        next: usize,
        most: usize,
        taken: &mut Vec<usize>,
    ) -> usize {
        let (first, places) = (self.first(list), self.len.saturating_mul(8));
        let mut in_turn = (next..places).chain(0..next.min(places)).peekable();
        let mut goes_on = next;
        while taken.len() < most {
            let Some(place) = in_turn.next() else { break };
            let bit = first.saturating_add(place);
            if place % 8 == 0 && is_blank(lists, bit) {
                // Eight at once: most are blank.
                while in_turn.next_if(|other| other / 8 == place / 8).is_some() {}
                continue;
            }
            if is_set(lists, bit) {
                set(lists, bit, false);
                if list == ENDS {
                    set(lists, self.first(ASKS).saturating_add(place), false);
                }
                goes_on = place.saturating_add(1);
                if !taken.contains(&place) {
                    taken.push(place);
                }
            }
        }
        goes_on
    }

    fn mark(&self, lists: &mut [u8], place: usize, says: Says) {
        set(lists, self.first(ASKS).saturating_add(place), true);
        if says == Says::Ended {
            set(lists, self.first(ENDS).saturating_add(place), true);
        }
    }

    /// The first bit of a list.
    fn first(&self, list: usize) -> usize {
        self.len.saturating_mul(8).saturating_mul(list)
    }

    /// Says whether it is written; if not, the host does not play along, or others were faster each time.
    fn change(&self, mut change: impl FnMut(&mut Vec<u8>)) -> bool {
        if self.len == 0 {
            return true;
        }
        for _ in 0..TRIES_MAX {
            let Ok((mut lists, cas)) = host::shared(&self.key) else { return false };
            lists.resize(self.len.saturating_mul(LISTS), 0);
            let before = lists.clone();
            change(&mut lists);
            if lists == before {
                return true;
            }
            match host::set_shared(&self.key, &lists, cas) {
                Ok(false) => {}
                written => return written.is_ok(),
            }
        }
        false
    }
}

fn set(lists: &mut [u8], bit: usize, is: bool) {
    if let Some(octet) = lists.get_mut(bit / 8) {
        let mask = 1_u8 << (bit % 8);
        *octet = if is { *octet | mask } else { *octet & !mask };
    }
}

fn is_set(lists: &[u8], bit: usize) -> bool {
    lists.get(bit / 8).is_some_and(|octet| octet >> (bit % 8) & 1 == 1)
}

fn is_blank(lists: &[u8], bit: usize) -> bool {
    lists.get(bit / 8).is_none_or(|octet| *octet == 0)
}
