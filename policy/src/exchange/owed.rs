//! Owns what an admitted request still owes: the difference between what was reserved and what its
//! response says it did cost. It is sent once the response tells, and nobody waits for it.
//!
//! A response that never comes, because the client left or the upstream broke, says nothing: the
//! reserve stays charged, since the work may have been done.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;

use super::ends::Ending;
use super::respond::Standing;
use super::{Answer, Asked, Question, Signal};
use crate::config::Config;
use crate::cost::{ResponseCost, ResponseSource};
use crate::limit::refund::Receipt;
use crate::reason::Reason;
use crate::scope::CallerScope;
use crate::wire::{self, Adjustment, DecisionId, LimitCall, Refusal, SettleReply, SettleRequest};

/// Told of a request whose moment of asking nobody knows: long enough for every limit to have run
/// out by itself, so that nothing is given back twice.
const AGE_UNKNOWN_US: u64 = 10 * 366 * 86_400_000_000;

/// What a response has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Its headers are there.
    Headers,
    /// Its trailers are there; not every response has any.
    Trailers,
    /// It is over.
    End,
}

/// What a settling message needs beside its adjustments.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) scope: CallerScope,
    pub(super) traceparent: Option<String>,
    pub(super) request_id: Option<String>,
    /// When the question was sent, in µs by the filter's clock.
    pub(super) sent_us: Option<u64>,
}

/// What one request owes.
#[derive(Debug)]
pub(super) struct Owed {
    id: DecisionId,
    terms: Terms,
    reserved: Vec<Reserved>,
}

/// What limits charged for a request whose claim is asked for behind it, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// What gives it back, as old as it was when the claim was asked for last.
    back: SettleRequest,
    /// When the question that charged it was sent, in µs by the filter's clock.
    sent_us: Option<u64>,
}

/// One limit that was charged a reserve.
#[derive(Debug)]
struct Reserved {
    asked: Asked,
    call: LimitCall,
    receipt: Option<Receipt>,
}

/// A message to [`wire::SETTLE_PATH`], for which the request does not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The decision.
    pub id: DecisionId,
    /// The message.
    pub message: Vec<u8>,
    /// The home region that it goes to, by its index; `None` is this region's own gateway.
    pub home: Option<usize>,
    /// What goes to this region's own gateway beside.
    pub beside: Option<Box<Settlement>>,
    /// The claim that it ends, if it ends one.
    pub(super) ends: Option<Ending>,
    /// How often it may still be sent.
    pub(super) tries: u8,
    /// How often it was put off.
    pub(super) later: u8,
    /// What is sent from the second time on, if that is not the same.
    pub(super) again: Option<Box<Again>>,
}

/// A message in other words: seldom there, so that it is behind one pointer and not two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Again(pub(super) Vec<u8>);

// === impl Terms ===

impl Terms {
    /// How long ago the question was sent, or longer. Of a clock that stepped back behind it nothing is known.
    pub(super) fn age_us(&self, now_us: Option<u64>) -> u64 {
        age_us(self.sent_us, now_us)
    }

    /// A settling message that says nothing yet of a decision that was asked for `age_us` ago.
    pub(super) fn settling(&self, config: &Config, id: DecisionId, age_us: u64) -> SettleRequest {
        SettleRequest {
            v: wire::VERSION,
            id,
            scope: self.scope.clone(),
            timeout_ms: config.gateway.timeout_ms,
            age_us,
            traceparent: self.traceparent.clone(),
            request_id: self.request_id.clone(),
            adjustments: Vec::new(),
            finish: None,
            octets: Vec::new(),
        }
    }
}

// === impl Charged ===

impl Charged {
    /// What gives it back, of a charge that is so old at most.
    pub(super) fn back(self, age_us: u64) -> SettleRequest {
        SettleRequest { age_us, ..self.back }
    }

    /// The same now, in µs by the filter's clock.
    pub(super) fn back_at(self, now_us: Option<u64>) -> SettleRequest {
        let age_us = age_us(self.sent_us, now_us);
        self.back(age_us)
    }
}

// === impl Owed ===

impl Owed {
    /// Of a request that goes on: the limits whose cost its response tells, as far as they were
    /// charged. Of shadow and soft limits each is charged that admits, as far as it could be read.
    pub(super) fn of(
        config: &Config,
        question: &Question,
        limits: &[Standing],
    ) -> Option<Box<Self>> {
        if !any_told_later(config, &question.asked) {
            return None;
        }
        let terms = question.terms.clone()?;
        let refused: Vec<&Asked> = limits
            .iter()
            .filter(|limit| !limit.asked.is_enforced() && (!limit.allowed || limit.unread))
            .map(|limit| &limit.asked)
            .collect();
        let charged = |asked: &Asked| !refused.contains(&asked);
        let reserved: Vec<Reserved> = question
            .calls()
            .filter(|(asked, ..)| charged(asked) && told_later(config, asked).is_some())
            .map(|(asked, call, receipt)| Reserved { asked: *asked, call: call.clone(), receipt })
            .collect();
        (!reserved.is_empty()).then(|| Box::new(Self { id: question.id, terms, reserved }))
    }

    /// Where the response says it, at this moment: to be read in this order.
    pub(super) fn wanted<'c>(&self, config: &'c Config, moment: Moment) -> Vec<&'c ResponseSource> {
        let known = self.reserved.iter().filter_map(|reserved| told_later(config, &reserved.asked));
        known.map(|cost| &cost.source).filter(|source| moment_of(source) == moment).collect()
    }

    /// Settles what this moment tells; `values` are those of [`Owed::wanted`].
    pub(super) fn settle(
        &mut self,
        config: &Config,
        moment: Moment,
        values: &[Option<Vec<u8>>],
        now_us: Option<u64>,
        signals: &mut Vec<Signal>,
    ) -> Option<Settlement> {
        let mut values = values.iter();
        let mut adjustments = Vec::new();
        let mut later = Vec::new();
        for reserved in self.reserved.drain(..) {
            let Some(cost) = told_later(config, &reserved.asked) else { continue };
            if moment_of(&cost.source) != moment {
                later.push(reserved);
                continue;
            }
            let value = values.next().and_then(Option::as_deref);
            let Some(said) = cost.said(value) else { continue };
            let Asked { policy, limit, .. } = reserved.asked;
            if said.malformed {
                signals.push(Signal::CostMalformed { policy, limit });
            }
            let by = i64::from(said.units).saturating_sub(i64::from(reserved.call.cost));
            if by != 0 {
                adjustments.push(adjustment(reserved.call, by, reserved.receipt));
            }
        }
        self.reserved = later;
        if adjustments.is_empty() {
            return None;
        }
        let age_us = self.terms.age_us(now_us);
        let message = SettleRequest { adjustments, ..self.terms.settling(config, self.id, age_us) };
        Some(Settlement::of(message))
    }

    pub(super) fn is_settled(&self) -> bool {
        self.reserved.is_empty()
    }
}

// === impl Question ===

impl Question {
    /// The limits with what the gateway said of their charges.
    fn calls(&self) -> impl Iterator<Item = (&Asked, &LimitCall, Option<Receipt>)> {
        let receipts = self.receipts.iter().copied().chain(iter::repeat(None));
        let calls = self.asked.iter().zip(&self.limits).zip(receipts);
        calls.map(|((asked, call), receipt)| (asked, call, receipt))
    }

    /// How long ago the limits were charged at most, once it is answered, in µs.
    pub(super) fn age_us(&self, config: &Config) -> u64 {
        let before_us = self.charged.as_ref().map_or(0, |charged| charged.back.age_us);
        u64::from(self.timeout_ms(config)).saturating_mul(1_000).saturating_add(before_us)
    }

    /// It is sent, now, in µs by the filter's clock. What was charged before is as old as the question that charged it.
    pub(super) fn sent(&mut self, now_us: u64) {
        let Some(terms) = &mut self.terms else { return };
        if let Some(charged) = &mut self.charged
            && let Some(sent_us) = charged.sent_us
        {
            charged.back.age_us = now_us.checked_sub(sent_us).unwrap_or(AGE_UNKNOWN_US);
        }
        terms.sent_us = Some(now_us);
    }

    /// It was held for nobody knows how long since its limits were charged: only [`Question::sent`] will tell.
    pub(super) fn was_held(&mut self) {
        if let Some(charged) = &mut self.charged {
            charged.back.age_us = AGE_UNKNOWN_US;
        }
    }

    /// What the limits were charged, at most `age_us` ago, for a question that is asked for the claim alone.
    pub(super) fn charged(&mut self, config: &Config, age_us: u64) -> Option<Box<Charged>> {
        if let Some(mut before) = self.charged.take() {
            before.back.age_us = age_us;
            return Some(before);
        }
        let sent_us = self.terms.as_ref()?.sent_us;
        self.refund(config, age_us).map(|back| Box::new(Charged { back, sent_us }))
    }

    /// What gives back what its limits were charged, should the request not go on after all.
    pub(super) fn charge(&self, config: &Config) -> Option<Charged> {
        let sent_us = match &self.charged {
            Some(before) => before.sent_us,
            None => self.terms.as_ref()?.sent_us,
        };
        self.refund(config, AGE_UNKNOWN_US).map(|back| Charged { back, sent_us })
    }

    /// Gives back what the limits were charged, at most `age_us` ago. The enforced ones were, since they admitted; of those
    /// that count for themselves only a receipt proves it: one that did not admit was not charged, nor one that could
    /// not be read.
    pub(super) fn refund(&self, config: &Config, age_us: u64) -> Option<SettleRequest> {
        if let Some(charged) = &self.charged {
            return Some(SettleRequest { age_us, ..charged.back.clone() });
        }
        let terms = self.terms.as_ref()?;
        let charged = self.calls().filter(|(asked, call, receipt)| {
            call.cost > 0 && (asked.is_enforced() || receipt.is_some())
        });
        let back = |call: &LimitCall| i64::from(call.cost).saturating_neg();
        let adjustments: Vec<Adjustment> = charged
            .map(|(_, call, receipt)| adjustment(call.clone(), back(call), receipt))
            .collect();
        let is_any = !adjustments.is_empty();
        let message = || SettleRequest { adjustments, ..terms.settling(config, self.id, age_us) };
        is_any.then(message)
    }
}

fn age_us(sent_us: Option<u64>, now_us: Option<u64>) -> u64 {
    match (sent_us, now_us) {
        (Some(sent_us), Some(now_us)) => now_us.checked_sub(sent_us).unwrap_or(AGE_UNKNOWN_US),
        _ => AGE_UNKNOWN_US,
    }
}

/// Whether any of these limits has a cost that only the response tells.
pub(super) fn any_told_later(config: &Config, asked: &[Asked]) -> bool {
    asked.iter().any(|asked| told_later(config, asked).is_some())
}

fn told_later<'c>(config: &'c Config, asked: &Asked) -> Option<&'c ResponseCost> {
    asked.rate_limit(config)?.cost.after()
}

fn moment_of(source: &ResponseSource) -> Moment {
    match source {
        ResponseSource::Header(_) => Moment::Headers,
        ResponseSource::Trailer(_) => Moment::Trailers,
        // Metadata grows with the response: a count of tokens is whole when it is over.
        ResponseSource::Metadata(_) => Moment::End,
    }
}

fn adjustment(call: LimitCall, by: i64, receipt: Option<Receipt>) -> Adjustment {
    Adjustment {
        id: call.id,
        subject: call.subject,
        limit: call.limit,
        period_us: call.period_us,
        burst: call.burst,
        algorithm: call.algorithm,
        by,
        receipt,
    }
}

/// Why a settlement failed, if it did. Nobody waits for it: unless it is sent again, what it would have charged or
/// given back stays as it was reserved.
pub fn settlement_failure(id: DecisionId, answer: &Answer<'_>) -> Option<Reason> {
    match answer {
        Answer::CircuitOpen { .. } => Some(Reason::CalloutCircuitOpen),
        Answer::NotSent => Some(Reason::CalloutNotSent),
        Answer::Reset => Some(Reason::CalloutReset),
        Answer::Response { marked: false, .. } => Some(Reason::CalloutUnmarked),
        Answer::Response { status: b"200", body, .. } => {
            SettleReply::decode(body, id).is_err().then_some(Reason::CalloutMalformed)
        }
        Answer::Response { body, .. } => {
            let refusal = Refusal::decode(body).ok();
            let reason = refusal.and_then(|refusal| Reason::from_text(&refusal.reason));
            Some(reason.unwrap_or(Reason::CalloutMalformed))
        }
    }
}
