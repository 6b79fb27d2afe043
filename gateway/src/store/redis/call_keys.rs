//! Owns which keys one call of a script names, and how the limits of a call fall apart into shards.
//! Knows neither their spelling nor the scripts' arguments.

use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use super::Region;
use super::script::Keys;
use crate::store::Charge;
use crate::store::keys::{self, Place};

// === impl Keys ===

impl Keys {
    /// The keys of these limits; with `settling` also where it is remembered that they were settled,
    /// and what was given back of them.
    pub fn of(
        region: &Region,
        scope: &Scope,
        charges: &[Charge<'_>],
        settling: Option<DecisionId>,
    ) -> Self {
        let mut names = Self::default();
        for charge in charges {
            let place = Place::of(region.style, scope, charge.subject);
            let key = place.rate_limit(scope, charge);
            if let Some(id) = settling {
                names.settled.push(keys::settled(&key, id));
                names.given_back.push(keys::given_back(&key));
            }
            names.limits.push(key);
            let number = if region.guarded() { names.mark_number(place.mark()) } else { 0 };
            names.mark_of.push(number);
        }
        names
    }

    fn mark_number(&mut self, mark: String) -> u8 {
        let known = self.marks.iter().position(|known| *known == mark);
        let index = known.unwrap_or_else(|| {
            self.marks.push(mark);
            self.marks.len().saturating_sub(1)
        });
        // At most 64 limits are in a message.
        u8::try_from(index.saturating_add(1)).unwrap_or(0)
    }
}
