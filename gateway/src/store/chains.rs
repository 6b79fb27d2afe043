//! Owns what may be asked of a store that keeps audit chains, and how a chain's keys are spelled. Knows
//! neither records' content nor who signs.
//!
//! ```text
//! audit:{C}:head      where chain C ends
//! audit:{C}:seg:<n>   the records of segment n, a list
//! audit:{C}:ids:<n>   the numbers of its events by id, a hash
//! ```
//!
//! C is `region` or `region/environment`; no part of it can hold `{`, `}` or `:`. All keys of a chain lie
//! in one slot. None expires: what an auditor may ask for is removed by who archived it, and by nobody
//! else.

use tidegate_policy::audit::append::{Append, Outcome, Place};
use tidegate_policy::audit::record::ChainName;

use super::Call;

/// In how many segments ids are looked up by one append at most.
pub const SEGMENTS_MAX: u64 = 64;

/// A store's part that keeps chains.
pub trait Chains: Send + Sync {
    /// Appends all records or none, in one atomic step. Safe to repeat: an event that is in the chain
    /// is not appended again.
    fn append(&self, chain: &ChainName, append: &Append<'_>) -> Call<Outcome>;

    /// The number of the memory that holds the chain: one with another number may lack records that this one had. It is
    /// another one before the first call reaches that. `None` before the first connection, and where none can be lost.
    fn memory(&self, _chain: &ChainName) -> Option<u64> {
        None
    }

    /// Where the chain ends.
    fn place(&self, chain: &ChainName) -> Call<Place>;

    /// Records of a segment in order, `from` counted from 0 within it, at most `count`.
    fn records(&self, chain: &ChainName, segment: u64, from: u64, count: u64)
    -> Call<Vec<Vec<u8>>>;
}

/// The chain's head.
pub fn head_key(chain: &ChainName) -> String {
    format!("audit:{{{chain}}}:head")
}

/// The records of a segment.
pub fn segment_key(chain: &ChainName, segment: u64) -> String {
    format!("audit:{{{chain}}}:seg:{segment}")
}

/// The ids of a segment.
pub fn ids_key(chain: &ChainName, segment: u64) -> String {
    format!("audit:{{{chain}}}:ids:{segment}")
}

/// The segments whose ids an append looks up, the newest first.
pub fn looked_up(append: &Append<'_>) -> impl Iterator<Item = u64> {
    let oldest = append.segment.saturating_sub(SEGMENTS_MAX - 1).max(append.ids_from);
    (oldest.min(append.segment)..=append.segment).rev()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_policy::audit::hash::Hash;

    #[test]
    fn all_keys_of_a_chain_share_its_tag() {
        let chain = ChainName::new("eu/staging").expect("a name");
        assert_eq!(head_key(&chain), "audit:{eu/staging}:head");
        assert_eq!(segment_key(&chain, 7), "audit:{eu/staging}:seg:7");
        assert_eq!(ids_key(&chain, 7), "audit:{eu/staging}:ids:7");
    }

    #[test]
    fn ids_are_looked_up_in_a_bounded_number_of_segments() {
        let rows = [
            (0, 0, vec![0]),
            (5, 3, vec![5, 4, 3]),
            (5, 9, vec![5]),
            (100, 0, (37..=100).rev().collect()),
        ];
        for (segment, ids_from, expected) in rows {
            let append = Append {
                expected: Place::GENESIS,
                segment,
                ids_from,
                hash: Hash::GENESIS,
                lines: &[],
                refuted: &[],
            };
            assert_eq!(looked_up(&append).collect::<Vec<u64>>(), expected);
        }
    }
}
