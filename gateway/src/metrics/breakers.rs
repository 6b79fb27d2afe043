//! Owns the metrics of upstreams' breakers: names, labels and help.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// `breaker`: its name as configured, and `state`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BreakerLabel {
    /// The name.
    pub breaker: String,
    /// The state's text.
    pub state: &'static str,
}

/// `breaker`, and its change `from` a state `to` another, with its `cause`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChangeLabel {
    /// The name.
    pub breaker: String,
    /// The state before.
    pub from: &'static str,
    /// The state since.
    pub to: &'static str,
    /// Why.
    pub cause: &'static str,
}

/// `breaker`, and what became of a half-open test: granted, then ok, failed, given_back or late.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TestLabel {
    /// The name.
    pub breaker: String,
    /// What became of it.
    pub outcome: &'static str,
}

/// What a gateway counts of breakers.
#[derive(Debug, Default)]
pub struct BreakerMetrics {
    /// Breakers that this gateway knows, by state.
    pub states: Family<BreakerLabel, Gauge>,
    /// Their changes that this gateway's callers brought about.
    pub changes: Family<ChangeLabel, Counter>,
    /// How long they were in which state, in ms, once they left it.
    pub state_ms: Family<BreakerLabel, Counter>,
    /// Their half-open tests.
    pub tests: Family<TestLabel, Counter>,
}

// === impl BreakerMetrics ===

impl BreakerMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("breakers", "Upstreams' breakers by state", self.states.clone());
        registry.register(
            "breaker_changes",
            "Changes of state of upstreams' breakers, each counted by one gateway",
            self.changes.clone(),
        );
        registry.register(
            "breaker_state_ms",
            "Time that upstreams' breakers were in a state, in ms, counted once by one gateway when they leave it",
            self.state_ms.clone(),
        );
        registry.register(
            "breaker_tests",
            "Half-open tests of upstreams: granted, and what became of them",
            self.tests.clone(),
        );
    }
}
