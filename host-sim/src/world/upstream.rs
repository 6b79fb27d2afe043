//! The route's upstream: what passed the filters goes up piece by piece, answers and faults come down. It must not know callouts.

use super::run::{Place, World};
use crate::host::callouts::fault_text;
use crate::host::clock::{Event, UpstreamPiece};
use crate::host::headers::HeaderMap;
use crate::host::process::Process;
use crate::host::service::{Answer, Fault, Outcome, Reply};
use crate::host::stream::{Sent, StreamId};

/// Envoy's default timeout of a route.
const ROUTE_TIMEOUT_NS: u64 = 15_000_000_000;

impl World<'_> {
    /// What left the filters since the last look reaches the upstream now.
    pub(super) fn send_up(&mut self, seat: usize, id: StreamId) {
        let Some(Place::Open { call }) = self.places.get(id.0).copied() else {
            return;
        };
        let Some(Sent { headers, body, trailers, ended_at_ns, .. }) =
            self.crew.run(seat, move |process| process.take_sent_request(id)).flatten()
        else {
            return;
        };
        let mut shared = self.shared.borrow_mut();
        let (now_ns, now_unix_ns) = (shared.now_ns, shared.now_unix_ns());
        let (call, mut reply) = match (call, headers) {
            (Some(call), _) => (call, None),
            (None, Some(mut headers)) => {
                let timeout_ms = ROUTE_TIMEOUT_NS / 1_000_000;
                headers.replace(b"x-envoy-expected-rq-timeout-ms", timeout_ms.to_string());
                shared.network.open_upstream(now_ns, now_unix_ns, headers)
            }
            (None, None) => return,
        };
        let Some(seen) = shared.network.calls.get_mut(call) else {
            return;
        };
        seen.request.body.extend(body);
        if let Some(trailers) = trailers {
            seen.request.trailers = trailers;
        }
        let is_end = ended_at_ns.is_some();
        if is_end {
            seen.ended_at_ns = ended_at_ns;
        }
        let answered = self.answered.contains(&id) || reply.is_some();
        if is_end && !answered {
            reply = Some(shared.network.end_upstream(call, now_unix_ns));
        }
        drop(shared);
        if let Some(place) = self.places.get_mut(id.0) {
            *place = Place::Open { call: Some(call) };
        }
        if let Some(reply) = reply {
            self.answered.insert(id);
            self.answer_later(id, reply);
        }
    }

    fn answer_later(&self, id: StreamId, mut reply: Reply) {
        if reply.after_ns >= ROUTE_TIMEOUT_NS || reply.outcome == Outcome::Fault(Fault::Timeout) {
            reply = Reply { after_ns: ROUTE_TIMEOUT_NS, outcome: Outcome::Fault(Fault::Timeout) };
        }
        let piece = UpstreamPiece::Reply(reply.clone());
        let event = Event::Upstream { exchange: id.0, piece };
        self.shared.borrow_mut().after(reply.after_ns, event);
    }
}

pub(super) fn upstream_answered(process: &mut Process, id: StreamId, piece: UpstreamPiece) {
    if !process.wants_upstream(id) {
        return;
    }
    match piece {
        UpstreamPiece::Reply(Reply { outcome: Outcome::Answer(answer), after_ns }) => {
            deliver(process, id, answer, after_ns);
        }
        UpstreamPiece::Reply(Reply { outcome: Outcome::Fault(fault), .. }) => {
            match fault_text(fault) {
                Some((status, text)) => process.upstream_failed(id, status, text),
                None => {
                    process.response_headers(id, status_only(200), false);
                    process.reset(id, "upstream_reset_after_response_started");
                }
            }
        }
        UpstreamPiece::Data { bytes, end } => process.response_data(id, bytes, end),
        UpstreamPiece::Trailers(trailers) => process.response_trailers(id, trailers),
    }
}

/// An HTTP/1 answer: the end is told by an empty last piece, or by trailers.
fn deliver(process: &mut Process, id: StreamId, answer: Answer, after_ns: u64) {
    let is_head = process.with_http(id, |http| {
        "via_upstream".clone_into(&mut http.details);
        http.request.headers.first(b":method") == Some(b"HEAD")
    });
    let mut headers = status_only(answer.status);
    for (key, value) in answer.headers.pairs() {
        headers.add(key, value.clone());
    }
    let is_chunked = answer.trailers.is_some() || !answer.chunks.is_empty();
    if headers.first(b"content-length").is_none() && !is_chunked {
        headers.add(b"content-length", answer.body.len().to_string());
    }
    headers.replace(b"x-envoy-upstream-service-time", (after_ns / 1_000_000).to_string());
    if is_head == Some(true) || (answer.body.is_empty() && !is_chunked) {
        process.response_headers(id, headers, true);
        return;
    }
    process.response_headers(id, headers, false);
    if !answer.body.is_empty() {
        process.response_data(id, answer.body, false);
    }
    deliver_rest(process, id, answer.chunks, answer.trailers);
}

fn deliver_rest(
    process: &mut Process,
    id: StreamId,
    chunks: Vec<crate::host::service::Chunk>,
    trailers: Option<HeaderMap>,
) {
    let last_ns = chunks.last().map_or(0, |chunk| chunk.after_ns);
    for chunk in chunks {
        let piece = UpstreamPiece::Data { bytes: chunk.data, end: false };
        later(process, id, chunk.after_ns, piece);
    }
    let piece = match trailers {
        Some(trailers) => UpstreamPiece::Trailers(trailers),
        None => UpstreamPiece::Data { bytes: Vec::new(), end: true },
    };
    later(process, id, last_ns, piece);
}

fn later(process: &mut Process, id: StreamId, after_ns: u64, piece: UpstreamPiece) {
    if after_ns == 0 {
        upstream_answered(process, id, piece);
    } else {
        process.shared.borrow_mut().after(after_ns, Event::Upstream { exchange: id.0, piece });
    }
}

fn status_only(status: u16) -> HeaderMap {
    let mut headers = HeaderMap::default();
    headers.add(b":status", status.to_string());
    headers
}
