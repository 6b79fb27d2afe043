//! Owns what the service may ask of a store that leases units of its limits to holders. Knows neither
//! messages nor HTTP.

use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::Subject;
use tidegate_policy::lease::step::{Call as Said, Given};
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::Scope;

use super::{Call, Charge};

/// One holder's word on one limit.
#[derive(Debug, Clone, Copy)]
pub struct Lease<'a> {
    /// Who is counted.
    pub subject: &'a Subject,
    /// `policy.limit`.
    pub limit_id: &'a str,
    /// The limit's numbers.
    pub quota: Quota,
    /// What it says.
    pub said: Said,
}

/// What a store gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leased {
    /// Units, and for how long.
    pub given: Given,
    /// The units per period that are in force, if they are fewer than configured.
    pub reduced: Option<u32>,
}

/// A place that leases units out of the buckets that it charges.
pub trait Leases: Send + Sync {
    /// Hears a holder and gives it what it may have, by the store's own clock, in one atomic step. A
    /// message that was heard before, or a newer one, changes nothing.
    fn lease(&self, scope: &Scope, lease: &Lease<'_>) -> Call<Leased>;
}

// === impl Lease ===

impl<'a> Lease<'a> {
    /// The bucket, as one that is charged.
    pub fn bucket(&self) -> Charge<'a> {
        let Self { subject, limit_id, quota, .. } = *self;
        Charge { subject, limit_id, quota, algorithm: Algorithm::Gcra, cost: 0, alone: false }
    }
}
