//! Owns the list of breakers of which there is something to report: a bit for each, in one value of
//! shared data, so that who reports looks at those alone.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::shared::TRIES_MAX;
use crate::host;

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

    /// Takes out at most so many, urgent ones first, going on at `next`.
    pub(super) fn take(&self, max: usize, next: usize) -> Vec<usize> {
        let start = self.len.saturating_mul(8);
        let mut taken = Vec::new();
        self.change(|lists| {
            taken.clear();
            for first in [0, start] {
                let in_turn = (next..start).chain(0..next.min(start));
                let mut octets_left = in_turn.peekable();
                while let Some(place) = octets_left.next() {
                    if taken.len() >= max {
                        return;
                    }
                    if place % 8 == 0 && is_blank(lists, first.saturating_add(place)) {
                        // Eight at once: most are blank.
                        while octets_left.next_if(|other| other / 8 == place / 8).is_some() {}
                        continue;
                    }
                    let bit = first.saturating_add(place);
                    if is_set(lists, bit) {
                        set(lists, bit, false);
                        if !taken.contains(&place) {
                            taken.push(place);
                        }
                    }
                }
            }
        });
        taken
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
