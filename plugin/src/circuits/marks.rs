//! Owns the list of breakers of which there is something to report: a bit for each, in one value of
//! shared data, so that who reports looks at those alone.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::shared::TRIES_MAX;
use crate::host;

/// Of what is reported at once so much is kept for counts: those who ask must not keep an outage from being noticed.
const COUNTS_MIN: usize = 32;

/// Where the next report goes on: among who asks, and among who counted.
pub(super) type Turn = [usize; 2];

/// The marks of one layout of places.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Empty where there are no places.
    key: String,
    /// Octets of each of the two lists.
    len: usize,
    /// Counted places that this worker has not marked yet.
    pending: RefCell<BTreeSet<usize>>,
    /// Those with more than counts to report, for the next tick.
    later: RefCell<BTreeSet<usize>>,
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

    /// There will still be more than counts to report. Written by [`Marks::flush`].
    pub(super) fn later(&self, places: impl IntoIterator<Item = usize>) {
        self.later.borrow_mut().extend(places);
    }

    /// There is more than counts to report. Written at once.
    pub(super) fn urgent(&self, places: impl AsRef<[usize]>) {
        if places.as_ref().is_empty() {
            return;
        }
        self.change(|lists| {
            for place in places.as_ref() {
                set(lists, *place, true);
            }
        });
    }

    /// Writes what was counted.
    pub(super) fn flush(&self) {
        let (pending, later) = (self.pending.take(), self.later.take());
        if pending.is_empty() && later.is_empty() {
            return;
        }
        let start = self.len.saturating_mul(8);
        self.change(|lists| {
            for place in &pending {
                set(lists, start.saturating_add(*place), true);
            }
            for place in &later {
                set(lists, *place, true);
            }
        });
    }

    /// Takes out at most so many, going on at `turn`: urgent ones first, but for a part that is kept for counts where
    /// there are any. Says where to go on.
    pub(super) fn take(&self, max: usize, turn: Turn) -> (Vec<usize>, Turn) {
        let counts = self.len.saturating_mul(8);
        let (mut taken, mut ended) = (Vec::new(), turn);
        self.change(|lists| {
            taken.clear();
            ended = turn;
            let [asks_at, counts_at] = &mut ended;
            let kept = max.saturating_sub(COUNTS_MIN);
            *asks_at = self.take_from(lists, 0, *asks_at, kept, &mut taken);
            *counts_at = self.take_from(lists, counts, *counts_at, max, &mut taken);
            *asks_at = self.take_from(lists, 0, *asks_at, max, &mut taken);
        });
        (taken, ended)
    }

    /// Takes out of the list that begins at `first` until there are `most`. Says where to go on.
    fn take_from(
        &self,
        lists: &mut [u8],
        first: usize,
        next: usize,
        most: usize,
        taken: &mut Vec<usize>,
    ) -> usize {
        let places = self.len.saturating_mul(8);
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
                goes_on = place.saturating_add(1);
                if !taken.contains(&place) {
                    taken.push(place);
                }
            }
        }
        goes_on
    }

    fn change(&self, mut change: impl FnMut(&mut Vec<u8>)) {
        if self.len == 0 {
            return;
        }
        for _ in 0..TRIES_MAX {
            let Ok((mut lists, cas)) = host::shared(&self.key) else { return };
            lists.resize(self.len.saturating_mul(2), 0);
            let before = lists.clone();
            change(&mut lists);
            if lists == before || host::set_shared(&self.key, &lists, cas) != Ok(false) {
                return;
            }
        }
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
