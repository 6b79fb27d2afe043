//! Owns what a policy says of idempotency, checked. Knows neither documents nor requests.

use alloc::string::String;
use alloc::vec::Vec;

use super::finalise::Rule;
use super::fingerprint::HashRule;
use super::key::KeySyntax;
use super::record::LOCK_MARGIN_US;
use super::stored::{BODY_LEN_MAX, HeaderRule};
use crate::identity::Identity;
use crate::mode::Mode;
use crate::wire::ReplicaCall;

/// One policy's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether a request without a key is refused.
    pub required: bool,
    /// Which spellings of a key are taken.
    pub syntax: KeySyntax,
    /// The mode of idempotency alone; `None` is the policy's.
    pub mode: Option<Mode>,
    /// The methods that it is for.
    pub methods: Vec<String>,
    /// Whose keys they are: names a tenant.
    pub tenant: Identity,
    /// The path that keys are recorded under; `None` is guessed from the request's.
    pub endpoint: Option<String>,
    /// How long the upstream may take, in ms.
    pub upstream_timeout_ms: u32,
    /// How long a record lives, in s.
    pub life_s: u32,
    /// What of a request is hashed.
    pub hash: HashRule,
    /// How long a request waits for the first one's answer, in ms; 0 is not at all.
    pub wait_ms: u32,
    /// How many requests of one worker wait so at once.
    pub waiting_max: u32,
    /// Whether a claim whose lock has ended may be taken over; `None` goes by the method.
    pub takeover: Option<bool>,
    /// Whether an answer is held until it is stored.
    pub durable: bool,
    /// What of an answer is stored.
    pub stored: Stored,
    /// Whether a request runs unprotected when nobody can be asked. Never where a key is required.
    pub allows_unasked: bool,
    /// The replicas that a claim has to be on before its request runs.
    pub replicas: Option<Replicas>,
    /// Whether a store that forgets will do.
    pub ephemeral: bool,
    /// Whether keys of the older format are looked up first.
    pub older_keys: bool,
}

/// On how many replicas a claim has to be, and what fewer mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// How many, and how long they are waited for.
    pub asked: ReplicaCall,
    /// Whether the request runs with fewer.
    pub allows_fewer: bool,
}

/// What of an answer is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Which answers.
    pub rule: Rule,
    /// Which headers.
    pub headers: HeaderRule,
    /// The most bytes of a body.
    pub body_len_max: usize,
    /// Whether a retry of what was stored without its body gets status and headers; if not, 409.
    pub status_only: bool,
}

// === impl Terms ===

impl Terms {
    /// Whether it is for requests of this method.
    pub fn is_for(&self, method: &[u8]) -> bool {
        self.methods.iter().any(|known| known.as_bytes() == method)
    }

    /// How long a claim is locked, in ms.
    pub fn lock_ms(&self) -> u32 {
        let margin_ms = u32::try_from(LOCK_MARGIN_US / 1_000).unwrap_or(u32::MAX);
        self.upstream_timeout_ms.saturating_add(margin_ms)
    }

    /// Whether a claim of this method may be taken over once its lock has ended. What is idempotent by
    /// its definition may run again (RFC 9110 §9.2.2); nothing else does unless the policy says so.
    pub fn takes_over(&self, method: &[u8]) -> bool {
        self.takeover.unwrap_or(matches!(method, b"PUT" | b"DELETE"))
    }
}

// === impl Stored ===

impl Default for Stored {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            headers: HeaderRule::default(),
            body_len_max: BODY_LEN_MAX,
            status_only: false,
        }
    }
}
