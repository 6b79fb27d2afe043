//! Owns what is counted of a request, for metrics.

use crate::config::Rung;
use crate::reason::Reason;

/// What to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A policy came to an outcome.
    Decided {
        /// The policy's index in the configuration.
        policy: usize,
        /// The outcome.
        outcome: Outcome,
    },
    /// A limit is used up.
    UsedUp {
        /// The policy's index in the configuration.
        policy: usize,
        /// The limit's index within its policy.
        limit: usize,
        /// What that meant: denied, in shadow, or soft.
        outcome: Outcome,
    },
    /// What says the cost cannot be read.
    CostMalformed {
        /// The policy's index in the configuration.
        policy: usize,
        /// The limit's index within its policy.
        limit: usize,
    },
    /// A request under a policy with idempotency came to this.
    Idempotency {
        /// The policy's index in the configuration.
        policy: usize,
        /// What it came to.
        outcome: Idempotent,
    },
    /// So many octets of an answer were stored or given again.
    AnswerBytes {
        /// The policy's index in the configuration.
        policy: usize,
        /// Whether they were given again; if not, they were stored.
        replayed: bool,
        /// How many.
        bytes: u64,
    },
    /// No verdict could be had.
    Unavailable(Reason),
    /// The rung of its `on_unavailable` that a policy ended on; one for each policy.
    Fell {
        /// The rung.
        rung: Rung,
        /// Why there was no verdict.
        reason: Reason,
    },
}

/// How a policy's decision ended, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Every limit of the policy admits.
    Allowed,
    /// A limit of the policy denies.
    Denied,
    /// It would have been denied, but the policy is in shadow.
    ShadowDenied,
    /// A soft limit of the policy is used up.
    SoftExceeded,
    /// Another policy denied; this one was not charged.
    NotCharged,
    /// The limit's identity is missing.
    IdentityMissing,
    /// The route's metadata take it out of the policy.
    OptedOut,
    /// The gateway was at its bound.
    Overloaded,
    /// No verdict of the others; this policy's limits are leased, and their units were there.
    LeaseAllowed,
    /// No verdict; this Envoy's share of every limit of the policy admits.
    LocalShareAllowed,
    /// No verdict; this Envoy's share of a limit is spent, and the policy says deny behind it.
    LocalShareDenied,
    /// No verdict; the policy says allow.
    DegradedAllowed,
    /// No verdict; the policy says deny.
    DegradedDenied,
}

// === impl Outcome ===

impl Outcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::ShadowDenied => "shadow_denied",
            Self::SoftExceeded => "soft_exceeded",
            Self::NotCharged => "not_charged",
            Self::IdentityMissing => "identity_missing",
            Self::OptedOut => "opted_out",
            Self::Overloaded => "overloaded",
            Self::LeaseAllowed => "lease_allowed",
            Self::LocalShareAllowed => "local_share_allowed",
            Self::LocalShareDenied => "local_share_denied",
            Self::DegradedAllowed => "degraded_allowed",
            Self::DegradedDenied => "degraded_denied",
        }
    }
}

/// What a request with an idempotency key came to, or would have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Idempotent {
    /// It runs: the key was unused, or given back.
    Fresh,
    /// It runs: the one before did not come back, and the policy says that it may.
    TakenOver,
    /// It got the first answer.
    Replayed,
    /// In shadow: it would have got the first answer.
    ShadowReplayed,
    /// Refused; in shadow it would have been.
    Refused {
        /// Why.
        reason: Reason,
        /// Whether the policy is in shadow.
        shadow: bool,
    },
    /// It runs unprotected: nobody could be asked, and the policy says that it may.
    Unprotected,
    /// It runs although its claim is on fewer replicas than the policy asks for.
    TooFewReplicas,
    /// It waits for the first answer.
    Waited,
    /// It takes long: its claim is locked for longer.
    Extended,
    /// Its answer is stored.
    Stored,
    /// That it was done is stored, without the body.
    StoredWithoutBody,
    /// The claim is given back: the upstream did not do the work.
    Released,
    /// The claim is kept: the upstream may have done the work.
    Kept,
    /// What ends its claim could not be told yet; it is told again later.
    Postponed,
    /// The answer could not be stored. The claim is kept.
    NotStored,
    /// The answer came after somebody had taken over. Nothing was stored.
    Fenced,
    /// The record had been lost; the answer was stored anew.
    Recovered,
}

// === impl Idempotent ===

impl Idempotent {
    /// The label's value, for all but a refusal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::TakenOver => "taken_over",
            Self::Replayed => "replayed",
            Self::ShadowReplayed => "shadow_replayed",
            Self::Refused { shadow: false, reason } => match reason {
                Reason::IdempotencyInFlight => "in_flight",
                Reason::IdempotencyConflict => "conflict",
                Reason::IdempotencyUnknownOutcome => "unknown",
                Reason::IdempotencyResultNotStored => "result_not_stored",
                Reason::IdempotencyKeyRequired => "key_missing",
                Reason::PolicyStoreUnavailable => "unavailable",
                Reason::ServiceOverloaded => "overloaded",
                _ => "invalid",
            },
            Self::Refused { shadow: true, reason } => match reason {
                Reason::IdempotencyInFlight => "shadow_in_flight",
                Reason::IdempotencyConflict => "shadow_conflict",
                Reason::IdempotencyUnknownOutcome => "shadow_unknown",
                Reason::IdempotencyResultNotStored => "shadow_result_not_stored",
                Reason::IdempotencyKeyRequired => "shadow_key_missing",
                Reason::PolicyStoreUnavailable => "shadow_unavailable",
                Reason::ServiceOverloaded => "shadow_overloaded",
                _ => "shadow_invalid",
            },
            Self::Unprotected => "unprotected",
            Self::TooFewReplicas => "too_few_replicas",
            Self::Waited => "waited",
            Self::Extended => "extended",
            Self::Stored => "stored",
            Self::StoredWithoutBody => "stored_without_body",
            Self::Released => "released",
            Self::Kept => "kept",
            Self::Postponed => "postponed",
            Self::NotStored => "not_stored",
            Self::Fenced => "fenced",
            Self::Recovered => "recovered",
        }
    }
}
