//! Owns what becomes of a request some of whose limits are leased: those are asked of this Envoy's own
//! units first. One of them that denies ends it here; what none here can answer is asked of the
//! gateway, together with the limits that are always exact.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::take;

use super::ask::send;
use super::settle::carry_out;
use super::witness::is_drawn;
use super::{Act, Asked, Effects, Phase, Question, Whom};
use crate::audit::About;
use crate::config::Config;
use crate::identity::{Facts, Subject};
use crate::lease::slot::Key;
use crate::scope::Tenant;
use crate::wire::{self, DecideReply, LeaseCall, LimitCall, LimitState, Verdict};

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
    },
    /// There are none.
    Denied {
        /// How long none can be had, in µs.
        wait_us: u64,
    },
    /// There are none here, but a message of this worker is out that brings some: see [`Spend::joins`].
    Join,
    /// There are none here: the gateway decides.
    Ask {
        /// What the holder says and wants beside the request.
        leases: Vec<LeaseCall>,
    },
}

/// A leased limit whose units this request has.
pub(super) type Held = (Asked, LimitState);

// === impl LeaseName ===

impl LeaseName {
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
        let tenant = tenant.filter(|_| call.subject.is_of_tenant()).cloned().unwrap_or_default();
        let (policy, limit) = (asked.policy, asked.limit);
        let name = LeaseName { policy, limit, subject: call.subject.clone(), tenant };
        is_spent(config, asked, call).then_some(Spend { name, cost: call.cost, joins: false })
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
    answers: Vec<Spent>,
    entropy: u64,
    facts: Option<&Facts<'_>>,
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
        match if is_spent(config, &one, &call) { answers.next() } else { None } {
            Some(Spent::Taken { remaining }) => {
                question.held.push((one, state(&call, remaining, None)));
                if config.audits {
                    said.push((false, About { limit: call.id, subject: call.subject }));
                }
            }
            Some(Spent::Denied { wait_us }) => {
                denies = true;
                question.held.push((one, state(&call, 0, Some(wait_us))));
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
        let (v, id, claim) = (wire::VERSION, question.id, None);
        let (limits, leases, octets) = (Vec::new(), Vec::new(), Vec::new());
        let reply = DecideReply { v, id, verdict, limits, claim, leases, octets };
        let (phase, mut effects) = carry_out(config, &mut question, &reply, entropy);
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

/// Whether a limit's units are this Envoy's to spend.
fn is_spent(config: &Config, asked: &Asked, call: &LimitCall) -> bool {
    asked.is_enforced() && call.cost > 0 && is_leased(config, asked)
}

fn is_leased(config: &Config, asked: &Asked) -> bool {
    let policy = config.policies.get(asked.policy);
    policy.and_then(|policy| policy.rate_limits.get(asked.limit)).is_some_and(|limit| limit.leased)
}

fn state(call: &LimitCall, remaining: u64, wait_us: Option<u64>) -> LimitState {
    let interval_us = call.period_us.div_ceil(u64::from(call.limit.max(1)));
    LimitState {
        id: call.id.clone(),
        allowed: wait_us.is_none(),
        remaining,
        next_us: wait_us.unwrap_or(interval_us),
        reset_us: wait_us.unwrap_or(interval_us),
        retry_us: Some(wait_us.unwrap_or(0)),
        limit: None,
    }
}
