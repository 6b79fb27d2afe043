//! Owns how the gateway's audit events are made and where they go first: the log (target `audit`)
//! and a counter. Its rooms own the chain behind it.
//!
//! Every event is counted; the log gets the first few of a kind per second and then how many more
//! there were, so that an attack cannot fill the disk. Events hold no subjects.

pub mod chain_end;
pub mod command;
pub mod counters;
pub mod keys;
pub mod mark;
pub mod sink;
pub mod spool;
pub mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::audit::{Action, AuditEvent, AuditSink, Durability};
use tidegate_policy::scope::{Region, Tenant};

use crate::clock::Clock;
use crate::metrics::{ActionLabel, Metrics};
use crate::throttle::Throttle;

const INTERVAL_MS: u64 = 1_000;
const DENIALS_PER_INTERVAL: u32 = 100;
const REFUSALS_PER_INTERVAL: u32 = 10;
const OVERLOADS_PER_INTERVAL: u32 = 1;

/// A sink that threads share.
pub type SharedSink = Arc<dyn AuditSink + Send + Sync>;

/// Logs and counts.
pub struct LogSink {
    counters: [(Action, Counter); 5],
    denials: Throttle,
    refusals: Throttle,
    overloads: Throttle,
}

/// Makes the gateway's events: fills in what is the same for all of them.
pub struct Auditor {
    sink: SharedSink,
    clock: Arc<dyn Clock>,
    region: Region,
    instance: u64,
    made: AtomicU64,
}

/// What differs from event to event.
#[derive(Debug)]
pub struct Happening {
    /// The decision's id; `None` makes one for the event.
    pub id: Option<String>,
    /// Who did it.
    pub actor: String,
    /// Whose request it was.
    pub tenant: Tenant,
    /// What happened.
    pub action: Action,
    /// A reason's text, or `ok`.
    pub outcome: &'static str,
    /// What a reader needs beyond that; no personal data.
    pub detail: String,
}

// === impl LogSink ===

impl LogSink {
    /// Counts into `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |action: Action| {
            let label = ActionLabel { action: action.as_str() };
            (action, metrics.audit_events.get_or_create_owned(&label))
        };
        Self {
            counters: Action::ALL.map(counter),
            denials: Throttle::new(DENIALS_PER_INTERVAL, INTERVAL_MS),
            refusals: Throttle::new(REFUSALS_PER_INTERVAL, INTERVAL_MS),
            overloads: Throttle::new(OVERLOADS_PER_INTERVAL, INTERVAL_MS),
        }
    }

    fn admit(&self, event: &AuditEvent) -> Option<u64> {
        match event.action {
            Action::Deny => self.denials.admit(event.ts_ms),
            Action::RefuseCaller => self.refusals.admit(event.ts_ms),
            Action::Overload => self.overloads.admit(event.ts_ms),
            // Each of these is a person's or the process's own doing.
            Action::Admin | Action::Lifecycle => Some(0),
        }
    }
}

impl AuditSink for LogSink {
    fn record(&self, event: AuditEvent) {
        for (_, counter) in self.counters.iter().filter(|(action, _)| *action == event.action) {
            counter.inc();
        }
        let Some(more) = self.admit(&event) else { return };
        let tenant = match &event.tenant {
            Tenant::Named(name) => name.as_str(),
            Tenant::None => "-",
        };
        tracing::info!(
            target: "audit",
            id = event.id,
            ts_ms = event.ts_ms,
            region = %event.region,
            actor = event.actor,
            tenant,
            action = event.action.as_str(),
            outcome = event.outcome,
            detail = event.detail,
            not_logged_before = more,
        );
    }
}

// === impl Auditor ===

impl Auditor {
    /// `instance` tells this run of the gateway from every other in the events' ids.
    pub fn new(sink: SharedSink, clock: Arc<dyn Clock>, region: Region, instance: u64) -> Self {
        Self { sink, clock, region, instance, made: AtomicU64::new(0) }
    }

    /// Hands the event to the sink.
    pub fn record(&self, happening: Happening) {
        let id = happening.id.unwrap_or_else(|| {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            format!("gateway-{:016x}-{number}", self.instance)
        });
        self.sink.record(AuditEvent {
            id,
            ts_ms: self.clock.unix_us() / 1_000,
            region: self.region.clone(),
            actor: happening.actor,
            tenant: happening.tenant,
            action: happening.action,
            outcome: happening.outcome.to_owned(),
            detail: happening.detail,
            durability: Durability::Async,
        });
    }

    /// A filter or a client of the admin listener was turned away.
    pub fn refused_caller(&self, outcome: &'static str, detail: String) {
        self.record(Happening {
            id: None,
            actor: "unknown".to_owned(),
            tenant: Tenant::None,
            action: Action::RefuseCaller,
            outcome,
            detail,
        });
    }

    /// The gateway started or stopped.
    pub fn lifecycle(&self, detail: String) {
        self.record(Happening {
            id: None,
            actor: "gateway".to_owned(),
            tenant: Tenant::None,
            action: Action::Lifecycle,
            outcome: "ok",
            detail,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn every_event_is_counted_and_only_some_are_logged() {
        let metrics = Metrics::new();
        let sink = Arc::new(LogSink::new(&metrics));
        let clock = Arc::new(ManualClock::at(5_000_000));
        let shared: SharedSink = sink.clone();
        let auditor = Auditor::new(shared, clock, Region::fallback(), 7);
        for _ in 0..25 {
            auditor.refused_caller("unauthorized", String::new());
        }
        let label = ActionLabel { action: "refuse_caller" };
        assert_eq!(metrics.audit_events.get_or_create(&label).get(), 25);
        assert_eq!(sink.refusals.admit(6_000), Some(15), "the rest is told with the next one");
    }
}
