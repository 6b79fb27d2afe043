//! Owns which keys one call of a script names, and how the limits of a call fall apart into shards.
//! Knows neither their spelling nor the scripts' arguments.

use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::Subject;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use super::Region;
use super::script::Keys;
use crate::store::Charge;
use crate::store::keys::{self, Place};

/// One charge that owns what it names.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it stands in the message.
    pub index: usize,
    /// Who is counted.
    pub subject: Subject,
    /// `policy.limit`.
    pub limit_id: String,
    /// The limit's numbers.
    pub quota: Quota,
    algorithm: Algorithm,
    /// Units.
    pub cost: u32,
    /// Whether it counts for itself.
    pub alone: bool,
}

/// The charges of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    /// What no other shard is called.
    pub tag: String,
    /// In the message's order.
    pub items: Vec<Item>,
}

// === impl Item ===

impl Item {
    /// The charge that stands there in its message.
    pub fn of(index: usize, charge: &Charge<'_>) -> Self {
        Self {
            index,
            subject: charge.subject.clone(),
            limit_id: charge.limit_id.to_owned(),
            quota: charge.quota,
            algorithm: charge.algorithm,
            cost: charge.cost,
            alone: charge.alone,
        }
    }

    /// It again, or a look at its limit.
    pub fn charge(&self, looking: bool) -> Charge<'_> {
        let Self { subject, limit_id, quota, algorithm, cost, alone, .. } = self;
        let (quota, algorithm, alone) = (*quota, *algorithm, *alone);
        let cost = if looking { 0 } else { *cost };
        Charge { subject, limit_id, quota, algorithm, cost, alone }
    }
}

// === impl Shard ===

impl Shard {
    /// The charges by shard.
    pub fn of(region: &Region, scope: &Scope, charges: &[Charge<'_>]) -> Vec<Self> {
        let mut shards: Vec<Self> = Vec::new();
        for (index, charge) in charges.iter().enumerate() {
            let tag = Place::of(region.style, scope, charge.subject).mark();
            let item = Item::of(index, charge);
            match shards.iter_mut().find(|shard| shard.tag == tag) {
                Some(shard) => shard.items.push(item),
                None => shards.push(Self { tag, items: vec![item] }),
            }
        }
        shards
    }

    /// What tells its limits from those of other requests.
    pub fn name(&self) -> String {
        let names = self
            .items
            .iter()
            .map(|item| format!("{} {}", item.subject.name.as_str(), item.limit_id));
        names.collect::<Vec<_>>().join(" ")
    }

    /// The numbers of each.
    pub fn quotas(&self) -> Vec<Quota> {
        self.items.iter().map(|item| item.quota).collect()
    }

    /// All of them, or looks at their limits.
    pub fn charges(&self, looking: bool) -> Vec<Charge<'_>> {
        self.items.iter().map(|item| item.charge(looking)).collect()
    }
}

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

    /// The limits alone, of which the mark says that: no key of another kind has to lie where they do.
    pub fn told(&self, began: Option<f64>) -> Self {
        /// What stands in place of the number of a mark that no key names.
        const TOLD: u8 = 255;
        let number = if began.is_some() { TOLD } else { 0 };
        let mark_of = vec![number; self.limits.len()];
        Self { limits: self.limits.clone(), mark_of, began, ..Self::default() }
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
