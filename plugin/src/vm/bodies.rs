//! Owns how a request with an idempotency key is held while its body is hashed, and how it waits. The
//! body stays with the host; only what is new of it is read.

use std::rc::Rc;

use tidegate_policy::exchange::Event;

use super::{Open, Vm, or_log, unreadable};
use crate::abi::Action;
use crate::facts::UNREADABLE;
use crate::host::{self, Buffer};
use crate::root::Root;

/// How often requests that wait are looked after at most, and at least.
const TICK_MS_MIN: u32 = 10;
const TICK_MS_MAX: u32 = 25;

/// Who waits, and until when.
pub(super) struct Waits {
    who: Who,
    root: u32,
    due_us: u64,
    delay_us: u64,
    tick_ms: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A request; and the circuit breaker that it is held for, if one, by its index in the configuration.
    Request { stream: u32, breaker: Option<usize> },
    /// Questions that no other one calls up (together.rs).
    Line,
}

// === impl Waits ===

impl Waits {
    /// Whether this root's tick looks after it.
    pub(super) fn is_of(&self, root: u32) -> bool {
        self.root == root
    }

    /// Whether its time is over; also where the clock has stepped back, which must not make it longer.
    fn is_due(&self, now_us: u64) -> bool {
        self.due_us <= now_us || self.due_us.saturating_sub(now_us) > self.delay_us
    }
}

// === impl Vm ===

impl Vm {
    /// The next piece of a request's body; `size` is all that the host holds of it.
    pub(crate) fn request_body(&mut self, stream: u32, size: usize, end: bool) -> Action {
        let Some(known) = self.streams.get_mut(&stream) else {
            return Action::Continue;
        };
        let Some(open) = known.exchange.take_if(|open| open.exchange.collects()) else {
            let held = known.exchange.as_ref().is_some_and(|open| open.exchange.holds_request());
            return if held { Action::HoldAll } else { Action::Continue };
        };
        known.has_body &= !end;
        let seen = core::mem::replace(&mut known.seen, size);
        let len = size.saturating_sub(seen);
        let read = match len {
            0 => Ok(None),
            _ => host::buffer_from(Buffer::RequestBody, seen, len),
        };
        match read.map(Option::unwrap_or_default) {
            Ok(bytes) if bytes.len() == len => self.hash(stream, *open, &bytes, end),
            // A part of it is another body.
            Ok(_) => unreadable(&open.root, UNREADABLE),
            Err(status) => unreadable(&open.root, status),
        }
    }

    /// The request has trailers: its body is whole.
    pub(crate) fn request_trailers(&mut self, stream: u32) -> Action {
        let Some(known) = self.streams.get_mut(&stream) else {
            return Action::Continue;
        };
        if let Some(open) = known.exchange.take_if(|open| open.exchange.collects()) {
            known.has_body = false;
            return self.hash(stream, *open, &[], true);
        }
        let held = known.exchange.as_ref().is_some_and(|open| open.exchange.holds_request());
        if held { Action::HoldBody } else { Action::Continue }
    }

    fn hash(&mut self, stream: u32, mut open: Open, bytes: &[u8], end: bool) -> Action {
        let event = Event::Body { bytes, end };
        let effects = open.exchange.on(&open.root.config, &open.root.overrides, event);
        self.carry_out(stream, open, effects, false)
    }

    /// Lets a request wait. While one does the tick is a short one.
    pub(super) fn wait(&mut self, stream: u32, open: Open, delay_ms: u32, breaker: Option<usize>) {
        let Some(context) = self.streams.get(&stream).map(|stream| stream.root) else {
            return;
        };
        self.keep_open(stream, open);
        self.wait_as(Who::Request { stream, breaker }, context, delay_ms);
    }

    /// Has the line of a stream's root looked after once that time has gone by, if nothing does so yet.
    pub(super) fn watch_line(&mut self, stream: u32, delay_ms: u32) {
        let Some(context) = self.streams.get(&stream).map(|stream| stream.root) else {
            return;
        };
        let is_watched = |waits: &Waits| waits.root == context && waits.who == Who::Line;
        if !self.waiting.iter().any(is_watched) {
            self.wait_as(Who::Line, context, delay_ms);
        }
    }

    fn wait_as(&mut self, who: Who, root: u32, delay_ms: u32) {
        let now_us = host::now_us().unwrap_or(0);
        let delay_us = u64::from(delay_ms).saturating_mul(1_000);
        let due_us = now_us.saturating_add(delay_us);
        // The longer it waits the less it matters when exactly it goes on.
        let tick_ms = (delay_ms / 2).clamp(TICK_MS_MIN, TICK_MS_MAX);
        let others = self.waiting.iter().filter(|waits| waits.root == root);
        if others.map(|waits| waits.tick_ms).min().is_none_or(|others_ms| tick_ms < others_ms) {
            or_log(host::set_tick_period(tick_ms), "a request cannot be waited for");
        }
        self.waiting.push(Waits { who, root, due_us, delay_us, tick_ms });
    }

    /// How many requests under this configuration wait for first answers of one policy's keys, or ask after them meanwhile.
    pub(super) fn waiting_for(&self, root: &Rc<Root>, policy: usize) -> usize {
        let opens = self.streams.values().filter_map(|stream| stream.exchange.as_ref());
        let of_root = opens.filter(|open| Rc::ptr_eq(&open.root, root));
        of_root.filter(|open| open.exchange.waits_for() == Some(policy)).count()
    }

    /// How many requests are held for a circuit breaker, beside this one.
    pub(super) fn held_for(&self, stream: u32, breaker: usize) -> usize {
        let is_other = |waits: &&Waits| match waits.who {
            Who::Request { stream: other, breaker: of } => other != stream && of == Some(breaker),
            Who::Line => false,
        };
        self.waiting.iter().filter(is_other).count()
    }

    /// A root ticks no more: nobody looks after those that wait. A stream that is gone stays until its root's tick,
    /// which sets the tick back.
    pub(super) fn wait_over(&mut self, root: u32) {
        self.waiting.retain(|waits| !waits.is_of(root));
    }

    /// Time has gone by for the requests of one root.
    pub(super) fn waited(&mut self, root: u32) {
        if !self.waiting.iter().any(|waits| waits.root == root) {
            return;
        }
        let now_us = host::now_us().unwrap_or(u64::MAX);
        let is_due = |waits: &Waits| waits.root == root && waits.is_due(now_us);
        let (due, later) = self.waiting.drain(..).partition::<Vec<_>, _>(is_due);
        self.waiting = later;
        if !self.waiting.iter().any(|waits| waits.root == root) {
            let idle_ms =
                self.roots.get(&root).and_then(Option::as_ref).map_or(0, |r| r.idle_tick_ms());
            or_log(host::set_tick_period(idle_ms), "the tick cannot be set back");
        }
        for Waits { who, .. } in due {
            let Who::Request { stream, .. } = who else {
                self.line_waited(root);
                continue;
            };
            // Who left meanwhile has no exchange.
            let Some(fresh) = self.fresh_id() else { continue };
            let Some(open) = self.take_open(stream) else { continue };
            let mut open = *open;
            if let Err(status) = host::set_effective_context(stream) {
                or_log(Err(status), "no context to ask again for");
                open.taken.give_back();
                continue;
            }
            let event = Event::Waited(fresh);
            let effects = open.exchange.on(&open.root.config, &open.root.overrides, event);
            self.carry_out(stream, open, effects, true);
        }
    }
}
