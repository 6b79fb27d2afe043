//! Owns the messages that change what a decision has charged, once its cost is known.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::claim::{Finish, FinishBy, Finished};
use super::{BadMessage, DecisionId, LIMITS_MAX, LimitState, Message, frame, read, sound_limit};
use crate::gcra::{BadQuota, Quota};
use crate::identity::Subject;
use crate::limit::Algorithm;
use crate::limit::refund::Receipt;
use crate::scope::CallerScope;

/// Where the filter settles.
pub const SETTLE_PATH: &str = "/v1/settle";
/// The most units that one adjustment may charge or give back: the most that a limit may hold.
pub const ADJUSTMENT_MAX: u32 = 1_000_000_000;

/// `POST /v1/settle`: what the decision `id` charged was not the cost; here is the difference.
///
/// Safe to repeat: each limit is adjusted at most once per decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleRequest {
    /// [`super::VERSION`].
    pub v: u16,
    /// The decision's id, as in its [`super::DecideRequest`].
    pub id: DecisionId,
    /// Whose request, from where: as in the decision.
    pub scope: CallerScope,
    /// How long the filter waits. The gateway's deadline must be shorter.
    pub timeout_ms: u32,
    /// µs since the filter sent the decision's message, by its own clock. What has run out of a
    /// limit by itself since then is not given back a second time.
    pub age_us: u64,
    /// W3C trace context of the request, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Envoy's `x-request-id`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Up to [`LIMITS_MAX`] adjustments, at least 1 if no claim is finished.
    pub adjustments: Vec<Adjustment>,
    /// What becomes of the decision's claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// What travels behind the document: headers and body of an answer.
    #[serde(skip)]
    pub octets: Vec<u8>,
}

/// What one limit is charged more, or given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// `policy.limit`, as in the decision.
    pub id: String,
    /// Who is counted.
    pub subject: Subject,
    /// Units per period.
    pub limit: u32,
    /// The period in µs.
    pub period_us: u64,
    /// Units that may come at once.
    pub burst: u32,
    /// How it counts.
    #[serde(default, skip_serializing_if = "Algorithm::is_default")]
    pub algorithm: Algorithm,
    /// Above 0 it charges more, at most into a debt of one burst (`window`: of one limit); below 0
    /// it gives back; a caller never gives back more than its decision charged. At most
    /// [`ADJUSTMENT_MAX`] either way.
    pub by: i64,
    /// What the gateway said of the charge; absent in messages of filters that keep none. What may have
    /// come back by itself is then told by the decision's age alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
}

/// The answer to a [`SettleRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleReply {
    /// [`super::VERSION`].
    pub v: u16,
    /// The request's id.
    pub id: DecisionId,
    /// One per adjustment, in order: what a request that costs nothing would now be told.
    pub limits: Vec<LimitState>,
    /// What became of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finished>,
}

impl Message for SettleRequest {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for SettleReply {
    fn version(&self) -> u16 {
        self.v
    }
}

// === impl SettleRequest ===

impl SettleRequest {
    /// Reads and checks a message; a value that this returns has sound ids, quotas and amounts.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let (document, octets) = frame::split(bytes)?;
        let message = Self { octets: octets.to_vec(), ..read(document)? };
        let count = message.adjustments.len();
        if (count == 0 && message.finish.is_none()) || count > LIMITS_MAX {
            return Err(BadMessage::LimitCount(count));
        }
        let complete = |finish: &Finish| matches!(finish.by, FinishBy::Complete { .. });
        if !octets.is_empty() && !message.finish.as_ref().is_some_and(complete) {
            return Err(BadMessage::Frame);
        }
        message.finish.as_ref().map_or(Ok(()), |finish| finish.check(&message.scope, octets))?;
        for adjustment in &message.adjustments {
            sound_limit(&message.scope, &adjustment.id, &adjustment.subject)?;
            adjustment.quota().map_err(|error| BadMessage::Quota(adjustment.id.clone(), error))?;
            if adjustment.by == 0 || adjustment.by.unsigned_abs() > u64::from(ADJUSTMENT_MAX) {
                return Err(BadMessage::Amount(adjustment.id.clone(), adjustment.by));
            }
        }
        Ok(message)
    }
}

// === impl Adjustment ===

impl Adjustment {
    /// The three numbers, checked.
    pub fn quota(&self) -> Result<Quota, BadQuota> {
        self.algorithm.quota(self.limit, self.period_us, self.burst)
    }
}

// === impl SettleReply ===

impl SettleReply {
    /// Reads the gateway's answer to what was settled for the decision `asked`.
    pub fn decode(bytes: &[u8], asked: DecisionId) -> Result<Self, BadMessage> {
        let reply: Self = read(bytes)?;
        if reply.id == asked {
            Ok(reply)
        } else {
            Err(BadMessage::Malformed("the answer is to another decision".to_string()))
        }
    }
}
