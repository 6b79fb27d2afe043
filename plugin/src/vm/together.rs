//! Owns which questions travel together. As long as few are out each goes by itself, at once; those that come while more
//! are out go in one message when the first of these is answered, or once they have waited for a part of their time. Nobody
//! waits for more to come.

use std::mem::{replace, take};
use std::rc::Rc;

use tidegate_policy::exchange::Answer;
use tidegate_policy::wire::together::{
    self, Part, QUESTIONS_BYTES_MAX, QUESTIONS_MAX, add_question,
};

use super::calls::To;
use super::{Vm, Waiter};
use crate::host::{self, Level};
use crate::root::Root;

/// So many calls with questions are out before others wait for them (docs/decisions/0114-questions-together.md).
const OUT_MAX: usize = 4;
/// Where so many went together one call is out: so many come while it is that each of them spares one.
const BUSY_MIN: usize = 4;
/// Where others come a question waits for one of so many parts of its time at most, and each call has the others: the
/// gateway's own deadline lies within them.
const PARTS: u32 = 6;
/// A gateway that knows no such message is asked so many questions one by one before it is tried again.
const ALONE: u32 = 1_000;
/// The ids of streams at the head of a block.
const ID_LEN: usize = size_of::<u32>();
const IDS_LEN: usize = QUESTIONS_MAX * ID_LEN;
/// What a block has room for at first.
const BLOCK_LEN: usize = 4 * 1_024;

/// The questions of one configuration.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// How many calls are out.
    out: usize,
    /// Whether many went together when last some did.
    is_busy: bool,
    /// Those that wait.
    next: Party,
    /// So many more go by themselves.
    alone: u32,
}

/// Requests that are asked about in one message.
#[derive(Debug, Default)]
pub(super) struct Party {
    count: usize,
    /// Their ids, and behind them their questions, in their order. In one block, and a large one: small ones are kept
    /// apart by their size (memory.rs), and one for each message would stay between everything else.
    block: Vec<u8>,
    /// Since when the first of them waits, by the filter's clock.
    since_us: u64,
}

/// Whether a gateway of before answers that knows no such message, or a proxy before it that lets nobody go there. For the
/// breaker of the way it is neither a failure nor a success.
pub(super) fn is_unknown(answer: &Answer<'_>) -> bool {
    matches!(answer, Answer::Response { status: b"403" | b"404" | b"405", .. })
}

// === impl Line ===

impl Line {
    /// Whether a question goes at once.
    fn is_free(&mut self) -> bool {
        match self.alone.checked_sub(1) {
            Some(left) => {
                self.alone = left;
                true
            }
            None => self.is_open(),
        }
    }

    /// Whether another call may go out.
    fn is_open(&self) -> bool {
        self.out < if self.is_busy { 1 } else { OUT_MAX }
    }

    fn went(&mut self) {
        self.out = self.out.saturating_add(1);
    }

    fn came(&mut self) {
        self.out = self.out.saturating_sub(1);
    }
}

// === impl Party ===

impl Party {
    /// Whether one more may wait with them, now, in a time of so many ms.
    fn takes(&self, question: &[u8], now_us: u64, timeout_ms: u32) -> bool {
        let len = self.block.len().saturating_add(question.len());
        let waited_us = now_us.saturating_sub(self.since_us);
        let is_late = waited_us / 1_000 >= u64::from(timeout_ms / PARTS);
        self.count == 0 || (self.count < QUESTIONS_MAX && len < QUESTIONS_BYTES_MAX && !is_late)
    }

    fn join(&mut self, stream: u32, question: &[u8], now_us: u64) {
        if self.count == 0 {
            self.since_us = now_us;
            self.block.reserve_exact(BLOCK_LEN);
            self.block.resize(IDS_LEN, 0);
        }
        let ids = self.block.get_mut(..IDS_LEN).unwrap_or_default().as_chunks_mut::<ID_LEN>().0;
        if let Some(id) = ids.get_mut(self.count) {
            *id = stream.to_be_bytes();
        }
        add_question(&mut self.block, question, self.count);
        self.count = self.count.saturating_add(1);
    }

    fn streams(&self) -> impl Iterator<Item = u32> {
        let ids = self.block.as_chunks::<ID_LEN>().0;
        ids.iter().take(self.count).map(|id| u32::from_be_bytes(*id))
    }

    fn message(&self) -> &[u8] {
        self.block.get(IDS_LEN..).unwrap_or_default()
    }

    /// What is left of a time, in ms; never less than a call needs.
    fn left_ms(&self, timeout_ms: u32) -> u32 {
        let waited_us = host::now_us().unwrap_or_default().saturating_sub(self.since_us);
        let waited_ms = u32::try_from(waited_us / 1_000).unwrap_or(u32::MAX);
        timeout_ms.saturating_sub(waited_ms.min(timeout_ms / PARTS))
    }
}

// === impl Vm ===

impl Vm {
    /// Asks for a request, which is held: now, or with those that come before a call is answered.
    pub(super) fn ask_together(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        question: &[u8],
    ) -> Result<(), Answer<'static>> {
        let timeout_ms = root.config.gateway.timeout_ms;
        let is_free = root.line.borrow_mut().is_free();
        if is_free || question.len() >= QUESTIONS_BYTES_MAX {
            return self.ask_alone(stream, root, question, timeout_ms);
        }
        let now_us = host::now_us().unwrap_or_default();
        let takes = root.line.borrow().next.takes(question, now_us, timeout_ms);
        if !takes {
            // In another request's callback the others are told nothing: the host takes what is said to one for all. One that is
            // out comes back, and then they are asked about again.
            self.ask_next(root).map_err(|(answer, next)| {
                root.line.borrow_mut().next = next;
                answer
            })?;
        }
        let is_first = {
            let next = &mut root.line.borrow_mut().next;
            next.join(stream, question, now_us);
            next.count == 1
        };
        if is_first {
            self.watch_line(stream, timeout_ms / PARTS);
        }
        Ok(())
    }

    /// A sixth of the time has gone by since somebody waited: the call that is out takes long, and nobody else comes. All go, also
    /// who came later: one call more for each sixth is little.
    pub(super) fn line_waited(&mut self, context: u32) {
        let Some(root) = self.roots.get(&context).cloned().flatten() else { return };
        if let Err((answer, next)) = self.ask_next(&root) {
            self.tell_all(&root, &next, answer);
        }
    }

    /// A call with one question is over.
    pub(super) fn told_alone(&mut self, root: &Rc<Root>, stream: u32, answer: Answer<'_>) {
        self.came_back(root);
        self.tell(root, stream, answer);
    }

    /// A call with several questions is over.
    pub(super) fn told_together(&mut self, root: &Rc<Root>, party: &Party, answer: Answer<'_>) {
        let is_unknown = is_unknown(&answer);
        if is_unknown && replace(&mut root.line.borrow_mut().alone, ALONE) == 0 {
            let text = "tidegate: the gateway takes no questions together and is asked one by one";
            host::log(Level::Info, text);
        }
        self.came_back(root);
        match answer {
            _ if is_unknown => self.ask_one_by_one(root, party),
            Answer::Response { marked: true, status: status @ b"200", body } => {
                let parts = together::answers(body, party.count).unwrap_or_default();
                for (nth, stream) in party.streams().enumerate() {
                    let said = parts.get(nth).copied();
                    let Part { status, body } = said.unwrap_or(Part { status, body: &[] });
                    self.tell(root, stream, Answer::Response { marked: true, status, body });
                }
            }
            answer => self.tell_all(root, party, answer),
        }
    }

    /// The next questions are sent before anybody is told anything: they are answered meanwhile.
    fn came_back(&mut self, root: &Rc<Root>) {
        root.line.borrow_mut().came();
        let (is_open, is_alone) = {
            let line = root.line.borrow();
            (line.is_open(), line.alone > 0)
        };
        if is_alone {
            let next = take(&mut root.line.borrow_mut().next);
            self.ask_one_by_one(root, &next);
        } else if is_open && let Err((answer, next)) = self.ask_next(root) {
            self.tell_all(root, &next, answer);
        }
    }

    fn ask_one_by_one(&mut self, root: &Rc<Root>, party: &Party) {
        if party.count == 0 {
            return;
        }
        let timeout_ms = party.left_ms(root.config.gateway.timeout_ms);
        for (stream, question) in party.streams().zip(together::split(party.message())) {
            if let Err(answer) = self.ask_alone(stream, root, question, timeout_ms) {
                self.tell(root, stream, answer);
            }
        }
    }

    /// Asks for those that wait, if any do; or gives them back, with what is to be told to them.
    fn ask_next(&mut self, root: &Rc<Root>) -> Result<(), (Answer<'static>, Party)> {
        let next = take(&mut root.line.borrow_mut().next);
        if next.count == 0 {
            return Ok(());
        }
        let timeout_ms = next.left_ms(root.config.gateway.timeout_ms);
        let (headers, alone) = match next.streams().next().filter(|_| next.count == 1) {
            Some(stream) => (&root.call_headers, Some(Waiter::Alone(stream))),
            None => (&root.together_headers, None),
        };
        match self.call(root, headers, next.message(), To { home: None, timeout_ms }) {
            Ok(sent) => {
                let is_busy = next.count >= BUSY_MIN;
                self.wait_for(root, sent, alone.unwrap_or(Waiter::Together(next)));
                let mut line = root.line.borrow_mut();
                line.is_busy = is_busy;
                line.went();
                Ok(())
            }
            Err(answer) => Err((answer, next)),
        }
    }

    fn tell_all(&mut self, root: &Rc<Root>, party: &Party, answer: Answer<'_>) {
        party.streams().for_each(|stream| self.tell(root, stream, answer));
    }

    fn ask_alone(
        &mut self,
        stream: u32,
        root: &Rc<Root>,
        question: &[u8],
        timeout_ms: u32,
    ) -> Result<(), Answer<'static>> {
        let to = To { home: None, timeout_ms };
        let waiter = Waiter::Alone(stream);
        let sent = self.send_to(root, &root.call_headers, question, waiter, to);
        sent.map(|()| root.line.borrow_mut().went()).map_err(|(answer, _)| answer)
    }
}
