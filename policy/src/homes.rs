//! Owns which region is a tenant's home: the one whose gateways keep the records of its idempotency keys,
//! whichever region a request of it came to. Knows neither documents nor hosts.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::scope::{CallerScope, Region, Tenant, TenantId};

/// The homes of tenants; without any, every region keeps what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Homes {
    regions: Vec<Home>,
    tenants: BTreeMap<TenantId, usize>,
    others: Option<usize>,
}

/// A region that is a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its name: that of the Envoys that are at home there, and of its gateways.
    pub region: Region,
    /// The Envoy cluster that leads to its gateways.
    pub cluster: String,
    /// How long a callout to it may take, in ms; 1 to 60,000.
    pub timeout_ms: u32,
}

// === impl Homes ===

impl Homes {
    /// From indices into `regions`: of the tenants that are named, and of all others.
    pub fn new(
        regions: Vec<Home>,
        tenants: BTreeMap<TenantId, usize>,
        others: Option<usize>,
    ) -> Self {
        Self { regions, tenants, others }
    }

    /// The home of a request's tenant, if that is not the region that the request came to: its index.
    /// Who does not know its own region takes every home for another one.
    pub fn elsewhere(&self, scope: &CallerScope) -> Option<usize> {
        let Tenant::Named(tenant) = &scope.tenant else {
            return None;
        };
        let index = self.tenants.get(tenant).copied().or(self.others)?;
        let home = self.regions.get(index)?;
        (scope.region.as_ref() != Some(&home.region)).then_some(index)
    }

    /// The home of this index.
    pub fn get(&self, index: usize) -> Option<&Home> {
        self.regions.get(index)
    }

    /// All of them.
    pub fn all(&self) -> &[Home] {
        &self.regions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{Environment, KeyFormat};
    use std::string::ToString;
    use std::vec;

    fn region(name: &str) -> Region {
        Region::new(name).expect("a sound name")
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a sound name")
    }

    #[test]
    fn a_tenant_has_one_home_wherever_it_is_asked_for() {
        let home = |name: &str| Home {
            region: region(name),
            cluster: ["tidegate-", name].concat().to_string(),
            timeout_ms: 250,
        };
        let regions = vec![home("north"), home("south")];
        let named = BTreeMap::from([(tenant("acme"), 1)]);
        let some = Homes::new(regions.clone(), named.clone(), None);
        let all = Homes::new(regions, named, Some(0));
        let none = Homes::default();
        let rows = [
            (&some, Some("north"), Some("acme"), Some(1)),
            (&some, Some("south"), Some("acme"), None),
            (&some, Some("east"), Some("acme"), Some(1)),
            (&some, None, Some("acme"), Some(1)),
            (&some, Some("north"), Some("other"), None),
            (&all, Some("north"), Some("other"), None),
            (&all, Some("south"), Some("other"), Some(0)),
            (&all, Some("south"), None, None),
            (&none, Some("south"), Some("acme"), None),
        ];
        for (homes, own, named, expected) in rows {
            let scope = CallerScope {
                region: own.map(region),
                environment: Environment::default(),
                tenant: named.map_or(Tenant::None, |name| Tenant::Named(tenant(name))),
                key_format: KeyFormat::V1,
            };
            assert_eq!(homes.elsewhere(&scope), expected, "{own:?} {named:?}");
        }
    }
}
