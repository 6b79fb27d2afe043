//! Owns the chains of the store in memory: the policy's own step on bounded shelves. They end with the
//! process, so they prove nothing afterwards; tests and first tries need no more.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::audit::append::{Append, Outcome, Place, Shelf};
use tidegate_policy::audit::record::ChainName;

use crate::store::chains::Chains;
use crate::store::{Call, StoreFailure};

/// Chains in this process.
pub struct MemoryChains {
    records_max: usize,
    full: Counter,
    shelves: Mutex<BTreeMap<ChainName, Shelf>>,
}

// === impl MemoryChains ===

impl MemoryChains {
    /// Holds at most `records_max` records in all; an append beyond fails and is counted in `full`.
    pub fn new(records_max: usize, full: Counter) -> Self {
        Self { records_max, full, shelves: Mutex::default() }
    }

    /// As if somebody wrote to the store by hand.
    #[cfg(test)]
    pub fn tamper(&self, chain: &ChainName, how: impl FnOnce(&mut Shelf)) {
        self.on(|shelves| how(shelves.entry(chain.clone()).or_default()));
    }

    fn on<T>(&self, step: impl FnOnce(&mut BTreeMap<ChainName, Shelf>) -> T) -> T {
        step(&mut self.shelves.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn ready<T: Send + 'static>(value: Result<T, StoreFailure>) -> Call<T> {
    Box::pin(std::future::ready(value))
}

impl Chains for MemoryChains {
    fn append(&self, chain: &ChainName, append: &Append<'_>) -> Call<Outcome> {
        ready(self.on(|shelves| {
            let held: usize =
                shelves.values().flat_map(|s| s.segments.values()).map(Vec::len).sum();
            if held.saturating_add(append.lines.len()) > self.records_max {
                self.full.inc();
                return Err(StoreFailure::Full(self.records_max));
            }
            Ok(shelves.entry(chain.clone()).or_default().append(append))
        }))
    }

    fn place(&self, chain: &ChainName) -> Call<Place> {
        let place = |shelf: &Shelf| shelf.place;
        ready(Ok(self.on(|shelves| shelves.get(chain).map_or(Place::GENESIS, place))))
    }

    fn records(
        &self,
        chain: &ChainName,
        segment: u64,
        from: u64,
        count: u64,
    ) -> Call<Vec<Vec<u8>>> {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        ready(Ok(self.on(|shelves| {
            let held = shelves.get(chain).and_then(|shelf| shelf.segments.get(&segment));
            held.into_iter().flatten().skip(size(from)).take(size(count)).cloned().collect()
        })))
    }
}
