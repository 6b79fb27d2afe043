//! Owns what the log is told of refusals and of the store, once in a while each. Decides nothing.

use tidegate_policy::reason::Reason;

use super::{Refused, Service};
use crate::store::StoreFailure;

// === impl Service ===

impl Service {
    /// Somebody has to look at this filter's settings.
    pub(super) fn log_mismatch(&self, refused: &Refused) {
        let mismatch = matches!(
            refused.reason,
            Reason::RegionMismatch | Reason::EnvironmentMismatch | Reason::DeadlineOrder
        );
        if mismatch && let Some(more) = self.mismatches.admit(self.clock.elapsed_us()) {
            tracing::warn!(reason = %refused.reason, detail = refused.detail, more, "refused a filter");
        }
    }

    /// Somebody has to look at the store.
    pub(super) fn log_failure(&self, failure: &StoreFailure) {
        if let Some(more) = self.failures.admit(self.clock.elapsed_us()) {
            tracing::error!(store = "regional", %failure, more, "a store call failed");
        }
    }
}
