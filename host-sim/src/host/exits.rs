//! Where messages leave a chain: towards the upstream, towards the client, into the shared buffer, and the end of all. It must not decide who may pass.

use std::cell::RefCell;
use std::rc::Rc;

use super::iterate::Piece;
use super::process::Process;
use super::reply::LocalReply;
use super::stream::{Direction, Http, StreamId, Usage};
use super::wire::{refused_by_router, request_on_the_wire, response_left, response_on_the_wire};

/// Envoy's default timeout of a route.
pub(crate) const ROUTE_TIMEOUT_NS: u64 = 15_000_000_000;

impl Process {
    pub(super) fn leave_headers(&mut self, id: StreamId, direction: Direction, end: bool) {
        let (now_ns, now_unix_ns) = self.now();
        if direction == Direction::Request {
            let refused = self.with_http(id, |http| refused_by_router(&http.request.headers));
            if let Some(reply) = refused.flatten() {
                self.send_local_reply(id, reply);
                return;
            }
        }
        self.with_http(id, |http| {
            match direction {
                Direction::Request => {
                    let timeout_ms = (ROUTE_TIMEOUT_NS / 1_000_000).to_string();
                    http.request.headers.replace(b"x-envoy-expected-rq-timeout-ms", timeout_ms);
                }
                Direction::Response => {
                    http.is_cut_short = !http.request.ended;
                    response_left(&mut http.response.headers, now_unix_ns);
                    let status = http.response.headers.text(":status");
                    http.code = status.and_then(|status| status.parse().ok());
                }
            }
            let is_to_head = http.request.headers.first(b":method") == Some(b"HEAD");
            let message = http.message(direction);
            let mut headers = message.headers.clone();
            match direction {
                Direction::Request => request_on_the_wire(&mut headers, end),
                Direction::Response if end => response_on_the_wire(&mut headers, is_to_head),
                Direction::Response => {}
            }
            message.sent.headers = Some(headers);
            message.sent.headers_at_ns = Some(now_ns);
            if end {
                message.has_left = true;
                message.sent.ended_at_ns = Some(now_ns);
            }
        });
        if let (Direction::Response, Some(chain)) = (direction, self.chain(id)) {
            chain.is_encoded = true;
            chain.is_encode_complete |= end;
        }
        self.touch(id);
    }

    pub(super) fn leave_data(
        &mut self,
        id: StreamId,
        direction: Direction,
        piece: Piece,
        end: bool,
    ) {
        let now_ns = self.now_ns();
        self.with_http(id, |http| {
            let message = http.message(direction);
            match piece {
                Piece::Chunk(bytes) => message.sent.body.extend(bytes),
                Piece::Buffered => {
                    if let Some(buffered) = &mut message.buffered {
                        message.sent.body.append(buffered);
                    }
                }
            }
            if end {
                message.has_left = true;
                message.sent.ended_at_ns = Some(now_ns);
            }
        });
        if let (Direction::Response, Some(chain)) = (direction, self.chain(id)) {
            chain.is_encode_complete |= end;
        }
        self.touch(id);
    }

    pub(super) fn leave_trailers(&mut self, id: StreamId, direction: Direction) {
        let now_ns = self.now_ns();
        self.with_http(id, |http| {
            let message = http.message(direction);
            message.sent.trailers.clone_from(&message.trailers);
            message.has_left = true;
            message.sent.ended_at_ns = Some(now_ns);
        });
        if let (Direction::Response, Some(chain)) = (direction, self.chain(id)) {
            chain.is_encode_complete = true;
        }
        self.touch(id);
    }

    /// Puts a piece into the shared buffer; what the buffer itself already holds stays where it is.
    pub(super) fn buffer(
        &mut self,
        id: StreamId,
        direction: Direction,
        piece: Piece,
        is_streaming: bool,
    ) {
        let Piece::Chunk(bytes) = piece else {
            return;
        };
        let max = self.listener.buffer_bytes_max;
        let mut is_too_large = false;
        self.with_http(id, |http| {
            let buffered = http.message(direction).buffered.get_or_insert_default();
            let was_too_large = max > 0 && buffered.len() > max;
            buffered.extend(bytes);
            is_too_large = max > 0 && buffered.len() > max && !was_too_large;
        });
        // While a filter streams, the sender is slowed down instead.
        if is_too_large && !is_streaming {
            let reply = match direction {
                Direction::Request => {
                    LocalReply::text(413, "Payload Too Large", "request_payload_too_large")
                }
                Direction::Response => {
                    LocalReply::text(500, "Internal Server Error", "response_payload_too_large")
                }
            };
            self.send_local_reply(id, reply);
        }
    }

    /// Log for every filter, then done and delete for each: Envoy's order. A filter that never saw the request gets its
    /// context for the log. Over HTTP/3 Envoy logs an answer that went out whole when the client has acknowledged it, and
    /// no filter is told.
    pub(crate) fn close(&mut self, id: StreamId) -> Option<(Http, Usage)> {
        let now_unix_ns = self.now().1;
        self.with_http(id, |http| http.lasted_ns = now_unix_ns.saturating_sub(http.begin_unix_ns));
        let chain = *self.chains.get_mut(id.0)?.take()?;
        self.suspects.forget(id);
        let is_logged = {
            let http = chain.http.borrow();
            !http.is_http3 || http.response.sent.reset
        };
        let mut contexts = Vec::new();
        for filter in &chain.filters {
            let Some((vm_id, root)) = filter.home else {
                continue;
            };
            let Some(vm) = self.threads.vm(vm_id) else {
                continue;
            };
            let context = match filter.context {
                Some(context) => context,
                None if vm.dead.is_some() || !is_logged => continue,
                None => vm.open_stream(id, root, &chain.http),
            };
            if is_logged {
                vm.log_stream(context);
            }
            contexts.push((vm_id, context));
            // Nothing is left to resume or to answer.
            vm.state_mut().after.clear();
        }
        let mut usage = Usage::default();
        for (vm_id, context) in contexts {
            if let Some(stream) = self.threads.vm(vm_id).and_then(|vm| vm.delete_stream(context)) {
                usage += stream.usage;
            }
        }
        let http = Rc::try_unwrap(chain.http).map(RefCell::into_inner).unwrap_or_default();
        Some((http, usage))
    }

    /// What an exchange under way has so far.
    pub(crate) fn look_at(&mut self, id: StreamId) -> Option<(Http, Usage)> {
        let usage = self.usage(id);
        let http = self.chain(id)?.http.borrow().clone();
        Some((http, usage))
    }

    fn usage(&mut self, id: StreamId) -> Usage {
        let mut usage = Usage::default();
        let Some(filters) = self.chain(id).map(|chain| chain.filters.clone()) else {
            return usage;
        };
        for filter in filters {
            let stream = filter
                .home
                .zip(filter.context)
                .and_then(|((vm, _), context)| self.threads.vm(vm)?.state().streams.get(&context));
            if let Some(stream) = stream {
                usage += stream.usage;
            }
        }
        usage
    }
}
