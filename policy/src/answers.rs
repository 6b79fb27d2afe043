//! Owns what a configuration says of the answers that clients get: the bases of problem types, the
//! dialect of the RateLimit fields, a policy's own wording. Knows no request.

use alloc::string::String;
use alloc::vec::Vec;

use crate::fields::Dialect;
use crate::reason::{PROBLEM_BASE, Reason};
use crate::template::Template;

/// The base of the problem types that draft-ietf-httpapi-ratelimit-headers asks IANA to register.
const REGISTERED_BASE: &str = "https://iana.org/assignments/http-problem-types#";

/// What holds for every answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answers {
    /// What problem types begin with.
    pub problems: Problems,
    /// How limits are told.
    pub rate_limit_fields: Dialect,
}

/// What problem types (RFC 9457) begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// An absolute URI that ends in `/`, `#` or `:`; a reason's text follows.
    pub base: String,
    /// Whether the quota types have IANA's base. They are not registered yet, so by default not.
    pub registered: bool,
}

// === impl Problems ===

impl Default for Problems {
    fn default() -> Self {
        Self { base: PROBLEM_BASE.into(), registered: false }
    }
}

impl Problems {
    /// What the problem type of a reason begins with.
    pub fn base_of(&self, reason: Reason) -> &str {
        let registered = self.registered
            && matches!(reason, Reason::QuotaExceeded | Reason::TemporaryReducedCapacity);
        if registered { REGISTERED_BASE } else { &self.base }
    }
}

/// What a policy says of its own denials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Denied {
    /// Its wording, in place of the problem document. gRPC clients read no body and get none.
    pub wording: Option<Wording>,
    /// Statuses other than the usual, each one of [`STATUSES`].
    pub statuses: Vec<(Reason, u16)>,
}

/// A body with its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wording {
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Template,
}

/// The reasons for which a policy may choose the status, the usual one first.
pub const STATUSES: [(Reason, &[u16]); 4] = [
    (Reason::ServiceOverloaded, &[429, 503]),
    (Reason::TemporaryReducedCapacity, &[429, 503]),
    // Never 401, which would need a challenge (RFC 9110 §15.5.2).
    (Reason::ClientIdentityRequired, &[403, 400]),
    // What others say that take keys: a client that knows one of them may not look at the type.
    (Reason::IdempotencyConflict, &[422, 409, 400]),
];

// === impl Denied ===

impl Denied {
    /// The status that the policy chose for a reason, if it did.
    pub fn status(&self, reason: Reason) -> Option<u16> {
        self.statuses.iter().find(|(of, _)| *of == reason).map(|(_, status)| *status)
    }
}
