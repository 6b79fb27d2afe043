//! The route's upstream: what passed the filters goes up piece by piece, answers and faults come down. It must not know callouts.

use super::run::{Place, World};
use crate::host::clock::{Event, UpstreamPiece};
use crate::host::exits::ROUTE_TIMEOUT_NS;
use crate::host::failures::{PROTOCOL_ERROR, failure_of};
use crate::host::headers::HeaderMap;
use crate::host::process::Process;
use crate::host::service::{Answer, Fault, Outcome, Reply};
use crate::host::stream::{Sent, StreamId};
use crate::host::wire::answer_headers;

impl World<'_> {
    /// What left the filters since the last look reaches the upstream now.
    pub(super) fn send_up(&mut self, seat: usize, id: StreamId) {
        let Some(Place::Open { call }) = self.places.get(id.0).copied() else {
            return;
        };
        let Some(Sent { headers, body, trailers, ended_at_ns, .. }) =
            self.crew.run(seat, move |process| sent_request(process, id)).flatten()
        else {
            return;
        };
        let mut shared = self.shared.borrow_mut();
        let (now_ns, now_unix_ns) = (shared.now_ns, shared.now_unix_ns());
        let (call, mut reply) = match (call, headers) {
            (Some(call), _) => (call, None),
            (None, Some(headers)) => shared.network.open_upstream(now_ns, now_unix_ns, headers),
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
            self.answer_later(id, call, reply);
        }
    }

    fn answer_later(&self, id: StreamId, call: usize, mut reply: Reply) {
        if reply.after_ns >= ROUTE_TIMEOUT_NS || reply.outcome == Outcome::Fault(Fault::Timeout) {
            let outcome = Outcome::Fault(Fault::Timeout);
            reply = Reply { after_ns: ROUTE_TIMEOUT_NS, outcome, tries: reply.tries };
        }
        let piece = UpstreamPiece::Reply(reply.clone());
        let event = Event::Upstream { exchange: id.0, piece };
        let mut shared = self.shared.borrow_mut();
        let answered_at_ns = shared.now_ns.saturating_add(reply.lasts_ns());
        if let Some(call) = shared.network.calls.get_mut(call) {
            call.answered_at_ns = Some(answered_at_ns);
        }
        shared.after(reply.after_ns, event);
    }
}

fn sent_request(process: &mut Process, id: StreamId) -> Option<Sent> {
    let sent = process.take_sent_request(id)?;
    if sent.headers.is_some() {
        process.with_http(id, |http| http.attempts = 1);
    }
    Some(sent)
}

pub(super) fn upstream_answered(process: &mut Process, id: StreamId, piece: UpstreamPiece) {
    if !process.wants_upstream(id) {
        return;
    }
    if let UpstreamPiece::Reply(reply) = &piece {
        process.with_http(id, |http| http.attempts = reply.tries);
    }
    match piece {
        UpstreamPiece::Reply(Reply { outcome: Outcome::Answer(answer), after_ns, .. }) => {
            deliver(process, id, answer, after_ns);
        }
        UpstreamPiece::Reply(Reply { outcome: Outcome::Fault(fault), after_ns, .. }) => {
            match failure_of(fault) {
                Some(failure) => process.upstream_failed(id, &failure),
                None => break_off(process, id, after_ns),
            }
        }
        UpstreamPiece::Data { bytes, end } => process.response_data(id, bytes, end),
        UpstreamPiece::Trailers(trailers) => process.response_trailers(id, trailers),
    }
}

/// The head of an answer, and then the connection's end.
fn break_off(process: &mut Process, id: StreamId, after_ns: u64) {
    let mut answer = Answer::new(200, "");
    answer.trailers = Some(HeaderMap::default());
    via_upstream(process, id, answer.status);
    process.response_headers(id, answer_headers(&answer, Some(after_ns)), false);
    process.with_http(id, |http| {
        http.flags |= PROTOCOL_ERROR;
        http.details.clear();
    });
    process.reset(id, "upstream_reset_after_response_started{protocol_error}");
}

fn via_upstream(process: &mut Process, id: StreamId, status: u16) {
    process.with_http(id, |http| {
        "via_upstream".clone_into(&mut http.details);
        http.code = Some(status.into());
        http.has_upstream = true;
    });
}

/// An HTTP/1 answer: the end is told by an empty last piece, or by trailers.
fn deliver(process: &mut Process, id: StreamId, answer: Answer, after_ns: u64) {
    via_upstream(process, id, answer.status);
    let told = process.with_http(id, |http| {
        (http.request.headers.first(b":method") == Some(b"HEAD"), http.request.has_left)
    });
    let (is_head, is_request_complete) = told.unwrap_or_default();
    let is_chunked = answer.trailers.is_some() || !answer.chunks.is_empty();
    let headers = answer_headers(&answer, is_request_complete.then_some(after_ns));
    if is_head || (answer.body.is_empty() && !is_chunked) {
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
