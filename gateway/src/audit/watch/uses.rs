//! Owns which signatures by revoked keys were counted: each one once, however often the chain is read anew. Knows no
//! chain.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::audit::hash::Hash;
use tidegate_policy::audit::record::Head;

/// Uses that are remembered one by one: what a store may lose, and get back or not.
const RECENT_MAX: usize = 4_096;

/// What was counted.
pub struct Uses {
    counter: Counter,
    /// All up to there.
    floor: u64,
    /// And behind it these.
    recent: BTreeMap<u64, Hash>,
}

// === impl Uses ===

impl Uses {
    /// None was.
    pub fn new(counter: Counter) -> Self {
        Self { counter, floor: 0, recent: BTreeMap::new() }
    }

    /// A revoked key signed that record. Another record of that number counts as well.
    pub fn found(&mut self, at: Head) {
        if at.seq <= self.floor || self.recent.insert(at.seq, at.hash) == Some(at.hash) {
            return;
        }
        self.counter.inc();
        if self.recent.len() > RECENT_MAX
            && let Some((seq, _)) = self.recent.pop_first()
        {
            self.floor = seq;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_counts_once_and_another_record_in_its_place_anew() {
        let counter = Counter::default();
        let mut uses = Uses::new(counter.clone());
        let at = |seq: u64, what: &[u8]| Head { seq, hash: Hash::of(&[what]) };
        let many = u64::try_from(RECENT_MAX).expect("small") + 10;
        for _ in 0..2 {
            (1..=many).for_each(|seq| uses.found(at(seq, b"x")));
            assert_eq!((counter.get(), uses.floor, uses.recent.len()), (many, 10, RECENT_MAX));
        }
        uses.found(at(many, b"y"));
        assert_eq!(counter.get(), many + 1);
    }
}
