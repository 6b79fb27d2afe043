//! Owns what an answer says of its upstream: works, fails, or nothing.
//!
//! A failure is a 5xx of the upstream's, or what Envoy answers because the upstream did not: reset,
//! refused, timed out, no healthy host. 429 says that the upstream works and has enough: it is ignored.
//! What the filter, another filter or Envoy itself answered is ignored, and so is a client that left.

use super::Outcome;

/// What was seen of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Its headers.
    Answered {
        /// The bytes of `:status`.
        status: &'a [u8],
        /// Whether gRPC was asked for; then its status, if it stands in headers or trailers.
        grpc: Option<Option<&'a [u8]>>,
    },
    /// The stream ended without an answer.
    Ended,
}

/// What follows, or that Envoy's details have to be known first: only of answers that look like
/// failures.
pub fn outcome(seen: Seen<'_>, details: Option<&[u8]>) -> Result<Outcome, NeedsDetails> {
    let Seen::Answered { status, grpc } = seen else {
        return Ok(Outcome::Ignored);
    };
    let looks = match (status, grpc) {
        (b"200", Some(Some(code))) => of_grpc(code),
        _ => of_http(status),
    };
    match (looks, details) {
        (Outcome::Failure, None) => Err(NeedsDetails),
        (Outcome::Failure, Some(details)) if !is_of_upstream(details) => Ok(Outcome::Ignored),
        (looks, _) => Ok(looks),
    }
}

/// Envoy's `response.code_details` has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsDetails;

fn of_http(status: &[u8]) -> Outcome {
    match status {
        b"429" => Outcome::Ignored,
        [b'5', _, _] => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// Unknown, deadline exceeded, internal, unavailable and data loss are failures; cancelled and
/// resource exhausted say nothing.
fn of_grpc(code: &[u8]) -> Outcome {
    match code {
        b"2" | b"4" | b"13" | b"14" | b"15" => Outcome::Failure,
        b"1" | b"8" => Outcome::Ignored,
        _ => Outcome::Success,
    }
}

/// Whether the upstream, or its not answering, is behind it. Overflow is Envoy's own bound on what it
/// lets through.
fn is_of_upstream(details: &[u8]) -> bool {
    const WORDS: [&[u8]; 7] = [
        b"via_upstream",
        b"upstream_reset",
        b"upstream_response_timeout",
        b"upstream_per_try",
        b"response_timeout",
        b"no_healthy_upstream",
        b"upstream_max_stream_duration",
    ];
    let overflow = details.windows(8).any(|part| part == b"overflow");
    !overflow && WORDS.iter().any(|word| details.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_what_they_say() {
        use Outcome::{Failure, Ignored, Success};
        type Row = (&'static [u8], Option<Option<&'static [u8]>>, &'static [u8], Outcome);
        let rows: [Row; 22] = [
            (b"200", None, b"", Success),
            (b"301", None, b"", Success),
            (b"404", None, b"", Success),
            (b"429", None, b"", Ignored),
            (b"500", None, b"via_upstream", Failure),
            (b"503", None, b"via_upstream", Failure),
            (b"503", None, b"upstream_reset_before_response_started{connection_termination}", Failure),
            (b"503", None, b"upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}", Failure),
            (b"504", None, b"upstream_response_timeout", Failure),
            (b"504", None, b"response_timeout", Failure),
            (b"504", None, b"upstream_per_try_timeout", Failure),
            (b"503", None, b"no_healthy_upstream", Failure),
            (b"503", None, b"upstream_reset_before_response_started{overflow}", Ignored),
            (b"503", None, b"tidegate:circuit-open:b", Ignored),
            (b"500", None, b"ext_authz_error", Ignored),
            (b"503", None, b"direct_response", Ignored),
            (b"200", Some(None), b"", Success),
            (b"200", Some(Some(b"0")), b"", Success),
            (b"200", Some(Some(b"5")), b"", Success),
            (b"200", Some(Some(b"8")), b"", Ignored),
            (b"200", Some(Some(b"14")), b"via_upstream", Failure),
            (b"200", Some(Some(b"14")), b"tidegate:circuit-open:b", Ignored),
        ];
        for (status, grpc, details, expected) in rows {
            let seen = Seen::Answered { status, grpc };
            assert_eq!(outcome(seen, Some(details)), Ok(expected), "{seen:?} {details:?}");
            // Nothing more is read of an answer that looks well.
            let looks_failed = outcome(seen, None) == Err(NeedsDetails);
            assert_eq!(looks_failed, !details.is_empty(), "{seen:?}");
        }
        assert_eq!(outcome(Seen::Ended, None), Ok(Ignored));
    }
}
