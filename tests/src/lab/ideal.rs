//! Owns the bucket that admissions are held against: what a limit admits at most, whoever asks where.

use super::SECOND;

/// A limit's numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// Units per period.
    pub limit: u64,
    /// In ns.
    pub period_ns: u64,
    /// Units that may come at once.
    pub burst: u64,
}

/// At most `burst` units, of which `limit / period` come back.
#[derive(Debug, Clone)]
pub struct Ideal {
    numbers: Numbers,
    level: f64,
    at_ns: u64,
    /// What may come on top, and until when: what was leased out of a memory that is lost.
    credit: f64,
    credit_until_ns: u64,
    /// By how much more was taken than there was.
    pub worst: f64,
}

// === impl Ideal ===

impl Ideal {
    /// A full one.
    pub fn new(numbers: Numbers) -> Self {
        let level = numbers.burst as f64;
        Self { numbers, level, at_ns: 0, credit: 0.0, credit_until_ns: 0, worst: 0.0 }
    }

    fn at(&mut self, now_ns: u64) {
        let passed_ns = now_ns.saturating_sub(self.at_ns) as f64;
        let back = passed_ns * self.rate();
        self.level = (self.level + back).min(self.numbers.burst as f64);
        self.at_ns = self.at_ns.max(now_ns);
        if now_ns >= self.credit_until_ns {
            self.credit = 0.0;
        }
    }

    fn rate(&self) -> f64 {
        self.numbers.limit as f64 / self.numbers.period_ns as f64
    }

    /// One that costs `units` was admitted.
    pub fn admit(&mut self, now_ns: u64, units: u64) {
        self.at(now_ns);
        self.level -= units as f64;
        if self.level < 0.0 && self.credit > 0.0 {
            let of_credit = self.credit.min(-self.level);
            (self.credit, self.level) = (self.credit - of_credit, self.level + of_credit);
        }
        self.worst = self.worst.max(-self.level);
    }

    /// Whether it would admit one that costs 1; takes it if so.
    pub fn would_admit(&mut self, now_ns: u64) -> bool {
        self.at(now_ns);
        let admits = self.level >= 1.0;
        if admits {
            self.level -= 1.0;
        }
        admits
    }

    /// The store's memory is lost: it begins anew, and what is leased, which is no more than was left, lives on for
    /// `lease_ns` at most.
    pub fn forgets(&mut self, now_ns: u64, lease_ns: u64) {
        self.at(now_ns);
        self.credit += self.level.max(0.0);
        self.credit_until_ns = now_ns + lease_ns;
        self.level = self.numbers.burst as f64;
    }

    /// The store's clock is set forward: it gives that time's units besides.
    pub fn leaps(&mut self, now_ns: u64, by_ns: u64, lease_ns: u64) {
        self.at(now_ns);
        self.credit += (by_ns as f64 * self.rate()).min(self.numbers.burst as f64);
        self.credit_until_ns =
            now_ns + lease_ns.max((self.numbers.burst as f64 / self.rate()) as u64) + SECOND;
    }
}

/// A key's hash.
pub fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
