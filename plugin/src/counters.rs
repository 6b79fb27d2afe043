//! Owns the filter's counters: their names and the ids that the host gave them. Each is defined
//! when it is first needed, so that ten thousand policies do not cost every worker their metrics
//! ahead. Names hold only what the configuration says, so their number is bounded by it.

use std::collections::BTreeMap;

use tidegate_policy::config::{Config, ConfigHash, Rung};
use tidegate_policy::exchange::{Idempotent, Outcome, Signal};
use tidegate_policy::reason::Reason;

use crate::circuits::Told;
use crate::host::{self, Level};
use crate::leases::{Counted, LeaseEvent};
use crate::property::Property;

/// Longer names of filters are cut in metrics.
const FILTER_NAME_LEN_MAX: usize = 64;

/// As many counters are tried one by one.
const FIRST_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    Decided(usize, Outcome),
    UsedUp(usize, usize, Outcome),
    CostMalformed(usize, usize),
    Unavailable(Reason),
    Fell(Rung, Reason),
    Idempotency(usize, Idempotent),
    /// Replayed, or stored.
    AnswerBytes(usize, bool),
    /// `None`: it went well.
    Settled(Option<Reason>),
    LateAnswer,
    Lease(LeaseEvent),
    Circuit(usize, Told),
    /// Of the way to the gateway, or to a home region's.
    Way(Option<usize>, Told),
    /// What became of audit events.
    Events(&'static str),
    /// Decisions whose event was not on record in time.
    Unrecorded(&'static str),
}

/// The ids of one root's counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    ids: BTreeMap<Counter, u32>,
    /// Those that came first, of a configuration with few policies all that ever come: found without a search.
    first: Vec<(Counter, u32)>,
}

/// The filter's name in the Envoy's configuration, as it may stand in a metric's name.
pub(crate) fn filter_name() -> String {
    let filter = host::property("plugin_name").ok().and_then(Property::bytes).unwrap_or_default();
    filter
        .iter()
        .take(FILTER_NAME_LEN_MAX)
        .map(|&b| if b.is_ascii_alphanumeric() || b == b'-' { char::from(b) } else { '_' })
        .collect()
}

/// Shows the hash of the configuration in force, one gauge for each filter of the Envoy: every worker
/// sets the same, so that none overwrites another. The names are Envoy's own configuration.
pub(crate) fn configuration(hash: ConfigHash, filter: &str) {
    let name = format!("tidegate_config_hash.filter.{filter}");
    // A host without gauges must not cost the configuration.
    if let Err(status) = host::set_gauge(&name, u64::from(hash.gauge())) {
        host::log(Level::Warn, &format!("tidegate: no metric {name}: host status {}", status.0));
    }
}

// === impl Counters ===

impl Counters {
    /// Counts what the exchange says.
    pub(crate) fn signal(&mut self, config: &Config, signal: Signal) {
        let counter = match signal {
            Signal::Decided { policy, outcome } => Counter::Decided(policy, outcome),
            Signal::UsedUp { policy, limit, outcome } => Counter::UsedUp(policy, limit, outcome),
            Signal::CostMalformed { policy, limit } => Counter::CostMalformed(policy, limit),
            Signal::Unavailable(reason) => Counter::Unavailable(reason),
            Signal::Fell { rung, reason } => Counter::Fell(rung, reason),
            Signal::Idempotency { policy, outcome } => Counter::Idempotency(policy, outcome),
            Signal::AnswerBytes { policy, replayed, bytes } => {
                return self.add(config, Counter::AnswerBytes(policy, replayed), bytes);
            }
        };
        self.count(config, counter);
    }

    /// Counts what happened to leased units.
    pub(crate) fn leases(&mut self, config: &Config, counted: Counted) {
        for (event, by) in counted {
            self.add(config, Counter::Lease(event), by);
        }
    }

    /// Counts an answer whose request is gone.
    pub(crate) fn late_answer(&mut self, config: &Config) {
        self.count(config, Counter::LateAnswer);
    }

    /// Counts what became of a settlement.
    pub(crate) fn settled(&mut self, config: &Config, failed: Option<Reason>) {
        self.count(config, Counter::Settled(failed));
    }

    /// Counts what the circuit breaker of the way to a gateway does.
    pub(crate) fn way(&mut self, config: &Config, home: Option<usize>, told: Told) {
        self.count(config, Counter::Way(home, told));
    }

    /// Counts what a circuit breaker does.
    pub(crate) fn circuit(&mut self, config: &Config, breaker: usize, told: Told, by: u64) {
        self.add(config, Counter::Circuit(breaker, told), by);
    }

    /// Counts what became of audit events.
    pub(crate) fn events(&mut self, config: &Config, fate: &'static str, by: u64) {
        self.add(config, Counter::Events(fate), by);
    }

    /// Counts a decision whose event was not on record in time.
    pub(crate) fn unrecorded(&mut self, config: &Config, outcome: &'static str) {
        self.count(config, Counter::Unrecorded(outcome));
    }

    fn count(&mut self, config: &Config, counter: Counter) {
        self.add(config, counter, 1);
    }

    fn add(&mut self, config: &Config, counter: Counter, by: u64) {
        if by == 0 {
            return;
        }
        // A counter that the host refuses must not cost a request its decision.
        if let Some(id) = self.known(counter) {
            let _counted: Result<(), host::Status> = host::increment(id, by);
            return;
        }
        if let Ok(id) = host::define_counter(&counter.name(config))
            && host::increment(id, by).is_ok()
        {
            match self.first.len() < FIRST_MAX {
                true => self.first.push((counter, id)),
                false => {
                    self.ids.insert(counter, id);
                }
            }
        }
    }

    fn known(&self, counter: Counter) -> Option<u32> {
        let first = self.first.iter().find(|(known, _)| *known == counter);
        first.map(|(_, id)| *id).or_else(|| self.ids.get(&counter).copied())
    }
}

// === impl Counter ===

impl Counter {
    /// The stat's name. The labels in it are cut out by the `stats_tags` of envoy/bootstrap.yaml.
    fn name(self, config: &Config) -> String {
        match self {
            Self::Decided(policy, outcome) => {
                let policy = config.policies.get(policy).map_or("", |policy| &policy.name);
                format!("tidegate_decisions_total.policy.{policy}.outcome.{}", outcome.as_str())
            }
            Self::UsedUp(policy, limit, outcome) => {
                let limit = labels(config, policy, limit);
                format!("tidegate_limits_used_up_total{limit}.outcome.{}", outcome.as_str())
            }
            Self::CostMalformed(policy, limit) => {
                format!("tidegate_costs_malformed_total{}", labels(config, policy, limit))
            }
            Self::Idempotency(policy, outcome) => {
                let policy = config.policies.get(policy).map_or("", |policy| &policy.name);
                format!("tidegate_idempotency_total.policy.{policy}.outcome.{}", outcome.as_str())
            }
            Self::AnswerBytes(policy, replayed) => {
                let policy = config.policies.get(policy).map_or("", |policy| &policy.name);
                let outcome = if replayed { "replayed" } else { "stored" };
                format!("tidegate_idempotency_bytes_total.policy.{policy}.outcome.{outcome}")
            }
            Self::Settled(None) => "tidegate_settlements_total".to_owned(),
            Self::Settled(Some(reason)) => {
                format!("tidegate_settlements_failed_total.reason.{reason}")
            }
            Self::Unavailable(reason) => format!("tidegate_unavailable_total.reason.{reason}"),
            Self::Fell(rung, reason) => {
                format!("tidegate_without_verdict_total.rung.{rung}.reason.{reason}")
            }
            Self::Circuit(breaker, told) => {
                let breaker = config.circuit_breakers.get(breaker);
                let name = breaker.map_or("", |breaker| &breaker.name);
                format!("tidegate_circuit_total.breaker.{name}.event.{}", told.as_str())
            }
            Self::Way(home, told) => {
                let home = home.and_then(|home| config.homes.get(home));
                let of = home.map_or_else(String::new, |home| format!("-{}", home.region));
                // A dot would end the label.
                let of = of.replace('.', "_");
                format!("tidegate_circuit_total.breaker.~gateway{of}.event.{}", told.as_str())
            }
            Self::Events(fate) => format!("tidegate_audit_events_total.outcome.{fate}"),
            Self::Unrecorded(outcome) => {
                format!("tidegate_audit_unrecorded_total.outcome.{outcome}")
            }
            Self::LateAnswer => "tidegate_late_answers_total".to_owned(),
            Self::Lease(event) => match event {
                LeaseEvent::Miss => "tidegate_lease_misses_total",
                LeaseEvent::Join => "tidegate_lease_joins_total",
                LeaseEvent::MissWhileAsking => "tidegate_lease_misses_while_asking_total",
                LeaseEvent::Ahead => "tidegate_lease_prefetches_total",
                LeaseEvent::Void => "tidegate_lease_answers_void_total",
                LeaseEvent::Granted => "tidegate_lease_units_granted_total",
                LeaseEvent::Expired => "tidegate_lease_units_expired_total",
            }
            .to_owned(),
        }
    }
}

/// A limit as it stands in a stat's name.
fn labels(config: &Config, policy: usize, limit: usize) -> String {
    let policy = config.policies.get(policy);
    let limit = policy.and_then(|policy| policy.rate_limits.get(limit));
    let policy = policy.map_or("", |policy| &policy.name);
    let limit = limit.map_or("", |limit| &limit.name);
    format!(".policy.{policy}.limit.{limit}")
}
