//! Owns what may be asked of a store that keeps breakers. Knows neither who reports nor what for.
//!
//! ```text
//! breaker:{R|<name>}      one breaker, region R (R/E in environment E): one slot each
//! breakers:{R}            the region's breakers by when they were noted, so that changes are heard of
//! ```

use tidegate_policy::breaker::mesh::{Event, Said};
use tidegate_policy::scope::{Environment, Scope};
use tidegate_policy::wire::breaker::BreakerName;

use super::Call;

/// How many breakers of a region are told of at most; those members of one for each of many are left out that did not change
/// for longest. Each goes on working for whoever reports on it. On a bare name nobody does, so that it stays.
pub const TOLD_MAX: u32 = 10_000;

/// A store's part that keeps breakers.
pub trait Breakers: Send + Sync {
    /// Takes one step on one breaker, by the store's own clock, atomic.
    fn step(&self, scope: &Scope, name: &BreakerName, event: &Event<'_>) -> Call<Said>;

    /// The breakers that were noted under the number `since` or a higher one, with it, by number. What changes later is
    /// noted under a higher number than all before, whatever the store's clock says.
    fn changed(&self, scope: &Scope, since: u64) -> Call<Vec<(BreakerName, u64)>>;
}

/// Whether a step is to be noted among those that others hear of.
pub fn is_noted(said: &Said, looks: bool) -> bool {
    !said.transitions.is_empty() || (said.fresh && !looks)
}

/// Where a breaker lies.
pub fn key(scope: &Scope, name: &BreakerName) -> String {
    format!("breaker:{{{}|{}}}", place(scope), name.as_str())
}

/// Where a region's breakers are listed.
pub fn list_key(scope: &Scope) -> String {
    format!("breakers:{{{}}}", place(scope))
}

fn place(scope: &Scope) -> String {
    if scope.environment == Environment::default() {
        scope.region.to_string()
    } else {
        format!("{}/{}", scope.region, scope.environment)
    }
}
