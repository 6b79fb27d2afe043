//! Owns the question: every limit that applies to a request, in one message, or the reason to
//! answer at once.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::claim::{self, Claiming, Hashing, Wanted};
use super::judge::Over;
use super::ladder::{Fall, fall};
use super::lease::{self, Leasing, Wish};
use super::note::{Aside, denied, worded_by};
use super::owed::{Charged, Terms, any_told_later};
use super::respond::Told;
use super::{Act, Asked, Denial, Effects, Outcome, Phase, Question, Signal};
use crate::config::{Config, Policy, RateLimit};
use crate::identity::{Facts, Subject};
use crate::mode::{Mechanism, Mode, Overrides, effective};
use crate::reason::Reason;
use crate::router::Matched;
use crate::scope::{CallerScope, Tenant};
use crate::stages::{Identity, Outcomes, Stage, Verdict};
use crate::wire::{self, DecideRequest, DecisionId, LeaseCall, LimitCall};

/// As many limits apply to nearly every request at most.
const WISHES: usize = 4;

/// Collects every limit that applies, or finds a reason to answer at once. `gated`: says whether the circuit
/// breaker that is asked in the end is known to refuse, if one is asked.
pub(super) fn ask(
    config: &Config,
    overrides: &Overrides,
    matched: &Matched,
    facts: &Facts<'_>,
    caller: &CallerScope,
    (id, gated): (DecisionId, Option<&dyn Fn() -> bool>),
) -> (Phase, Effects) {
    let mut signals = Vec::new();
    let mut aside = Aside::default();
    let mut wishes = Vec::with_capacity(WISHES);
    let mut tenant = Tenant::None;
    // The limits that deny for want of an identity, with their policies.
    let mut lacking: Vec<(usize, String)> = Vec::new();
    for (index, policy) in matched.policies(config) {
        let shadow = match mode(policy, facts, overrides) {
            Mode::Off => continue,
            Mode::Shadow => true,
            Mode::Enforce => false,
        };
        for (place, limit) in policy.rate_limits.iter().enumerate() {
            match limit.by.counted(facts) {
                Some(counted) => {
                    let asked = Asked { policy: index, limit: place, shadow, soft: limit.soft };
                    let priced = limit.cost.before(facts);
                    if priced.malformed {
                        signals.push(Signal::CostMalformed { policy: index, limit: place });
                    }
                    wishes.push(Wish { asked, subject: counted.subject, cost: priced.units });
                    if counted.tenant != Tenant::None {
                        tenant = counted.tenant;
                    }
                }
                // Who is not known is not counted, and a soft limit denies nobody.
                None if limit.soft => {}
                None if shadow => {
                    signals.push(Signal::Decided { policy: index, outcome: Outcome::ShadowDenied });
                    aside.would_deny.push(limit.id.clone());
                    aside.missing = true;
                }
                None => {
                    if lacking.last().is_none_or(|(policy, _)| *policy != index) {
                        let outcome = Outcome::IdentityMissing;
                        signals.push(Signal::Decided { policy: index, outcome });
                    }
                    lacking.push((index, limit.id.clone()));
                }
            }
        }
    }
    let identity = if lacking.is_empty() { Identity::Known } else { Identity::Missing };
    if (Outcomes { identity, ..Outcomes::NONE }).verdict() == Verdict::Deny(Stage::Identity) {
        let denial = Denial {
            reason: Reason::ClientIdentityRequired,
            id,
            worded_by: worded_by(config, lacking.iter().map(|(policy, _)| *policy)),
            violated: lacking.into_iter().map(|(_, limit)| limit).collect(),
            retry_after_s: None,
            fields: Vec::new(),
            grpc: is_grpc(facts),
            detail: None,
            stored_status: None,
            fallback: None,
            is_paid: false,
        };
        return denied(denial, None, aside, signals);
    }
    let draft = match claim::wanted(config, overrides, matched, facts, id, &mut signals) {
        Wanted::Nothing => None,
        Wanted::Claim(draft, named) => {
            tenant = named;
            Some(draft.only_looks(gated.is_some_and(|is_shut| is_shut())))
        }
        Wanted::Refused(denial) => {
            return denied(Denial { grpc: is_grpc(facts), ..*denial }, None, aside, signals);
        }
    };
    if wishes.is_empty() && draft.is_none() {
        return nothing_to_ask(id, aside, signals);
    }
    if draft.is_none() && aside == Aside::default() && lease::are_leased(config, &wishes) {
        return Leasing { id, tenant, gated: gated.is_some() }.ask(wishes, signals);
    }
    let wishes = wishes.into_iter();
    let mut question =
        Question { aside, ..Question::new(config, (id, gated.is_some()), caller, tenant, wishes) };
    // Where headers were left unread, nobody may ever have to be told of them.
    if facts.peek.0.is_none() {
        question.learn(facts);
    }
    match draft {
        Some(draft) if facts.has_body => {
            let hashing = Phase::Hashing(Box::new(Hashing { question, draft }));
            (hashing, Effects::of(Act::Collect, signals))
        }
        Some(draft) => {
            put(config, Question { claim: Some(draft.finish()), ..question }, None, signals)
        }
        None => put(config, question, Some(facts), signals),
    }
}

/// Puts the question, if there is anything to ask. `facts`: if the request has just come.
pub(super) fn put(
    config: &Config,
    mut question: Question,
    facts: Option<&Facts<'_>>,
    signals: Vec<Signal>,
) -> (Phase, Effects) {
    let spends = lease::spends(config, &question);
    if spends.is_empty() {
        if let Some(facts) = facts {
            question.learn(facts);
        }
        return send(config, question, Vec::new(), signals);
    }
    (Phase::Spending(Box::new(question)), Effects::of(Act::Spend(spends), signals))
}

/// Asks the gateway, with what a holder of leased limits has to say beside.
pub(super) fn send(
    config: &Config,
    mut question: Question,
    leases: Vec<LeaseCall>,
    signals: Vec<Signal>,
) -> (Phase, Effects) {
    let Some(mut terms) = question.terms.take() else {
        return nothing_to_ask(question.id, question.aside, signals);
    };
    if question.limits.is_empty() && question.claim.is_none() {
        return nothing_to_ask(question.id, question.aside, signals);
    }
    if question.limits.len() > wire::LIMITS_MAX {
        let why = Fall { reason: Reason::TooManyLimits, retry_ms: None };
        return fall(config, question, why, signals);
    }
    // Limits are this region's: they are asked first, and the tenant's home only if they admit.
    let mut home = question.claim.as_ref().and_then(|_| config.homes.elsewhere(&terms.scope));
    if home.is_some() && !question.limits.is_empty() {
        question.later = question.claim.take();
        home = None;
    }
    let own = terms.scope.region.clone();
    if let Some(home) = home.and_then(|index| config.homes.get(index)) {
        terms.scope.region = Some(home.region.clone());
    }
    let message = DecideRequest {
        v: wire::VERSION,
        id: question.id,
        scope: terms.scope,
        timeout_ms: question.within_ms(config, home),
        traceparent: terms.traceparent,
        request_id: terms.request_id,
        limits: core::mem::take(&mut question.limits),
        claim: question.claim.as_ref().and_then(|claim| claim.call(config)),
        leases,
    };
    let act = Act::Ask(wire::encode(&message));
    question.limits = message.limits;
    let is_settled = question.gated
        || config.sync_events.is_some_and(|sync| sync.refuses)
        || question.claim.is_some()
        || question.later.is_some()
        || any_told_later(config, &question.asked);
    question.terms = is_settled.then_some(Terms {
        scope: CallerScope { region: own, ..message.scope },
        traceparent: message.traceparent,
        request_id: message.request_id,
        // Of the question before, until this one is sent.
        sent_us: terms.sent_us,
    });
    (Phase::Asking(Box::new(question)), Effects::of(act, signals))
}

/// The mode in force for a policy's limits.
fn mode(policy: &Policy, facts: &Facts<'_>, overrides: &Overrides) -> Mode {
    let is_shared = policy.rollout.share_bp < 10_000 || !overrides.flags.is_empty();
    let sticky = || match &policy.rollout_by {
        Some(by) => by.subject(facts),
        None => policy.rate_limits.iter().find_map(|limit| limit.by.subject(facts)),
    };
    let sticky = is_shared.then(sticky).flatten();
    let identity = sticky.as_ref().map(|subject| subject.name.as_str().as_bytes());
    effective(policy.rollout, &policy.name, Mechanism::RateLimit, identity, overrides)
}

// === impl Question ===

impl Question {
    /// About what was wished for, and nothing more.
    pub(super) fn new(
        config: &Config,
        (id, gated): (DecisionId, bool),
        caller: &CallerScope,
        tenant: Tenant,
        wishes: impl Iterator<Item = Wish>,
    ) -> Self {
        let audited = if config.audits { tenant.clone() } else { Tenant::None };
        let terms = Terms {
            scope: CallerScope { tenant, ..caller.clone() },
            traceparent: None,
            request_id: None,
            sent_us: None,
        };
        let call = |wish: Wish| {
            let limit = wish.asked.rate_limit(config)?;
            Some((wish.asked, call(limit, wish.subject, wish.cost, !wish.asked.is_enforced())))
        };
        let (asked, limits) = wishes.filter_map(call).unzip();
        Self {
            id,
            tenant: audited,
            asked,
            grpc: false,
            unread: true,
            limits,
            receipts: Vec::new(),
            aside: Aside::default(),
            terms: Some(terms),
            gated,
            claim: None,
            later: None,
            charged: None,
            held: Vec::new(),
            joined: false,
        }
    }

    /// Learns what the gateway is told of the request's headers, and what a denial has to know of them.
    pub(super) fn learn(&mut self, facts: &Facts<'_>) {
        let unread = self.unread;
        self.learn_kind(facts);
        if let Some(terms) = self.terms.as_mut().filter(|_| unread) {
            terms.traceparent = facts.token("traceparent");
            terms.request_id = facts.token("x-request-id");
        }
    }

    /// Learns what a denial has to know of the request's headers.
    pub(super) fn learn_kind(&mut self, facts: &Facts<'_>) {
        if core::mem::take(&mut self.unread) {
            self.grpc = is_grpc(facts);
        }
    }

    /// How long its answer is waited for, in ms.
    pub(super) fn timeout_ms(&self, config: &Config) -> u32 {
        self.within_ms(config, self.home(config))
    }

    fn within_ms(&self, config: &Config, home: Option<usize>) -> u32 {
        let more_ms = self.claim.as_ref().map_or(0, |claim| claim.patience_ms(config));
        let home = home.and_then(|index| config.homes.get(index));
        let way_ms = home.map_or(config.gateway.timeout_ms, |home| home.timeout_ms);
        way_ms.saturating_add(more_ms)
    }

    /// The home region that is asked, if it is another one: only a claim has one.
    pub(super) fn home(&self, config: &Config) -> Option<usize> {
        self.claim.as_ref()?;
        config.homes.elsewhere(&self.terms.as_ref()?.scope)
    }

    /// Asks the tenant's home for the claim, now that the limits admit. What they said waits with it, and
    /// what gives back what they `charged`.
    pub(super) fn asks_home(
        &mut self,
        config: &Config,
        mut claim: Box<Claiming>,
        (over, charged): (Over, Option<Box<Charged>>),
        signals: Vec<Signal>,
    ) -> (Phase, Effects) {
        claim.over = Some(Box::new(over));
        let question = Question { charged, ..self.waits(claim).question };
        send(config, question, Vec::new(), signals)
    }
}

fn nothing_to_ask(id: DecisionId, aside: Aside, signals: Vec<Signal>) -> (Phase, Effects) {
    let effects =
        Effects { note: aside.admitted(id).map(Box::new), ..Effects::of(Act::Pass, signals) };
    (Phase::Admitted(Told::default()), effects)
}

/// Whether the request is gRPC as Envoy tells it, which turns replies to such requests into gRPC's.
pub(super) fn is_grpc(facts: &Facts<'_>) -> bool {
    is_grpc_type(facts.told("content-type").as_deref())
}

/// The same by its `content-type`.
pub fn is_grpc_type(content_type: Option<&[u8]>) -> bool {
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';')))
}

fn call(limit: &RateLimit, subject: Subject, cost: u32, shadow: bool) -> LimitCall {
    LimitCall {
        id: limit.id.clone(),
        subject,
        limit: limit.quota.limit(),
        period_us: limit.quota.period_us(),
        burst: limit.quota.burst(),
        algorithm: limit.algorithm,
        cost,
        shadow,
    }
}
