//! Owns the sink of every audit event: the log, thinned out, and a counter.

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::audit::{Action, AuditEvent, AuditSink};
use tidegate_policy::scope::Tenant;

use crate::metrics::{ActionLabel, Metrics};
use crate::throttle::Throttle;

const INTERVAL_MS: u64 = 1_000;
const DENIALS_PER_INTERVAL: u32 = 100;
const REFUSALS_PER_INTERVAL: u32 = 10;
const OVERLOADS_PER_INTERVAL: u32 = 1;
const OTHERS_PER_INTERVAL: u32 = 10;

/// Logs and counts.
pub struct LogSink {
    counters: [(Action, Counter); Action::ALL.len()],
    denials: Throttle,
    refusals: Throttle,
    overloads: Throttle,
    others: Throttle,
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
            others: Throttle::new(OTHERS_PER_INTERVAL, INTERVAL_MS),
        }
    }

    fn admit(&self, event: &AuditEvent) -> Option<u64> {
        match event.action {
            Action::Deny => self.denials.admit(event.ts_ms),
            Action::RefuseCaller => self.refusals.admit(event.ts_ms),
            Action::Overload => self.overloads.admit(event.ts_ms),
            Action::Replay | Action::Conflict | Action::Claim | Action::Rung | Action::Allow => {
                self.others.admit(event.ts_ms)
            }
            // Each of these is a person's or the process's own doing.
            Action::Admin
            | Action::Lifecycle
            | Action::Breaker
            | Action::ColdStart
            | Action::Config
            | Action::Loss
            | Action::Rollback => Some(0),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::{Auditor, SharedSink};
    use crate::clock::ManualClock;
    use tidegate_policy::scope::Region;

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
