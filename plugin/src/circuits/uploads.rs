//! Owns the tests whose requests are still on their way from their clients: what the upstream has not been sent it cannot answer,
//! and whoever sends slowly holds the one test.

use std::cell::{Cell, RefCell};

use tidegate_policy::breaker::Outcome;
use tidegate_policy::config::Config;

use super::flights::Part;
use super::known::now_ms;
use super::{Circuits, TICK_MS, Told};

thread_local! {
    /// How many there are in this VM.
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Whether there is any: else the end of a request's body says nothing here.
pub(crate) fn are_some() -> bool {
    COUNT.get() > 0
}

/// Those of one configuration: the stream, and when its test ends, in ms.
#[derive(Debug, Default)]
pub(super) struct Uploads(RefCell<Vec<(u32, u64)>>);

// === impl Uploads ===

impl Uploads {
    /// A test begins, of whose request more may come.
    pub(super) fn begin(&self, stream: u32, until_ms: u64) {
        self.retain(|(known, _)| known != stream);
        self.0.borrow_mut().push((stream, until_ms));
        COUNT.set(COUNT.get().saturating_add(1));
    }

    fn retain(&self, mut stays: impl FnMut((u32, u64)) -> bool) {
        let mut uploads = self.0.borrow_mut();
        let before = uploads.len();
        uploads.retain(|upload| stays(*upload));
        let gone = before.saturating_sub(uploads.len());
        COUNT.set(COUNT.get().saturating_sub(gone));
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

// === impl Circuits ===

impl Circuits {
    /// The whole request came.
    pub(crate) fn uploaded(&self, stream: u32) {
        self.uploads.retain(|(known, _)| known != stream);
    }

    /// Gives those tests back that would be lost before their requests are whole. A test that is lost says that its upstream may
    /// not work, and nobody knows that.
    pub(super) fn give_up_uploads(
        &self,
        config: &Config,
        entropy: u32,
        count: &mut impl FnMut(usize, Told, u64),
    ) {
        if !are_some() {
            return;
        }
        let Some(now_ms) = now_ms() else { return };
        let mut late = Vec::new();
        self.uploads.retain(|(stream, until_ms)| {
            let flights = self.flights.borrow();
            let waits = flights
                .get(&stream)
                .is_some_and(|flight| flight.test.is_some() && flight.answer == Part::Nothing);
            // Two ticks before its end, so that the region hears of it in time: one may just have gone by.
            let is_late = now_ms.saturating_add(2 * u64::from(TICK_MS)) >= until_ms;
            if waits && is_late {
                late.push(stream);
            }
            waits && !is_late
        });
        for stream in late {
            if let Some(flight) = self.take(stream) {
                self.land(config, flight, Outcome::Ignored, entropy, count);
            }
        }
    }
}
