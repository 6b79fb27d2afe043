//! Owns which circuit breaker applies to a request, and how a refusal of it is told.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::note::{Note, Noted};
use super::{Denial, worded_by};
use crate::config::Config;
use crate::identity::Facts;
use crate::mode::{Mechanism, Mode, Overrides, effective};
use crate::reason::Reason;
use crate::router::Matched;
use crate::wire::DecisionId;

/// The circuit breaker of a request: that of the first policy that matches and has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// The policy's index in the configuration.
    pub policy: usize,
    /// The breaker's.
    pub breaker: usize,
    /// Whether it may refuse.
    pub enforced: bool,
    /// Of a breaker that is one for each of many: whose. `None` if the request names nobody, or if it is one
    /// for all.
    pub whose: Option<Rc<str>>,
}

/// What a worker and its process know of circuit breakers.
pub trait Known: Debug {
    /// Whether this one lets nothing pass by now. Asked only of requests that would claim a key.
    fn is_shut(&self, circuit: &Circuit) -> bool;

    /// Gives leave, where that needs no more than a look; else it is asked for by [`super::Act::Permit`]. `grpc`: as
    /// there.
    fn grants(&self, circuit: &Circuit, grpc: bool) -> bool;
}

// === impl Circuit ===

impl Circuit {
    /// The one that applies, if one does.
    pub fn of(
        config: &Config,
        overrides: &Overrides,
        matched: &Matched,
        facts: &Facts<'_>,
    ) -> Option<Self> {
        if config.circuit_breakers.is_empty() {
            return None;
        }
        matched.policies(config).find_map(|(index, policy)| {
            let breaker = policy.circuit_breaker?;
            let mode =
                effective(policy.rollout_others, &policy.name, Mechanism::Breaker, None, overrides);
            let enforced = mode == Mode::Enforce;
            (mode != Mode::Off).then(|| {
                let whose = policy.circuit_by.as_ref().and_then(|by| by.value(facts));
                Self { policy: index, breaker, enforced, whose }
            })
        })
    }

    /// The answer to a request that it refuses, and the line that says why. It makes sense to come
    /// again in `wait_ms`, if that is known.
    pub fn refusal(
        &self,
        config: &Config,
        id: DecisionId,
        wait_ms: Option<u64>,
        grpc: bool,
    ) -> (Denial, Note) {
        let name = config.circuit_breakers.get(self.breaker).map(|breaker| breaker.name.clone());
        let names: Vec<_> = name.into_iter().collect();
        let reason = Reason::CircuitOpen;
        let denial = Denial {
            reason,
            id,
            violated: names.clone(),
            retry_after_s: Some(wait_ms.map_or(1, |wait_ms| wait_ms.div_ceil(1_000)).max(1)),
            fields: Vec::new(),
            grpc,
            worded_by: worded_by(config, [self.policy].into_iter()),
            detail: None,
            stored_status: None,
            fallback: None,
            is_paid: false,
        };
        let note = Note {
            verdict: Noted::Denied,
            reason,
            cause: None,
            rungs: Vec::new(),
            limits: names,
            would_deny: Vec::new(),
            soft: Vec::new(),
            id,
        };
        (denial, note)
    }
}
