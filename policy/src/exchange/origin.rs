//! Owns what an answer's head says beside its status: who made it (the upstream, Envoy, a filter behind this one, the
//! Tidegate of another hop), what that says of the work, and whether it comes to an end at all. Knows neither claims nor their records.

use crate::reason::Reason;

/// What Envoy knows of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Envoys {
    /// Whether it is the upstream's; if not, Envoy made it.
    pub from_upstream: bool,
    /// Envoy's response flags.
    pub flags: u64,
    /// How often the request was sent to an upstream, or tried to be; `None` if nobody knows.
    pub attempts: Option<u64>,
    /// Whether its route answers by itself: a redirect, or a direct response.
    pub from_route: bool,
}

// === impl Envoys ===

impl Envoys {
    /// No host, no connection, no room, no route, no cluster, no address: nothing was sent.
    const NEVER_SENT: u64 = 1 << 1 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 24 | 1 << 26;
    /// A timeout, a reset, a broken connection, a protocol error: something may have been.
    const PERHAPS_SENT: u64 =
        1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 16 | 1 << 19 | 1 << 22 | 1 << 23;

    /// Whether surely nobody did the work: no byte of the request reached an upstream, and where none was tried, no
    /// filter behind this one answered as if it had done it. Where it was tried more than once, only the last try
    /// is known. `refuses`: what the answer says, if there is one.
    pub(super) fn never_sent(self, refuses: bool) -> bool {
        let is_told = self.flags & Self::NEVER_SENT != 0 && self.flags & Self::PERHAPS_SENT == 0;
        match self.attempts {
            Some(0) => is_told || self.from_route || refuses,
            Some(1) => is_told,
            Some(_) | None => false,
        }
    }
}

/// Whether an answer that no upstream made turns the request away, as filters do that did not do its work. `call`: the
/// `grpc-status` that stands in the headers of a gRPC answer.
pub(super) fn refuses(status: u16, call: Option<&[u8]>) -> bool {
    match (status, call) {
        // What Envoy makes of 403, 429 (either), 404, 503 and 401.
        (200, Some(code)) => matches!(code, b"7" | b"8" | b"12" | b"14" | b"16"),
        _ => matches!(status, 400..=499 | 503),
    }
}

/// Whether the reply of another Tidegate behind this one surely says that this request ran nowhere: its reason does, and it
/// turns the request away. An upstream that is no Tidegate may send such a field, too, and so may one that gives back what
/// clients send; of both an answer that looks like work done, or a reason that says nothing of it, only keeps the claim.
pub(super) fn another_reply(reason: &[u8], status: u16, call: Option<&[u8]>) -> bool {
    let reason = core::str::from_utf8(reason).ok().and_then(Reason::from_text);
    let is_turned_away = match (status, call) {
        (200, Some(code)) => matches!(code, b"3" | b"7" | b"8" | b"9" | b"14"),
        _ => matches!(status, 400..=499 | 503),
    };
    is_turned_away && reason.is_some_and(Reason::ran_nowhere)
}

/// Types whose parts are to be read as they come, so that nobody knows when such an answer ends.
const STREAMS: [&[u8]; 5] = [
    b"application/x-ndjson",
    b"application/ndjson",
    b"application/json-seq",
    b"application/stream+json",
    b"multipart/x-mixed-replace",
];

/// Whether an answer of this type comes bit by bit, for as long as it likes: events do in any case, the others where no
/// length is said ahead.
pub(super) fn is_stream(content_type: &[u8], has_length: bool) -> bool {
    let kind = content_type.split(|byte| matches!(byte, b';' | b',' | b' ' | b'\t')).next();
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    // `application/grpc-web+proto`, `-text`, `-text+proto`.
    let is_web = kind.starts_with(b"application/grpc-web");
    kind == b"text/event-stream" || (!has_length && (is_web || STREAMS.contains(&kind.as_slice())))
}
