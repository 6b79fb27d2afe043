//! Owns the metrics of breakers, upstreams' and those of the ways to stores: names, labels and help.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_policy::breaker::mesh::{Ended, State, Transition};

/// `breaker`: its name as configured, or `~store-` and a store's role; and `state`.
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
        registry.register("breakers", "Breakers by state", self.states.clone());
        registry.register(
            "breaker_changes",
            "Changes of state of breakers; each of an upstream's is counted by one gateway",
            self.changes.clone(),
        );
        registry.register(
            "breaker_state_ms",
            "Time that breakers were in a state, in ms, counted when they leave it",
            self.state_ms.clone(),
        );
        registry.register(
            "breaker_tests",
            "Half-open tests: granted, and what became of them",
            self.tests.clone(),
        );
    }

    /// Counts a change, and how long what it ended had lasted.
    pub fn changed(&self, breaker: &str, change: &Transition) {
        let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause.as_str());
        let breaker = breaker.to_owned();
        let label = BreakerLabel { breaker: breaker.clone(), state: from };
        self.state_ms.get_or_create(&label).inc_by(change.after_ms);
        self.changes.get_or_create(&ChangeLabel { breaker, from, to, cause }).inc();
    }

    /// One stands so now; `before` it stood otherwise, if it was known. `None`: it is gone.
    pub fn stands(&self, breaker: &str, before: Option<State>, now: Option<State>) {
        if before == now {
            return;
        }
        let gauge = |state: State| {
            let label = BreakerLabel { breaker: breaker.to_owned(), state: state.as_str() };
            self.states.get_or_create(&label).clone()
        };
        if let Some(now) = now {
            gauge(now).inc();
        }
        if let Some(before) = before {
            gauge(before).dec();
        }
    }

    /// Counts a test that was granted.
    pub fn granted(&self, breaker: &str) {
        self.test(breaker, "granted");
    }

    /// Counts what became of a test; `None`: it came too late.
    pub fn tested(&self, breaker: &str, ended: Option<Ended>) {
        self.test(
            breaker,
            match ended {
                None => "late",
                Some(Ended::Ok) => "ok",
                Some(Ended::Failed) => "failed",
                Some(Ended::GivenBack) => "given_back",
            },
        );
    }

    fn test(&self, breaker: &str, outcome: &'static str) {
        let label = TestLabel { breaker: breaker.to_owned(), outcome };
        self.tests.get_or_create(&label).inc();
    }
}
