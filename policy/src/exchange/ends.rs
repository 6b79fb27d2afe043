//! Owns the messages that end a claim, and what became of them. Each may be repeated. Knows neither the
//! request nor its answer's way.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claim::terms;
use super::owed::Again;
use super::{Answer, Idempotent, Settlement, Signal};
use crate::config::Config;
use crate::idempotency::record::Fence;
use crate::idempotency::stored::StoredAnswer;
use crate::wire::{
    self, Adjustment, AnswerHead, Finish, FinishBy, Finished, Keyed, SettleReply, SettleRequest,
};

/// How often a message is sent at most whose repetition says the same: what ends a claim, since others wait for it, and
/// what [`may_be_repeated`]. Each is done at most once.
const TRIES: u8 = 3;
/// How often it is told again after that, while nobody waits for it: a stall, a restart of the gateway or a breaker that is
/// open must not leave a key locked that has an end. Eleven times take a minute.
const LATER_MAX: u8 = 11;
const PAUSE_MS_MIN: u32 = 500;
const PAUSE_MS_MAX: u32 = 8_000;

/// What follows from the answer to a settlement.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is to be sent once more, at once.
    Again,
    /// It is to be sent once more in so many ms, and nobody waits for it until then. If there is no room to keep it,
    /// [`Settlement::given_up`].
    Later {
        /// The pause, in ms.
        pause_ms: u32,
        /// To be counted.
        signals: Vec<Signal>,
    },
    /// It is over; this is to be counted.
    Over(Vec<Signal>),
}

/// What a settlement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The policy whose claim it was.
    policy: usize,
    /// How many octets of a body are stored; `None` if no answer is.
    bytes: Option<u32>,
    /// Whether an answer is stored without its body.
    bare: bool,
    /// Whether it ends nothing: the claim is only locked for longer.
    beats: bool,
    /// Whether the claim may never have been made.
    unsure: bool,
}

/// The message that stores an answer.
pub(super) fn complete(
    config: &Config,
    settling: SettleRequest,
    policy: usize,
    (keyed, fence): (Keyed, Fence),
    answer: &StoredAnswer,
) -> Option<Settlement> {
    let (head, octets) = AnswerHead::of(answer)?;
    let by = FinishBy::Complete { answer: head, life_s: terms(config, policy)?.life_s };
    let finish = Finish { keyed, fence, by };
    let bytes = answer.body.as_ref().map_or(0, Vec::len);
    let ending = Ending {
        policy,
        bytes: Some(u32::try_from(bytes).unwrap_or(u32::MAX)),
        bare: answer.body.is_none(),
        beats: false,
        unsure: false,
    };
    Some(message(config, settling, finish, &octets, ending))
}

/// The message that gives a claim back, beside what else it settles. Fence 0: its own answer never
/// arrived.
pub(super) fn abandon(
    config: &Config,
    settling: SettleRequest,
    policy: usize,
    keyed: Keyed,
    fence: Fence,
) -> Option<Settlement> {
    let life_s = terms(config, policy)?.life_s;
    let finish = Finish { keyed, fence, by: FinishBy::Abandon { life_s } };
    let unsure = fence == 0;
    let ending = Ending { policy, bytes: None, bare: false, beats: false, unsure };
    Some(message(config, settling, finish, &[], ending))
}

/// The message that locks a claim for longer. The next one is its repetition.
pub(super) fn extend(
    config: &Config,
    settling: SettleRequest,
    policy: usize,
    keyed: Keyed,
    fence: Fence,
) -> Option<Settlement> {
    let terms = terms(config, policy)?;
    let by = FinishBy::Extend { lock_ms: terms.lock_ms(), life_s: terms.life_s };
    let ending = Ending { policy, bytes: None, bare: false, beats: true, unsure: false };
    Some(message(config, settling, Finish { keyed, fence, by }, &[], ending))
}

/// The message, to where the claim was made. What it settles of limits stays in this region.
fn message(
    config: &Config,
    mut settling: SettleRequest,
    finish: Finish,
    octets: &[u8],
    ending: Ending,
) -> Settlement {
    let home = config.homes.elsewhere(&settling.scope);
    let mut beside = None;
    if let Some(at) = home.and_then(|index| config.homes.get(index)) {
        if !settling.adjustments.is_empty() {
            beside = Some(Box::new(Settlement::of(settling.clone())));
            settling.adjustments.clear();
        }
        settling.scope.region = Some(at.region.clone());
        settling.timeout_ms = at.timeout_ms;
    }
    let id = settling.id;
    let mut whole = SettleRequest { finish: Some(finish), ..settling };
    let message = wire::encode_framed(&whole, octets);
    let tries = if ending.beats { 1 } else { TRIES };
    let all = whole.adjustments.len();
    whole.adjustments.retain(may_be_repeated);
    let again = whole.adjustments.len() < all && tries > 1;
    let again = again.then(|| Box::new(Again(wire::encode_framed(&whole, octets))));
    Settlement { id, message, home, beside, ends: Some(ending), tries, later: 0, again }
}

/// Whether it may be sent again. What gives back by the age that the message tells may not: by then it is older than
/// that, and would give back what has come back by itself. Of a charge with a receipt the store counts the age.
fn may_be_repeated(one: &Adjustment) -> bool {
    one.by > 0 || one.receipt.is_some()
}

// === impl Settlement ===

impl Settlement {
    /// What adjusts limits and ends no claim.
    pub(super) fn of(message: SettleRequest) -> Self {
        let repeats = message.adjustments.iter().all(may_be_repeated);
        let tries = if repeats { TRIES } else { 1 };
        let (id, message) = (message.id, wire::encode(&message));
        Self { id, message, home: None, beside: None, ends: None, tries, later: 0, again: None }
    }

    /// What follows from the answer to it.
    pub fn ended(&mut self, answer: &Answer<'_>) -> Ended {
        let body = match answer {
            Answer::Response { marked: true, status: b"200", body } => *body,
            _ => &[],
        };
        let reply = SettleReply::decode(body, self.id).ok();
        let done = reply.is_some();
        let finished = reply.and_then(|reply| reply.finish);
        let heard = if self.ends.is_some() { finished.is_some() } else { done };
        if !heard && !matches!(answer, Answer::CircuitOpen { .. }) {
            self.tries = self.tries.saturating_sub(1);
            if self.tries > 0 {
                self.in_other_words();
                return Ended::Again;
            }
        }
        let Some(Ending { policy, beats, .. }) = self.ends else {
            return Ended::Over(Vec::new());
        };
        if beats {
            // What else became of the claim, its end will tell.
            let extended = Signal::Idempotency { policy, outcome: Idempotent::Extended };
            let extended = finished.filter(|f| *f == Finished::Extended).map(|_| extended);
            return Ended::Over(extended.into_iter().collect());
        }
        if !heard && self.later < LATER_MAX {
            let signals = match self.later {
                0 => Vec::from([Signal::Idempotency { policy, outcome: Idempotent::Postponed }]),
                _ => Vec::new(),
            };
            let pause_ms = pause_ms(self.later);
            self.later = self.later.saturating_add(1);
            if self.tries == TRIES {
                // It was never sent. Its age is that of a first try that it did not have.
                self.in_other_words();
            } else {
                self.of_the_claim_alone();
                self.tries = 1;
            }
            return Ended::Later { pause_ms, signals };
        }
        Ended::Over(self.came_to(finished))
    }

    /// Whether it ends a claim.
    pub fn ends_claim(&self) -> bool {
        self.ends.is_some_and(|ending| !ending.beats)
    }

    /// What is to be counted where it is not sent any more.
    pub fn given_up(&self) -> Vec<Signal> {
        self.came_to(None)
    }

    /// How many octets it takes while it waits to be sent again.
    pub fn size(&self) -> usize {
        self.message.len().saturating_add(self.beside.as_ref().map_or(0, |beside| beside.size()))
    }

    /// From the second time on it may say less.
    fn in_other_words(&mut self) {
        if let Some(again) = self.again.take() {
            self.message = again.0;
        }
    }

    /// What it settles of limits has had its tries: a store knows for a minute only what it has settled already.
    fn of_the_claim_alone(&mut self) {
        self.in_other_words();
        if let Ok(mut message) = SettleRequest::decode(&self.message)
            && !message.adjustments.is_empty()
        {
            message.adjustments.clear();
            self.message = wire::encode_framed(&message, &message.octets);
        }
    }

    fn came_to(&self, finished: Option<Finished>) -> Vec<Signal> {
        let Some(Ending { policy, bytes, bare, unsure, .. }) = self.ends else {
            return Vec::new();
        };
        // It is another one's, and never was this one's.
        if unsure && matches!(finished, Some(Finished::Fenced | Finished::Gone)) {
            return Vec::new();
        }
        let outcome = match (finished, bytes) {
            (Some(Finished::Stored | Finished::AlreadyDone), Some(_)) if bare => {
                Idempotent::StoredWithoutBody
            }
            (Some(Finished::Stored | Finished::AlreadyDone), _) => Idempotent::Stored,
            (Some(Finished::Recovered), _) => Idempotent::Recovered,
            (Some(Finished::Freed | Finished::Remembered), _) => Idempotent::Released,
            (Some(Finished::Fenced | Finished::Gone), _) => Idempotent::Fenced,
            (Some(Finished::Extended), _) | (None, Some(_)) => Idempotent::NotStored,
            (None, None) => Idempotent::Kept,
        };
        let mut signals = Vec::from([Signal::Idempotency { policy, outcome }]);
        let stored = matches!(outcome, Idempotent::Stored | Idempotent::Recovered);
        if let (true, Some(bytes)) = (stored, bytes) {
            let bytes = u64::from(bytes);
            signals.push(Signal::AnswerBytes { policy, replayed: false, bytes });
        }
        signals
    }
}

/// Twice as long each time.
fn pause_ms(later: u8) -> u32 {
    PAUSE_MS_MIN.checked_shl(later.into()).unwrap_or(PAUSE_MS_MAX).min(PAUSE_MS_MAX)
}
