//! The rules of iteration: who may pass, who waits, what a resume releases. It must not know time or networks.

use super::headers::HeaderMap;
use super::stream::{Direction, Side, Stop, Stream};
use super::vm::{Called, Vm};
use super::vm_state::After;
use crate::abi::codes::{DataAction, HeadersAction};

impl Vm {
    /// Headers reach the filter.
    pub(crate) fn arrive_headers(
        &mut self,
        context: u32,
        direction: Direction,
        headers: HeaderMap,
        end: bool,
    ) {
        let count = headers.count();
        let ready = self.with_side(context, direction, |side| {
            *side =
                Side { started: true, headers, headers_open: true, ended: end, ..Side::default() };
        });
        if !ready {
            return;
        }
        let function = match direction {
            Direction::Request => self.exports.request_headers.clone(),
            Direction::Response => self.exports.response_headers.clone(),
        };
        let name = match direction {
            Direction::Request => "proxy_on_request_headers",
            Direction::Response => "proxy_on_response_headers",
        };
        let args = || format!("{count} headers, end={end}");
        let Some(code) = self.ask(context, |vm| {
            vm.call(name, context, function, (context, count, u32::from(end)), args)
        }) else {
            return;
        };
        let allow = self.state().plugin.allow_on_headers_stop_iteration;
        let now_ns = self.state().now_ns();
        self.with_side(context, direction, |side| match HeadersAction::from_code(code, allow) {
            HeadersAction::Continue => {
                side.headers_open = false;
                side.flush(now_ns);
            }
            HeadersAction::StopIteration => side.stop = Stop::Single,
            HeadersAction::StopAll => side.stop = Stop::All,
        });
    }

    /// A piece of a body reaches the filter.
    pub(crate) fn arrive_data(
        &mut self,
        context: u32,
        direction: Direction,
        bytes: Vec<u8>,
        end: bool,
    ) {
        let mut size = None;
        let chunk_len = bytes.len();
        let ready = self.with_side(context, direction, |side| {
            side.ended |= end;
            if side.stop == Stop::All {
                side.held.extend(bytes);
            } else {
                let body = side.body.get_or_insert_default();
                body.extend(bytes);
                size = Some(u32::try_from(body.len()).unwrap_or(u32::MAX));
                side.trailers_creatable = end;
            }
        });
        let (true, Some(size)) = (ready, size) else {
            return;
        };
        let function = match direction {
            Direction::Request => self.exports.request_body.clone(),
            Direction::Response => self.exports.response_body.clone(),
        };
        let name = match direction {
            Direction::Request => "proxy_on_request_body",
            Direction::Response => "proxy_on_response_body",
        };
        let args = || format!("{size} bytes, end={end}");
        let code = self.ask(context, |vm| {
            vm.call(name, context, function, (context, size, u32::from(end)), args)
        });
        self.with_side(context, direction, |side| side.trailers_creatable = false);
        let Some(code) = code else {
            return;
        };
        let now_ns = self.state().now_ns();
        self.with_side(context, direction, |side| {
            side.after_data(DataAction::from_code(code), chunk_len, now_ns)
        });
    }

    /// Trailers reach the filter; no body callback is told of the end then.
    pub(crate) fn arrive_trailers(
        &mut self,
        context: u32,
        direction: Direction,
        trailers: HeaderMap,
    ) {
        let mut waits = false;
        let ready = self.with_side(context, direction, |side| {
            side.ended = true;
            side.trailers = Some(trailers);
            waits = side.stop == Stop::All;
        });
        if ready && !waits {
            self.show_trailers(context, direction);
        }
    }

    fn show_trailers(&mut self, context: u32, direction: Direction) {
        let mut count = 0;
        self.with_side(context, direction, |side| {
            side.trailers_open = true;
            side.trailers_done = true;
            count = side.trailers.as_ref().map_or(0, HeaderMap::count);
        });
        let (name, function) = match direction {
            Direction::Request => {
                ("proxy_on_request_trailers", self.exports.request_trailers.clone())
            }
            Direction::Response => {
                ("proxy_on_response_trailers", self.exports.response_trailers.clone())
            }
        };
        let args = || format!("{count} trailers");
        let Some(code) =
            self.ask(context, |vm| vm.call(name, context, function, (context, count), args))
        else {
            return;
        };
        let now_ns = self.state().now_ns();
        self.with_side(context, direction, |side| {
            if code == 0 {
                side.trailers_open = false;
                side.flush(now_ns);
            } else {
                side.stop = Stop::Single;
            }
        });
    }

    /// Runs a callback that answers with an action. Nothing comes back when the action is void: the VM died, or the
    /// callback replied or reset. A missing callback continues.
    fn ask(
        &mut self,
        context: u32,
        callback: impl FnOnce(&mut Self) -> Called<u32>,
    ) -> Option<u32> {
        let epoch = self.stream(context)?.epoch;
        let called = callback(self);
        self.apply_after();
        let now_ns = self.state().now_ns();
        let stream = self.stream(context)?;
        if called == Called::Dead && !stream.detached {
            stream.fail(now_ns);
        }
        if stream.epoch != epoch {
            return None;
        }
        match called {
            Called::Returned(code) => Some(code),
            Called::Absent => Some(0),
            Called::Dead => None,
        }
    }

    /// Carries out what the last callback deferred.
    pub(crate) fn apply_after(&mut self) {
        for (context, after) in std::mem::take(&mut self.state_mut().after) {
            let now_ns = self.state().now_ns();
            match after {
                After::Continue(direction) => self.resume(context, direction),
                After::Close => {
                    if let Some(stream) = self.stream(context) {
                        stream.reset(now_ns, "wasm_close_stream");
                    }
                }
                After::Reply(reply) => self.reply(context, &reply),
            }
        }
        self.delete_finished_roots();
    }

    /// Where nothing is stopped, as in the very callback that is about to pause, a resume does nothing.
    fn resume(&mut self, context: u32, direction: Direction) {
        let now_ns = self.state().now_ns();
        let mut stop = Stop::Flowing;
        let mut chunk = None;
        let mut end = false;
        self.with_side(context, direction, |side| {
            stop = side.stop;
            match stop {
                Stop::Flowing => {}
                Stop::Single => side.flush(now_ns),
                Stop::All => {
                    side.stop = Stop::Flowing;
                    end = side.body_ends_stream();
                    // What was held back comes to this filter now, as one piece.
                    chunk = Some(std::mem::take(&mut side.held)).filter(|held| !held.is_empty());
                    side.pass_headers(now_ns);
                }
            }
        });
        if stop != Stop::All {
            return;
        }
        match chunk {
            Some(chunk) => self.arrive_data(context, direction, chunk, end),
            None if end => {
                self.with_side(context, direction, |side| side.flush(now_ns));
            }
            None => {}
        }
        if self
            .side_ref(context, direction)
            .is_some_and(|side| side.trailers.is_some() && !side.trailers_done)
        {
            self.show_trailers(context, direction);
        }
    }

    pub(crate) fn stream(&mut self, context: u32) -> Option<&mut Stream> {
        self.state_mut().streams.get_mut(&context)
    }

    fn side_ref(&self, context: u32, direction: Direction) -> Option<&Side> {
        let stream = self.state().streams.get(&context)?;
        Some(match direction {
            Direction::Request => &stream.request,
            Direction::Response => &stream.response,
        })
    }

    /// Works on one direction of a live stream; false when the host has let go of it. A dead VM fails the stream.
    fn with_side(
        &mut self,
        context: u32,
        direction: Direction,
        work: impl FnOnce(&mut Side),
    ) -> bool {
        let now_ns = self.state().now_ns();
        let is_dead = self.dead.is_some();
        let Some(stream) =
            self.stream(context).filter(|stream| !stream.detached && !stream.is_over())
        else {
            return false;
        };
        if is_dead {
            stream.fail(now_ns);
            return false;
        }
        work(stream.side(direction));
        true
    }
}

impl Side {
    /// What a body callback's action does to what it saw.
    fn after_data(&mut self, action: DataAction, chunk_len: usize, now_ns: u64) {
        match action {
            DataAction::Continue => self.flush(now_ns),
            DataAction::Buffer => self.stop = Stop::Single,
            DataAction::Watermark => {
                self.stop = Stop::Single;
                self.hide_body();
            }
            DataAction::NoBuffer => {
                self.stop = Stop::Single;
                if let Some(body) = &mut self.body {
                    body.truncate(body.len().saturating_sub(chunk_len));
                }
                self.hide_body();
            }
        }
    }
}
