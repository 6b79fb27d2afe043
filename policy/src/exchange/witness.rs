//! Owns what of a request the filter alone can tell the audit chain: denials that it decided itself, rungs of the
//! ladder, and a share of what it let go on. What the gateway decided the gateway records.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Act, Asked, Effects, Exchange, Idempotent, Outcome, Question, Signal};
use crate::audit::testimony::Testimony;
use crate::audit::{About, Action, Durability};
use crate::config::Config;
use crate::reason::Reason;
use crate::scope::Tenant;
use crate::wire::{DecisionId, LimitCall};

/// Whom a decision is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Whom {
    /// Whose request it is.
    pub tenant: Tenant,
    /// The limits that may have denied, with whom they count.
    pub about: Vec<About>,
}

/// What a decision is told as, beside whom it is about.
struct Told {
    action: Action,
    outcome: &'static str,
    names: Vec<String>,
    share_bp: u16,
    durability: Durability,
}

// === impl Whom ===

impl Whom {
    /// Those whom the question's enforced limits count.
    pub(super) fn of(question: &Question) -> Self {
        Self::told(&question.tenant, question.asked.iter().zip(&question.limits))
    }

    /// Whether its limits are these.
    fn names_all(&self, names: &[String]) -> bool {
        self.about.iter().map(|about| &about.limit).eq(names)
    }

    fn told<'q>(tenant: &Tenant, limits: impl Iterator<Item = (&'q Asked, &'q LimitCall)>) -> Self {
        let about = limits
            .filter(|(asked, _)| asked.is_enforced())
            .map(|(_, call)| About { limit: call.id.clone(), subject: call.subject.clone() })
            .collect();
        Self { tenant: tenant.clone(), about }
    }
}

// === impl Exchange ===

impl Exchange {
    /// What the audit chain is to be told of what follows, if anything. `whom` is taken from the effects.
    pub fn testimony(
        &self,
        config: &Config,
        effects: &Effects,
        whom: Option<Box<Whom>>,
    ) -> Option<Box<Testimony>> {
        if !config.audits {
            return None;
        }
        let told = match &effects.act {
            Act::Deny(denial) if self.has_verdict && is_the_gateways(denial.reason) => return None,
            Act::Deny(denial) => {
                let is_told = whom.as_ref().is_some_and(|whom| whom.names_all(&denial.violated));
                let names = if is_told { Vec::new() } else { denial.violated.clone() };
                Told::of(Action::Deny, denial.reason, names)
            }
            Act::Pass | Act::Resume => self.went_on(config, effects)?,
            _ => return None,
        };
        let note = effects.note.as_ref();
        let Whom { tenant, about } = whom.map(|whom| *whom).unwrap_or_default();
        let Told { action, outcome, names, share_bp, durability } = told;
        // At once where it will stay: each request that is told of pays for every move.
        Some(Box::new(Testimony {
            action,
            outcome,
            tenant,
            decision: self.id,
            cause: note.and_then(|note| note.cause),
            rungs: note.map(|note| note.rungs.clone()).unwrap_or_default(),
            names,
            text: String::new(),
            share_bp,
            durability,
            config: None,
            about,
        }))
    }

    fn went_on(&self, config: &Config, effects: &Effects) -> Option<Told> {
        if let Some(note) = effects.note.as_ref().filter(|note| !note.rungs.is_empty()) {
            return Some(Told::of(Action::Rung, note.reason, note.limits.clone()));
        }
        let id = self.id?;
        let drawn = drawn(config, id, &effects.signals, self.passed);
        let (mut share_bp, mut names) = (0, Vec::new());
        for policy in drawn.filter_map(|policy| config.policies.get(policy)) {
            share_bp = policy.audited_allows_bp.max(share_bp);
            names.push(policy.name.clone());
        }
        let (action, outcome, durability) = (Action::Allow, "ok", Durability::Sampled);
        (!names.is_empty()).then_some(Told { action, outcome, names, share_bp, durability })
    }
}

// === impl Told ===

impl Told {
    fn of(action: Action, reason: Reason, names: Vec<String>) -> Self {
        let (outcome, durability) = (reason.as_str(), Durability::Async);
        Self { action, outcome, names, share_bp: 0, durability }
    }
}

/// Whether any policy wants to be told of this request if it goes on. What its circuit breaker says is still to
/// come, and counts nobody.
pub(super) fn is_drawn(config: &Config, id: DecisionId, signals: &[Signal]) -> bool {
    config.audits && drawn(config, id, signals, None).next().is_some()
}

/// The policies that let the request go on and whose share it falls into; `passed` is the one whose circuit
/// breaker did.
fn drawn(
    config: &Config,
    id: DecisionId,
    signals: &[Signal],
    passed: Option<usize>,
) -> impl Iterator<Item = usize> {
    let draw = draw_bp(id);
    let of = |signal: &Signal| match *signal {
        Signal::Decided {
            policy,
            outcome:
                Outcome::Allowed | Outcome::LeaseAllowed | Outcome::ShadowDenied | Outcome::SoftExceeded,
        } => Some(policy),
        Signal::Idempotency { policy, outcome: Idempotent::Fresh | Idempotent::TakenOver } => {
            Some(policy)
        }
        _ => None,
    };
    // A request pays for this: it is gone through again rather than gathered.
    let all = move || signals.iter().filter_map(of).chain(passed);
    let wants = move |policy: usize| {
        config.policies.get(policy).is_some_and(|policy| draw < policy.audited_allows_bp)
    };
    let is_first = move |at: usize, policy: usize| !all().take(at).any(|other| other == policy);
    all()
        .enumerate()
        .filter(move |(at, policy)| wants(*policy) && is_first(*at, *policy))
        .map(|(_, policy)| policy)
}

/// 0 to 9,999, by the id alone: anybody can check later that the sample was no choice. SplitMix64's finish.
fn draw_bp(id: DecisionId) -> u16 {
    let [upper, lower] = id.halves();
    let mut bits = upper ^ lower;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u16::try_from((bits ^ (bits >> 31)) % 10_000).unwrap_or_default()
}

/// Whether the gateway records a denial for this reason, where it gave the verdict.
fn is_the_gateways(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::QuotaExceeded
            | Reason::TemporaryReducedCapacity
            | Reason::ServiceOverloaded
            | Reason::IdempotencyConflict
    )
}
