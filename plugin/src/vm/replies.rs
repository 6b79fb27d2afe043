//! Owns the ends of a decision as the host is told them.

use tidegate_policy::config::Config;
use tidegate_policy::exchange::Denial;
use tidegate_policy::reason::Reason;
use tidegate_policy::wire::DecisionId;

use crate::abi::Action;
use crate::host::{self, Level};
use crate::render;

/// Answers a request that cannot be decided because the filter itself is not ready.
pub(crate) fn refuse_unready() -> Action {
    let denial = Denial {
        reason: Reason::HostFailure,
        id: DecisionId::new(0),
        violated: Vec::new(),
        retry_after_s: Some(1),
        fields: Vec::new(),
        grpc: false,
        worded_by: None,
        detail: None,
        stored_status: None,
        fallback: None,
        is_paid: false,
    };
    deny(None, &denial)
}

/// Lets a held request go on.
pub(super) fn resume() -> Action {
    or_log(host::continue_request(), "the request cannot go on");
    Action::Continue
}

/// Answers in the upstream's place.
pub(super) fn deny(config: Option<&Config>, denial: &Denial) -> Action {
    // Held in any case: a denial that could not be sent ends by the stream's timeout and is never
    // let through.
    or_log(render::deny(config, denial), "a denial cannot be sent");
    Action::HoldAll
}

/// What the host refuses is told, and is nothing to fail a request for.
pub(super) fn or_log(done: Result<(), host::Status>, what: &str) {
    if let Err(status) = done {
        host::log(Level::Error, &format!("tidegate: {what}: host status {}", status.0));
    }
}
