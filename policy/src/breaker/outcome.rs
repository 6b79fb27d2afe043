//! Owns what an answer says of its upstream: works, fails, or nothing.
//!
//! A failure is what the rules name, a 5xx of the upstream's if nothing else, or what Envoy answers because
//! the upstream did not: reset, refused, timed out, no healthy host. 429 says that the upstream works and
//! has enough: it is ignored.
//! What the filter, another filter or Envoy itself answered is ignored, and so is a client that left; but whose good
//! answer it is matters, and is found out, only where it would close a breaker or end a row of failures.

use core::ops::RangeInclusive;

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
    /// The stream of a gRPC answer ended without a status.
    CutOff,
    /// The stream ended within an answer whose headers said that all is well.
    Broken,
    /// The stream ended without an answer.
    Ended,
}

/// HTTP statuses and gRPC statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statuses {
    /// One bit for each from 100 to 599.
    http: [u64; 8],
    /// One bit for each from 0 to 16.
    grpc: u32,
}

/// Which answers are failures, and which say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Failures.
    pub failures: Statuses,
    /// What says nothing, also where it stands among the failures.
    pub ignored: Statuses,
}

// === impl Statuses ===

impl Statuses {
    /// The least HTTP status.
    const FIRST: u16 = 100;

    /// With these HTTP statuses, in place of others.
    pub fn with_http(self, ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut http = [0; 8];
        for status in ranges.into_iter().flatten() {
            let bit = status.saturating_sub(Self::FIRST);
            if let Some(word) = http.get_mut(usize::from(bit / 64)) {
                *word |= 1_u64 << (bit % 64);
            }
        }
        Self { http, ..self }
    }

    /// With these gRPC statuses, in place of others.
    pub fn with_grpc(self, statuses: impl IntoIterator<Item = u8>) -> Self {
        let bits = statuses.into_iter().fold(0, |bits, status| bits | 1_u32 << (status % 32));
        Self { grpc: bits, ..self }
    }

    fn has_http(&self, status: &[u8]) -> bool {
        let digit = |octet: u8| u16::from(octet.wrapping_sub(b'0'));
        // With each answer: no more than it takes.
        let [hundreds @ b'1'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = *status else {
            return false;
        };
        let bit = (digit(hundreds).saturating_sub(1) * 10 + digit(tens)) * 10 + digit(ones);
        let word = self.http.get(usize::from(bit / 64)).copied().unwrap_or(0);
        word >> (bit % 64) & 1 == 1
    }

    fn has_grpc(&self, code: &[u8]) -> bool {
        let number = core::str::from_utf8(code).ok().and_then(|text| text.parse::<u32>().ok());
        number.is_some_and(|number| self.grpc.checked_shr(number).unwrap_or(0) & 1 == 1)
    }
}

// === impl Rules ===

impl Default for Rules {
    /// 5xx, unknown, deadline exceeded, internal, unavailable and data loss are failures; 429, cancelled
    /// and resource exhausted say nothing.
    fn default() -> Self {
        let none = Statuses::default();
        Self {
            failures: none.with_http([500..=599]).with_grpc([2, 4, 13, 14, 15]),
            ignored: none.with_http([429..=429]).with_grpc([1, 8]),
        }
    }
}

impl Rules {
    /// What follows, or that Envoy's details have to be known first: of answers that look like failures, and of good
    /// ones whose word `matters`, since they would close a breaker or end a row of failures: only the upstream's do.
    /// What the upstream did not answer fails whatever the rules name.
    pub fn outcome(
        &self,
        seen: Seen<'_>,
        matters: bool,
        details: Option<&[u8]>,
    ) -> Result<Outcome, NeedsDetails> {
        let (named, looks_failed) = match seen {
            Seen::Ended => return Ok(Outcome::Ignored),
            Seen::CutOff => (Outcome::Failure, true),
            // What is the upstream's own end is no reset.
            Seen::Broken => (Outcome::Ignored, true),
            Seen::Answered { status: b"200", grpc: Some(Some(code)) } => {
                let named = self.named(|of| of.has_grpc(code));
                (named, named == Outcome::Failure || Self::default().failures.has_grpc(code))
            }
            Seen::Answered { status, .. } => {
                let named = self.named(|of| of.has_http(status));
                (named, named == Outcome::Failure || matches!(status, [b'5', _, _]))
            }
        };
        let is_doubted = looks_failed || (matters && named == Outcome::Success);
        match details {
            _ if !is_doubted => Ok(named),
            None => Err(NeedsDetails),
            Some(details) if details.starts_with(b"via_upstream") => Ok(named),
            Some(details) if is_of_upstream(details) => Ok(Outcome::Failure),
            Some(details) if waited_in_vain(seen, details) => Ok(Outcome::Failure),
            Some(_) => Ok(Outcome::Ignored),
        }
    }

    fn named(&self, has: impl Fn(&Statuses) -> bool) -> Outcome {
        match (has(&self.ignored), has(&self.failures)) {
            (true, _) => Outcome::Ignored,
            (false, true) => Outcome::Failure,
            (false, false) => Outcome::Success,
        }
    }
}

/// Envoy's `response.code_details` has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsDetails;

/// Whether it is because the upstream did not answer. Overflow is Envoy's own bound on what it
/// lets through.
fn is_of_upstream(details: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [
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

/// Whether the time of the stream ran out on a request that was whole, before an answer began: Envoy says 504 then, in
/// gRPC 14. With 408 it waited for the client, and within an answer it may have.
fn waited_in_vain(seen: Seen<'_>, details: &[u8]) -> bool {
    let is_whole = match seen {
        Seen::Answered { status: b"200", grpc: Some(code) } => code == Some(b"14"),
        Seen::Answered { status, .. } => status == b"504",
        Seen::CutOff | Seen::Broken | Seen::Ended => false,
    };
    is_whole && matches!(details, b"stream_idle_timeout" | b"max_duration_timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_what_they_say() {
        use Outcome::{Failure, Ignored, Success};
        type Row = (&'static [u8], Option<Option<&'static [u8]>>, &'static [u8], Outcome);
        let rows: [Row; 26] = [
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
            (b"504", None, b"stream_idle_timeout", Failure),
            (b"504", None, b"max_duration_timeout", Failure),
            (b"200", Some(Some(b"14")), b"stream_idle_timeout", Failure),
            (b"200", Some(Some(b"2")), b"stream_idle_timeout", Ignored),
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
            let outcome = |seen, details| Rules::default().outcome(seen, false, details);
            assert_eq!(outcome(seen, Some(details)), Ok(expected), "{seen:?} {details:?}");
            // Nothing more is read of an answer that looks well.
            let looks_failed = outcome(seen, None) == Err(NeedsDetails);
            assert_eq!(looks_failed, !details.is_empty(), "{seen:?}");
        }
        assert_eq!(Rules::default().outcome(Seen::Ended, true, None), Ok(Ignored));
    }

    #[test]
    fn a_good_answer_that_matters_is_the_upstreams_or_says_nothing() {
        use Outcome::{Failure, Ignored, Success};
        type Row = (&'static [u8], Option<Option<&'static [u8]>>, &'static [u8], Outcome);
        let rows: [Row; 13] = [
            (b"200", None, b"via_upstream", Success),
            (b"404", None, b"via_upstream", Success),
            (b"404", None, b"route_not_found", Ignored),
            (b"301", None, b"direct_response", Ignored),
            (b"200", None, b"direct_response", Ignored),
            (b"403", None, b"rbac_access_denied_matched_policy[none]", Ignored),
            (b"401", None, b"tidegate:client-identity-required:p", Ignored),
            (b"408", None, b"request_overall_timeout", Ignored),
            (b"200", None, b"response_from_cache_filter", Ignored),
            // Envoy may be told to answer so in place of 503.
            (b"200", None, b"no_healthy_upstream", Failure),
            (b"200", Some(Some(b"0")), b"via_upstream", Success),
            (b"200", Some(Some(b"7")), b"ext_authz_denied", Ignored),
            (b"200", Some(Some(b"16")), b"", Ignored),
        ];
        for (status, grpc, details, expected) in rows {
            let seen = Seen::Answered { status, grpc };
            let outcome = |matters, details| Rules::default().outcome(seen, matters, details);
            assert_eq!(outcome(true, Some(details)), Ok(expected), "{seen:?} {details:?}");
            assert_eq!(
                (outcome(true, None), outcome(false, None)),
                (Err(NeedsDetails), Ok(Success))
            );
        }
        let ignored = Seen::Answered { status: b"429", grpc: None };
        assert_eq!(
            Rules::default().outcome(ignored, true, None),
            Ok(Ignored),
            "nothing to find out"
        );
    }

    #[test]
    fn the_author_says_which_statuses_fail_and_which_say_nothing() {
        use Outcome::{Failure, Ignored, Success};
        let none = Statuses::default();
        let rules = Rules {
            failures: none.with_http([404..=404, 500..=599]).with_grpc([5, 16]),
            ignored: none.with_http([501..=502, 599..=599]).with_grpc([16]),
        };
        let http: [(&[u8], Outcome); 12] = [
            (b"100", Success),
            (b"403", Success),
            (b"404", Failure),
            (b"405", Success),
            (b"429", Success),
            (b"500", Failure),
            (b"501", Ignored),
            (b"502", Ignored),
            (b"503", Failure),
            (b"599", Ignored),
            (b"", Success),
            (b"70000", Success),
        ];
        let of = |status, grpc| {
            rules.outcome(Seen::Answered { status, grpc }, false, Some(b"via_upstream"))
        };
        for (status, expected) in http {
            assert_eq!(of(status, None), Ok(expected), "{status:?}");
        }
        let grpc: [(&[u8], Outcome); 6] = [
            (b"0", Success),
            (b"5", Failure),
            (b"14", Success),
            (b"16", Ignored),
            (b"37", Success),
            (b"x", Success),
        ];
        for (code, expected) in grpc {
            assert_eq!(of(b"200", Some(Some(code))), Ok(expected), "{code:?}");
        }
        // Envoy's own answers are judged by their details all the same.
        let of = |status, details: &[u8]| {
            rules.outcome(Seen::Answered { status, grpc: None }, false, Some(details))
        };
        assert_eq!(of(b"404", b"route_not_found"), Ok(Ignored));
        assert_eq!(of(b"501", b"upstream_reset_before_response_started{reset}"), Ok(Failure));
        let lax = Rules { failures: none, ignored: none };
        let reset = Seen::Answered { status: b"503", grpc: None };
        assert_eq!(
            lax.outcome(reset, false, Some(b"upstream_reset_before_response_started{x}")),
            Ok(Failure)
        );
        assert_eq!(lax.outcome(reset, false, Some(b"via_upstream")), Ok(Success));
        assert_eq!(lax.outcome(Seen::CutOff, false, Some(b"via_upstream")), Ok(Failure));
        assert_eq!(
            lax.outcome(Seen::CutOff, false, Some(b"downstream_remote_disconnect")),
            Ok(Ignored)
        );
        // The client may have been waited for, to read the answer.
        let broken: [(&[u8], Outcome); 6] = [
            (b"stream_idle_timeout", Ignored),
            (b"upstream_reset_after_response_started{connection_termination}", Failure),
            (b"upstream_response_timeout", Failure),
            (b"downstream_remote_disconnect", Ignored),
            (b"via_upstream", Ignored),
            (b"", Ignored),
        ];
        for (details, expected) in broken {
            assert_eq!(
                lax.outcome(Seen::Broken, false, Some(details)),
                Ok(expected),
                "{details:?}"
            );
        }
    }
}
