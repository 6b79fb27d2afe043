//! Owns the schema of audit events and the interface they leave by; its rooms own the chain they go
//! into. Knows neither where events are kept nor how signatures are computed.
//!
//! Source: product row D; the field names are those of the chain's records, so that the chain only
//! adds `seq`, `prev`, `key_version` and `sig`.

pub mod append;
pub mod hash;
pub mod keys;
pub mod likeness;
pub mod merkle;
pub mod note;
pub mod outbox;
pub mod record;
pub mod tally;
pub mod testimony;
pub mod value;
pub mod verify;

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use self::likeness::Likeness;
use self::tally::Alike;
use crate::config::ConfigHash;
use crate::identity::Subject;
use crate::scope::{Region, Tenant};

/// How long a decision waits for its event (product row D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The decision waits until the event is stored.
    Sync,
    /// The event is handed over and acknowledged later; loss is counted.
    Async,
    /// Only a share of the events is recorded.
    Sampled,
}

/// What happened, as an auditor names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A request was denied by a limit.
    Deny,
    /// A request was refused because the gateway's bound was reached.
    Overload,
    /// A filter was refused: credentials, region, deadlines, version.
    RefuseCaller,
    /// An administrator read or changed something.
    Admin,
    /// The gateway started or stopped.
    Lifecycle,
    /// A request was answered from an earlier one's stored answer.
    Replay,
    /// An idempotency key came with another request than its first one.
    Conflict,
    /// A key of unknown outcome was claimed anew, or the record of a claim had been lost: its request may have run twice.
    Claim,
    /// A circuit breaker changed its state.
    Breaker,
    /// A policy was decided on another rung of its ladder than the first.
    Rung,
    /// A region began to be cold.
    ColdStart,
    /// Settings or a configuration came into force.
    Config,
    /// A request was admitted; only a share of these is recorded.
    Allow,
    /// Events were lost before they were accepted.
    Loss,
    /// The store had lost records; the chain goes on without them.
    Rollback,
}

/// How many of its kind are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinning {
    /// All: each is somebody's own doing.
    #[default]
    Each,
    /// The first one of a kind and window; the rest as one event that counts them. An attack must
    /// not fill the chain.
    First,
}

/// A limit and whom it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `policy.limit`.
    pub limit: String,
    /// Personal data: whoever records it hashes it or leaves it out.
    pub subject: Subject,
}

/// One event. Personal data stands in `about` only, so that one rule can hash it or leave it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Unique: the decision's id, or one made for the event.
    pub id: String,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub ts_ms: u64,
    /// The gateway's region.
    pub region: Region,
    /// Who did it: `filter`, `gateway`, or the name behind an administrator's token.
    pub actor: String,
    /// Whose request it was.
    pub tenant: Tenant,
    /// What happened.
    pub action: Action,
    /// How it ended: a [`crate::reason::Reason`]'s text, or `ok`.
    pub outcome: String,
    /// What a reader needs beyond that; no personal data.
    pub detail: String,
    /// How durable the event has to be.
    pub durability: Durability,
    /// Whether the like of it is recorded each time.
    #[serde(default)]
    pub thinning: Thinning,
    /// The limits that it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<About>,
    /// By what it was decided.
    #[serde(default)]
    pub basis: Basis,
}

/// By what something was decided, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Basis {
    /// The filter's configuration.
    pub config: Option<ConfigHash>,
    /// Of the limits that the event is about, in their order; none where only the filter knows them.
    pub terms: Vec<Terms>,
}

/// What a limit grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Units per period.
    pub units: u32,
    /// The period in µs.
    pub period_us: u64,
    /// Units that may come at once.
    pub burst: u32,
}

/// Where events go first: a log. The chain has a path of its own beside it.
pub trait AuditSink {
    /// Takes one event. Must not block.
    fn record(&self, event: AuditEvent);
}

// === impl Durability ===

impl Durability {
    /// As it stands in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::Sampled => "sampled",
        }
    }

    /// Whether nothing waits for it.
    pub(crate) fn is_async(&self) -> bool {
        *self == Self::Async
    }
}

// === impl Action ===

impl Action {
    /// Every action.
    pub const ALL: [Self; 15] = [
        Self::Deny,
        Self::Overload,
        Self::RefuseCaller,
        Self::Admin,
        Self::Lifecycle,
        Self::Replay,
        Self::Conflict,
        Self::Claim,
        Self::Breaker,
        Self::Rung,
        Self::ColdStart,
        Self::Config,
        Self::Allow,
        Self::Loss,
        Self::Rollback,
    ];

    /// As it stands in records, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Overload => "overload",
            Self::RefuseCaller => "refuse_caller",
            Self::Admin => "admin",
            Self::Lifecycle => "lifecycle",
            Self::Replay => "replay",
            Self::Conflict => "conflict",
            Self::Claim => "claim",
            Self::Breaker => "breaker",
            Self::Rung => "rung",
            Self::ColdStart => "cold_start",
            Self::Config => "config",
            Self::Allow => "allow",
            Self::Loss => "loss",
            Self::Rollback => "rollback",
        }
    }

    /// The action of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

// === impl AuditEvent ===

impl AuditEvent {
    fn mark(&self, seed: u64) -> Likeness {
        let mut mark = Likeness::new(seed);
        mark.text(self.action.as_str());
        mark.text(&self.outcome);
        if let Tenant::Named(tenant) = &self.tenant {
            mark.text(tenant.as_str());
        }
        mark.number(self.basis.config.map_or(0, |config| config.gauge().into()));
        mark
    }
}

impl Alike for AuditEvent {
    type Mark = u64;

    fn kind(&self, seed: u64) -> u64 {
        let mut mark = self.mark(seed);
        self.about.iter().for_each(|about| mark.text(&about.limit));
        mark.end()
    }

    fn marks(&self, seed: u64) -> (u64, u64) {
        let mut mark = self.mark(seed);
        mark.text(&self.actor);
        if self.about.is_empty() {
            mark.text(&self.detail);
        }
        for about in &self.about {
            mark.text(&about.limit);
            mark.text(about.subject.kind.as_str());
            mark.text(about.subject.name.as_str());
        }
        (self.kind(seed), mark.end())
    }

    fn counted(&self) -> Self {
        self.clone()
    }

    fn other(&self) -> Self {
        let basis = Basis { terms: Vec::new(), ..self.basis.clone() };
        Self { about: Vec::new(), tenant: Tenant::None, basis, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
