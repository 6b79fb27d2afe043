//! Owns what is counted of leases: their names and help. Knows nothing of what a lease is.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// What the gateway sees of leases.
#[derive(Debug, Clone, Default)]
pub struct LeaseCounters {
    /// Reports of holders that were heard.
    pub heard: Counter,
    /// Reports that came after a newer one, or twice.
    pub stale: Counter,
    /// Messages some of whose reports the store did not take.
    pub failed: Counter,
    /// Units given.
    pub granted: Counter,
    /// Units given back.
    pub returned: Counter,
}

// === impl LeaseCounters ===

impl LeaseCounters {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("lease_reports", "Reports of holders of leases", self.heard.clone());
        registry.register(
            "lease_reports_stale",
            "Reports that came twice, or after a newer one of their holder",
            self.stale.clone(),
        );
        registry.register(
            "lease_reports_failed",
            "Messages some of whose reports the store did not take",
            self.failed.clone(),
        );
        registry.register(
            "lease_units_granted",
            "Units of limits that were leased",
            self.granted.clone(),
        );
        registry.register(
            "lease_units_returned",
            "Leased units that came back unspent",
            self.returned.clone(),
        );
    }
}
