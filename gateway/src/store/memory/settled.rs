//! Owns which decisions were settled lately on which limits, in a bounded place. Knows no limits.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use tidegate_policy::limit::refund::REMEMBERED_US;
use tidegate_policy::wire::DecisionId;

/// A decision's id is random, so beside it a digest tells its limits apart.
type Mark = (DecisionId, u64);

/// What was settled. Whoever sends a settlement again does so within seconds. Where so many others come meanwhile that it has
/// been thrown out it is carried out once more: that is what the bound costs. It is a million by default, so within the
/// three tries of a message more than a hundred thousand a second would have to come.
pub struct Settled {
    most: usize,
    hasher: RandomState,
    until_us: HashMap<Mark, u64>,
    /// In the order in which they came.
    order: VecDeque<Mark>,
}

// === impl Settled ===

impl Settled {
    /// Remembers that many at most, the last ones.
    pub fn new(most: usize) -> Self {
        let (until_us, order) = (HashMap::new(), VecDeque::new());
        Self { most, hasher: RandomState::new(), until_us, order }
    }

    /// Whether it is the first time for this decision and limit; from now on it is not.
    pub fn is_first(&mut self, id: DecisionId, limit_key: &str, now_us: u64) -> bool {
        let mark = (id, self.hasher.hash_one(limit_key));
        if self.until_us.get(&mark).is_some_and(|until_us| *until_us > now_us) {
            return false;
        }
        while let Some(oldest) = self.order.front() {
            let is_over = self.until_us.get(oldest).is_none_or(|until_us| *until_us <= now_us);
            if !is_over && self.order.len() < self.most {
                break;
            }
            self.until_us.remove(oldest);
            self.order.pop_front();
        }
        self.until_us.insert(mark, now_us.saturating_add(REMEMBERED_US));
        self.order.push_back(mark);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_settled_once_per_limit_for_a_minute_or_until_too_many_others_came() {
        let mut settled = Settled::new(3);
        let [one, two] = [1, 2].map(DecisionId::new);
        assert!(settled.is_first(one, "a", 0) && settled.is_first(one, "b", 0));
        assert!(!settled.is_first(one, "a", REMEMBERED_US - 1));
        assert!(settled.is_first(one, "a", REMEMBERED_US), "forgotten by then");
        for limit in ["a", "b", "c"] {
            assert!(settled.is_first(two, limit, REMEMBERED_US), "{limit}");
        }
        assert!(!settled.is_first(two, "a", REMEMBERED_US), "among the last three");
        assert!(settled.is_first(one, "a", REMEMBERED_US), "the oldest gave way");
        assert!((settled.order.len(), settled.until_us.len()) == (3, 3));
    }
}
