//! Owns what may be asked of a store that keeps breakers. Knows neither who reports nor what for.
//!
//! ```text
//! breaker:{R|<name>}      one breaker, region R (R/E in environment E): one slot each
//! breakers:{R}            the region's breakers by their epochs, so that changes are heard of
//! ```

use tidegate_policy::breaker::mesh::{Event, Said};
use tidegate_policy::scope::{Environment, Scope};
use tidegate_policy::wire::breaker::BreakerName;

use super::Call;

/// How many breakers of a region are told of at most; those are left out that did not change for
/// longest. Each goes on working for whoever reports on it.
pub const TOLD_MAX: u32 = 10_000;

/// A store's part that keeps breakers.
pub trait Breakers: Send + Sync {
    /// Takes one step on one breaker, by the store's own clock, atomic.
    fn step(&self, scope: &Scope, name: &BreakerName, event: &Event<'_>) -> Call<Said>;

    /// The breakers whose epoch is at least `since`, with it, by epoch.
    fn changed(&self, scope: &Scope, since: u64) -> Call<Vec<(BreakerName, u64)>>;
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
