//! Owns a claim on its way: what the upstream answers is collected, and the claim ends with it. The
//! answer is stored, or it is given back, or it is kept. Knows neither limits nor how a claim was asked
//! for.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claim::{Claiming, terms};
use super::ends::{abandon, complete, extend};
use super::origin::{Envoys, another_reply, is_stream, refuses};
use super::owed::Terms;
use super::{Idempotent, Settlement, Signal};
use crate::config::Config;
use crate::idempotency::finalise::{Body, Ended, Finalise};
use crate::idempotency::record::Fence;
use crate::idempotency::stored::{StoredAnswer, StoredHeaders};
use crate::idempotency::terms::Terms as Policy;
use crate::identity::Fields;
use crate::render::REPLY_HEADER;
use crate::wire::{DecisionId, Keyed, SettleRequest};

/// A claim of a request that is with the upstream.
#[derive(Debug)]
pub(super) struct HeldClaim {
    id: DecisionId,
    settling: Terms,
    policy: usize,
    /// Whether its policy is in shadow.
    shadow: bool,
    /// Whether the answer is held until it is stored.
    durable: bool,
    keyed: Keyed,
    fence: Fence,
    grpc: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No answer yet.
    Running,
    /// The body is on its way; `None` if it is not kept, or once it is longer than what may be stored: then it passes.
    Collecting { status: u16, headers: StoredHeaders, body: Option<Vec<u8>> },
    /// The messages of a gRPC call pass; its trailers say what came of it. `once`: Envoy tried no more than once.
    /// `spoke`: there was a message.
    Calling { headers: StoredHeaders, once: bool, spoke: bool },
    /// The answer is held until it is stored.
    Storing,
}

/// What the upstream answers, piece by piece, or how the request ended.
#[derive(Debug)]
pub enum Part<'a> {
    /// The headers.
    Headers {
        /// All of them.
        headers: &'a Fields<'a>,
        /// What Envoy says of them.
        envoys: Envoys,
        /// Whether nothing follows.
        end: bool,
    },
    /// A piece of the body.
    Body {
        /// The piece.
        bytes: &'a [u8],
        /// Whether it was the last.
        end: bool,
    },
    /// The trailers: the body is whole.
    Trailers {
        /// Of a gRPC call, if [`super::Exchange::awaits_status`].
        grpc_status: Option<&'a [u8]>,
    },
    /// What was to be stored is, or cannot be: nothing is held any longer.
    Stored,
    /// The stream is over, however it ended.
    Over(Envoys),
}

/// What to do with the answer for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// Let it pass.
    #[default]
    Go,
    /// Hold it back, and hand over what follows.
    Collect,
    /// Hold all of it back until the settlement is answered.
    Keep,
}

/// What follows from a part of an answer.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Answering {
    /// What to do with it.
    pub hold: Hold,
    /// Whether more of it is wanted.
    pub wants_more: bool,
    /// What ends the claim.
    pub settlement: Option<Settlement>,
    /// What to count.
    pub signals: Vec<Signal>,
}

// === impl HeldClaim ===

impl HeldClaim {
    pub(super) fn new(
        id: DecisionId,
        settling: Terms,
        claim: Claiming,
        fence: Fence,
        (grpc, is_durable): (bool, bool),
    ) -> Self {
        let Claiming { policy, shadow, keyed, .. } = claim;
        // In shadow nothing is held.
        let durable = is_durable && !shadow;
        Self { id, settling, policy, shadow, durable, keyed, fence, grpc, state: State::Running }
    }

    /// Whether its request may run only once.
    pub(super) fn is_enforced(&self) -> bool {
        !self.shadow
    }

    /// Locks the claim for longer, if a third of its lock has gone by. As long as the request is alive its
    /// key is in flight, however long the upstream takes.
    pub(super) fn beats(&mut self, config: &Config, now_us: u64) -> Option<Settlement> {
        let lock_us = u64::from(terms(config, self.policy)?.lock_ms()).saturating_mul(1_000);
        // The clock may have stepped back.
        let since_us = self.settling.sent_us.filter(|since_us| *since_us <= now_us);
        let is_due = since_us.is_none_or(|since_us| now_us - since_us >= lock_us / 3);
        if !is_due || matches!(self.state, State::Storing) {
            return None;
        }
        self.settling.sent_us = Some(now_us);
        let settling = self.settling.settling(config, self.id, 0);
        extend(config, settling, self.policy, self.keyed.clone(), self.fence)
    }

    /// Whether the answer is held back.
    pub(super) fn holds(&self) -> bool {
        self.durable && !self.passes()
    }

    /// Whether what is left of the answer passes as it comes, and nothing but how it ends matters.
    pub(super) fn passes(&self) -> bool {
        matches!(self.state, State::Calling { .. } | State::Collecting { body: None, .. })
    }

    /// Whether nothing but the trailers matters any more, and its status in them.
    pub(super) fn awaits_status(&self) -> bool {
        matches!(self.state, State::Calling { .. })
    }

    /// Gives the claim back before the request went anywhere, with what else is given back.
    pub(super) fn given_back(
        self,
        config: &Config,
        beside: Option<SettleRequest>,
    ) -> Option<Settlement> {
        let Self { id, settling, policy, keyed, fence, .. } = self;
        // Who waited may have asked for the limits under another id.
        let settling =
            SettleRequest { id, ..beside.unwrap_or_else(|| settling.settling(config, id, 0)) };
        abandon(config, settling, policy, keyed, fence)
    }

    /// Ends the claim; nothing is left of it unless the answer is held.
    fn ends(&mut self, config: &Config, how: Finalise, kept: Option<StoredAnswer>) -> Answering {
        let settling = self.settling.settling(config, self.id, 0);
        let settlement = match (how, kept) {
            (Finalise::Release, _) => {
                abandon(config, settling, self.policy, self.keyed.clone(), self.fence)
            }
            (Finalise::Store | Finalise::StoreWithoutBody, Some(answer)) => {
                let keyed = (self.keyed.clone(), self.fence);
                complete(config, settling, self.policy, keyed, &answer)
            }
            (Finalise::Store | Finalise::StoreWithoutBody | Finalise::KeepClaimed, _) => None,
        };
        let is_stored = matches!(how, Finalise::Store | Finalise::StoreWithoutBody);
        let holds = is_stored && settlement.is_some() && self.durable;
        self.state = State::Storing;
        let outcome = Idempotent::Kept;
        let kept = Signal::Idempotency { policy: self.policy, outcome };
        Answering {
            hold: if holds { Hold::Keep } else { Hold::Go },
            wants_more: holds,
            signals: if settlement.is_none() { [kept].into() } else { Vec::new() },
            settlement,
        }
    }

    fn headers(
        &mut self,
        config: &Config,
        terms: &Policy,
        fields: &Fields<'_>,
        envoys: Envoys,
        end: bool,
    ) -> Answering {
        let first = |name: &[u8]| fields.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        let number = |name| core::str::from_utf8(first(name)?).ok()?.parse::<u64>().ok();
        let rule = terms.stored.rule;
        let status = number(b":status").and_then(|status| u16::try_from(status).ok()).unwrap_or(0);
        if !envoys.from_upstream {
            let call = first(b"grpc-status").filter(|_| self.grpc);
            let never = envoys.never_sent(refuses(status, call));
            let ended = if never { Ended::NeverSent } else { Ended::Lost };
            return self.ends(config, rule.finalise(ended), None);
        }
        // What an earlier try came to nobody knows, and the last says nothing of it.
        let once = envoys.attempts == Some(1);
        if let Some(reply) = first(REPLY_HEADER.as_bytes()) {
            let call = first(b"grpc-status").filter(|_| self.grpc);
            let ran_nowhere = once && another_reply(reply, status, call);
            let how = if ran_nowhere { Finalise::Release } else { Finalise::KeepClaimed };
            return self.ends(config, how, None);
        }
        if self.grpc && status == 200 {
            let headers = terms.stored.headers.kept(fields.iter().copied()).unwrap_or_default();
            self.state = State::Calling { headers, once, spoke: false };
            return if end {
                self.called(config, terms, first(b"grpc-status"))
            } else {
                self.goes_on()
            };
        }
        let retry_after = first(b"retry-after").is_some();
        let how = match rule.finalise(Ended::Answered { status, retry_after, body: Body::Whole }) {
            Finalise::Release if !once => Finalise::KeepClaimed,
            how => how,
        };
        if how != Finalise::Store {
            return self.ends(config, how, None);
        }
        // Headers of which only a part could be stored make another answer.
        let headers = terms.stored.headers.kept(fields.iter().copied());
        let len = first(b"content-length").map(|_| number(b"content-length").unwrap_or(u64::MAX));
        let is_stream = first(b"content-type").is_some_and(|kind| is_stream(kind, len.is_some()));
        let is_long =
            usize::try_from(len.unwrap_or(0)).map_or(true, |len| len > terms.stored.body_len_max);
        let is_kept = headers.is_some() && !is_stream && !is_long && !self.grpc;
        let headers = headers.unwrap_or_default();
        let body = is_kept.then(Vec::new);
        if end {
            return self.whole(config, status, headers, body);
        }
        self.state = State::Collecting { status, headers, body };
        self.goes_on()
    }

    fn body(&mut self, config: &Config, terms: &Policy, bytes: &[u8], end: bool) -> Answering {
        if let State::Calling { spoke, .. } = &mut self.state {
            *spoke = true;
            return if end { self.called(config, terms, None) } else { self.goes_on() };
        }
        let State::Collecting { body, .. } = &mut self.state else {
            return self.goes_on();
        };
        body.take_if(|body| body.len().saturating_add(bytes.len()) > terms.stored.body_len_max);
        if let Some(body) = body {
            body.extend_from_slice(bytes);
        }
        if end { self.collected(config) } else { self.goes_on() }
    }

    /// The end of a gRPC call.
    fn called(&mut self, config: &Config, terms: &Policy, status: Option<&[u8]>) -> Answering {
        let (headers, once, spoke) = match core::mem::replace(&mut self.state, State::Storing) {
            State::Calling { headers, once, spoke } => (headers, once, spoke),
            state => {
                self.state = state;
                return self.goes_on();
            }
        };
        let status = status.and_then(|status| core::str::from_utf8(status).ok()?.parse().ok());
        match terms.stored.rule.finalise(Ended::Called { status, spoke }) {
            Finalise::Store | Finalise::StoreWithoutBody => self.whole(config, 200, headers, None),
            Finalise::Release if !once => self.ends(config, Finalise::KeepClaimed, None),
            how => self.ends(config, how, None),
        }
    }

    fn collected(&mut self, config: &Config) -> Answering {
        match core::mem::replace(&mut self.state, State::Storing) {
            State::Collecting { status, headers, body } => {
                self.whole(config, status, headers, body)
            }
            state => {
                self.state = state;
                self.goes_on()
            }
        }
    }

    fn whole(
        &mut self,
        config: &Config,
        status: u16,
        headers: StoredHeaders,
        body: Option<Vec<u8>>,
    ) -> Answering {
        let how = match body {
            Some(_) => Finalise::Store,
            None => Finalise::StoreWithoutBody,
        };
        self.ends(config, how, Some(StoredAnswer { status, headers, body }))
    }

    fn goes_on(&self) -> Answering {
        let hold = match (&self.state, self.durable) {
            (State::Storing, true) => Hold::Keep,
            (State::Collecting { body: Some(_), .. }, true) => Hold::Collect,
            _ => Hold::Go,
        };
        Answering { hold, wants_more: true, ..Answering::default() }
    }

    /// How it ended where no whole answer was seen.
    fn over(&mut self, config: &Config, terms: &Policy, envoys: Envoys) -> Answering {
        match &self.state {
            State::Storing => Answering::default(),
            State::Collecting { .. } | State::Calling { .. } => {
                self.ends(config, Finalise::KeepClaimed, None)
            }
            State::Running => {
                let never = envoys.never_sent(true);
                let ended = if never { Ended::NeverSent } else { Ended::ClientLeft };
                self.ends(config, terms.stored.rule.finalise(ended), None)
            }
        }
    }
}

/// Takes a part of the answer to a request with a claim.
pub(super) fn on_answer(
    config: &Config,
    held: &mut Option<Box<HeldClaim>>,
    part: Part<'_>,
) -> Answering {
    let Some(claim) = held.as_mut() else {
        return Answering::default();
    };
    let Some(terms) = terms(config, claim.policy) else {
        return Answering::default();
    };
    let answering = match part {
        Part::Headers { headers, envoys, end } => {
            claim.headers(config, terms, headers, envoys, end)
        }
        Part::Body { bytes, end } => claim.body(config, terms, bytes, end),
        Part::Trailers { grpc_status } if claim.awaits_status() => {
            claim.called(config, terms, grpc_status)
        }
        Part::Trailers { .. } => claim.collected(config),
        Part::Stored => Answering::default(),
        Part::Over(envoys) => claim.over(config, terms, envoys),
    };
    held.take_if(|_| !answering.wants_more);
    answering
}
