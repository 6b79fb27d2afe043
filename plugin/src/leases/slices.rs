//! Owns the slices of one worker: found by what they are of, then by their places. A place is not given to another
//! while somebody has reserved units of it.

use std::collections::BTreeMap;

use tidegate_policy::exchange::LeaseName;
use tidegate_policy::lease::slice::Slice;
use tidegate_policy::lease::slot::Place;

use super::Flight;

/// The slices of one worker.
#[derive(Debug, Default)]
pub(super) struct Slices {
    places: BTreeMap<LeaseName, usize>,
    locals: Vec<Option<Local>>,
    free: Vec<usize>,
}

/// A slice, and where its pool lies.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) slice: Slice,
    pub(super) place: Place,
    /// The last message that this worker sent for the pool.
    pub(super) asked: Option<Flight>,
}

// === impl Slices ===

impl Slices {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Where the slice of this is.
    pub(super) fn find(&self, name: &LeaseName) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// What is at this place.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Local> {
        self.locals.get_mut(at)?.as_mut()
    }

    /// Makes room for one more.
    pub(super) fn insert(&mut self, name: LeaseName, local: Local) -> usize {
        let at = self.free.pop().unwrap_or(self.locals.len());
        match self.locals.get_mut(at) {
            Some(place) => *place = Some(local),
            None => self.locals.push(Some(local)),
        }
        self.places.insert(name, at);
        at
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Local> {
        self.locals.iter_mut().flatten()
    }

    /// Keeps those for which `stays` says so.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&mut Local) -> bool) {
        self.places.retain(|_, at| {
            let place = self.locals.get_mut(*at);
            let is_kept = place.and_then(|place| place.as_mut()).is_some_and(&mut stays);
            if !is_kept {
                if let Some(place) = self.locals.get_mut(*at) {
                    *place = None;
                }
                self.free.push(*at);
            }
            is_kept
        });
    }
}
