//! Owns how a pool is written: numbers in a row, little-endian.

use super::holder::Pool;
use super::out::Out;

/// As it is stored.
pub(super) const POOL_LEN: usize = 125;
/// The numbers of eight octets, which come first.
const WIDE_LEN: usize = 88;

// === impl Pool ===

impl Pool {
    /// As it lies in the process's shared data.
    pub fn to_bytes(&self) -> [u8; POOL_LEN] {
        let Out { epoch, units: [out, older], turns_us } = self.out;
        let wide = [
            self.holder,
            self.flying_us,
            self.patience_us,
            self.expires_us,
            turns_us,
            self.deny_until_us,
            self.seen_us,
            self.since_us,
            self.used_us,
            self.answered_us,
            u64::from(self.recent) | u64::from(older) << 32,
        ];
        let Self { seq, units, asked, rate, remaining, rtt_us, reduced, .. } = *self;
        let narrow = [epoch, seq, units, out, asked, rate, remaining, rtt_us, reduced];
        let mut bytes = [0; POOL_LEN];
        // Number by number: octet by octet a pool took a third of the instructions of a request that meets it.
        let (in_wide, rest) = bytes.split_at_mut(WIDE_LEN);
        for (to, number) in in_wide.as_chunks_mut::<8>().0.iter_mut().zip(wide) {
            *to = number.to_le_bytes();
        }
        let (in_narrow, last) = rest.as_chunks_mut::<4>();
        for (to, number) in in_narrow.iter_mut().zip(narrow) {
            *to = number.to_le_bytes();
        }
        if let Some(last) = last.first_mut() {
            *last = u8::from(self.scarce) | u8::from(self.denied) << 1;
        }
        bytes
    }

    /// Reads it again.
    pub fn from_bytes(bytes: &[u8; POOL_LEN]) -> Self {
        let (wide, rest) = bytes.as_chunks::<8>();
        let mut wide = wide.iter().map(|chunk| u64::from_le_bytes(*chunk));
        let mut next = || wide.next().unwrap_or(0);
        let [holder, flying_us, patience_us, expires_us] = [next(), next(), next(), next()];
        let [turns_us, deny_until_us, seen_us, since_us] = [next(), next(), next(), next()];
        let [used_us, answered_us] = [next(), next()];
        let mut pairs = [next(), next(), next(), next(), next()].into_iter();
        let mut two = || {
            let [a, b, c, d, e, f, g, h] = pairs.next().unwrap_or(0).to_le_bytes();
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        };
        let (recent, older) = two();
        let ((epoch, seq), (units, out)) = (two(), two());
        let ((asked, rate), (remaining, rtt_us)) = (two(), two());
        let (reduced, flags) = rest
            .split_first_chunk()
            .map_or((0, rest), |(reduced, flags)| (u32::from_le_bytes(*reduced), flags));
        let flags = flags.first().copied().unwrap_or(0);
        Self {
            holder,
            seq,
            flying_us,
            patience_us,
            units,
            out: Out { epoch, units: [out, older], turns_us },
            expires_us,
            deny_until_us,
            seen_us,
            used_us,
            answered_us,
            since_us,
            asked,
            rate,
            recent,
            remaining,
            rtt_us,
            reduced,
            scarce: flags & 1 != 0,
            denied: flags & 2 != 0,
            expired: 0,
        }
    }
}
