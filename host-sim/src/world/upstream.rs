//! The route's upstream: requests that passed the filter go up, answers and faults come down. It must not know callouts.

use super::exchange::Place;
use super::run::World;
use crate::host::callouts::fault_text;
use crate::host::clock::{Event, VmId};
use crate::host::headers::HeaderMap;
use crate::host::reply::LocalReply;
use crate::host::service::{Answer, Fault, Outcome, Reply, ServiceRequest};
use crate::host::stream::Direction;
use crate::host::vm::Vm;

/// Envoy's default timeout of a route.
const ROUTE_TIMEOUT_NS: u64 = 15_000_000_000;

impl World<'_> {
    pub(super) fn call_upstream(
        &mut self,
        exchange: usize,
        vm: VmId,
        context: u32,
        request: ServiceRequest,
    ) {
        let mut shared = self.shared.borrow_mut();
        let (now_ns, now_unix_ns) = (shared.now_ns, shared.now_unix_ns());
        let mut reply = shared.network.call_upstream(now_ns, now_unix_ns, request);
        if reply.after_ns >= ROUTE_TIMEOUT_NS || reply.outcome == Outcome::Fault(Fault::Timeout) {
            reply = Reply { after_ns: ROUTE_TIMEOUT_NS, outcome: Outcome::Fault(Fault::Timeout) };
        }
        shared.after(reply.after_ns, Event::Upstream { exchange, reply });
        if let Some(place) = self.places.get_mut(exchange) {
            *place = Place::Open { vm, context, is_upstream_called: true };
        }
    }

    pub(super) fn upstream_answered(&mut self, exchange: usize, reply: Reply) {
        let now_ns = self.shared.borrow().now_ns;
        let Some((vm, context)) = self.open_stream(exchange) else {
            return;
        };
        let is_head = vm
            .stream(context)
            .is_some_and(|stream| stream.request.headers.first(b":method") == Some(b"HEAD"));
        match reply.outcome {
            _ if vm.stream(context).is_none_or(|stream| stream.replied) => {}
            Outcome::Answer(answer) => deliver(vm, context, answer, is_head),
            Outcome::Fault(fault) => match fault_text(fault) {
                Some((status, text)) => vm.reply(
                    context,
                    &LocalReply::text(status, text, "upstream_reset_before_response_started"),
                ),
                None => {
                    vm.arrive_headers(context, Direction::Response, status_only(200), false);
                    if let Some(stream) = vm.stream(context) {
                        stream.reset(now_ns, "upstream_reset_after_response_started");
                    }
                }
            },
        }
    }
}

/// An HTTP/1 answer: the end is told by an empty last piece, or by trailers.
fn deliver(vm: &mut Vm, context: u32, answer: Answer, is_head: bool) {
    if let Some(stream) = vm.stream(context) {
        "via_upstream".clone_into(&mut stream.details);
    }
    let mut headers = status_only(answer.status);
    for (key, value) in answer.headers.pairs() {
        headers.add(key, value.clone());
    }
    if headers.first(b"content-length").is_none() && answer.trailers.is_none() {
        headers.add(b"content-length", answer.body.len().to_string());
    }
    let body = if is_head { Vec::new() } else { answer.body };
    let is_bare = body.is_empty() && answer.trailers.is_none();
    vm.arrive_headers(context, Direction::Response, headers, is_bare);
    if !body.is_empty() {
        vm.arrive_data(context, Direction::Response, body, false);
    }
    match answer.trailers {
        Some(trailers) => vm.arrive_trailers(context, Direction::Response, trailers),
        None if !is_bare => vm.arrive_data(context, Direction::Response, Vec::new(), true),
        None => {}
    }
}

fn status_only(status: u16) -> HeaderMap {
    let mut headers = HeaderMap::default();
    headers.add(b":status", status.to_string());
    headers
}
