//! Owns what becomes of a request some of whose limits are leased: those are asked of this Envoy's own
//! units first. One of them that denies ends it here; what none here can answer is asked of the
//! gateway, together with the limits that are always exact.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::take;

use super::ask::{is_grpc, send};
use super::note::Aside;
use super::respond::Standing;
use super::settle::{admit, conclude, deny};
use super::witness::is_drawn;
use super::{Act, Asked, Effects, Phase, Question, Signal, Whom};
use crate::audit::About;
use crate::config::Config;
use crate::identity::{Facts, Subject};
use crate::lease::slot::Key;
use crate::scope::{CallerScope, Tenant};
use crate::wire::{self, DecisionId, LeaseCall, LimitCall, Verdict};

/// A limit for one subject, as the workers of an Envoy find its units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseName {
    /// The policy's index in the configuration.
    pub policy: usize,
    /// The limit's index within its policy.
    pub limit: usize,
    /// Who is counted.
    pub subject: Subject,
    /// The tenant, if the subject counts by one.
    pub tenant: Tenant,
}

/// Units that a request needs of a leased limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    /// Of what.
    pub name: LeaseName,
    /// How many.
    pub cost: u32,
    /// Whether the request may wait for units that another request's message will bring.
    pub joins: bool,
}

/// What this Envoy's own units say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spent {
    /// They are taken. They go back if the request is denied, or leaves.
    Taken {
        /// About how many are left for anybody.
        remaining: u64,
        /// Units per period that are in force, if they are fewer than configured.
        reduced: Option<u32>,
    },
    /// There are none.
    Denied {
        /// How long none can be had, in µs.
        wait_us: u64,
        /// Units per period that are in force, if they are fewer than configured.
        reduced: Option<u32>,
    },
    /// There are none here, but a message of this worker is out that brings some: see [`Spend::joins`].
    Join,
    /// There are none here: the gateway decides.
    Ask {
        /// What the holder says and wants beside the request.
        leases: Vec<LeaseCall>,
    },
}

/// Units that a limit is to be asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) asked: Asked,
    pub(super) subject: Subject,
    pub(super) cost: u32,
}

/// A request all of whose limits are leased, and of which nothing else is to be asked. Nearly always this Envoy's units
/// answer it; only if they do not is there a [`Question`].
#[derive(Debug)]
pub(super) struct Leasing {
    pub(super) id: DecisionId,
    pub(super) tenant: Tenant,
    /// Whether a circuit breaker is asked in the end.
    pub(super) gated: bool,
}

/// What this Envoy's own units say to a request, and what else is known at that moment.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) spends: Vec<Spend>,
    pub(super) answers: Vec<Spent>,
    pub(super) entropy: u64,
    pub(super) facts: Option<&'a Facts<'a>>,
    pub(super) caller: &'a CallerScope,
}

// === impl LeaseName ===

impl LeaseName {
    fn of(asked: &Asked, subject: Subject, tenant: &Tenant) -> Self {
        let tenant = if subject.is_of_tenant() { tenant.clone() } else { Tenant::None };
        Self { policy: asked.policy, limit: asked.limit, subject, tenant }
    }

    /// What is leased, with the limit's numbers; `None` if the configuration has no such limit.
    pub fn key(&self, config: &Config) -> Option<Key> {
        let limit = config.policies.get(self.policy)?.rate_limits.get(self.limit)?;
        Some(Key {
            id: limit.id.clone(),
            subject: self.subject.clone(),
            tenant: self.tenant.clone(),
            limit: limit.quota.limit(),
            period_us: limit.quota.period_us(),
            burst: limit.quota.burst(),
        })
    }
}

/// What a question needs of leased limits: those that may deny. In shadow they count exactly.
pub(super) fn spends(config: &Config, question: &Question) -> Vec<Spend> {
    if !config.has_leases() || !question.held.is_empty() {
        return Vec::new();
    }
    let tenant = question.terms.as_ref().map(|terms| &terms.scope.tenant);
    let spend = |(asked, call): (&Asked, &LimitCall)| {
        if !is_spent(config, asked, call.cost) {
            return None;
        }
        let name = LeaseName::of(asked, call.subject.clone(), tenant.unwrap_or(&Tenant::None));
        Some(Spend { name, cost: call.cost, joins: false })
    };
    let mut spends: Vec<_> =
        question.asked.iter().zip(&question.limits).filter_map(spend).collect();
    // What two limits wait for comes at two moments, and units of one would be held for the other.
    if let [one] = spends.as_mut_slice() {
        one.joins = !question.joined;
    }
    spends
}

/// Goes on with what this Envoy's units say; one answer per spend, in order.
pub(super) fn spent(
    config: &Config,
    mut question: Question,
    Said { answers, entropy, facts, .. }: Said<'_>,
) -> (Phase, Effects) {
    if matches!(answers.as_slice(), [Spent::Join]) {
        question.joined = true;
        if let Some(facts) = facts {
            // Nothing can be read of it later.
            question.learn(facts);
        }
        return (Phase::Spending(Box::new(question)), Effects::of(Act::Join, Vec::new()));
    }
    let mut answers = answers.into_iter();
    let (mut leases, mut denies) = (Vec::new(), false);
    // Limits that said something, with whether they deny.
    let mut said = Vec::new();
    let (asked, limits) = (take(&mut question.asked), take(&mut question.limits));
    for (one, call) in asked.into_iter().zip(limits) {
        match if is_spent(config, &one, call.cost) { answers.next() } else { None } {
            Some(Spent::Taken { remaining, reduced }) => {
                question.held.push(taken(config, one, (remaining, reduced)));
                if config.audits {
                    said.push((false, About { limit: call.id, subject: call.subject }));
                }
            }
            Some(Spent::Denied { wait_us, reduced }) => {
                denies = true;
                question.held.push(denied(one, (wait_us, reduced)));
                if config.audits {
                    said.push((true, About { limit: call.id, subject: call.subject }));
                }
            }
            Some(Spent::Ask { leases: mut riders }) => {
                leases.append(&mut riders);
                question.asked.push(one);
                question.limits.push(call);
            }
            Some(Spent::Join) | None => {
                question.asked.push(one);
                question.limits.push(call);
            }
        }
    }
    let verdict = if denies { Verdict::Deny } else { Verdict::Allow };
    // A request whose units are all here needs nothing more to be read of it.
    if let Some(facts) = facts {
        match denies {
            true => question.learn_kind(facts),
            false if !question.asked.is_empty() => question.learn(facts),
            false => {}
        }
    }
    if denies {
        // Nobody is asked about the others, and nothing is claimed.
        (question.asked, question.limits, question.claim) = (Vec::new(), Vec::new(), None);
    }
    if question.asked.is_empty() && question.claim.is_none() {
        question.terms = None;
        let (phase, mut effects) =
            conclude(config, &mut question, Vec::new(), (verdict, None), entropy);
        if config.audits && (denies || is_drawn(config, question.id, &effects.signals)) {
            said.retain(|(denied, _)| *denied == denies);
            let about = said.into_iter().map(|(_, about)| about).collect();
            effects.whom = Some(Box::new(Whom { tenant: question.tenant, about }));
        }
        return (phase, effects);
    }
    leases.truncate(wire::LEASES_MAX);
    send(config, question, leases, Vec::new())
}

// === impl Leasing ===

impl Leasing {
    /// Asks this Envoy's units.
    pub(super) fn ask(self, wishes: Vec<Wish>, signals: Vec<Signal>) -> (Phase, Effects) {
        // What two limits wait for comes at two moments, and units of one would be held for the other.
        let joins = wishes.len() == 1;
        let spend = |Wish { asked, subject, cost }| {
            let name = LeaseName::of(&asked, subject, &self.tenant);
            Spend { name, cost, joins }
        };
        let spends = wishes.into_iter().map(spend).collect();
        (Phase::Leasing(self), Effects::of(Act::Spend(spends), signals))
    }

    /// Goes on with what they say.
    pub(super) fn spent(self, config: &Config, said: Said<'_>) -> (Phase, Effects) {
        let Some(limits) = said.limits(config) else {
            let question = self.question(config, &said);
            return spent(config, question, said);
        };
        let denies = limits.iter().any(Standing::denies);
        let (phase, mut effects) = match denies {
            true => {
                let grpc = said.facts.is_some_and(is_grpc);
                deny(config, (self.id, grpc), &limits, Aside::default(), said.entropy)
            }
            false => admit(config, limits),
        };
        if config.audits && (denies || is_drawn(config, self.id, &effects.signals)) {
            let spends = said.spends.into_iter().zip(&said.answers);
            let spends = spends.filter(|(_, answer)| answer.denies() == denies);
            let about = spends.filter_map(|(spend, _)| {
                let limit = spend.asked().rate_limit(config)?.id.clone();
                Some(About { limit, subject: spend.name.subject })
            });
            effects.whom = Some(Box::new(Whom { tenant: self.tenant, about: about.collect() }));
        }
        (phase, effects)
    }

    /// What the gateway is asked in the end.
    fn question(self, config: &Config, said: &Said<'_>) -> Question {
        let wish = |spend: &Spend| Wish {
            asked: spend.asked(),
            subject: spend.name.subject.clone(),
            cost: spend.cost,
        };
        let wishes = said.spends.iter().map(wish);
        Question::new(config, (self.id, self.gated), said.caller, self.tenant, wishes)
    }
}

// === impl Said ===

impl Said<'_> {
    /// How the limits stand, if every one of them is answered here.
    fn limits(&self, config: &Config) -> Option<Vec<Standing>> {
        if self.answers.len() != self.spends.len() {
            return None;
        }
        let stand = |(spend, answer): (&Spend, &Spent)| match answer {
            Spent::Taken { remaining, reduced } => {
                Some(taken(config, spend.asked(), (*remaining, *reduced)))
            }
            Spent::Denied { wait_us, reduced } => Some(denied(spend.asked(), (*wait_us, *reduced))),
            Spent::Join | Spent::Ask { .. } => None,
        };
        self.spends.iter().zip(&self.answers).map(stand).collect()
    }
}

// === impl Spend ===

impl Spend {
    /// What it is of: in shadow nothing is leased.
    fn asked(&self) -> Asked {
        let LeaseName { policy, limit, .. } = self.name;
        Asked { policy, limit, shadow: false, soft: false }
    }
}

// === impl Spent ===

impl Spent {
    fn denies(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

/// Whether this Envoy's units may answer all of it.
pub(super) fn are_leased(config: &Config, wishes: &[Wish]) -> bool {
    config.has_leases() && wishes.iter().all(|wish| is_spent(config, &wish.asked, wish.cost))
}

/// Whether a limit's units are this Envoy's to spend.
fn is_spent(config: &Config, asked: &Asked, cost: u32) -> bool {
    let is_leased = || asked.rate_limit(config).is_some_and(|limit| limit.leased);
    asked.is_enforced() && cost > 0 && is_leased()
}

/// A limit whose units the request has.
fn taken(config: &Config, asked: Asked, (remaining, reduced): (u64, Option<u32>)) -> Standing {
    let next_us = asked.rate_limit(config).map_or(0, |limit| {
        let each = reduced.unwrap_or(limit.quota.limit()).max(1);
        limit.quota.period_us().div_ceil(u64::from(each))
    });
    Standing { asked, allowed: true, remaining, next_us, retry_us: Some(0), reduced, unread: false }
}

/// A limit of which there are no units.
fn denied(asked: Asked, (wait_us, reduced): (u64, Option<u32>)) -> Standing {
    let retry_us = Some(wait_us);
    Standing {
        asked,
        allowed: false,
        remaining: 0,
        next_us: wait_us,
        retry_us,
        reduced,
        unread: false,
    }
}
