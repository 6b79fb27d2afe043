//! Owns the events that the end of a chain makes itself: losses and rollbacks.

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::record::{Event, Rollback};
use tidegate_policy::audit::value::{Object, Value};
use tidegate_policy::audit::{Action, AuditEvent, Basis, Durability, Thinning};
use tidegate_policy::scope::{Region, Tenant};

use super::ChainEnd;
use super::parted::ROLLBACK_ID;

// === impl ChainEnd ===

impl ChainEnd {
    /// How many events were lost since it was last told.
    pub(super) fn loss(&self, losses: u64) -> Option<Event> {
        let count = losses.saturating_sub(self.losses_told);
        let id = format!("loss-{:016x}-{losses}", self.run);
        let detail = [("events".to_owned(), Value::number(count))];
        self.own(Action::Loss, id, Value::Object(Object::from_iter(detail)))
    }

    /// The chain goes on behind `there`, although it is known to have been at `known`, and to be as it was up to
    /// the record `common`.
    pub(super) fn rollback(&self, there: Place, known: Place, common: u64) -> Option<Event> {
        let kept = there.head.seq;
        let hash = there.head.hash.to_string();
        // All gateways give it one id, so that one of them writes it.
        let id = format!("{ROLLBACK_ID}{kept}-{}", hash.get(..16).unwrap_or_default());
        let told = Rollback { kept, known: known.head.seq, common };
        self.own(Action::Rollback, id, told.detail())
    }

    fn own(&self, action: Action, id: String, detail: Value) -> Option<Event> {
        let region = self.chain.as_str().split('/').next().and_then(|name| Region::new(name).ok());
        let event = AuditEvent {
            id,
            ts_ms: self.clock.unix_us() / 1_000,
            region: region.unwrap_or_else(Region::fallback),
            actor: "gateway".to_owned(),
            tenant: Tenant::None,
            action,
            outcome: "ok".to_owned(),
            detail: String::new(),
            durability: Durability::Async,
            thinning: Thinning::Each,
            about: Vec::new(),
            basis: Basis::default(),
        };
        match Event::with_detail(&event, detail) {
            Ok(event) => Some(event),
            Err(unfit) => {
                tracing::error!(critical = true, %unfit, "the gateway's own audit event has no record");
                None
            }
        }
    }
}
