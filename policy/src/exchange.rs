//! Owns the life of one request: facts in, a question to the gateway if there is one, a verdict out.
//! Knows neither the host's calls nor how a denial is rendered; joins the mechanisms, which do not
//! know each other.
//!
//! ```text
//! Request ─► pass │ deny │ ask ─► Answer ─► resume │ deny │ replay
//!     └─► collect ─► Body ─┘   ▲     ├─► share ─► Shares ─► resume │ deny
//!                              └─────┴─► wait ─► Waited
//! ```
//!
//! Leased limits are asked of this Envoy's units first: `spend ─► Spent`, and perhaps `join ─► Waited ─► spend`.
//! Where a circuit breaker applies, `pass` and `resume` are reached over `permit ─► Permit`: it is the
//! last to be asked, and what the others took is given back if it refuses.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::config::{Config, RateLimit};
use crate::cost::ResponseSource;
use crate::limit::refund::Receipt;
use crate::mode::Overrides;
use crate::scope::Tenant;
use crate::wire::{DecisionId, LimitCall};

mod act;
mod ask;
mod asked;
mod circuit;
mod claim;
mod ends;
mod event;
mod held;
mod judge;
mod ladder;
mod lease;
mod note;
mod origin;
mod owed;
mod permit;
mod record;
mod respond;
mod settle;
mod signal;
mod witness;

pub use act::{Act, Denial, Effects, Replay, SOFT_HEADER};
pub use ask::is_grpc_type;
use ask::{ask, is_grpc, put};
pub use circuit::{Circuit, Known};
use claim::{Claiming, Hashing, Waiting};
pub use ends::Ended;
pub use event::{Answer, Event, NoLeave};
pub use held::{Answering, Hold, Part};
use ladder::Sharing;
use lease::Leasing;
pub use lease::{LeaseName, Spend, Spent};
use note::{Aside, worded_by};
pub use note::{Note, Noted};
pub use origin::Envoys;
use owed::Terms;
pub use owed::{Charged, Moment, Settlement, settlement_failure};
use permit::{Gate, Permitting};
use record::Recording;
pub use record::{Refused, Standing as EventStanding};
pub use respond::{Response, Said};
use respond::{Standing, Told};
use settle::settle;
pub use signal::{Idempotent, Outcome, Signal};
pub use witness::Whom;
use witness::is_drawn;

/// `Retry-After` of an overload answer, exactly (product row A5).
pub const OVERLOAD_RETRY_AFTER_S: u64 = 5;
/// A limit that was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    policy: usize,
    /// The limit's index within its policy.
    limit: usize,
    /// Its policy is in shadow.
    shadow: bool,
    soft: bool,
}

impl Asked {
    /// Whether it may deny.
    fn is_enforced(&self) -> bool {
        !self.shadow && !self.soft
    }

    /// What the configuration says of it.
    fn rate_limit<'c>(&self, config: &'c Config) -> Option<&'c RateLimit> {
        config.policies.get(self.policy)?.rate_limits.get(self.limit)
    }
}

/// What the gateway was asked.
#[derive(Debug)]
struct Question {
    id: DecisionId,
    /// Whose request it is, for the audit chain alone.
    tenant: Tenant,
    asked: Vec<Asked>,
    grpc: bool,
    /// Whether what is told of the request's headers has yet to be read.
    unread: bool,
    /// One per asked limit.
    limits: Vec<LimitCall>,
    /// What the gateway said of each charge, where it may be given back.
    receipts: Vec<Option<Receipt>>,
    /// What was found before anything was asked.
    aside: Aside,
    /// Of a question with something to settle: a cost that only the response tells, a claim, or what a
    /// circuit breaker may yet refuse.
    terms: Option<Terms>,
    /// Whether a circuit breaker is asked in the end.
    gated: bool,
    /// The claim that was asked for.
    claim: Option<Box<Claiming>>,
    /// The claim that is asked for next, of the tenant's home region, if the limits admit.
    later: Option<Box<Claiming>>,
    /// What the limits charged before the claim was asked for by itself.
    charged: Option<Box<Charged>>,
    /// The leased limits whose units the request has; the gateway is not asked about them.
    held: Vec<Standing>,
    /// Whether it has waited for units that another request's message brought.
    joined: bool,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    /// The body is on its way.
    Hashing(Box<Hashing>),
    Spending(Box<Question>),
    /// The same, of nothing but leased limits.
    Leasing(Leasing),
    Asking(Box<Question>),
    /// Another request has the key.
    Waiting(Box<Waiting>),
    /// Nobody has the key, and it is claimed once the circuit breaker lets the request go.
    Looked(Box<Waiting>),
    Sharing(Box<Sharing>),
    /// The circuit breaker is asked.
    Permitting(Box<Permitting>),
    /// Its event is not on record yet.
    Recording(Box<Recording>),
    /// On its way to the upstream; what its response has to tell of it.
    Admitted(Told),
    /// Answered by us: what the response callbacks now show is our own reply, not the upstream's.
    Replied,
}

/// One request's exchange.
#[derive(Debug)]
pub struct Exchange {
    phase: Phase,
    /// The last stage, until it is passed.
    gate: Option<Gate>,
    /// The decision, once there is one.
    id: Option<DecisionId>,
    /// Whether what follows is the gateway's verdict, which the gateway records.
    has_verdict: bool,
    /// The policy whose circuit breaker gave leave for what follows.
    passed: Option<usize>,
    /// How far the event of what follows is, if that matters.
    standing: Option<Box<EventStanding>>,
}

// === impl Exchange ===

impl Default for Exchange {
    fn default() -> Self {
        let (phase, standing) = (Phase::Fresh, None);
        Self { phase, gate: None, id: None, has_verdict: false, passed: None, standing }
    }
}

impl Exchange {
    /// Whether the response that follows is our own reply.
    pub fn replied(&self) -> bool {
        matches!(self.phase, Phase::Replied)
    }

    /// Whether the response has to be told of this request, or has to tell.
    pub fn has_to_tell(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(told) if !told.is_empty())
    }

    /// What to read of the response at this moment.
    pub fn wanted<'c>(&self, config: &'c Config, moment: Moment) -> Vec<&'c ResponseSource> {
        match &self.phase {
            Phase::Admitted(told) => told.wanted(config, moment),
            _ => Vec::new(),
        }
    }

    /// Whether the request's body is wanted, as it comes.
    pub fn collects(&self) -> bool {
        matches!(self.phase, Phase::Hashing(_))
    }

    /// The policy whose key's first answer the request waits for, or asks after meanwhile.
    pub fn waits_for(&self) -> Option<usize> {
        match &self.phase {
            Phase::Waiting(waiting) => waiting.of_policy(),
            Phase::Asking(question) => question
                .claim
                .as_ref()
                .filter(|claim| claim.waited_ms > 0)
                .map(|claim| claim.policy),
            _ => None,
        }
    }

    /// Whether the request waits for a verdict.
    pub fn holds_request(&self) -> bool {
        !matches!(self.phase, Phase::Fresh | Phase::Admitted(_) | Phase::Replied)
    }

    /// Whether the answer is held while it is collected: what the host shows of it is all of it.
    pub fn holds_answer(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(told) if told.claim.as_ref().is_some_and(|c| c.holds()))
    }

    /// What a request that takes long says of its claim, if it is time for it.
    pub fn beats(&mut self, config: &Config, now_us: u64) -> Option<Settlement> {
        match &mut self.phase {
            Phase::Admitted(told) => told.claim.as_mut()?.beats(config, now_us),
            // Held until its circuit breaker lets it go.
            Phase::Permitting(waits) => waits.claim_mut()?.beats(config, now_us),
            Phase::Recording(held) => held.claim_mut()?.beats(config, now_us),
            _ => None,
        }
    }

    /// Whether it has a claim that may have to be kept alive.
    pub fn has_claim(&self) -> bool {
        match &self.phase {
            Phase::Permitting(waits) => waits.has_claim(),
            Phase::Recording(held) => held.has_claim(),
            _ => self.wants_answer(),
        }
    }

    /// Whether the answer is wanted for a claim; then [`Exchange::on_answer`] is told of it.
    pub fn wants_answer(&self) -> bool {
        matches!(&self.phase, Phase::Admitted(Told { claim: Some(_), .. }))
    }

    /// Whether the request goes on with a claim by which it runs only once.
    pub fn runs_once(&self) -> bool {
        match &self.phase {
            Phase::Admitted(Told { claim: Some(claim), .. }) => claim.is_enforced(),
            _ => false,
        }
    }

    /// Whether what is left of the answer to a request with a claim passes unread: only how it ends matters.
    pub fn passes_answer(&self) -> bool {
        match &self.phase {
            Phase::Admitted(Told { claim: Some(claim), .. }) => claim.passes(),
            _ => false,
        }
    }

    /// Whether of the answer to a request with a claim nothing matters any more but the `grpc-status` of its trailers.
    pub fn awaits_status(&self) -> bool {
        match &self.phase {
            Phase::Admitted(Told { claim: Some(claim), .. }) => claim.awaits_status(),
            _ => false,
        }
    }

    /// Takes what the upstream answers to a request with a claim, or how it ended without.
    pub fn on_answer(&mut self, config: &Config, part: Part<'_>) -> Answering {
        match &mut self.phase {
            Phase::Admitted(told) => held::on_answer(config, &mut told.claim, part),
            _ => Answering::default(),
        }
    }

    /// The request is over, however far it came, now, in µs by the filter's clock. What was taken and
    /// nobody waits for any more is given back.
    pub fn left(&mut self, config: &Config, now_us: Option<u64>) -> Option<Settlement> {
        match core::mem::replace(&mut self.phase, Phase::Replied) {
            Phase::Asking(question) => question.abandoned(config),
            Phase::Permitting(permitting) => permitting.given_back(config, now_us),
            Phase::Recording(held) => held.given_back(config, now_us),
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// What the upstream's response has to carry, and what it settles. A reply of ours that passes
    /// the same callbacks is not the upstream's and changes nothing.
    pub fn on_response(&mut self, config: &Config, said: &Said<'_>) -> Response {
        match &mut self.phase {
            Phase::Admitted(told) => told.response(config, said),
            _ => Response::default(),
        }
    }

    /// Takes one event. An answer that nobody waits for changes nothing.
    pub fn on(&mut self, config: &Config, overrides: &Overrides, event: Event<'_>) -> Effects {
        let phase = core::mem::replace(&mut self.phase, Phase::Admitted(Told::default()));
        self.has_verdict = false;
        let circuits = event.known();
        let (next, effects) = match (phase, event) {
            (Phase::Fresh, Event::Request { matched, facts, caller, id, known }) => {
                self.id = Some(id);
                self.gate = Gate::of(config, overrides, &matched, facts, id);
                let gate = self.gate.as_ref();
                let is_shut: &dyn Fn() -> bool = &|| gate.is_some_and(|gate| gate.is_shut(known));
                let gated = gate.map(|_| is_shut);
                ask(config, overrides, &matched, facts, caller, (id, gated))
            }
            (
                Phase::Leasing(leasing),
                Event::Spent { spends, answers, entropy, facts, caller, .. },
            ) => leasing.spent(config, lease::Said { spends, answers, entropy, facts, caller }),
            (
                Phase::Spending(question),
                Event::Spent { spends, answers, entropy, facts, caller, .. },
            ) => {
                let said = lease::Said { spends, answers, entropy, facts, caller };
                lease::spent(config, *question, said)
            }
            (Phase::Spending(question), Event::Waited(_)) => {
                put(config, *question, None, Vec::new())
            }
            (Phase::Asking(mut question), Event::Answer { answer, entropy }) => {
                match settle(config, &mut question, &answer, entropy) {
                    Ok((phase, mut effects)) => {
                        self.has_verdict = true;
                        if is_drawn(config, question.id, &effects.signals) {
                            effects.whom = Some(Box::new(Whom::of(&question)));
                            self.may_refund(config, &question);
                        }
                        if let Some(gate) = &mut self.gate {
                            gate.charged(*question);
                        }
                        (phase, effects)
                    }
                    Err(why) => {
                        // Without a verdict only that is known to be charged which an earlier question charged.
                        if question.charged.is_some() {
                            self.may_refund(config, &question);
                        }
                        ladder::fall(config, *question, why, Vec::new())
                    }
                }
            }
            (Phase::Hashing(hashing), Event::Body { bytes, end }) => {
                hashing.body(config, bytes, end)
            }
            (Phase::Waiting(waiting), Event::Waited(fresh)) => {
                let (id, phase, effects) = waiting.again(config, fresh);
                self.id = Some(id);
                (phase, effects)
            }
            (Phase::Waiting(waiting), Event::Others(others)) => waiting.queued(config, others),
            (Phase::Sharing(sharing), Event::Shares { answers, entropy }) => {
                ladder::land(config, *sharing, answers, entropy, Vec::new())
            }
            (Phase::Permitting(permitting), Event::Permit(Ok(()))) => {
                permitting.granted(config, &mut self.gate)
            }
            (Phase::Permitting(permitting), Event::Permit(Err(no_leave))) => {
                permitting.refused(config, &mut self.gate, no_leave)
            }
            (Phase::Permitting(permitting), Event::Waited(_)) => permitting.again(),
            (phase, _) => (phase, Effects::of(Act::Pass, Vec::new())),
        };
        if matches!(effects.act, Act::Pass | Act::Resume) {
            if let Some((gate, known)) = self.gate.as_mut().zip(circuits) {
                gate.open(&next, known);
            }
            self.passed = self.gate.as_ref().and_then(permit::Gate::passed);
        }
        let (next, effects) = permit::ask(config, &mut self.gate, next, effects);
        self.phase = next;
        effects
    }
}

#[cfg(test)]
mod tests;
