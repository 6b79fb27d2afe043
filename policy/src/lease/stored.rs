//! Owns how a pool is written: numbers in a row, little-endian.

use super::holder::Pool;

/// As it is stored.
pub(super) const POOL_LEN: usize = 105;

// === impl Pool ===

impl Pool {
    /// As it lies in the process's shared data.
    pub fn to_bytes(&self) -> [u8; POOL_LEN] {
        let wide = [
            self.holder,
            self.flying_us,
            self.patience_us,
            self.expires_us,
            self.out_until_us,
            self.deny_until_us,
            self.seen_us,
            self.since_us,
            u64::from(self.recent),
        ];
        let narrow = [
            self.epoch,
            self.seq,
            self.units,
            self.out,
            self.asked,
            self.rate,
            self.remaining,
            self.rtt_us,
        ];
        let mut bytes = [0; POOL_LEN];
        let numbers = wide.map(u64::to_le_bytes).into_iter().flatten();
        let numbers = numbers.chain(narrow.map(u32::to_le_bytes).into_iter().flatten());
        for (to, from) in bytes.iter_mut().zip(numbers.chain([u8::from(self.scarce)])) {
            *to = from;
        }
        bytes
    }

    /// Reads it again.
    pub fn from_bytes(bytes: &[u8; POOL_LEN]) -> Self {
        let (wide, rest) = bytes.as_chunks::<8>();
        let mut wide = wide.iter().map(|chunk| u64::from_le_bytes(*chunk));
        let mut next = || wide.next().unwrap_or(0);
        let [holder, flying_us, patience_us, expires_us] = [next(), next(), next(), next()];
        let [out_until_us, deny_until_us, seen_us, since_us] = [next(), next(), next(), next()];
        let recent = u32::try_from(next()).unwrap_or(u32::MAX);
        let mut pairs = [next(), next(), next(), next()].into_iter();
        let mut two = || {
            let [a, b, c, d, e, f, g, h] = pairs.next().unwrap_or(0).to_le_bytes();
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        };
        let ((epoch, seq), (units, out)) = (two(), two());
        let ((asked, rate), (remaining, rtt_us)) = (two(), two());
        Self {
            holder,
            epoch,
            seq,
            flying_us,
            patience_us,
            units,
            out,
            expires_us,
            out_until_us,
            deny_until_us,
            seen_us,
            since_us,
            asked,
            rate,
            recent,
            remaining,
            rtt_us,
            scarce: rest.first() == Some(&1),
            expired: 0,
        }
    }
}
