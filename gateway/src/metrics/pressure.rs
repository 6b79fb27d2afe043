//! Owns what is counted of a gateway that has no time: its names and help. Knows nothing of what is shed.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What waits for the processor.
#[derive(Debug, Clone, Default)]
pub struct PressureMetrics {
    /// How long, in s.
    pub wait_seconds: Gauge<f64, AtomicU64>,
    /// Decisions that were refused because it waits too long.
    pub shed: Counter,
}

// === impl PressureMetrics ===

impl PressureMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "processor_wait_seconds",
            "How long work waits for the processor",
            self.wait_seconds.clone(),
        );
        registry.register(
            "shed",
            "Decisions refused because work waits too long for the processor",
            self.shed.clone(),
        );
    }
}
