//! How headers, data and trailers go from filter to filter, and what a resume releases. It must not know what a callback does.
//!
//! The rules are those of Envoy's filter manager, with the router at the request's end and the codec at the response's.

use super::chain::Gate;
use super::process::Process;
use super::stream::{Direction, StreamId};
use crate::abi::codes::{DataAction, HeadersAction};

/// Data on its way: a chunk of its own, or all that the shared buffer holds.
pub(crate) enum Piece {
    Chunk(Vec<u8>),
    Buffered,
}

impl Process {
    /// Headers go on from a position.
    pub(super) fn pass_headers(
        &mut self,
        id: StreamId,
        direction: Direction,
        from: usize,
        end: bool,
    ) {
        for position in from..self.filter_count(id) {
            self.set_end_seen(id, direction, position, end);
            self.set_calling(id, direction, true);
            let mut action = self.on_headers(id, direction, position, end);
            self.set_calling(id, direction, false);
            if self.is_gone(id) {
                return;
            }
            if self.is_aborted(id, direction) {
                self.send_prepared_reply(id);
                action = HeadersAction::StopIteration;
            }
            self.with_iteration(id, direction, position, |iteration| match action {
                HeadersAction::Continue => iteration.headers_continued = true,
                HeadersAction::StopIteration => iteration.gate = Gate::Single,
                HeadersAction::StopAll => iteration.gate = Gate::All,
            });
            let is_answered = direction == Direction::Request
                && self.chain(id).is_none_or(|chain| chain.is_local_complete);
            if action != HeadersAction::Continue || is_answered {
                return;
            }
        }
        self.leave_headers(id, direction, end);
    }

    /// A piece of a body goes on from a position.
    pub(super) fn pass_data(
        &mut self,
        id: StreamId,
        direction: Direction,
        from: usize,
        mut piece: Piece,
        mut end: bool,
    ) {
        if direction == Direction::Request && self.chain(id).is_none_or(|c| c.is_local_complete) {
            return;
        }
        let had_trailers = self.has_trailers(id, direction);
        let mut trailers_from = None;
        for position in from..self.filter_count(id) {
            let Some(iteration) = self.iteration(id, direction, position) else {
                return;
            };
            if iteration.gate == Gate::All {
                self.buffer(id, direction, piece, true);
                return;
            }
            if iteration.end_seen {
                return;
            }
            let is_last = end && !self.has_trailers(id, direction);
            self.set_end_seen(id, direction, position, is_last);
            self.set_calling(id, direction, true);
            let (mut action, rest) = self.on_data(id, direction, position, piece, is_last);
            self.set_calling(id, direction, false);
            piece = rest;
            if self.is_gone(id) {
                return;
            }
            if self.is_aborted(id, direction) {
                self.send_prepared_reply(id);
                if direction == Direction::Request {
                    return;
                }
                action = DataAction::NoBuffer;
            }
            if !had_trailers && trailers_from.is_none() && self.has_trailers(id, direction) {
                trailers_from = Some(position + 1);
                end &= direction == Direction::Response;
            }
            match self.after_data(id, direction, position, action, piece) {
                Some(rest) => piece = rest,
                None => {
                    if let (Direction::Request, Some(from)) = (direction, trailers_from) {
                        self.pass_trailers(id, direction, from);
                    }
                    return;
                }
            }
        }
        let is_last = end && !self.has_trailers(id, direction);
        self.leave_data(id, direction, piece, is_last);
        if let (Some(from), false) = (trailers_from, self.is_gone(id)) {
            self.pass_trailers(id, direction, from);
        }
    }

    /// What a body callback's action does; the piece comes back where it goes on.
    fn after_data(
        &mut self,
        id: StreamId,
        direction: Direction,
        position: usize,
        action: DataAction,
        piece: Piece,
    ) -> Option<Piece> {
        let gate = self.iteration(id, direction, position)?.gate;
        match action {
            DataAction::Continue if gate == Gate::Single => {
                self.buffer(id, direction, piece, false);
                self.resume(id, direction, position);
                return None;
            }
            DataAction::Continue => return Some(piece),
            DataAction::Buffer | DataAction::Watermark => {
                self.close_gate(id, direction, position);
                self.buffer(id, direction, piece, action == DataAction::Watermark);
            }
            DataAction::NoBuffer => {
                self.close_gate(id, direction, position);
                self.mark_empty_end(id, direction);
            }
        }
        None
    }

    fn close_gate(&mut self, id: StreamId, direction: Direction, position: usize) {
        self.with_iteration(id, direction, position, |iteration| iteration.gate = Gate::Single);
    }

    /// A dropped last piece leaves an empty buffer, so that a resume still tells of the end.
    fn mark_empty_end(&mut self, id: StreamId, direction: Direction) {
        let Some(chain) = self.chain(id) else {
            return;
        };
        let is_complete = chain.is_complete(direction);
        let mut http = chain.http.borrow_mut();
        let message = http.message(direction);
        if is_complete && message.trailers.is_none() {
            message.buffered.get_or_insert_default();
        }
    }

    /// Trailers go on from a position.
    pub(super) fn pass_trailers(&mut self, id: StreamId, direction: Direction, from: usize) {
        if direction == Direction::Request && self.chain(id).is_none_or(|c| c.is_local_complete) {
            return;
        }
        for position in from..self.filter_count(id) {
            match self.iteration(id, direction, position) {
                Some(iteration) if iteration.gate != Gate::All => {}
                _ => return,
            }
            self.set_calling(id, direction, true);
            let mut continues = self.on_trailers(id, direction, position);
            self.set_calling(id, direction, false);
            if self.is_gone(id) {
                return;
            }
            self.set_end_seen(id, direction, position, true);
            if self.is_aborted(id, direction) {
                self.send_prepared_reply(id);
                continues = false;
            }
            let gate = self.iteration(id, direction, position).map(|iteration| iteration.gate);
            match (continues, gate) {
                (true, Some(Gate::Single)) => {
                    self.resume(id, direction, position);
                    return;
                }
                (true, _) => {}
                (false, gate) => {
                    if gate == Some(Gate::Open) {
                        self.close_gate(id, direction, position);
                    }
                    return;
                }
            }
        }
        self.leave_trailers(id, direction);
    }

    /// A filter lets everything go that waits at it.
    pub(super) fn resume(&mut self, id: StreamId, direction: Direction, position: usize) {
        if self.is_gone(id) || self.chain(id).is_none_or(|chain| !chain.can_continue(direction)) {
            return;
        }
        let mut from = position + 1;
        let mut has_headers = false;
        self.with_iteration(id, direction, position, |iteration| {
            if iteration.gate == Gate::All {
                iteration.from_current = true;
                from = position;
            }
            iteration.gate = Gate::Open;
            has_headers = !std::mem::replace(&mut iteration.headers_continued, true);
        });
        let is_complete =
            |this: &mut Self| this.chain(id).is_some_and(|chain| chain.is_complete(direction));
        if has_headers {
            let ends = is_complete(self)
                && !self.has_buffer(id, direction)
                && !self.has_trailers(id, direction);
            self.pass_headers(id, direction, position + 1, ends);
        }
        let had_trailers = self.has_trailers(id, direction);
        if self.has_buffer(id, direction) {
            let ends = is_complete(self) && !had_trailers;
            self.pass_data(id, direction, from, Piece::Buffered, ends);
        }
        if had_trailers {
            self.pass_trailers(id, direction, from);
        }
        self.with_iteration(id, direction, position, |iteration| iteration.from_current = false);
    }
}
