//! Owns how a decision is held until its audit event is on record, and what becomes of it if it is not. Knows
//! neither how events are handed over nor for how long they are waited for.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::held::HeldClaim;
use super::note::{Noted, worded_by};
use super::owed::Charged;
use super::permit::{beside, not_gone};
use super::{Act, Denial, Effects, Exchange, Note, Phase, Question, Settlement, Signal};
use crate::audit::Action;
use crate::audit::testimony::Testimony;
use crate::config::Config;
use crate::reason::Reason;
use crate::wire::DecisionId;

/// How an admission ended whose client left while it waited.
const CLIENT_LEFT: &str = "client-left";
/// `Retry-After` of an admission that is refused: nobody knows when events are taken again.
const RETRY_AFTER_S: u64 = 1;

/// What waits.
#[derive(Debug)]
pub(super) struct Recording {
    /// What comes next if it takes effect.
    next: Phase,
    effects: Effects,
    /// The policies that its event names.
    names: Vec<String>,
    /// What gives back what its limits were charged, if anything.
    charged: Option<Box<Charged>>,
}

/// How far the event of a decision is.
#[derive(Debug)]
pub enum Standing {
    /// It has yet to be told. This gives back what the limits were charged, if the request does not go on.
    Charged(Box<Charged>),
    /// It was handed over.
    Told,
    /// It is to be told, and nothing waits for it.
    Hurried,
    /// The same, and each time: that the request goes on may be on record already, and is not so.
    Contradicts,
}

/// What else is known of a decision that is refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// Now, in µs by the filter's clock, if it has one.
    pub now_us: Option<u64>,
    /// Whether the request is gRPC.
    pub grpc: bool,
    /// Whether that it goes on may have been heard.
    pub is_told: bool,
}

// === impl Exchange ===

impl Exchange {
    /// Holds what follows until its event is on record, which names these. What is settled of it, and what is to be
    /// counted of a denial, stands whatever becomes of the event, and stays with the caller.
    pub fn hold(
        &mut self,
        effects: &mut Effects,
        names: Vec<String>,
        charged: Option<Box<Charged>>,
    ) {
        let mut left = Effects::of(Act::Pass, Vec::new());
        left.settlement = effects.settlement.take();
        let is_denied = matches!(effects.act, Act::Deny(_));
        if is_denied {
            left.signals = core::mem::take(&mut effects.signals);
        }
        // A denial's settlement gives it back.
        let charged = charged.filter(|_| !is_denied);
        let effects = core::mem::replace(effects, left);
        let next = core::mem::replace(&mut self.phase, Phase::Replied);
        self.phase = Phase::Recording(Box::new(Recording { next, effects, names, charged }));
    }

    /// How far the event of what follows is, if anything is known of that; once.
    pub fn take_standing(&mut self) -> Option<Standing> {
        self.standing.take().map(|standing| *standing)
    }

    /// Keeps what gives back what the question charged, where the request may be refused yet.
    pub(super) fn may_refund(&mut self, config: &Config, question: &Question) {
        if config.sync_events.is_some_and(|sync| sync.refuses) {
            let charged = question.charge(config);
            self.standing = charged.map(|charged| Box::new(Standing::Charged(Box::new(charged))));
        }
    }

    /// Whether what follows waits for its event.
    pub fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Recording(_))
    }

    /// What the audit is to be told where the client leaves now: the event of an admission that waits says that the request
    /// goes on, and it does not. A denial stays what it is.
    pub fn never_went_on(&self) -> Option<Box<Testimony>> {
        let Phase::Recording(held) = &self.phase else { return None };
        if !matches!(held.effects.act, Act::Pass | Act::Resume) {
            return None;
        }
        let own = Testimony::own(Action::Deny, CLIENT_LEFT, String::new());
        Some(Box::new(Testimony { decision: self.id, names: held.names.clone(), ..own }))
    }

    /// What was held takes effect.
    pub fn let_go(&mut self) -> Effects {
        match self.take_held() {
            Some(held) => {
                self.phase = held.next;
                held.effects
            }
            None => Effects::of(Act::Pass, Vec::new()),
        }
    }

    /// The same; an admission is refused, and nothing stays charged or claimed.
    pub fn refuse(&mut self, config: &Config, refused: Refused) -> Effects {
        let Some(held) = self.take_held() else {
            return Effects::of(Act::Pass, Vec::new());
        };
        if matches!(held.effects.act, Act::Pass | Act::Resume) {
            let id = self.id.unwrap_or(DecisionId::new(0));
            // That it is refused is an event too, which nothing waits for: there was no time for the first.
            let standing = if refused.is_told { Standing::Contradicts } else { Standing::Hurried };
            self.standing = Some(Box::new(standing));
            return held.refusal(config, id, refused);
        }
        self.phase = held.next;
        held.effects
    }

    fn take_held(&mut self) -> Option<Recording> {
        match core::mem::replace(&mut self.phase, Phase::Replied) {
            Phase::Recording(held) => {
                self.standing = Some(Box::new(Standing::Told));
                Some(*held)
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }
}

// === impl Recording ===

impl Recording {
    fn refusal(mut self, config: &Config, id: DecisionId, refused: Refused) -> Effects {
        let (reason, cause) = (Reason::PolicyStoreUnavailable, Reason::EventNotRecorded);
        let found = self.effects.note.take().map(|note| *note);
        let note = Note {
            verdict: Noted::Denied,
            reason,
            cause: None,
            rungs: Vec::new(),
            limits: self.names.clone(),
            would_deny: Vec::new(),
            soft: Vec::new(),
            id,
        };
        let note = Note { cause: Some(cause), ..beside(note, found) };
        let gone = core::mem::take(&mut self.effects.signals);
        let mut signals: Vec<Signal> = gone.into_iter().filter_map(not_gone).collect();
        signals.push(Signal::Unavailable(cause));
        let names = core::mem::take(&mut self.names);
        let named = |name: &String| config.policies.iter().position(|p| p.name == *name);
        let denial = Denial {
            reason,
            id,
            worded_by: worded_by(config, names.iter().filter_map(named)),
            violated: names,
            retry_after_s: Some(RETRY_AFTER_S),
            fields: Vec::new(),
            grpc: refused.grpc,
            detail: None,
            stored_status: None,
            fallback: None,
            is_paid: false,
        };
        let settlement = self.given_back(config, refused.now_us).map(Box::new);
        let act = Act::Deny(Box::new(denial));
        Effects { note: Some(Box::new(note)), settlement, ..Effects::of(act, signals) }
    }

    /// What gives back what was taken for a request that does not go on. A denial has done so itself.
    pub(super) fn given_back(self, config: &Config, now_us: Option<u64>) -> Option<Settlement> {
        let refund = self.charged.map(|charged| charged.back_at(now_us));
        let claim = match self.next {
            Phase::Admitted(told) => told.claim,
            _ => None,
        };
        match claim {
            Some(claim) => claim.given_back(config, refund),
            None => refund.map(Settlement::of),
        }
    }

    /// The claim of the request that is held.
    pub(super) fn claim_mut(&mut self) -> Option<&mut HeldClaim> {
        match &mut self.next {
            Phase::Admitted(told) => told.claim.as_deref_mut(),
            _ => None,
        }
    }

    pub(super) fn has_claim(&self) -> bool {
        matches!(&self.next, Phase::Admitted(told) if told.claim.is_some())
    }
}
