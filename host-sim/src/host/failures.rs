//! What Envoy makes of a request that its upstream or its network failed. It must not know who asked.

use super::service::Fault;

/// An answer in the upstream's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: u32,
    pub(crate) text: &'static str,
    /// As access logs show it.
    pub(crate) details: &'static str,
    /// Envoy's response flags.
    pub(crate) flags: u64,
    /// Envoy says that it refused for its own sake.
    pub(crate) is_overload: bool,
}

/// Envoy's response flag of an upstream that broke HTTP's rules.
pub(crate) const PROTOCOL_ERROR: u64 = 1 << 23;

/// Nothing where the answer had begun.
pub(crate) fn failure_of(fault: Fault) -> Option<Failure> {
    let failure = |status, text, details, flags| Failure {
        status,
        text,
        details,
        flags,
        is_overload: fault == Fault::Overflow,
    };
    Some(match fault {
        Fault::Refused => failure(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}",
            1 << 5,
        ),
        Fault::Garbage => failure(
            502,
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
            "upstream_reset_before_response_started{protocol_error}",
            PROTOCOL_ERROR,
        ),
        Fault::ResetBeforeHeaders => failure(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            "upstream_reset_before_response_started{connection_termination}",
            1 << 6,
        ),
        Fault::Timeout => failure(504, "upstream request timeout", "response_timeout", 1 << 2),
        Fault::NoHosts => failure(503, "no healthy upstream", "no_healthy_upstream", 1 << 1),
        Fault::Overflow => failure(
            503,
            "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            "upstream_reset_before_response_started{overflow}",
            1 << 7,
        ),
        Fault::ResetAfterHeaders => return None,
    })
}
