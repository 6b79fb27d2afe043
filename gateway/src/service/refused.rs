//! Owns what is said where there is no verdict. Knows nothing of how it came to that.

use tidegate_policy::audit::Action;
use tidegate_policy::reason::Reason;
pub use tidegate_policy::render::OVERLOADED;
use tidegate_policy::wire::DecisionId;

use crate::store::StoreFailure;

/// No verdict. The detail is for the filter's operator and names nothing behind the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// What to do about it.
    pub detail: String,
    /// The decision, if the message could be read.
    pub id: Option<DecisionId>,
}

/// What a refusal is for the audit trail, if anything.
pub(super) fn action_of(reason: Reason) -> Option<Action> {
    match reason {
        Reason::ServiceOverloaded => Some(Action::Overload),
        Reason::RegionMismatch
        | Reason::EnvironmentMismatch
        | Reason::DeadlineOrder
        | Reason::UnsupportedVersion => Some(Action::RefuseCaller),
        _ => None,
    }
}

/// What a caller may know of a store's failure.
pub(super) fn outward(failure: &StoreFailure) -> &'static str {
    match failure {
        StoreFailure::Unreachable(_) | StoreFailure::Partly(_) => {
            "the gateway cannot reach its store"
        }
        StoreFailure::Timeout => "the store did not answer within the gateway's deadline",
        StoreFailure::Refused(_) | StoreFailure::Garbled(_) => "the store answered with an error",
        StoreFailure::Crowded => OVERLOADED,
        StoreFailure::Full(_) => "the store holds as much as it may",
    }
}
