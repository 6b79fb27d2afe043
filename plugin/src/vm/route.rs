//! Owns what Envoy's route says of the policies that match, and what becomes of a request that cannot be
//! read.

use tidegate_policy::audit::Action;
use tidegate_policy::audit::testimony::Testimony;
use tidegate_policy::exchange::{Outcome, Signal};
use tidegate_policy::reason::Reason;
use tidegate_policy::router::Matched;

use super::refuse_unready;
use crate::abi;
use crate::facts;
use crate::host::{self, Level};
use crate::root::Root;

/// The policies that apply once the route had its say; those that it is out of are counted.
pub(super) fn routed(root: &Root, matched: Matched) -> Result<Matched, host::Status> {
    let config = &root.config;
    let matched = facts::on_route(config, matched)?;
    if matched.is_empty() {
        return Ok(matched);
    }
    if !config.route_opt_out {
        return Ok(matched.applying(config));
    }
    let mut said = facts::opt_out(config)?;
    let (matched, out) = said.apply(config, matched);
    for policy in out {
        let signal = Signal::Decided { policy, outcome: Outcome::OptedOut };
        root.counters.borrow_mut().signal(config, signal);
    }
    if said.strange && !root.told_strange_route.replace(true) {
        host::log(
            Level::Warn,
            "tidegate: warning: a route's metadata under \"tidegate\" hold more than disabled: true and disabled_policies: [names of policies]; the rest is ignored (told once)",
        );
    }
    Ok(matched.applying(config))
}

pub(super) fn unreadable(root: &Root, status: host::Status) -> abi::Action {
    let signal = Signal::Unavailable(Reason::HostFailure);
    root.counters.borrow_mut().signal(&root.config, signal);
    root.tell(|| {
        Some(Box::new(Testimony::own(Action::Deny, Reason::HostFailure.as_str(), String::new())))
    });
    host::log(
        Level::Error,
        &format!("tidegate: the request cannot be read: host status {}", status.0),
    );
    refuse_unready()
}
