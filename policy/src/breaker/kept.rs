//! Owns what lies in a place of a table of breakers: whose it is, when it was last used, and its octets. Knows
//! neither keys nor who writes them.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::process::Process;

/// What lies in a place of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// When it was last used, in ms.
    pub used_ms: u64,
    /// Whose it is.
    pub whose: Rc<str>,
    /// What the workers share of it.
    pub process: Process,
}

// === impl Kept ===

impl Kept {
    /// As octets. A name is at most 255 long.
    pub fn to_bytes(&self) -> Vec<u8> {
        let whose = self.whose.as_bytes();
        let len = u8::try_from(whose.len()).unwrap_or(0);
        let mut octets = self.used_ms.to_le_bytes().to_vec();
        octets.push(len);
        octets.extend(whose.iter().take(usize::from(len)));
        octets.extend(self.process.to_bytes());
        octets
    }

    /// `None` where nobody's lies.
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let (used, rest) = octets.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (whose, rest) = rest.split_at_checked(usize::from(*len))?;
        Some(Self {
            used_ms: u64::from_le_bytes(*used),
            whose: Rc::from(core::str::from_utf8(whose).ok()?),
            process: Process::from_bytes(rest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_nothing_else_is() {
        let kept = Kept { used_ms: 7, whose: Rc::from("acme%20ltd"), process: Process::default() };
        let octets = kept.to_bytes();
        assert_eq!(Kept::from_bytes(&octets), Some(kept));
        for len in 0..octets.len() {
            assert_eq!(Kept::from_bytes(octets.get(..len).unwrap_or_default()), None);
        }
    }
}
