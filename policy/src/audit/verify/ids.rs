//! Owns whether an event's id stood in a chain before, as far as that is remembered. Knows no record.

use alloc::collections::{BTreeSet, VecDeque};

/// Among how many of the last events' ids one that comes twice is found: two segments.
pub const IDS_MAX: usize = 20_000;

/// The last ids, as 128 bits each.
#[derive(Default)]
pub(super) struct Ids {
    order: VecDeque<u128>,
    known: BTreeSet<u128>,
}

// === impl Ids ===

impl Ids {
    /// Whether the id is new among the last ones.
    pub(super) fn add(&mut self, id: &str) -> bool {
        // FNV-1a: two ids of one gateway's making do not meet in 128 bits, and who wants them to could
        // as well write one id twice.
        let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        let step = |hash: u128, byte| (hash ^ u128::from(byte)).wrapping_mul((1 << 88) | 0x13b);
        let mark = id.bytes().fold(start, step);
        if !self.known.insert(mark) {
            return false;
        }
        self.order.push_back(mark);
        if self.order.len() > IDS_MAX
            && let Some(old) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        true
    }
}
