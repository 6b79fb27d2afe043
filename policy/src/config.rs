//! Owns the configuration: from a JSON document to a checked value, or to every problem in it at
//! once. Knows neither where the document comes from nor what a host does with the problems.
//!
//! Two stages: [`tree`] keeps the document as written (spans, duplicate keys, numbers as text);
//! [`read`] walks it and leaves a [`Config`] behind which nothing sees the raw form any more.
//! Source of the shape: what gateway config authors were promised.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::answers::{Answers, Denied};
use crate::breaker::alone;
use crate::breaker::by::By;
use crate::cost::Cost;
use crate::fields::Spelled;
use crate::gcra::Quota;
use crate::homes::Homes;
use crate::idempotency::terms::Terms;
use crate::identity::Identity;
use crate::limit::Algorithm;
use crate::local_share::LocalShare;
use crate::matching::Matcher;
use crate::mode::Rollout;
use crate::router::Router;

mod answers;
mod audit;
mod breakers;
mod cost;
pub mod diagnostic;
mod duration;
mod hash;
mod homes;
mod idempotency;
mod identities;
mod identity;
mod ladder;
mod limits;
mod matcher;
mod missing;
pub(crate) mod places;
mod read;
mod reader;
mod rollout;
mod route;
pub mod shape;
pub mod shapes;
mod suggest;
mod tree;
mod version;

pub use audit::SyncEvents;
pub use breakers::{CircuitBreaker, Fallback, Hold};
pub use diagnostic::{Diagnostic, Severity};
pub use hash::ConfigHash;
pub use suggest::nearest;

/// The longest document that is read.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How to reach the gateway.
    pub gateway: Gateway,
    /// Which regions keep the records of which tenants' idempotency keys.
    pub homes: Homes,
    /// Which of the policies that match a request apply.
    pub apply: Apply,
    /// What clients get to see.
    pub answers: Answers,
    /// What one Envoy admits by itself where a policy's ladder says so.
    pub local_share: LocalShare,
    /// The policies, by falling priority, then in the order of the document.
    pub policies: Vec<Policy>,
    /// The circuit breakers of upstreams.
    pub circuit_breakers: Vec<CircuitBreaker>,
    /// Whether the filter hands events of its own to the audit chain.
    pub audits: bool,
    /// Which of them are on record before their decision takes effect, if any.
    pub sync_events: Option<SyncEvents>,
    /// Whether a route's metadata may take it out of policies.
    pub route_opt_out: bool,
    /// The environment variable of the key that hides subjects, if they are to be hidden.
    pub hash_subjects: Option<String>,
    /// The environment variables of the keys of signed ids, each with a field that names it.
    pub signing_keys: BTreeMap<String, String>,
    /// Their patterns, made from them.
    pub(crate) router: Router,
    /// Whether any limit is soft.
    pub(crate) soft_limits: bool,
    /// Whether any limit is leased.
    pub(crate) leases: bool,
}

/// Which of the policies that match a request apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Apply {
    /// Every one: their limits add up.
    #[default]
    All,
    /// The first in their order.
    First,
}

/// How the filter reaches the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// The name of the Envoy cluster.
    pub cluster: String,
    /// How long a callout may take, in ms; 1 to 60,000, default 45 (product row A4).
    pub timeout_ms: u32,
    /// The environment variable that holds the bearer token, if one is used.
    pub token_env: Option<String>,
    /// When the filter stops asking for a while.
    pub breaker: alone::Settings,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Unique; 1 to 63 of `a-z 0-9 _ -`, since it names metrics and keys.
    pub name: String,
    /// Which requests fall under it.
    pub matcher: Matcher,
    /// The limits; every one has to admit.
    pub rate_limits: Vec<RateLimit>,
    /// What it says of idempotency, if anything.
    pub idempotency: Option<Terms>,
    /// Its circuit breaker, by its index in the configuration.
    pub circuit_breaker: Option<usize>,
    /// Whose breaker it is, if it is one for each of many.
    pub circuit_by: Option<By>,
    /// What to do when no verdict can be had, in order; not empty.
    pub on_unavailable: Vec<Rung>,
    /// What the document says; flags and the kill switch may override it.
    pub rollout: Rollout,
    /// The same for other mechanisms than rate limits.
    pub rollout_others: Rollout,
    /// Who falls on which side of a share; the first limit's identity if nothing is said.
    pub rollout_by: Option<Identity>,
    /// Whether any of its identities is the client's address.
    pub reads_address: bool,
    /// The other properties of the host's that its identities are read from.
    pub properties: Vec<String>,
    /// What it says of its own denials, if anything.
    pub denied: Option<Denied>,
    /// The share of its admitted requests that become audit events, in hundredths of a percent.
    pub audited_allows_bp: u16,
}

/// One rate limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Unique within its policy.
    pub name: String,
    /// `policy.limit`: unique within the configuration.
    pub id: String,
    /// Who is counted.
    pub by: Identity,
    /// How much.
    pub quota: Quota,
    /// What a request costs it.
    pub cost: Cost,
    /// Never a reason to deny: where it is used up the upstream is told.
    pub soft: bool,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Whether Envoys take units out ahead and decide with them.
    pub leased: bool,
    /// What clients are told of it in any case.
    pub spelled: Spelled,
}

/// One step of what a policy does without a verdict (product row A4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Spend what is leased.
    Lease,
    /// Spend this Envoy's part of each limit.
    LocalShare,
    /// The request goes on, counted.
    Allow,
    /// The request is refused with 503.
    Deny,
}

/// What reading a document gave: a configuration, if there was no error, and what to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The configuration; `None` if any diagnostic is an error.
    pub config: Option<Config>,
    /// Every problem, in the order of the document.
    pub diagnostics: Vec<Diagnostic>,
    /// The document's fingerprint; `None` for what is no document.
    pub hash: Option<ConfigHash>,
}

// === impl Rung ===

impl Rung {
    /// As it stands in documents and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::LocalShare => "local_share",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Config ===

impl Config {
    /// Reads a document.
    pub fn read(document: &str) -> Reading {
        read::document(document)
    }

    /// Whether any limit is soft, so that no client may say to an upstream that one is used up.
    pub fn has_soft_limits(&self) -> bool {
        self.soft_limits
    }

    /// Whether any limit is leased, so that the filter has something to tell the gateway now and then.
    pub fn has_leases(&self) -> bool {
        self.leases
    }
}

#[cfg(test)]
mod tests;
