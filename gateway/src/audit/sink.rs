//! Owns the sink that puts the gateway's own events into the chain, beside the log. Knows neither how they
//! are gathered nor where they lie.

use std::sync::Arc;

use tidegate_policy::audit::record::Event;
use tidegate_policy::audit::{AuditEvent, AuditSink, Durability};

use super::counters::ChainCounters;
use super::writer::Writer;
use crate::audit::SharedSink;

/// Logs, and hands over to the chain.
pub struct ChainSink {
    log: SharedSink,
    writer: Arc<Writer>,
    counters: ChainCounters,
}

// === impl ChainSink ===

impl ChainSink {
    /// Behind `log`, which sees every event first.
    pub fn new(log: SharedSink, writer: Arc<Writer>, counters: ChainCounters) -> Self {
        Self { log, writer, counters }
    }
}

impl AuditSink for ChainSink {
    fn record(&self, event: AuditEvent) {
        let urgent = event.durability == Durability::Sync;
        match Event::new(&event) {
            Ok(event) => match self.writer.submit(event, urgent) {
                Ok(_nobody_waits) => {}
                Err(full) => tracing::debug!(%full, "an audit event was dropped"),
            },
            Err(unfit) => {
                self.counters.dropped.inc();
                tracing::error!(critical = true, id = event.id, %unfit, "an audit event has no record");
            }
        }
        self.log.record(event);
    }
}
