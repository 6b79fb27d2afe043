//! Owns what the chain's writer counts, for the metrics. Knows no writer.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct ChainCounters {
    /// Events appended to the chain.
    pub appended: Counter,
    /// Appends that somebody else's was faster than.
    pub races_lost: Counter,
    /// Events that were in the chain already.
    pub duplicates: Counter,
    /// Events that went to the spool.
    pub spooled: Counter,
    /// Bytes in the spool.
    pub spool_bytes: Gauge,
    /// Events that were lost before they were accepted.
    pub dropped: Counter,
    /// 1 once the store was found set back; appends have stopped.
    pub rollback: Gauge,
}

// === impl ChainCounters ===

impl ChainCounters {
    /// Puts all of them into the gateway's metrics.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("audit_appended", "Audit events appended to the chain", &self.appended),
            (
                "audit_races_lost",
                "Appends that another gateway's was faster than",
                &self.races_lost,
            ),
            ("audit_duplicates", "Audit events that were in the chain already", &self.duplicates),
            ("audit_spooled", "Audit events that went to the local spool", &self.spooled),
            ("audit_dropped", "Audit events lost before they were accepted", &self.dropped),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("audit_spool_bytes", "Bytes in the spool", self.spool_bytes.clone());
        let help = "1 once the chain's store was found set back; appends have stopped";
        registry.register("audit_rollback_detected", help, self.rollback.clone());
    }
}
