//! Owns the one list of reasons. Metric labels, problem types, access-log details and the gateway's
//! refusals all take their text from here; nobody spells a reason a second time.

use core::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $text:literal,)*) => {
        /// Why a request was denied, or why a verdict could not be had.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, for metrics that are defined ahead and for tests that find strays.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The reason's text, in kebab case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $text,)* }
            }

            /// The reason that has this text.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A rate limit is used up.
    QuotaExceeded => "quota-exceeded",
    /// A limit that is lower than configured for the time being is used up: a cold region's, or this
    /// Envoy's own share of one while no verdict can be had.
    TemporaryReducedCapacity => "temporary-reduced-capacity",
    /// The gateway's bound on work in flight is reached (product row A5). A verdict, not a failure.
    ServiceOverloaded => "service-overloaded",
    /// The upstream's circuit breaker is open, or another request tests it.
    CircuitOpen => "circuit-open",
    /// No verdict could be had and the policy says `deny`.
    PolicyStoreUnavailable => "policy-store-unavailable",
    /// A limit's identity is missing from the request.
    ClientIdentityRequired => "client-identity-required",

    /// The policy requires an idempotency key, and the request has none.
    IdempotencyKeyRequired => "idempotency-key-required",
    /// What the request sends as its idempotency key is none.
    IdempotencyKeyInvalid => "idempotency-key-invalid",
    /// The request has an idempotency key, and a path that servers read differently.
    IdempotencyPathInvalid => "idempotency-path-invalid",
    /// The request has an idempotency key, and a body longer than the most that is hashed.
    IdempotencyBodyTooLong => "idempotency-body-too-long",
    /// The key was used for another request.
    IdempotencyConflict => "idempotency-conflict",
    /// The first request with the key is still under way.
    IdempotencyInFlight => "idempotency-in-flight",
    /// Whether the upstream did the work of the first request with the key is not known.
    IdempotencyUnknownOutcome => "idempotency-unknown-outcome",
    /// The first request with the key is done, and its answer was too large to be stored.
    IdempotencyResultNotStored => "idempotency-result-not-stored",

    /// Envoy would not send the callout: no such cluster, no host, circuit breaker.
    CalloutNotSent => "callout-not-sent",
    /// So many callouts failed in a row that none is tried for a while.
    CalloutCircuitOpen => "callout-circuit-open",
    /// The callout's answer lacks the gateway's mark: refused, timed out, a proxy's own error.
    CalloutUnmarked => "callout-unmarked",
    /// The callout was reset before or within its answer.
    CalloutReset => "callout-reset",
    /// A marked answer that cannot be read, or that answers another question.
    CalloutMalformed => "callout-malformed",
    /// More limits apply to one request than one message may carry.
    TooManyLimits => "too-many-limits",
    /// An admission was refused since its audit event was not on record in time.
    EventNotRecorded => "event-not-recorded",
    /// The filter could not read what it needs from its host.
    HostFailure => "host-failure",

    /// The gateway cannot reach its store.
    StoreUnavailable => "store-unavailable",
    /// So many store calls failed in a row that the gateway tries none for a while.
    StoreCircuitOpen => "store-circuit-open",
    /// The store did not answer within the gateway's deadline.
    StoreTimeout => "store-timeout",
    /// The store answered with an error of its own.
    StoreError => "store-error",
    /// The store forgets at its exit, and the policy does not say that this will do.
    StoreForgets => "store-forgets",
    /// A claim is not on as many replicas as its policy asks for.
    StoreTooFewReplicas => "store-too-few-replicas",
    /// The caller did not authenticate to the gateway.
    Unauthorized => "unauthorized",
    /// The filter's region is not the gateway's.
    RegionMismatch => "region-mismatch",
    /// The filter's environment is not the gateway's.
    EnvironmentMismatch => "environment-mismatch",
    /// The filter's callout timeout is not longer than the gateway's deadline.
    DeadlineOrder => "deadline-order",
    /// The message cannot be read, or holds a value that cannot be.
    BadMessage => "bad-message",
    /// The message is of a version that the gateway does not know.
    UnsupportedVersion => "unsupported-version",
    /// The gateway has no such path or method.
    NotFound => "not-found",
}

impl Reason {
    /// Whether a request that was denied for this surely ran nowhere, and says nothing of an earlier one with its key that did.
    pub fn ran_nowhere(self) -> bool {
        matches!(
            self,
            Self::QuotaExceeded
                | Self::TemporaryReducedCapacity
                | Self::ServiceOverloaded
                | Self::CircuitOpen
                | Self::PolicyStoreUnavailable
                | Self::ClientIdentityRequired
                | Self::IdempotencyKeyRequired
                | Self::IdempotencyKeyInvalid
                | Self::IdempotencyPathInvalid
                | Self::IdempotencyBodyTooLong
                | Self::IdempotencyConflict
                | Self::HostFailure
        )
    }
}

/// What problem types (RFC 9457) begin with; a reason's text follows.
pub const PROBLEM_BASE: &str = "https://tidegate.dev/problems/";

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_kebab_case_and_leads_back() {
        for &reason in Reason::ALL {
            let text = reason.as_str();
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{text}");
            assert_eq!(Reason::from_text(text), Some(reason));
        }
        assert_eq!(Reason::from_text("no-such-reason"), None);
    }
}
