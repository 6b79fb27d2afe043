//! Owns how much a pool's requests ask, and when that is more than it has. Knows no messages.

use super::holder::{Pool, SLICE_MAX};
use super::step::{AHEAD_MIN, HORIZON_US};

/// Demand is counted over that long.
const DEMAND_WINDOW_US: u64 = 250_000;
/// More is fetched when what is left would last shorter than that.
const LOW_WATER_US: u64 = 8_000;
/// As many asked at once are a rush; fewer are what a client sends for one page.
const RUSH: u32 = 8;

// === impl Pool ===

impl Pool {
    /// Whether more should be fetched before there is none.
    pub fn runs_low(&self, now_us: u64) -> bool {
        let ahead_us = LOW_WATER_US.max(u64::from(self.rtt_us).saturating_mul(4));
        let low = u64::from(self.rate).saturating_mul(ahead_us) / 1_000_000;
        self.is_busy()
            && now_us >= self.deny_until_us
            && u64::from(self.units)
                < low.saturating_add(u64::from(SLICE_MAX)).min(self.ahead() / 2)
    }

    pub(super) fn count(&mut self, now_us: u64) {
        let passed_us = now_us.saturating_sub(self.since_us);
        if passed_us >= DEMAND_WINDOW_US {
            self.recent = rate(self.asked, passed_us);
            self.rate = self.demand(now_us).midpoint(self.recent);
            (self.asked, self.since_us) = (0, now_us);
        }
    }

    /// Units a second: the higher of what was and what is, so that a rush is seen at once.
    pub(super) fn demand(&self, now_us: u64) -> u32 {
        let passed_us = now_us.saturating_sub(self.since_us);
        // What was is worth less the longer nothing came.
        let was = rate(self.rate, passed_us.saturating_mul(4).max(1_000_000));
        was.max(rate(self.asked, passed_us.max(self.window_us())))
    }

    fn window_us(&self) -> u64 {
        if self.asked >= RUSH { DEMAND_WINDOW_US } else { 4 * DEMAND_WINDOW_US }
    }

    pub(super) fn ahead(&self) -> u64 {
        horizon(self.rate.max(rate(self.asked, self.window_us())))
    }

    pub(super) fn is_busy(&self) -> bool {
        self.ahead() >= AHEAD_MIN
    }
}

pub(super) fn horizon(rate: u32) -> u64 {
    u64::from(rate).saturating_mul(HORIZON_US) / 1_000_000
}

fn rate(units: u32, per_us: u64) -> u32 {
    let rate = u64::from(units).saturating_mul(1_000_000) / per_us.max(1);
    u32::try_from(rate).unwrap_or(u32::MAX)
}
