//! Owns how far ahead of now a stored arrival time may honestly lie, whoever charged it: what tells a
//! filter with other numbers for the same limit from a clock that stepped back.

use super::Pace;

/// The span of the largest numbers that charged a bucket while it was not full, as a power of two of
/// µs. Stored behind the arrival time.
///
/// Without it a limit of a small span would take what a larger one of the same name charged for the
/// mark of a clock that stepped back, and forget it: two filters that disagree would then admit
/// without end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach(u8);

// === impl Reach ===

impl Reach {
    /// Not written down, so that nothing is taken for a clock's fault.
    pub const UNKNOWN: Self = Self(0);

    /// Of one limit's numbers, whose longest span is above 0.
    pub fn of(pace: Pace, warm: Pace) -> Self {
        let span = if pace.span > warm.span { pace.span } else { warm.span };
        // What `math.frexp` gives: 2^exponent is above the span, and at most twice as much.
        let exponent = (span.to_bits() >> 52) & 0x7ff;
        Self(u8::try_from(exponent.saturating_sub(1_022)).unwrap_or(u8::MAX))
    }

    /// What was stored; 0 if nothing was known.
    pub(crate) fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// The span of the largest numbers that are known, of a limit whose own these are.
    pub(crate) fn span_us(self, pace: Pace, warm: Pace) -> f64 {
        if self == Self::UNKNOWN {
            f64::INFINITY
        } else if self > Self::of(pace, warm) {
            self.power_us()
        } else if pace.span > warm.span {
            pace.span
        } else {
            warm.span
        }
    }

    fn power_us(self) -> f64 {
        f64::from_bits((u64::from(self.0) + 1_023) << 52)
    }

    /// What is stored; `None` if nothing is.
    pub(crate) fn byte(self) -> Option<u8> {
        Some(self.0).filter(|_| self != Self::UNKNOWN)
    }

    /// The latest honest arrival time for who has reach `own` and would go up to `ceiling`.
    pub(super) fn ceiling(self, own: Self, now: f64, ceiling: f64) -> f64 {
        if self == Self::UNKNOWN {
            f64::INFINITY
        } else if self > own {
            now + self.power_us() + self.power_us()
        } else {
            ceiling
        }
    }
}
