//! Owns the alarm that the chain's store was set back: from the look that finds it until the chain was verified anew up to
//! where it was whole again. However fast the records come back, nobody overlooks it. Knows neither store nor chain.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// The alarm, shared by whoever finds the store set back and whoever verifies.
#[derive(Debug, Clone, Default)]
pub struct Latch {
    gauge: Gauge,
    raised: Counter,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    is_watched: bool,
    /// Whole again with that many records, and not verified since.
    whole_at: Option<u64>,
}

// === impl Latch ===

impl Latch {
    /// 1 while it is up.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// The same as a number.
    pub fn get(&self) -> i64 {
        self.gauge.get()
    }

    /// How often it was raised.
    pub fn raised(&self) -> &Counter {
        &self.raised
    }

    /// Somebody verifies; otherwise it falls when the chain is whole.
    pub fn watch(&self) {
        self.state().is_watched = true;
    }

    /// The store was found set back.
    pub fn raise(&self) {
        let mut state = self.state();
        state.whole_at = None;
        self.raised.inc();
        self.gauge.set(1);
    }

    /// The chain is whole again, or goes on under a new origin, with so many records.
    pub fn whole(&self, records: u64) {
        let mut state = self.state();
        if state.is_watched {
            state.whole_at = Some(records);
        } else {
            self.gauge.set(0);
        }
    }

    /// The chain was verified up to there by a reading that began after so many alarms.
    pub fn verified(&self, alarms: u64, seq: u64) {
        let mut state = self.state();
        let is_past = state.whole_at.is_some_and(|records| seq >= records);
        if is_past && alarms == self.raised.get() {
            state.whole_at = None;
            self.gauge.set(0);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_up_until_a_reading_that_began_later_is_past_where_the_chain_was_whole() {
        let latch = Latch::default();
        latch.watch();
        latch.raise();
        latch.verified(1, 100);
        assert_eq!(latch.gauge().get(), 1, "not whole");
        latch.whole(100);
        for (alarms, seq) in [(0, 100), (1, 99)] {
            latch.verified(alarms, seq);
            assert_eq!(latch.gauge().get(), 1, "{alarms} {seq}");
        }
        latch.verified(1, 100);
        assert_eq!((latch.gauge().get(), latch.raised().get()), (0, 1));
        // Once more, while the reading after the first goes on.
        latch.raise();
        latch.whole(100);
        latch.verified(1, 100);
        assert_eq!((latch.gauge().get(), latch.raised().get()), (1, 2));
    }
}
