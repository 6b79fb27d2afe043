//! Owns the last stage before the upstream: the circuit breaker is asked where the request would go on,
//! and what the stages before it took is given back, in one message, if it refuses.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claim::Waiting;
use super::held::HeldClaim;
use super::note::{Note, Noted};
use super::respond::Told;
use super::{
    Act, Circuit, Effects, Idempotent, Known, NoLeave, Outcome, Phase, Question, Settlement,
    Signal, is_grpc,
};
use crate::config::{Config, Fallback, Hold};
use crate::identity::Facts;
use crate::mode::Overrides;
use crate::router::Matched;
use crate::stages::{Idempotency, Limits, Outcomes, Permit};
use crate::wire::DecisionId;

/// How often the circuit breaker is asked for a request that is held, in ms.
const STEP_MS: u32 = 100;

/// The last stage, until it is passed.
#[derive(Debug)]
pub(super) struct Gate {
    circuit: Circuit,
    id: DecisionId,
    grpc: bool,
    /// The question whose limits were charged.
    charged: Option<Box<Question>>,
    /// Whether the circuit breaker gave leave before all was asked, or another cluster is asked.
    is_open: bool,
    /// Whether another cluster is asked.
    reroutes: bool,
}

/// What waits for the circuit breaker.
#[derive(Debug)]
pub(super) struct Permitting {
    gate: Gate,
    goes_on: GoesOn,
    /// What follows if it gives leave.
    effects: Effects,
    /// For how long the request was held, in ms.
    held_ms: u32,
}

#[derive(Debug)]
enum GoesOn {
    Admitted(Told),
    /// Nobody has the key.
    Looked(Box<Waiting>),
}

// === impl Gate ===

impl Gate {
    /// That of a request to which a circuit breaker applies.
    pub(super) fn of(
        config: &Config,
        overrides: &Overrides,
        matched: &Matched,
        facts: &Facts<'_>,
        id: DecisionId,
    ) -> Option<Self> {
        let circuit = Circuit::of(config, overrides, matched, facts)?;
        Some(Self {
            circuit,
            id,
            // Without a body it is none, whatever its header says; most are not asked for that one.
            grpc: facts.has_body && is_grpc(facts),
            charged: None,
            is_open: false,
            reroutes: false,
        })
    }

    /// Whether it is known to refuse.
    pub(super) fn is_shut(&self, known: &dyn Known) -> bool {
        self.circuit.enforced && known.is_shut(&self.circuit)
    }

    /// Asks for leave at once, if nothing else is in the way.
    pub(super) fn open(&mut self, next: &Phase, known: &dyn Known) {
        if !self.is_open && matches!(next, Phase::Admitted(_)) {
            self.is_open = known.grants(&self.circuit, self.grpc);
        }
    }

    /// The policy whose circuit breaker gave leave, if it did.
    pub(super) fn passed(&self) -> Option<usize> {
        (self.is_open && !self.reroutes).then_some(self.circuit.policy)
    }

    /// A question was answered. Where it is asked again it is for the claim alone.
    pub(super) fn charged(&mut self, question: Question) {
        if !question.limits.is_empty() {
            self.charged = Some(Box::new(question));
        }
    }
}

/// Puts the circuit breaker before what would let the request go on.
pub(super) fn ask(
    config: &Config,
    gate: &mut Option<Gate>,
    next: Phase,
    effects: Effects,
) -> (Phase, Effects) {
    if !matches!(effects.act, Act::Pass | Act::Resume) {
        return (next, effects);
    }
    let goes_on = match next {
        Phase::Admitted(told) => GoesOn::Admitted(told),
        Phase::Looked(waiting) => GoesOn::Looked(waiting),
        next => return (next, effects),
    };
    match (gate.take(), goes_on) {
        (Some(gate), goes_on) if !gate.is_open => {
            Box::new(Permitting { gate, goes_on, effects, held_ms: 0 }).again()
        }
        (gate, GoesOn::Admitted(told)) => {
            let reroute = gate.filter(|gate| gate.reroutes).map(|gate| gate.circuit.breaker);
            (Phase::Admitted(told), Effects { reroute, ..effects })
        }
        (_, GoesOn::Looked(waiting)) => waiting.claims(config),
    }
}

// === impl Permitting ===

impl Permitting {
    /// Asks the circuit breaker.
    pub(super) fn again(self: Box<Self>) -> (Phase, Effects) {
        let act = Act::Permit { circuit: self.gate.circuit.clone(), grpc: self.gate.grpc };
        (Phase::Permitting(self), Effects::of(act, Vec::new()))
    }

    /// Whether the request that waits for leave has a claim.
    pub(super) fn has_claim(&self) -> bool {
        matches!(&self.goes_on, GoesOn::Admitted(told) if told.claim.is_some())
    }

    /// The claim of the request that waits for leave.
    pub(super) fn claim_mut(&mut self) -> Option<&mut HeldClaim> {
        match &mut self.goes_on {
            GoesOn::Admitted(told) => told.claim.as_deref_mut(),
            GoesOn::Looked(_) => None,
        }
    }

    /// How long to hold the request before the circuit breaker is asked again, in ms; `None` if it has been
    /// held for long enough, others are, or no leave is to be expected soon.
    fn delay_ms(&self, hold: Option<Hold>, no_leave: NoLeave) -> Option<u32> {
        let Hold { for_ms, held_max } = hold?;
        let left_ms = for_ms.checked_sub(self.held_ms).filter(|left_ms| *left_ms > 0)?;
        let is_near = no_leave.wait_ms.is_none_or(|wait_ms| wait_ms <= u64::from(left_ms));
        let has_room = self.held_ms > 0 || no_leave.held < usize::try_from(held_max).ok()?;
        (is_near && has_room).then_some(left_ms.min(STEP_MS))
    }

    /// It may go; what was only looked for is claimed first.
    pub(super) fn granted(self, config: &Config, gate: &mut Option<Gate>) -> (Phase, Effects) {
        let Self { gate: mut passed, goes_on, effects, held_ms } = self;
        passed.is_open = true;
        match goes_on {
            GoesOn::Admitted(told) => {
                *gate = Some(passed);
                (Phase::Admitted(told), effects)
            }
            GoesOn::Looked(mut waiting) => {
                *gate = Some(passed);
                if held_ms > 0 {
                    waiting.question.was_held();
                }
                let (phase, mut asked) = waiting.claims(config);
                let mut signals = effects.signals;
                signals.append(&mut asked.signals);
                (phase, Effects { signals, ..asked })
            }
        }
    }

    /// It may not: it goes to another cluster if the circuit breaker names one, else nothing stays charged
    /// or claimed.
    pub(super) fn refused(
        mut self: Box<Self>,
        config: &Config,
        gate: &mut Option<Gate>,
        no_leave: NoLeave,
    ) -> (Phase, Effects) {
        let circuit = self.gate.circuit.clone();
        let breaker = config.circuit_breakers.get(circuit.breaker);
        if let Some(delay_ms) = self.delay_ms(breaker.and_then(|breaker| breaker.hold), no_leave) {
            self.held_ms = self.held_ms.saturating_add(delay_ms);
            let act = Act::Hold { breaker: circuit.breaker, delay_ms };
            return (Phase::Permitting(self), Effects::of(act, Vec::new()));
        }
        let fallback = breaker.and_then(|breaker| breaker.fallback.as_ref());
        if let Some(Fallback::Header { .. }) = fallback {
            self.gate.reroutes = true;
            return self.granted(config, gate);
        }
        let Gate { id, grpc, .. } = self.gate;
        let (mut denial, note) = circuit.refusal(config, id, no_leave.wait_ms, grpc);
        // gRPC clients read no body.
        denial.fallback = fallback.filter(|_| !grpc).map(|_| circuit.breaker);
        let note = Some(Box::new(beside(note, self.effects.note.take().map(|note| *note))));
        let signals = core::mem::take(&mut self.effects.signals);
        let signals = signals.into_iter().filter_map(not_gone).collect();
        let settlement = self.given_back(config, no_leave.now_us).map(Box::new);
        let act = Act::Deny(Box::new(denial));
        let effects = Effects { note, settlement, ..Effects::of(act, signals) };
        (Phase::Replied, effects)
    }

    /// What gives back what was taken for nothing. A claim that may be there though nobody said so has its word already:
    /// what the limits were charged goes beside it.
    pub(super) fn given_back(self, config: &Config, now_us: Option<u64>) -> Option<Settlement> {
        let Self { gate, goes_on, effects, .. } = self;
        let claim = match goes_on {
            GoesOn::Admitted(told) => told.claim,
            GoesOn::Looked(_) => None,
        };
        let mut outcomes = Outcomes { permit: Permit::Refused, ..Outcomes::NONE };
        if gate.charged.is_some() {
            outcomes.limits = Limits::Charged;
        }
        if claim.is_some() {
            outcomes.idempotency = Idempotency::Claimed;
        }
        let give_back = outcomes.give_back();
        let charged = gate.charged.filter(|_| give_back.refund);
        let refund = charged.and_then(|question| {
            let age_us = question.terms.as_ref()?.age_us(now_us);
            question.refund(config, age_us)
        });
        match (effects.settlement, claim.filter(|_| give_back.abandon)) {
            (Some(unasked), _) => {
                let beside = refund.map(Settlement::of).map(Box::new);
                Some(Settlement { beside: unasked.beside.or(beside), ..*unasked })
            }
            (None, Some(claim)) => claim.given_back(config, refund),
            (None, None) => refund.map(Settlement::of),
        }
    }
}

/// The line of a refusal, with what was found beside it.
pub(super) fn beside(note: Note, found: Option<Note>) -> Note {
    match found {
        None => note,
        Some(found) => match found.verdict {
            Noted::WouldDeny => Note { would_deny: found.limits, soft: found.soft, ..note },
            Noted::SoftLimit => Note { soft: found.limits, ..note },
            Noted::Degraded | Noted::Denied => Note {
                cause: Some(found.reason),
                rungs: found.rungs,
                would_deny: found.would_deny,
                soft: found.soft,
                ..note
            },
        },
    }
}

/// What is to be counted of a request that would have gone on and does not.
pub(super) fn not_gone(signal: Signal) -> Option<Signal> {
    match signal {
        Signal::Decided {
            policy,
            outcome: Outcome::Allowed | Outcome::LeaseAllowed | Outcome::LocalShareAllowed,
        } => Some(Signal::Decided { policy, outcome: Outcome::NotCharged }),
        Signal::Idempotency { outcome: Idempotent::Unprotected, .. } => None,
        signal => Some(signal),
    }
}
