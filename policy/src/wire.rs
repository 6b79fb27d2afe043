//! Owns the messages between filter and gateway and nothing else: their shapes, their version,
//! their bounds. Frozen by the golden files in `tests/golden/`; unknown fields are tolerated.
//!
//! A message is one JSON document. Durations are relative, in microseconds, milliseconds or seconds:
//! the two sides' clocks never meet. The one point in time, [`LimitState::charged_us`], is the store's
//! and goes back to it. Octets that are no text (an answer to be stored) travel behind the document in
//! a frame of their own.

pub mod audit;
mod bad;
pub mod breaker;
mod claim;
mod frame;
mod id;
mod settle;
mod sync;
pub mod together;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::gcra::{BadQuota, Quota};
use crate::idempotency::stored::StoredAnswer;
use crate::identity::Subject;
use crate::limit::Algorithm;
use crate::limit::refund::Receipt;
use crate::scope::{CallerScope, Tenant};

pub use self::bad::BadMessage;
pub use self::claim::{
    AnswerHead, ClaimCall, ClaimState, Finish, FinishBy, Finished, Keyed, RECORD_LIFE_MAX_S,
    REPLICAS_WITHIN_MS_MAX, ReplicaCall,
};
pub use self::frame::{FRAMED_BYTES_MAX, OCTETS_MAX, encode_framed};
pub use self::id::DecisionId;
pub use self::settle::{ADJUSTMENT_MAX, Adjustment, SETTLE_PATH, SettleReply, SettleRequest};
pub use self::sync::{
    HolderId, LEASES_MAX, LeaseCall, LeaseGrant, SYNC_PATH, SyncReply, SyncRequest, UNITS_MAX, Want,
};

/// The version that both sides speak.
pub const VERSION: u16 = 1;
/// Where the filter asks for a decision.
pub const DECIDE_PATH: &str = "/v1/decide";
/// Every genuine answer of the gateway carries this header. An answer without it is a proxy's.
pub const MARK_HEADER: &str = "x-tidegate-gateway";
/// The hash of the filter's configuration, on questions: by which document it was decided.
pub const CONFIG_HEADER: &str = "x-tidegate-configuration";
/// The mark's value.
pub const MARK_VALUE: &str = "v1";
/// The most limits that one message may carry.
pub const LIMITS_MAX: usize = 64;
/// The longest document that the gateway reads.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The longest limit id.
const LIMIT_ID_LEN_MAX: usize = 160;

/// `POST /v1/decide`: may this request go on?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideRequest {
    /// [`VERSION`].
    pub v: u16,
    /// Made by the filter, echoed by the gateway.
    pub id: DecisionId,
    /// Whose request, from where.
    pub scope: CallerScope,
    /// How long the filter waits. The gateway's deadline must be shorter.
    pub timeout_ms: u32,
    /// W3C trace context of the request, if it has one; Envoy's callouts add none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Envoy's `x-request-id`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Up to [`LIMITS_MAX`], at least 1 without a claim. The enforced ones are charged all or none.
    pub limits: Vec<LimitCall>,
    /// The claim that is wanted if the limits admit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimCall>,
    /// What the holder of leased limits says and wants; answered whatever the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseCall>,
}

/// One limit that applies to the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCall {
    /// `policy.limit`: unique within a configuration.
    pub id: String,
    /// Who is counted.
    pub subject: Subject,
    /// Units per period.
    pub limit: u32,
    /// The period in µs.
    pub period_us: u64,
    /// Units that may come at once; of a `window` the limit itself.
    pub burst: u32,
    /// How it counts; absent in messages of filters that know only one way.
    #[serde(default, skip_serializing_if = "Algorithm::is_default")]
    pub algorithm: Algorithm,
    /// Units that this request costs; 0 only looks.
    pub cost: u32,
    /// Counted and reported, each for itself, but never a reason to deny.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub shadow: bool,
}

/// The gateway's verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every enforced limit admits, and was charged.
    Allow,
    /// At least one enforced limit denies; none was charged.
    Deny,
}

/// The answer to a [`DecideRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecideReply {
    /// [`VERSION`].
    pub v: u16,
    /// The request's id: an answer to another question is none.
    pub id: DecisionId,
    /// The verdict over the enforced limits.
    pub verdict: Verdict,
    /// One per limit of the request, in its order.
    pub limits: Vec<LimitState>,
    /// What became of the claim: there exactly if one was asked for and the limits admit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimState>,
    /// One per lease of the request that was heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseGrant>,
    /// What travels behind the document: headers and body of an answer.
    #[serde(skip)]
    pub octets: Vec<u8>,
}

/// What one limit says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitState {
    /// The limit's id.
    pub id: String,
    /// Whether it admits.
    pub allowed: bool,
    /// Whole units left.
    pub remaining: u64,
    /// µs until one more unit is there.
    pub next_us: u64,
    /// µs until full.
    pub reset_us: u64,
    /// µs until this request would fit; absent if it never will, 0 if it fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_us: Option<u64>,
    /// Units per period that are in force now, if they are fewer than configured: the region is
    /// cold (product row A2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether it could not be read: it decides nothing, and its numbers say nothing. Gateways of before do not say so.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unread: bool,
    /// When it was charged, by the store's own clock, in µs since 1970: nothing to a filter, which says
    /// it again with what it gives back ([`LimitState::receipt`]). Absent if it was not charged, if nobody can
    /// tell what that came to, and in answers of gateways that tell nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged_us: Option<u64>,
}

/// Why the gateway gives no verdict: the problem document (RFC 9457) of its answer, as far as the
/// filter reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// [`VERSION`].
    pub v: u16,
    /// A [`Reason`]'s text.
    pub reason: String,
    /// For the operator's log; never sent on to a client.
    #[serde(default)]
    pub detail: String,
}

/// Only the version, for a message that could not be read whole.
#[derive(Deserialize)]
struct Versioned {
    v: u16,
}

/// What every message has.
trait Message {
    fn version(&self) -> u16;
}

impl Message for DecideRequest {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for DecideReply {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for Refusal {
    fn version(&self) -> u16 {
        self.v
    }
}

/// A newer message is refused for its version, not for a field that this build does not know.
fn read<'a, T: Deserialize<'a> + Message>(bytes: &'a [u8]) -> Result<T, BadMessage> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(BadMessage::TooLong);
    }
    // Once for the whole of it, and not for each of its many short strings.
    let text = match core::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(BadMessage::Malformed(error.to_string())),
    };
    match serde_json::from_str::<T>(text) {
        Ok(message) if message.version() == VERSION => Ok(message),
        Ok(message) => Err(BadMessage::Version(message.version())),
        Err(error) => match serde_json::from_str(text) {
            Ok(Versioned { v }) if v != VERSION => Err(BadMessage::Version(v)),
            Ok(_) | Err(_) => Err(BadMessage::Malformed(error.to_string())),
        },
    }
}

// === impl DecideRequest ===

impl DecideRequest {
    /// Reads and checks a message; a value that this returns has sound ids and quotas.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let message: Self = read(bytes)?;
        let count = message.limits.len();
        if (count == 0 && message.claim.is_none()) || count > LIMITS_MAX {
            return Err(BadMessage::LimitCount(count));
        }
        message.claim.as_ref().map_or(Ok(()), |claim| claim.check(&message.scope))?;
        sync::sound_leases(&message.leases, &message.scope)?;
        for call in &message.limits {
            sound_limit(&message.scope, &call.id, &call.subject)?;
            call.quota().map_err(|error| BadMessage::Quota(call.id.clone(), error))?;
        }
        Ok(message)
    }
}

// === impl LimitCall ===

impl LimitCall {
    /// The three numbers, checked.
    pub fn quota(&self) -> Result<Quota, BadQuota> {
        self.algorithm.quota(self.limit, self.period_us, self.burst)
    }
}

// === impl LimitState ===

impl LimitState {
    /// What to say of the charge when it is given back.
    pub fn receipt(&self) -> Option<Receipt> {
        let (full_us, cold) = (self.reset_us, self.limit.is_some());
        self.charged_us.map(|at_us| Receipt { at_us, full_us, cold })
    }
}

fn sound_limit(scope: &CallerScope, id: &str, subject: &Subject) -> Result<(), BadMessage> {
    if subject.is_of_tenant() && scope.tenant == Tenant::None {
        return Err(BadMessage::NoTenant(id.to_string()));
    }
    sound_id(id)
}

fn sound_id(id: &str) -> Result<(), BadMessage> {
    let sound = !id.is_empty()
        && id.len() <= LIMIT_ID_LEN_MAX
        && id.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        });
    if sound {
        Ok(())
    } else {
        Err(BadMessage::LimitId(id.chars().take(LIMIT_ID_LEN_MAX).collect()))
    }
}

// === impl DecideReply ===

impl DecideReply {
    /// Reads the gateway's verdict on the question `asked`.
    pub fn decode(bytes: &[u8], asked: DecisionId) -> Result<Self, BadMessage> {
        let (document, octets) = frame::split(bytes)?;
        let reply = Self { octets: octets.to_vec(), ..read(document)? };
        if reply.id != asked {
            return Err(BadMessage::Malformed("the answer is to another decision".to_string()));
        }
        reply.answer()?;
        Ok(reply)
    }

    /// The answer that was stored under the key, if there is one.
    pub fn answer(&self) -> Result<Option<StoredAnswer>, BadMessage> {
        match self.claim {
            Some(ClaimState::Done(head)) => head.with(&self.octets).map(Some),
            _ if self.octets.is_empty() => Ok(None),
            _ => Err(BadMessage::Frame),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Reads the gateway's refusal.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        read(bytes)
    }
}

/// Any message as bytes. No shape of ours can fail to serialise; if one ever does, the empty
/// message is refused by its reader.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}
