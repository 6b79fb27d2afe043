//! Owns how the gateway's audit events are made and where they go: to the log (target `audit`) and a
//! counter, and into the chain if there is one. Its rooms own the chain.
//!
//! Every event is counted; the log gets the first few of a kind per second and then how many more
//! there were, so that an attack cannot fill the disk. Neither log nor chain hold subjects.

pub mod chain_end;
pub mod command;
pub mod counters;
pub mod endpoint;
pub mod follow;
pub mod hold;
pub mod keys;
pub mod latch;
pub mod log_sink;
pub mod mark;
mod private;
pub mod ring;
pub mod spool;
pub mod thin;
pub mod trail;
pub mod watch;
pub mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_policy::audit::{About, Action, AuditEvent, AuditSink, Basis, Durability, Thinning};
use tidegate_policy::scope::{Region, Tenant};

pub use self::log_sink::LogSink;
use self::trail::{PassOnError, Trail};
use self::writer::{Acknowledged, Haste};
use crate::clock::Clock;

/// A sink that threads share.
pub type SharedSink = Arc<dyn AuditSink + Send + Sync>;

/// Makes the gateway's events: fills in what is the same for all of them.
pub struct Auditor {
    sink: SharedSink,
    trail: Option<Arc<Trail>>,
    /// What is waited for, and commands that must be on record besides.
    sync: BTreeSet<Action>,
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
    /// Whether the like of it is recorded each time.
    pub thinning: Thinning,
    /// The limits that it is about.
    pub about: Vec<About>,
    /// By what it was decided.
    pub basis: Basis,
}

/// An event of the `sync` class is neither in the chain nor on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit event is not on record")]
pub struct NotOnRecord;

// === impl Happening ===

impl Happening {
    /// Something of the gateway's own.
    pub fn own(action: Action, detail: String) -> Self {
        Self {
            id: None,
            actor: "gateway".to_owned(),
            tenant: Tenant::None,
            action,
            outcome: "ok",
            detail,
            thinning: Thinning::Each,
            about: Vec::new(),
            basis: Basis::default(),
        }
    }
}

// === impl Auditor ===

impl Auditor {
    /// `instance` tells this run of the gateway from every other in the events' ids.
    pub fn new(sink: SharedSink, clock: Arc<dyn Clock>, region: Region, instance: u64) -> Self {
        let (trail, sync, made) = (None, BTreeSet::new(), AtomicU64::new(0));
        Self { sink, trail, sync, clock, region, instance, made }
    }

    /// With a chain, and the actions whose events are waited for.
    pub fn with_trail(mut self, trail: Option<Arc<Trail>>, sync: BTreeSet<Action>) -> Self {
        (self.trail, self.sync) = (trail, sync);
        self
    }

    /// The chain, if there is one.
    pub fn trail(&self) -> Option<&Arc<Trail>> {
        self.trail.as_ref()
    }

    /// Hands the event over and waits for nothing.
    pub fn record(&self, happening: Happening) {
        let event = self.event(happening);
        if let Some(trail) = &self.trail {
            trail.take(&event);
        }
        self.sink.record(event);
    }

    /// The same; an event of the `sync` class is waited for, at most that long.
    pub async fn record_durably(
        &self,
        happening: Happening,
        wait_max: Duration,
    ) -> Result<(), NotOnRecord> {
        let event = self.event(happening);
        let kept = match &self.trail {
            Some(trail) if event.durability == Durability::Sync => {
                trail.commit(&event, wait_max).await
            }
            Some(trail) => {
                trail.take(&event);
                Ok(())
            }
            None => Ok(()),
        };
        self.sink.record(event);
        kept
    }

    /// Takes an event that another process made; its answer comes when it is on record.
    pub fn pass_on(&self, event: AuditEvent, haste: Haste) -> Result<Acknowledged, PassOnError> {
        let handed = match &self.trail {
            Some(trail) => trail.pass_on(&event, haste),
            None => Err(PassOnError::NoChain),
        };
        // Without a chain the log is all there is.
        if !matches!(handed, Err(PassOnError::Full(_))) {
            self.sink.record(event);
        }
        handed
    }

    /// Events are lost before they are on record: the chain tells how many.
    pub fn lose(&self, events: u64) {
        if let Some(trail) = &self.trail {
            trail.lose(events);
        }
    }

    /// A command that may not run without its record waits for that, whatever the setting says.
    fn waits_for(&self, action: Action) -> bool {
        let must_record = || self.trail.as_ref().is_some_and(|trail| trail.must_record());
        self.sync.contains(&action) || (action == Action::Admin && must_record())
    }

    fn event(&self, happening: Happening) -> AuditEvent {
        let id = happening.id.unwrap_or_else(|| {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            format!("gateway-{:016x}-{number}", self.instance)
        });
        let sync = self.waits_for(happening.action);
        AuditEvent {
            id,
            ts_ms: self.clock.unix_us() / 1_000,
            region: self.region.clone(),
            actor: happening.actor,
            tenant: happening.tenant,
            action: happening.action,
            outcome: happening.outcome.to_owned(),
            detail: happening.detail,
            durability: if sync { Durability::Sync } else { Durability::Async },
            thinning: happening.thinning,
            about: happening.about,
            basis: happening.basis,
        }
    }

    /// A filter or a client of the admin listener was turned away.
    pub fn refused_caller(&self, outcome: &'static str, detail: String) {
        let own = Happening::own(Action::RefuseCaller, detail);
        let actor = "unknown".to_owned();
        self.record(Happening { actor, outcome, thinning: Thinning::First, ..own });
    }

    /// The gateway started or stopped.
    pub fn lifecycle(&self, detail: String) {
        self.record(Happening::own(Action::Lifecycle, detail));
    }
}
