//! Owns the ends of a decision as the host is told them.

use tidegate_policy::config::Config;
use tidegate_policy::exchange::Denial;

use crate::abi::Action;
use crate::host::{self, Level};
use crate::render;

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
