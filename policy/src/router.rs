//! Owns which policies a request falls under, fact by fact: a path decides first, so that a
//! request that matches nothing costs its reader one fact and no more.

use alloc::vec::Vec;

use crate::canonical::canonical;
use crate::config::{Config, Policy};
use crate::identity::Identity;

/// The policies that a request falls under, as far as its facts are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    policies: Vec<usize>,
}

// === impl Config ===

impl Config {
    /// The policies whose path takes the request in; `None` is a request without a `:path`.
    pub fn on_path(&self, path: Option<&[u8]>) -> Matched {
        let path = path.map(canonical);
        let path = path.as_deref();
        let policies = self.policies.iter().enumerate();
        let inside = policies.filter(|(_, policy)| policy.matcher.path.matches(path));
        Matched { policies: inside.map(|(index, _)| index).collect() }
    }
}

// === impl Matched ===

impl Matched {
    /// Whether nothing matches, so that the request passes.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policies with their indices, in the order of the configuration.
    pub fn policies<'c>(&self, config: &'c Config) -> impl Iterator<Item = (usize, &'c Policy)> {
        self.policies.iter().filter_map(|&index| Some((index, config.policies.get(index)?)))
    }

    /// Whether the method has yet to decide.
    pub fn asks_method(&self, config: &Config) -> bool {
        self.policies(config).any(|(_, policy)| policy.matcher.methods.is_some())
    }

    /// What is left once the method is known.
    pub fn on_method(mut self, config: &Config, method: Option<&[u8]>) -> Self {
        self.policies.retain(|&index| {
            config.policies.get(index).is_some_and(|policy| policy.matcher.matches_method(method))
        });
        self
    }

    /// Whether any limit counts by the client's address.
    pub fn asks_address(&self, config: &Config) -> bool {
        self.policies(config)
            .flat_map(|(_, policy)| &policy.rate_limits)
            .any(|limit| matches!(limit.by, Identity::Ip { .. }))
    }
}
