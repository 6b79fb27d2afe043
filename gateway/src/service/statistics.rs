//! Owns how the use of the bound on store calls is told in the log: at the start and at an interval.
//! Source: product row A6.

use std::sync::Arc;
use std::time::Duration;

use super::Service;
use crate::store::StoreRole;

/// How the bound was used. Counts are since the start, but for the peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Calls under way.
    pub in_flight: i64,
    /// The most at once since the statistics were last taken.
    pub in_flight_peak: i64,
    /// The bound.
    pub in_flight_max: i64,
    /// Callers that wait.
    pub waiting: i64,
    /// Calls that had to wait.
    pub waits: u64,
    /// Those that waited for nothing.
    pub acquire_timeouts: u64,
    /// Calls that went on after their caller was answered.
    pub outlived: u64,
}

// === impl Statistics ===

impl Statistics {
    fn log(self, store: &str) {
        let Self { in_flight, in_flight_peak, in_flight_max, waiting, .. } = self;
        let Self { waits, acquire_timeouts, outlived, .. } = self;
        tracing::info!(
            in_flight,
            in_flight_peak,
            in_flight_max,
            waiting,
            waits,
            acquire_timeouts,
            outlived,
            store,
            "statistics of store calls"
        );
    }
}

/// Logs at once and at every interval, for as long as the gateway lives.
pub async fn log(service: Arc<Service>, interval: Duration) {
    loop {
        let store = service.stores.of(StoreRole::Regional).describe();
        service.admission.statistics().log(&store);
        service.clock.sleep(interval).await;
    }
}
