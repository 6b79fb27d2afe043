//! Owns what the chain's writer counts, for the metrics. Knows no writer.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::latch::Latch;

/// What is counted.
#[derive(Debug, Clone, Default)]
pub struct ChainCounters {
    /// Events appended to the chain.
    pub appended: Counter,
    /// Appends that somebody else's was faster than.
    pub races_lost: Counter,
    /// Events that were in the chain already.
    pub duplicates: Counter,
    /// Events that the store has noted as appended and that are not in the chain: they are appended.
    pub false_ids: Counter,
    /// Events that went to the spool.
    pub spooled: Counter,
    /// Bytes in the spool.
    pub spool_bytes: Gauge,
    /// Events that were lost before they were accepted.
    pub dropped: Counter,
    /// Answers that waited for their event as long as they could, and went without it.
    pub late: Counter,
    /// 1 while the spool takes no more.
    pub spool_full: Gauge,
    /// 1 while every key is revoked: nothing is appended.
    pub no_key: Gauge,
    /// 1 from when the store is found set back, where nothing new is appended, until the chain is verified again.
    pub rollback: Latch,
    /// Records that the store had lost and that were put back.
    pub put_back: Counter,
    /// How often a chain was whole again after its store was set back.
    pub repaired: Counter,
    /// New origins that this gateway began, since records were lost for good.
    pub origins: Counter,
    /// Signatures by revoked keys in the chain, as far as it was verified.
    pub revoked_usage: Counter,
    /// The last record up to which the chain was verified by this gateway.
    pub verified_seq: Gauge,
    /// Records behind it.
    pub verify_lag: Gauge,
    /// What the verification found; anything above 0 is an alarm.
    pub findings: Gauge,
    /// The first bad or missing record; 0 if there is none.
    pub first_bad: Gauge,
    /// Whole verifications from the first record on.
    pub sweeps: Counter,
    /// The size of the last checkpoint.
    pub checkpoint_size: Gauge,
    /// When it was written, in s since 1970.
    pub checkpoint_time: Gauge,
    /// Checkpoints that could not be written.
    pub checkpoint_failures: Counter,
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
            (
                "audit_false_ids",
                "Events noted as appended that were not in the chain",
                &self.false_ids,
            ),
            ("audit_spooled", "Audit events that went to the local spool", &self.spooled),
            ("audit_dropped", "Audit events lost before they were accepted", &self.dropped),
            ("audit_late", "Answers that could not wait longer for their event", &self.late),
            (
                "audit_set_back",
                "How often the chain's store was found set back",
                self.rollback.raised(),
            ),
            ("audit_put_back", "Records that the store had lost and got back", &self.put_back),
            ("audit_repaired", "Chains that were whole again after a rollback", &self.repaired),
            ("audit_origins", "New origins, since records were lost for good", &self.origins),
            (
                "audit_revoked_key_usage",
                "Signatures by revoked keys in the verified chain",
                &self.revoked_usage,
            ),
            ("audit_sweeps", "Verifications of the whole chain", &self.sweeps),
            (
                "audit_checkpoint_failures",
                "Checkpoints that could not be written",
                &self.checkpoint_failures,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("audit_spool_bytes", "Bytes in the spool", &self.spool_bytes),
            ("audit_spool_full", "1 while the spool takes no more events", &self.spool_full),
            (
                "audit_no_key",
                "1 while every key is revoked: nothing is appended, events wait in the spool",
                &self.no_key,
            ),
            (
                "audit_rollback_detected",
                "1 from when the chain's store is found set back until the chain is verified again",
                self.rollback.gauge(),
            ),
            ("audit_verified_seq", "The last verified record", &self.verified_seq),
            ("audit_verify_lag", "Records behind the last verified one", &self.verify_lag),
            ("audit_findings", "What verification found; above 0 is an alarm", &self.findings),
            (
                "audit_first_bad_seq",
                "The first bad or missing record; 0 if none is",
                &self.first_bad,
            ),
            ("audit_checkpoint_size", "Records under the last checkpoint", &self.checkpoint_size),
            (
                "audit_checkpoint_time_seconds",
                "When the last checkpoint was written, in seconds since 1970",
                &self.checkpoint_time,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}
