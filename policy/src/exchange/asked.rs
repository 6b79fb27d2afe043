//! Owns what is to be known of a question beside its text: where it goes, how, and for how long it is waited for.

use super::{Exchange, Phase};
use crate::config::Config;

impl Exchange {
    /// Whether it matters when the question was sent; then [`Exchange::sent`] says so.
    pub fn is_timed(&self) -> bool {
        matches!(&self.phase, Phase::Asking(question) if question.terms.is_some())
    }

    /// Whether the question may be asked together with others: its answer comes as soon as theirs. A claim may wait for
    /// replicas, or for its home.
    pub fn is_brief(&self) -> bool {
        matches!(&self.phase, Phase::Asking(question) if question.claim.is_none())
    }

    /// How long the answer to the question is waited for, in ms.
    pub fn timeout_ms(&self, config: &Config) -> u32 {
        match &self.phase {
            Phase::Asking(question) => question.timeout_ms(config),
            _ => config.gateway.timeout_ms,
        }
    }

    /// The home region that the question goes to, by its index; `None` is this region's own gateway.
    pub fn home(&self, config: &Config) -> Option<usize> {
        match &self.phase {
            Phase::Asking(question) => question.home(config),
            _ => None,
        }
    }

    /// The question was sent, at this time in µs by the filter's clock.
    pub fn sent(&mut self, now_us: u64) {
        if let Phase::Asking(question) = &mut self.phase {
            question.sent(now_us);
        }
    }
}
