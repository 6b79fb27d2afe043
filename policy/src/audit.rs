//! Owns the schema of audit events and the interface they leave by; its rooms own the chain they go
//! into. Knows neither where events are kept nor how signatures are computed.
//!
//! Source: product row D; the field names are those of the chain's records, so that the chain only
//! adds `seq`, `prev`, `key_version` and `sig`.

pub mod append;
pub mod hash;
pub mod keys;
pub mod merkle;
pub mod note;
pub mod record;
pub mod value;
pub mod verify;

use alloc::string::String;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// One event. Personal data does not belong in it: subjects stay in the store's keys.
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
}

/// Where events go. The first sink logs and counts; the chain takes its place later.
pub trait AuditSink {
    /// Takes one event. Must not block: a `sync` event gets a path of its own with the chain.
    fn record(&self, event: AuditEvent);
}

// === impl Action ===

impl Action {
    /// Every action.
    pub const ALL: [Self; 5] =
        [Self::Deny, Self::Overload, Self::RefuseCaller, Self::Admin, Self::Lifecycle];

    /// As it stands in records, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Overload => "overload",
            Self::RefuseCaller => "refuse_caller",
            Self::Admin => "admin",
            Self::Lifecycle => "lifecycle",
        }
    }
}

#[cfg(test)]
mod tests;
