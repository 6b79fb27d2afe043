//! Owns how an answer is looked at as it comes and when it is over, held where it has to be, and how the
//! messages that end claims are sent and repeated.

use std::rc::Rc;

use tidegate_policy::exchange::{Answer, Answering, Ended, Hold, Moment, Part, Said, Settlement};

use super::calls::To;
use super::{Open, Stream, Vm, Waiter, or_log};
use crate::abi::Action;
use crate::circuits::GRPC_STATUS;
use crate::host::{self, Buffer, Map};
use crate::root::Root;
use crate::{callout, codec, facts, render};

/// Of so many short ticks of a root one looks after its claims: each 0.61 s.
const SHORT_TICKS: u32 = 61;

// === impl Vm ===

impl Vm {
    /// The upstream answers, or a reply of ours passes by on its way out.
    pub(crate) fn response_headers(&mut self, stream: u32, end: bool) -> Action {
        if !self.untyped.is_empty() {
            self.untype(stream);
        }
        self.circuit_answered(stream, end);
        let action = self.answer_headers(stream, end);
        self.response(stream, Moment::Headers);
        action
    }

    /// A first answer that is given again and had no type gets none.
    fn untype(&mut self, stream: u32) {
        if self.untyped.extract_if(.., |untyped| *untyped == stream).count() > 0 {
            or_log(render::untype(), "a first answer is given a type that it did not have");
        }
    }

    /// The answer ends with trailers. They are read here: once the stream is over a host may show them no more.
    pub(crate) fn response_trailers(&mut self, stream: u32) -> Action {
        self.circuit_trailed(stream);
        let action = self.answer_trailers(stream);
        self.response(stream, Moment::Trailers);
        action
    }

    /// The stream is over, however it ended.
    pub(crate) fn response_end(&mut self, stream: u32) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        if core::mem::replace(&mut known.is_over, true) {
            return;
        }
        let owes = known.exchange.is_some();
        self.circuit_ended(stream);
        if owes {
            self.answer_over(stream);
            self.response(stream, Moment::End);
        }
    }

    /// What the response of an admitted request carries, and what it settles.
    pub(super) fn response(&mut self, stream: u32, moment: Moment) {
        let Some(held) = self.streams.get_mut(&stream).map(|stream| &mut stream.exchange) else {
            return;
        };
        let Some(open) = held.as_mut().filter(|open| open.exchange.has_to_tell()) else { return };
        let Open { exchange, root, .. } = &mut **open;
        let wanted = exchange.wanted(&root.config, moment);
        let values: Vec<_> = wanted.into_iter().map(facts::cost).collect();
        let now_us = (!values.is_empty()).then(host::now_us).and_then(Result::ok);
        let said = Said { moment, values: &values, now_us };
        let response = exchange.on_response(&root.config, &said);
        for signal in &response.signals {
            root.counters.borrow_mut().signal(&root.config, *signal);
        }
        or_log(render::tell(&response), "a response cannot be told what is left");
        let settling = response.settlement.map(|settlement| (Rc::clone(root), settlement));
        if !exchange.has_to_tell() {
            *held = None;
        }
        if let Some((root, settlement)) = settling {
            self.settle(&root, *settlement);
        }
    }

    /// The headers of an answer.
    pub(crate) fn answer_headers(&mut self, stream: u32, end: bool) -> Action {
        let Some(open) = self.take_wanting(stream) else {
            return Action::Continue;
        };
        if let Some(known) = self.streams.get_mut(&stream) {
            known.seen = 0;
        }
        let pairs = host::header_pairs(Map::Response).unwrap_or_default();
        let headers = codec::decode(&pairs).unwrap_or_default();
        let part = Part::Headers { headers: &headers, envoys: facts::envoys(), end };
        match self.answer_part(stream, *open, part) {
            Hold::Go => Action::Continue,
            Hold::Collect => Action::HoldBody,
            Hold::Keep => Action::HoldAll,
        }
    }

    /// The next piece of an answer's body. What is held stays with the host: `size` is all of it.
    pub(crate) fn answer_body(&mut self, stream: u32, size: usize, end: bool) -> Action {
        let Some(open) = self.take_wanting(stream) else {
            return Action::Continue;
        };
        let held = open.exchange.holds_answer();
        let seen = match self.streams.get_mut(&stream) {
            Some(known) if held => core::mem::replace(&mut known.seen, size),
            Some(_) | None => 0,
        };
        let skips = open.exchange.passes_answer();
        let len = if skips { 0 } else { size.saturating_sub(seen) };
        let read = match len {
            0 => Ok(None),
            _ => host::buffer_from(Buffer::ResponseBody, seen, len),
        };
        // A piece that cannot be read, or only in part, must not be taken for the whole.
        let part = match read.map(Option::unwrap_or_default) {
            Ok(bytes) if bytes.len() == len => {
                self.answer_part(stream, *open, Part::Body { bytes: &bytes, end })
            }
            Ok(_) | Err(_) => self.answer_part(stream, *open, Part::Over(facts::envoys())),
        };
        match part {
            Hold::Go => Action::Continue,
            Hold::Collect => Action::HoldBody,
            // What is whole is held without a bound on the host's side. Of an answer that passed this is the last piece, of
            // any size, and its headers are out: too large for that bound it would be cut.
            Hold::Keep if end && !skips => Action::HoldBody,
            Hold::Keep => Action::HoldBack,
        }
    }

    /// The trailers of an answer.
    pub(crate) fn answer_trailers(&mut self, stream: u32) -> Action {
        let Some(open) = self.take_wanting(stream) else {
            return Action::Continue;
        };
        let code = match open.exchange.awaits_status() {
            true => host::header(Map::ResponseTrailer, GRPC_STATUS).ok().flatten(),
            false => None,
        };
        let part = Part::Trailers { grpc_status: code.as_deref() };
        match self.answer_part(stream, *open, part) {
            Hold::Go => Action::Continue,
            Hold::Collect | Hold::Keep => Action::HoldBody,
        }
    }

    /// Time has gone by: claims of requests that take long are locked for longer.
    pub(super) fn beat(&mut self, context: u32) {
        let root = self.roots.get(&context).and_then(Option::as_ref);
        let Some(root) = root.filter(|root| root.is_idempotent) else { return };
        // While a request of its own waits the tick is a short one, and a claim has more time than that.
        let ticks = root.ticks.get().wrapping_add(1);
        root.ticks.set(ticks);
        let is_short = self.waiting.iter().any(|waits| waits.is_of(context));
        if is_short && !ticks.is_multiple_of(SHORT_TICKS) {
            return;
        }
        let of_root = |stream: &&mut Stream| stream.root == context;
        let opens = self.streams.values_mut().filter(of_root).filter_map(|s| s.exchange.as_mut());
        let mut wanting = opens.filter(|open| open.exchange.has_claim()).peekable();
        if wanting.peek().is_none() {
            return;
        }
        let Ok(now_us) = host::now_us() else { return };
        let beat = |open: &mut Box<Open>| {
            let settlement = open.exchange.beats(&open.root.config, now_us)?;
            Some((Rc::clone(&open.root), settlement))
        };
        let beats: Vec<_> = wanting.filter_map(beat).collect();
        for (root, settlement) in beats {
            self.settle(&root, settlement);
        }
    }

    /// The stream is over: a claim that has no answer yet gets none any more, and one that was asked
    /// for and not told of yet is given back.
    pub(super) fn answer_over(&mut self, stream: u32) {
        if let Some(open) = self.take_wanting(stream) {
            self.answer_part(stream, *open, Part::Over(facts::envoys()));
            return;
        }
        let open = self.streams.get_mut(&stream).map(|stream| &mut stream.exchange);
        let Some(open) = open.and_then(|open| open.take_if(|o| o.exchange.holds_request())) else {
            return;
        };
        let mut open = *open;
        if let Some(testimony) = open.exchange.never_went_on() {
            open.root.record_each(testimony);
        }
        match open.exchange.left(&open.root.config, host::now_us().ok()) {
            Some(settlement) => {
                open.taken.give_back();
                self.settle(&open.root, settlement);
            }
            None => self.keep_open(stream, open),
        }
    }

    /// An exchange whose claim waits for the answer.
    fn take_wanting(&mut self, stream: u32) -> Option<Box<Open>> {
        let open = &mut self.streams.get_mut(&stream)?.exchange;
        open.take_if(|open| open.exchange.wants_answer())
    }

    fn answer_part(&mut self, stream: u32, open: Open, part: Part<'_>) -> Hold {
        let Open { mut exchange, root, taken } = open;
        let Answering { mut hold, settlement, signals, .. } =
            exchange.on_answer(&root.config, part);
        root.count(signals);
        if let Some(settlement) = settlement {
            let waits = hold == Hold::Keep;
            let is_sent = self.send_end(&root, settlement, waits.then_some(stream));
            if waits && !is_sent {
                exchange.on_answer(&root.config, Part::Stored);
                hold = Hold::Go;
            }
        }
        if exchange.has_to_tell() {
            self.keep_open(stream, Open { exchange, root, taken });
        }
        hold
    }

    /// Sends what ends a claim; `stream` is held until that is done. `false` if it cannot be sent.
    fn send_end(&mut self, root: &Rc<Root>, mut end: Settlement, stream: Option<u32>) -> bool {
        if let Some(beside) = end.beside.take() {
            self.settle(root, *beside);
        }
        loop {
            let (message, id) = (end.message.clone(), end.id);
            let to = To::of(root, end.home);
            let waiter = match stream {
                Some(stream) => Waiter::Stored(stream, end),
                None => Waiter::Settlement(end),
            };
            let Err((answer, waiter)) =
                self.send_to(root, &root.settle_headers, &message, waiter, to)
            else {
                return true;
            };
            end = match waiter {
                Waiter::Stored(_, end) | Waiter::Settlement(end) => end,
                Waiter::Stream(_)
                | Waiter::Alone(_)
                | Waiter::Together(_)
                | Waiter::Circuits(_)
                | Waiter::Sync(..)
                | Waiter::Record { .. }
                | Waiter::Events(..) => return false,
            };
            match end.ended(&answer) {
                Ended::Again => {}
                ended => {
                    callout::settled(root, id, &answer);
                    self.end_with(root, end, ended);
                    return false;
                }
            }
        }
    }

    /// Sends what settles a decision. Nobody waits for it; that it fails is counted.
    pub(super) fn settle(&mut self, root: &Rc<Root>, settlement: Settlement) {
        self.send_end(root, settlement, None);
    }

    /// What became of a settlement; one that ends a claim is repeated if it failed.
    pub(super) fn settled(
        &mut self,
        root: &Rc<Root>,
        mut settlement: Settlement,
        answer: &Answer<'_>,
        stream: Option<u32>,
    ) {
        callout::settled(root, settlement.id, answer);
        let ended = settlement.ended(answer);
        if ended == Ended::Again {
            if !self.send_end(root, settlement, stream) {
                self.stored(stream);
            }
            return;
        }
        self.end_with(root, settlement, ended);
        self.stored(stream);
    }

    fn end_with(&mut self, root: &Rc<Root>, settlement: Settlement, ended: Ended) {
        match ended {
            Ended::Again => {}
            Ended::Over(signals) => root.count(signals),
            Ended::Later { pause_ms, signals } => {
                root.count(signals);
                self.postpone(root, settlement, pause_ms);
            }
        }
    }

    /// Lets an answer go on that was held until it is stored, if it still is there.
    fn stored(&mut self, stream: Option<u32>) {
        let Some(stream) = stream else { return };
        let Some(open) = self.take_open(stream) else { return };
        let mut open = *open;
        open.exchange.on_answer(&open.root.config, Part::Stored);
        if open.exchange.has_to_tell() {
            self.keep_open(stream, open);
        }
        let going_on = host::set_effective_context(stream).and_then(|()| host::continue_response());
        or_log(going_on, "an answer cannot go on");
    }
}
