//! Owns what passes between an admitted request and its response: the limits that its client should
//! know, and what the response says that the request did cost.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::held::HeldClaim;
use super::owed::{Moment, Owed, Settlement};
use super::{Asked, Signal};
use crate::config::Config;
use crate::cost::ResponseSource;
use crate::fields::{Dialect, Field, Shown, X_REMAINING, is_stricter};
use crate::wire::LimitState;

/// What an admitted request leaves behind for its response.
#[derive(Debug, Default)]
pub(super) struct Told {
    limits: Vec<Standing>,
    owed: Option<Box<Owed>>,
    /// The claim that the answer ends.
    pub(super) claim: Option<Box<HeldClaim>>,
}

/// How one limit stands, without its name: the configuration has that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) asked: Asked,
    pub(super) allowed: bool,
    pub(super) remaining: u64,
    pub(super) next_us: u64,
    /// How long until this request would fit, in µs; `None` if it never will.
    pub(super) retry_us: Option<u64>,
    /// The units per period in force, if that is not what is configured.
    pub(super) reduced: Option<u32>,
    /// Whether nobody could read it: it admits, and nothing else is known.
    pub(super) unread: bool,
}

/// What a response has to carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The RateLimit fields.
    pub fields: Vec<Field>,
    /// The field of the upstream's that decides whether ours may be written at all, if one does.
    pub yields_to: Option<&'static str>,
    /// What is to be settled now.
    pub settlement: Option<Box<Settlement>>,
    /// What to count.
    pub signals: Vec<Signal>,
}

/// What a response says, as far as it was asked.
#[derive(Debug)]
pub struct Said<'a> {
    /// How far it has come.
    pub moment: Moment,
    /// The values of [`super::Exchange::wanted`], in its order.
    pub values: &'a [Option<Vec<u8>>],
    /// Now, in µs by the filter's clock; looked at only if something is owed.
    pub now_us: Option<u64>,
}

// === impl Told ===

impl Told {
    /// Of a verdict: what clients may see of it, and what is owed.
    pub(super) fn of(config: &Config, mut limits: Vec<Standing>, owed: Option<Box<Owed>>) -> Self {
        match config.answers.rate_limit_fields {
            Dialect::Off => Self { owed, ..Self::default() },
            Dialect::XDraft03 | Dialect::Draft10 => {
                limits.retain(Standing::is_shown);
                Self { limits, owed, claim: None }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.owed.is_none() && self.claim.is_none()
    }

    pub(super) fn wanted<'c>(&self, config: &'c Config, moment: Moment) -> Vec<&'c ResponseSource> {
        self.owed.as_ref().map_or_else(Vec::new, |owed| owed.wanted(config, moment))
    }

    /// Says everything once: what is left in `self` afterwards comes at a later moment.
    pub(super) fn response(&mut self, config: &Config, said: &Said<'_>) -> Response {
        let mut response = Response::default();
        if let Some(owed) = &mut self.owed {
            let Said { moment, values, now_us } = *said;
            let settlement = owed.settle(config, moment, values, now_us, &mut response.signals);
            response.settlement = settlement.map(Box::new);
        }
        self.owed.take_if(|owed| owed.is_settled() || said.moment == Moment::End);
        let limits = core::mem::take(&mut self.limits);
        if said.moment == Moment::Headers {
            response.fields = fields(config, &limits, None);
            response.yields_to =
                (config.answers.rate_limit_fields == Dialect::XDraft03).then_some(X_REMAINING);
        }
        response
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

// === impl Standing ===

impl Standing {
    /// As the gateway says it.
    pub(super) fn of(asked: &Asked, state: &LimitState) -> Self {
        Self {
            asked: *asked,
            allowed: state.allowed,
            remaining: state.remaining,
            next_us: state.next_us,
            retry_us: state.retry_us,
            reduced: state.limit,
            unread: state.unread,
        }
    }

    /// Whether clients may see it: what never denies them is not their business, and of what could not be read there is
    /// nothing to see.
    fn is_shown(&self) -> bool {
        self.asked.is_enforced() && !self.unread
    }

    /// Whether it stands in the way.
    pub(super) fn denies(&self) -> bool {
        self.asked.is_enforced() && !self.allowed
    }

    /// `policy.limit`.
    pub(super) fn name<'c>(&self, config: &'c Config) -> Option<&'c str> {
        self.asked.rate_limit(config).map(|limit| limit.id.as_str())
    }
}

/// The fields of those that clients may see, in the dialect of the configuration.
pub(super) fn fields(
    config: &Config,
    limits: &[Standing],
    retry_after_s: Option<u64>,
) -> Vec<Field> {
    let dialect = config.answers.rate_limit_fields;
    if dialect == Dialect::Off {
        return Vec::new();
    }
    let limits = limits.iter().filter(|limit| limit.is_shown());
    let shown: Vec<Shown<'_>> = limits.filter_map(|limit| shown(config, limit)).collect();
    dialect.fields(&shown, retry_after_s)
}

fn shown<'c>(config: &'c Config, standing: &Standing) -> Option<Shown<'c>> {
    let limit = standing.asked.rate_limit(config)?;
    let configured = limit.quota.limit();
    Some(Shown {
        name: &limit.id,
        // Never more than configured, whoever says so.
        quota: standing.reduced.map_or(configured, |reduced| reduced.min(configured)),
        period_us: limit.quota.period_us(),
        burst: limit.quota.burst(),
        remaining: standing.remaining,
        next_us: standing.next_us,
        denies: !standing.allowed,
        spelled: standing.reduced.is_none().then_some(&limit.spelled),
    })
}
