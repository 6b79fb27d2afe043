//! One filter's callbacks as the filter chain sees them: what is opened before, what an action means after. It must not pass anything on.

use std::rc::Rc;

use super::clock::VmId;
use super::iterate::Piece;
use super::process::Process;
use super::reply::LocalReply;
use super::stream::{Direction, Http, Stream, StreamId};
use super::vm::{Called, Vm};
use crate::abi::codes::{DataAction, HeadersAction};

/// What came of a callback, for the chain.
enum Verdict {
    /// The plugin's action, as a number.
    Action(u32),
    /// The callback replied or closed: whatever it returned, nothing goes on.
    Stopped,
    /// The VM is dead and the filter is as if it were not there.
    Bypassed,
    /// The VM is dead and the exchange gets its 503.
    Failed,
}

/// A filter at its turn.
#[derive(Clone, Copy)]
struct Turn {
    index: usize,
    vm: VmId,
    context: u32,
}

impl Process {
    pub(super) fn on_headers(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        end: bool,
    ) -> HeadersAction {
        let turn = match self.turn(id, direction, position) {
            Ok(turn) => turn,
            Err(Verdict::Bypassed) => return HeadersAction::Continue,
            Err(_) => return HeadersAction::StopAll,
        };
        let count = self.with_http(id, |http| http.message(direction).headers.count()).unwrap_or(0);
        self.with_stream(turn, |stream| {
            let side = stream.side(direction);
            side.headers_open = true;
            side.is_end = end;
        });
        let verdict = self
            .call(id, turn, direction, |vm, context| vm.on_headers(context, direction, count, end));
        let allow = self
            .threads
            .settings(turn.vm, turn.context)
            .is_some_and(|settings| settings.allow_on_headers_stop_iteration);
        let action = match verdict {
            Verdict::Action(code) => HeadersAction::from_code(code, allow),
            Verdict::Bypassed => HeadersAction::Continue,
            Verdict::Stopped | Verdict::Failed => HeadersAction::StopAll,
        };
        if action == HeadersAction::Continue {
            self.with_stream(turn, |stream| stream.side(direction).headers_open = false);
        }
        action
    }

    pub(super) fn on_data(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        piece: Piece,
        end: bool,
    ) -> (DataAction, Piece) {
        let turn = match self.turn(id, direction, position) {
            Ok(turn) => turn,
            Err(Verdict::Bypassed) => return (DataAction::Continue, piece),
            Err(_) => return (DataAction::NoBuffer, piece),
        };
        let is_buffering =
            self.with_stream(turn, |stream| stream.side(direction).is_buffering).unwrap_or(false);
        let piece = match piece {
            Piece::Chunk(bytes) if is_buffering => {
                self.buffer(id, direction, Piece::Chunk(bytes), false);
                if self.is_gone(id) {
                    return (DataAction::Buffer, Piece::Chunk(Vec::new()));
                }
                Piece::Chunk(Vec::new())
            }
            other => other,
        };
        let sees_buffer = matches!(piece, Piece::Buffered);
        let size = self.open_body(id, direction, turn, piece, end);
        let verdict =
            self.call(id, turn, direction, |vm, context| vm.on_body(context, direction, size, end));
        let action = match verdict {
            Verdict::Action(code) => DataAction::from_code(code),
            Verdict::Bypassed => DataAction::Continue,
            Verdict::Stopped | Verdict::Failed => DataAction::NoBuffer,
        };
        let chunk = self.with_stream(turn, |stream| {
            let side = stream.side(direction);
            side.is_buffering = action == DataAction::Buffer;
            side.sees_buffer = false;
            side.chunk.take()
        });
        let rest = if sees_buffer {
            Piece::Buffered
        } else {
            Piece::Chunk(chunk.flatten().unwrap_or_default())
        };
        (action, rest)
    }

    /// Shows a piece to the filter and says how large the body is that it sees.
    fn open_body(
        &mut self,
        id: StreamId,
        direction: Direction,
        turn: Turn,
        piece: Piece,
        end: bool,
    ) -> u32 {
        let buffered = self
            .with_http(id, |http| http.message(direction).buffered.as_ref().map_or(0, Vec::len))
            .unwrap_or(0);
        let len = self.with_stream(turn, |stream| {
            let side = stream.side(direction);
            side.is_end = end;
            side.is_body_hidden = false;
            match piece {
                Piece::Chunk(bytes) => {
                    let len = if side.is_buffering { buffered } else { bytes.len() };
                    side.chunk = Some(bytes);
                    len
                }
                Piece::Buffered => {
                    side.sees_buffer = true;
                    buffered
                }
            }
        });
        u32::try_from(len.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Whether trailers go on.
    pub(super) fn on_trailers(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
    ) -> bool {
        let turn = match self.turn(id, direction, position) {
            Ok(turn) => turn,
            Err(verdict) => return matches!(verdict, Verdict::Bypassed),
        };
        let count = self
            .with_http(id, |http| {
                http.message(direction).trailers.as_ref().map_or(0, |trailers| trailers.count())
            })
            .unwrap_or(0);
        self.with_stream(turn, |stream| stream.side(direction).trailers_open = true);
        let verdict =
            self.call(id, turn, direction, |vm, context| vm.on_trailers(context, direction, count));
        let continues = matches!(verdict, Verdict::Action(0) | Verdict::Bypassed);
        if continues {
            self.with_stream(turn, |stream| stream.side(direction).trailers_open = false);
        }
        continues
    }

    /// The filter at a position with its context, made now if it has none.
    fn turn(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
    ) -> Result<Turn, Verdict> {
        let chain = self.chain(id).ok_or(Verdict::Failed)?;
        let index = chain.turn(direction, position);
        let http = Rc::clone(&chain.http);
        let filter = *chain.filters.get(index).ok_or(Verdict::Failed)?;
        let Some((vm_id, root)) = filter.home else {
            return Err(self.fail(id, index));
        };
        let Some(vm) = self.threads.vm(vm_id) else {
            return Err(self.fail(id, index));
        };
        if vm.dead.is_some() {
            return Err(self.fail(id, index));
        }
        if let Some(context) = filter.context {
            return Ok(Turn { index, vm: vm_id, context });
        }
        // A filter that never saw the request sees nothing of the response.
        if direction == Direction::Response {
            return Err(Verdict::Bypassed);
        }
        let context = vm.open_stream(id, root, &http);
        if let Some(filter) = self.chain(id).and_then(|chain| chain.filters.get_mut(index)) {
            filter.context = Some(context);
        }
        self.run_deferred(vm_id);
        Ok(Turn { index, vm: vm_id, context })
    }

    fn call(
        &mut self,
        id: StreamId,
        turn: Turn,
        direction: Direction,
        callback: impl FnOnce(&mut Vm, u32) -> Called<u32>,
    ) -> Verdict {
        let Some(vm) = self.threads.vm(turn.vm) else {
            return self.fail(id, turn.index);
        };
        vm.state_mut().stops_iteration = false;
        let called = callback(vm, turn.context);
        let is_stopped = std::mem::take(&mut vm.state_mut().stops_iteration);
        if called == Called::Dead {
            return self.fail(id, turn.index);
        }
        if let (Called::Returned(1..), false) = (called, is_stopped) {
            vm.state_mut().watch_pause(turn.context, direction);
            self.suspects.add(turn.vm, id, turn.index);
        }
        self.run_deferred(turn.vm);
        match called {
            _ if is_stopped => Verdict::Stopped,
            Called::Returned(code) => Verdict::Action(code),
            Called::Absent | Called::Dead => Verdict::Action(0),
        }
    }

    /// A dead VM: bypassed, or one 503 without a body, which itself passes the dead filter.
    fn fail(&mut self, id: StreamId, index: usize) -> Verdict {
        let Some(filter) = self.chain(id).and_then(|chain| chain.filters.get_mut(index)) else {
            return Verdict::Failed;
        };
        if filter.is_fail_open || filter.has_failed {
            return Verdict::Bypassed;
        }
        filter.has_failed = true;
        // Unlike a plugin's own reply, this one finds the request read as soon as its trailers are there.
        self.with_http(id, |http| http.request.ended |= http.request.trailers.is_some());
        self.send_local_reply(id, LocalReply::failed_stream());
        Verdict::Failed
    }

    fn with_stream<R>(&mut self, turn: Turn, work: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        Some(work(self.threads.vm(turn.vm)?.state_mut().streams.get_mut(&turn.context)?))
    }
}

impl Vm {
    fn on_headers(
        &mut self,
        context: u32,
        direction: Direction,
        count: u32,
        end: bool,
    ) -> Called<u32> {
        let (name, function) = match direction {
            Direction::Request => {
                ("proxy_on_request_headers", self.exports.request_headers.clone())
            }
            Direction::Response => {
                ("proxy_on_response_headers", self.exports.response_headers.clone())
            }
        };
        let args = || format!("{count} headers, end={end}");
        self.call(name, context, function, (context, count, u32::from(end)), args)
    }

    fn on_body(&mut self, context: u32, direction: Direction, size: u32, end: bool) -> Called<u32> {
        let (name, function) = match direction {
            Direction::Request => ("proxy_on_request_body", self.exports.request_body.clone()),
            Direction::Response => ("proxy_on_response_body", self.exports.response_body.clone()),
        };
        let args = || format!("{size} bytes, end={end}");
        self.call(name, context, function, (context, size, u32::from(end)), args)
    }

    fn on_trailers(&mut self, context: u32, direction: Direction, count: u32) -> Called<u32> {
        let (name, function) = match direction {
            Direction::Request => {
                ("proxy_on_request_trailers", self.exports.request_trailers.clone())
            }
            Direction::Response => {
                ("proxy_on_response_trailers", self.exports.response_trailers.clone())
            }
        };
        self.call(name, context, function, (context, count), || format!("{count} trailers"))
    }

    /// A stream's context, created when its headers arrive.
    pub(crate) fn open_stream(
        &mut self,
        id: StreamId,
        root: u32,
        http: &Rc<std::cell::RefCell<Http>>,
    ) -> u32 {
        let context = self.state_mut().next_context();
        self.state_mut().streams.insert(context, Stream::new(id, root, Rc::clone(http)));
        self.create_context(context, root);
        context
    }
}
