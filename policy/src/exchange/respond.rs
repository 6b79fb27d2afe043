//! Owns what the response of an admitted request is told: the limits that its client should know.

use alloc::vec::Vec;

use super::Asked;
use crate::config::Config;
use crate::fields::{Dialect, Field, Shown, X_REMAINING, is_stricter};
use crate::wire::LimitState;

/// What an admitted request leaves behind for its response.
#[derive(Debug, Default)]
pub(super) struct Told {
    limits: Vec<Kept>,
}

/// What the gateway said of one limit, without its name: the configuration has that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    asked: Asked,
    remaining: u64,
    next_us: u64,
    /// The units per period in force, if that is not what is configured.
    reduced: Option<u32>,
    denies: bool,
}

/// What a response has to carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The RateLimit fields.
    pub fields: Vec<Field>,
    /// The field of the upstream's that decides whether ours may be written at all, if one does.
    pub yields_to: Option<&'static str>,
}

// === impl Told ===

impl Told {
    /// Of a verdict: what clients may see of it.
    pub(super) fn of(config: &Config, kept: Vec<Kept>) -> Self {
        match config.answers.rate_limit_fields {
            Dialect::Off => Self::default(),
            Dialect::XDraft03 | Dialect::Draft10 => Self { limits: kept },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    pub(super) fn response(&self, config: &Config) -> Response {
        let yields_to =
            (config.answers.rate_limit_fields == Dialect::XDraft03).then_some(X_REMAINING);
        Response { fields: fields(config, &self.limits, None), yields_to }
    }
}

// === impl Response ===

impl Response {
    /// What to write, seeing what the upstream says in the field that decides. Fields that may
    /// stand several times are appended; of those that may not, the stricter ones stay.
    pub fn writes(&self, upstream: Option<&[u8]>) -> (&[Field], bool) {
        match upstream {
            None => (&self.fields, false),
            Some(theirs) if is_stricter(&self.fields, theirs) => (&self.fields, true),
            Some(_) => (&[], false),
        }
    }
}

/// The limits of a verdict that clients may see: what never denies them is not their business.
pub(super) fn kept(pairs: &[(&Asked, &LimitState)]) -> Vec<Kept> {
    let enforced = pairs.iter().filter(|(asked, _)| asked.is_enforced());
    enforced
        .map(|(asked, state)| Kept {
            asked: **asked,
            remaining: state.remaining,
            next_us: state.next_us,
            reduced: state.limit,
            denies: !state.allowed,
        })
        .collect()
}

/// Their fields, in the dialect of the configuration.
pub(super) fn fields(config: &Config, kept: &[Kept], retry_after_s: Option<u64>) -> Vec<Field> {
    let shown: Vec<Shown<'_>> = kept.iter().filter_map(|kept| shown(config, kept)).collect();
    config.answers.rate_limit_fields.fields(&shown, retry_after_s)
}

fn shown<'c>(config: &'c Config, kept: &Kept) -> Option<Shown<'c>> {
    let limit = config.policies.get(kept.asked.policy)?.rate_limits.get(kept.asked.limit)?;
    let configured = limit.quota.limit();
    Some(Shown {
        name: &limit.id,
        // Never more than configured, whoever says so.
        quota: kept.reduced.map_or(configured, |reduced| reduced.min(configured)),
        period_us: limit.quota.period_us(),
        burst: limit.quota.burst(),
        remaining: kept.remaining,
        next_us: kept.next_us,
        denies: kept.denies,
    })
}
