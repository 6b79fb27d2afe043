//! Owns what a request asks of idempotency: whether it does, under which key, and for which hash. Knows
//! neither limits nor what follows from the answer.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::ask::put;
use super::ends::abandon;
use super::judge::Over;
use super::note::{Aside, denied, worded_by};
use super::{Act, Denial, Effects, Idempotent, Outcome, Phase, Question, Settlement, Signal};
use crate::config::{Config, Policy};
use crate::idempotency::endpoint::Endpoint;
use crate::idempotency::fingerprint::{Head, RequestHasher};
use crate::idempotency::key::{FIELD, IdempotencyKey};
use crate::idempotency::terms::Terms;
use crate::identity::Facts;
use crate::mode::{Mechanism, Mode, Overrides, Rollout, effective};
use crate::reason::Reason;
use crate::router::Matched;
use crate::scope::Tenant;
use crate::wire::{ClaimCall, DecisionId, Keyed};

/// How soon a waiting request asks again at first, and how seldom at last.
const WAIT_MS_MIN: u32 = 20;
const WAIT_MS_MAX: u32 = 250;

/// A claim that is asked for.
#[derive(Debug)]
pub(super) struct Claiming {
    pub(super) policy: usize,
    pub(super) shadow: bool,
    pub(super) keyed: Keyed,
    takeover: bool,
    /// Whether it only looks for an answer: what is not there is claimed later.
    pub(super) looks: bool,
    /// How long the first answer was waited for.
    pub(super) waited_ms: u32,
    /// Whether the last question's answer was lost, so that it may have claimed it: that is given back, and another one
    /// is asked.
    pub(super) lost: bool,
    /// What the limits said, where the claim is asked for again.
    pub(super) over: Option<Box<Over>>,
}

/// A claim whose request is not whole yet.
#[derive(Debug)]
pub(super) struct Draft {
    policy: usize,
    shadow: bool,
    key: IdempotencyKey,
    endpoint: Endpoint,
    configured: bool,
    takeover: bool,
    looks: bool,
    hasher: RequestHasher,
}

/// A request whose body is on its way into the hash.
#[derive(Debug)]
pub(super) struct Hashing {
    pub(super) question: Question,
    pub(super) draft: Draft,
}

/// A request that waits for the first one's answer.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) question: Question,
    /// Until it is known whether it may: for how long at first, and what its client is told if not.
    pub(super) queued: Option<(u32, Box<Denial>)>,
}

/// What idempotency wants of a request.
pub(super) enum Wanted {
    /// Nothing: it is not for it.
    Nothing,
    /// A claim, once the request is whole.
    Claim(Box<Draft>, Tenant),
    /// An answer at once.
    Refused(Box<Denial>),
}

/// What a refusal is made of.
struct Refusal {
    reason: Reason,
    detail: Option<String>,
}

/// Finds the policy whose key it is, if there is one. What is refused in shadow goes on unclaimed.
pub(super) fn wanted(
    config: &Config,
    overrides: &Overrides,
    matched: &Matched,
    facts: &Facts<'_>,
    id: DecisionId,
    signals: &mut Vec<Signal>,
) -> Wanted {
    let first = |name: &[u8]| facts.headers.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
    let Some(method) = first(b":method") else {
        return Wanted::Nothing;
    };
    for (policy, named) in matched.policies(config) {
        let Some(terms) = named.idempotency.as_ref().filter(|terms| terms.is_for(method)) else {
            continue;
        };
        let shadow = match mode(named, terms, facts, overrides) {
            Mode::Off => continue,
            Mode::Shadow => true,
            Mode::Enforce => false,
        };
        let refused = match draft(terms, method, facts) {
            Ok(None) => return Wanted::Nothing,
            Ok(Some((draft, tenant))) => {
                return Wanted::Claim(Box::new(Draft { policy, shadow, ..draft }), tenant);
            }
            Err(refused) => refused,
        };
        let reason = refused.reason;
        signals
            .push(Signal::Idempotency { policy, outcome: Idempotent::Refused { reason, shadow } });
        if shadow {
            return Wanted::Nothing;
        }
        if reason == Reason::ClientIdentityRequired {
            signals.push(Signal::Decided { policy, outcome: Outcome::IdentityMissing });
        }
        let denial = Denial { detail: refused.detail, ..denial(config, policy, reason, id) };
        return Wanted::Refused(Box::new(denial));
    }
    Wanted::Nothing
}

fn mode(policy: &Policy, terms: &Terms, facts: &Facts<'_>, overrides: &Overrides) -> Mode {
    let rollout = terms.mode.map_or(policy.rollout_others, Rollout::whole);
    // Not by the policy's own: a retry has to be on the first request's side, whatever sets the share.
    let sticky = (rollout.share_bp < 10_000 || !overrides.flags.is_empty())
        .then(|| terms.tenant.subject(facts))
        .flatten();
    let identity = sticky.as_ref().map(|subject| subject.name.as_str().as_bytes());
    effective(rollout, &policy.name, Mechanism::Idempotency, identity, overrides)
}

/// `None` is a request without a key that needs none. Policy and mode are the caller's to fill in.
fn draft(
    terms: &Terms,
    method: &[u8],
    facts: &Facts<'_>,
) -> Result<Option<(Draft, Tenant)>, Refusal> {
    let lines = facts.headers.iter().filter(|(name, _)| *name == FIELD.as_bytes());
    let key = match terms.syntax.read(lines.map(|(_, line)| *line)) {
        Err(bad) => return Err(Refusal::told(Reason::IdempotencyKeyInvalid, bad)),
        Ok(Some(key)) => key,
        Ok(None) if terms.required => return Err(Reason::IdempotencyKeyRequired.into()),
        Ok(None) => return Ok(None),
    };
    let tenant = terms.tenant.counted(facts).map(|counted| counted.tenant);
    let tenant = tenant.filter(|tenant| *tenant != Tenant::None);
    let tenant = tenant.ok_or(Reason::ClientIdentityRequired)?;
    let target = facts.target.unwrap_or_default();
    let endpoint = Endpoint::of(method, target, terms.endpoint.as_deref())
        .map_err(|bad| Refusal::told(Reason::IdempotencyPathInvalid, bad))?;
    let [authority, content_type] = [":authority", "content-type"].map(|name| facts.header(name));
    let head = Head { authority, method, target, content_type };
    let announced = facts.token("content-length").and_then(|digits| digits.parse().ok());
    let hasher = RequestHasher::new(&head, announced, terms.hash)
        .map_err(|long| Refusal::told(Reason::IdempotencyBodyTooLong, long))?;
    let takeover = terms.takes_over(method);
    let (policy, shadow, looks) = (0, false, false);
    let configured = terms.endpoint.is_some();
    let draft = Draft { policy, shadow, key, endpoint, configured, takeover, looks, hasher };
    Ok(Some((draft, tenant)))
}

// === impl Refusal ===

impl Refusal {
    fn told(reason: Reason, detail: impl ToString) -> Self {
        Self { reason, detail: Some(detail.to_string()) }
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

// === impl Draft ===

impl Draft {
    /// Whether it only looks for an answer.
    pub(super) fn only_looks(self, looks: bool) -> Self {
        Self { looks, ..self }
    }

    /// The claim of a request that is whole.
    pub(super) fn finish(self) -> Box<Claiming> {
        let Self { policy, shadow, key, endpoint, configured, takeover, looks, hasher } = self;
        let keyed = Keyed { key, endpoint, configured, hash: hasher.finish() };
        Box::new(Claiming {
            policy,
            shadow,
            keyed,
            takeover,
            looks,
            waited_ms: 0,
            lost: false,
            over: None,
        })
    }
}

// === impl Hashing ===

impl Hashing {
    /// Takes in a piece of the body. With the last one that matters the question is asked.
    pub(super) fn body(
        mut self: Box<Self>,
        config: &Config,
        bytes: &[u8],
        end: bool,
    ) -> (Phase, Effects) {
        if let Err(long) = self.draft.hasher.update(bytes) {
            return self.too_long(config, long.to_string());
        }
        if !end && !self.draft.hasher.is_settled() {
            return (Phase::Hashing(self), Effects::of(Act::Collect, Vec::new()));
        }
        let Self { question, draft } = *self;
        put(config, Question { claim: Some(draft.finish()), ..question }, None, Vec::new())
    }

    fn too_long(self, config: &Config, detail: String) -> (Phase, Effects) {
        let Self { question, draft: Draft { policy, shadow, .. } } = self;
        let reason = Reason::IdempotencyBodyTooLong;
        let outcome = Idempotent::Refused { reason, shadow };
        let signals = Vec::from([Signal::Idempotency { policy, outcome }]);
        if shadow {
            return put(config, question, None, signals);
        }
        let Question { id, grpc, aside, .. } = question;
        let told = Denial { grpc, detail: Some(detail), ..denial(config, policy, reason, id) };
        denied(told, None, aside, signals)
    }
}

// === impl Waiting ===

impl Waiting {
    /// Claims what was only looked for.
    pub(super) fn claims(mut self, config: &Config) -> (Phase, Effects) {
        if let Some(claim) = &mut self.question.claim {
            claim.looks = false;
        }
        put(config, self.question, None, Vec::new())
    }

    /// The policy whose key's first answer it waits for.
    pub(super) fn of_policy(&self) -> Option<usize> {
        self.question.claim.as_ref().map(|claim| claim.policy)
    }

    /// It waits, unless so many others do already.
    pub(super) fn queued(mut self: Box<Self>, config: &Config, others: usize) -> (Phase, Effects) {
        let Some((delay_ms, denial)) = self.queued.take() else {
            return (Phase::Waiting(self), Effects::of(Act::Pass, Vec::new()));
        };
        let Some(claim) = &mut self.question.claim else {
            return denied(*denial, None, Aside::default(), Vec::new());
        };
        let policy = claim.policy;
        let most = terms(config, policy).map_or(0, |terms| terms.waiting_max);
        if usize::try_from(most).is_ok_and(|most| others >= most) {
            let aside = claim.over.take().map(|over| over.aside).unwrap_or_default();
            let outcome = Idempotent::Refused { reason: denial.reason, shadow: false };
            let signals = Vec::from([Signal::Idempotency { policy, outcome }]);
            return denied(*denial, None, aside, signals);
        }
        claim.waited_ms = delay_ms;
        let outcome = Idempotent::Waited;
        let signals = Vec::from([Signal::Idempotency { policy, outcome }]);
        (Phase::Waiting(self), Effects::of(Act::Wait(delay_ms), signals))
    }

    /// Asks again, and for the claim alone: the limits were charged. Under the `fresh` id where the last question may have
    /// claimed the key: whatever gives that claim back, the store or the gateway, must not take this one's.
    pub(super) fn again(
        mut self,
        config: &Config,
        fresh: DecisionId,
    ) -> (DecisionId, Phase, Effects) {
        if self.question.claim.as_mut().is_some_and(|claim| core::mem::take(&mut claim.lost)) {
            self.question.id = fresh;
        }
        let id = self.question.id;
        let (phase, effects) = put(config, self.question, None, Vec::new());
        (id, phase, effects)
    }
}

// === impl Claiming ===

impl Claiming {
    /// As it stands in the question.
    pub(super) fn call(&self, config: &Config) -> Option<ClaimCall> {
        let terms = terms(config, self.policy)?;
        Some(ClaimCall {
            keyed: self.keyed.clone(),
            lock_ms: terms.lock_ms(),
            life_s: terms.life_s,
            takeover: self.takeover,
            look: self.looks,
            older_keys: terms.older_keys,
            ephemeral: terms.ephemeral,
            replicas: terms.replicas.map(|replicas| replicas.asked),
        })
    }

    /// Whether it may refuse a request.
    pub(super) fn is_enforced(&self) -> bool {
        !self.shadow
    }

    /// How much longer than the gateway's own timeout its question may take, in ms.
    pub(super) fn patience_ms(&self, config: &Config) -> u32 {
        let replicas = terms(config, self.policy).and_then(|terms| terms.replicas);
        replicas.map_or(0, |replicas| replicas.asked.within_ms)
    }

    /// The same of one that waits and could not ask: that says nothing of the first answer. `None` also of one that has not
    /// waited, or was told something.
    pub(super) fn waits_on(&self, config: &Config) -> Option<u32> {
        let is_waiting = self.waited_ms > 0 && self.over.is_some();
        let terms = terms(config, self.policy).filter(|_| is_waiting)?;
        self.delay_ms(terms, u64::MAX)
    }

    /// How long to wait before asking again; `None` if it was waited for long enough.
    pub(super) fn delay_ms(&self, terms: &Terms, wait_us: u64) -> Option<u32> {
        let left_ms = terms.wait_ms.saturating_sub(self.waited_ms);
        let locked_ms = u32::try_from(wait_us.div_ceil(1_000)).unwrap_or(u32::MAX);
        let step_ms = (self.waited_ms / 2).clamp(WAIT_MS_MIN, WAIT_MS_MAX);
        let delay_ms = step_ms.min(left_ms).min(locked_ms);
        (self.is_enforced() && delay_ms > 0).then_some(delay_ms)
    }
}

// === impl Question ===

impl Question {
    /// What gives back a claim that may have been made, since nobody waits for it any more.
    pub(super) fn abandoned(self, config: &Config) -> Option<Settlement> {
        let claim = self.claim.filter(|claim| !claim.looks)?;
        abandon(config, self.terms?.settling(config, self.id, 0), claim.policy, claim.keyed, 0)
    }
}

pub(super) fn denial(config: &Config, policy: usize, reason: Reason, id: DecisionId) -> Denial {
    let name = config.policies.get(policy).map_or("", |policy| &policy.name);
    Denial {
        reason,
        id,
        violated: Vec::from([name.to_string()]),
        retry_after_s: None,
        fields: Vec::new(),
        grpc: false,
        worded_by: worded_by(config, [policy].into_iter()),
        detail: None,
        stored_status: None,
        fallback: None,
        is_paid: false,
    }
}

pub(super) fn terms(config: &Config, policy: usize) -> Option<&Terms> {
    config.policies.get(policy)?.idempotency.as_ref()
}
