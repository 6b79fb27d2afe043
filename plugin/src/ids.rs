//! Owns what has to be unique or unpredictable: decision ids and the entropy of one event.
//!
//! One draw of 128 random bits when the VM is configured, then a counter: a host call per request
//! would cost more than it gives.

use tidegate_policy::wire::DecisionId;

/// A source of ids, one per VM.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: u64,
    state: u64,
    count: u64,
}

// === impl Ids ===

impl Ids {
    /// Draws from the host's randomness.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        Ok(Self { prefix: getrandom::u64()?, state: getrandom::u64()?, count: 0 })
    }

    /// The VM's 64 random bits.
    pub(crate) fn vm(&self) -> u64 {
        self.prefix
    }

    /// A fresh id: the VM's 64 random bits in front, a count behind.
    pub(crate) fn decision(&mut self) -> DecisionId {
        self.count = self.count.wrapping_add(1);
        DecisionId::of_halves(self.prefix, self.count)
    }

    /// This VM's name among those of its process.
    pub(crate) fn worker(&self) -> u64 {
        self.prefix
    }

    /// 64 bits that differ from call to call (SplitMix64); spreads waits, guards nothing.
    pub(crate) fn entropy(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
