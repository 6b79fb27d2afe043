//! Owns what messages say of claims: asking for one beside a decision, and finishing it when the
//! decision is settled. Knows neither limits nor records' octets.
//!
//! The decision's id is the claim's owner, the tenant stands in the scope. Headers and body of an answer
//! travel in the frame behind the document: first the headers, packed, then the body.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::BadMessage;
use super::frame::OCTETS_MAX;
use crate::idempotency::endpoint::Endpoint;
use crate::idempotency::fingerprint::RequestHash;
use crate::idempotency::key::IdempotencyKey;
use crate::idempotency::record::{Abandoned, Begun, Completed, Extended, Fence, Found};
use crate::idempotency::stored::{StoredAnswer, StoredHeaders};
use crate::scope::{CallerScope, Tenant};

/// The longest life of a record, in s: 30 days.
pub const RECORD_LIFE_MAX_S: u32 = 2_592_000;
/// The longest that replicas are waited for, in ms.
pub const REPLICAS_WITHIN_MS_MAX: u32 = 2_000;

/// Which record: with the tenant and the environment of the scope, its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// The client's key.
    pub key: IdempotencyKey,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Whether the configuration names it. What the filter makes of a request's path itself may hold personal data.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub configured: bool,
    /// What was asked.
    pub hash: RequestHash,
}

/// Asks for a claim beside a decision. Made only if the limits admit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimCall {
    /// Which record.
    #[serde(flatten)]
    pub keyed: Keyed,
    /// How long the claim is locked, in ms: the upstream's timeout and 5 s.
    pub lock_ms: u32,
    /// How long the record lives, in s; longer than the lock, at most [`RECORD_LIFE_MAX_S`].
    pub life_s: u32,
    /// Whether a claim whose lock has ended may be taken over.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub takeover: bool,
    /// Only look: a finished answer is wanted, nothing is claimed.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub look: bool,
    /// Look under the older name as well, without a tenant.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub older_keys: bool,
    /// A store that forgets at its exit will do.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub ephemeral: bool,
    /// The replicas that a claim is waited for to be on, beyond the deadline of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaCall>,
}

/// Which replicas are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaCall {
    /// How many, at least 1.
    pub count: u8,
    /// How long, in ms, 1 to [`REPLICAS_WITHIN_MS_MAX`].
    pub within_ms: u32,
}

/// An answer as a document tells it; headers and body are in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The upstream's status.
    pub status: u16,
    /// How many octets of the frame are headers.
    pub headers_len: u32,
    /// Whether the rest is the body; if not, the body was not kept.
    pub body: bool,
}

/// What became of a [`ClaimCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ClaimState {
    /// The request runs.
    Claimed {
        /// The claim.
        fence: Fence,
        /// Whether it was taken over from an owner that did not come back.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        taken_over: bool,
        /// On how many replicas it surely is, if they were waited for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replicas: Option<u8>,
    },
    /// Another one is at it.
    InFlight {
        /// How long it will be waited for, in µs.
        wait_us: u64,
    },
    /// The answer is there, in the frame.
    Done(AnswerHead),
    /// The answer is there, and the store cannot read it.
    Unreadable {
        /// The answer's status.
        status: u16,
    },
    /// The key was used for another request.
    Conflict,
    /// Whether the upstream did the work is not known.
    Unknown,
    /// Nothing is there, and nothing was claimed: it was only a look.
    Absent,
    /// This decision has given its claim back already.
    Spent,
    /// The store forgets, and the message does not say that this will do. Nothing was claimed.
    Forgets,
}

/// Finishes a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Which record.
    #[serde(flatten)]
    pub keyed: Keyed,
    /// The claim's fence; 0 if the answer to the claim never arrived, which only an abandon may say.
    pub fence: Fence,
    /// How.
    pub by: FinishBy,
}

/// How a claim is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum FinishBy {
    /// The answer is stored; its octets are in the frame.
    Complete {
        /// The answer.
        answer: AnswerHead,
        /// How long the record lives, in s.
        life_s: u32,
    },
    /// The claim is given back.
    Abandon {
        /// How long that is remembered, in s.
        life_s: u32,
    },
    /// The claim is locked for longer.
    Extend {
        /// From now on, in ms.
        lock_ms: u32,
        /// How long the record lives, in s.
        life_s: u32,
    },
}

/// What became of a [`Finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finished {
    /// The answer is stored.
    Stored,
    /// It had been stored before.
    AlreadyDone,
    /// The record had been lost; the answer was stored anew.
    Recovered,
    /// The claim is given back.
    Freed,
    /// There was none; the end is remembered.
    Remembered,
    /// The claim is locked for longer.
    Extended,
    /// The claim is another's by now. Nothing changed.
    Fenced,
    /// There is no record.
    Gone,
}

// === impl AnswerHead ===

impl AnswerHead {
    /// An answer as its head and the octets of its frame; `None` if they are too many.
    pub fn of(answer: &StoredAnswer) -> Option<(Self, Vec<u8>)> {
        let mut octets = answer.headers.to_bytes();
        let headers_len = u32::try_from(octets.len()).ok()?;
        octets.extend_from_slice(answer.body.as_deref().unwrap_or_default());
        let head = Self { status: answer.status, headers_len, body: answer.body.is_some() };
        (octets.len() <= OCTETS_MAX).then_some((head, octets))
    }

    /// The answer.
    pub fn with(self, octets: &[u8]) -> Result<StoredAnswer, BadMessage> {
        let headers_len = usize::try_from(self.headers_len).unwrap_or(usize::MAX);
        let (headers, body) = octets.split_at_checked(headers_len).ok_or(BadMessage::Frame)?;
        let headers = StoredHeaders::from_bytes(headers).ok_or(BadMessage::Frame)?;
        if !self.body && !body.is_empty() {
            return Err(BadMessage::Frame);
        }
        Ok(StoredAnswer { status: self.status, headers, body: self.body.then(|| body.to_vec()) })
    }
}

// === impl ClaimState ===

impl ClaimState {
    /// What a store said, and the octets of the frame; `None` if an answer has too many.
    pub fn of(begun: &Begun) -> Option<(Self, Vec<u8>)> {
        let state = match begun {
            Begun::Claimed { fence, taken_over } => {
                Self::Claimed { fence: *fence, taken_over: *taken_over, replicas: None }
            }
            Begun::Spent => Self::Spent,
            Begun::Found(Found::Absent) => Self::Absent,
            Begun::Found(Found::InFlight { wait_us }) => Self::InFlight { wait_us: *wait_us },
            Begun::Found(Found::Unreadable { status }) => Self::Unreadable { status: *status },
            Begun::Found(Found::Conflict) => Self::Conflict,
            Begun::Found(Found::Unknown) => Self::Unknown,
            Begun::Found(Found::Done(answer)) => {
                let (head, octets) = AnswerHead::of(answer)?;
                return Some((Self::Done(head), octets));
            }
        };
        Some((state, Vec::new()))
    }
}

// === impl Finished ===

impl From<Completed> for Finished {
    fn from(completed: Completed) -> Self {
        match completed {
            Completed::Stored => Self::Stored,
            Completed::AlreadyDone => Self::AlreadyDone,
            Completed::Recovered => Self::Recovered,
            Completed::Fenced => Self::Fenced,
        }
    }
}

impl From<Abandoned> for Finished {
    fn from(abandoned: Abandoned) -> Self {
        match abandoned {
            Abandoned::Freed => Self::Freed,
            Abandoned::Remembered => Self::Remembered,
            Abandoned::Fenced => Self::Fenced,
        }
    }
}

impl From<Extended> for Finished {
    fn from(extended: Extended) -> Self {
        match extended {
            Extended::Extended => Self::Extended,
            Extended::Fenced => Self::Fenced,
            Extended::Gone => Self::Gone,
        }
    }
}

// === impl ClaimCall ===

impl ClaimCall {
    pub(super) fn check(&self, scope: &CallerScope) -> Result<(), BadMessage> {
        sound_tenant(scope)?;
        let sound = |asked: &ReplicaCall| {
            asked.count > 0 && (1..=REPLICAS_WITHIN_MS_MAX).contains(&asked.within_ms)
        };
        if !self.replicas.as_ref().is_none_or(sound) {
            return Err(BadMessage::Claim("replicas: count is at least 1, within_ms 1 to 2000"));
        }
        sound_life(self.life_s, self.lock_ms)
    }
}

// === impl Finish ===

impl Finish {
    pub(super) fn check(&self, scope: &CallerScope, octets: &[u8]) -> Result<(), BadMessage> {
        sound_tenant(scope)?;
        let abandon = matches!(self.by, FinishBy::Abandon { .. });
        if self.fence == 0 && !abandon {
            return Err(BadMessage::Claim("only an abandon may come without a fence"));
        }
        // Records keep it in seven octets, and scripts count on from it in doubles.
        if self.fence >= 1 << 53 {
            return Err(BadMessage::Claim(
                "a fence is below 2^53: send the one that the begin gave",
            ));
        }
        match self.by {
            FinishBy::Complete { answer, life_s } => {
                answer.with(octets)?;
                sound_life(life_s, 1)
            }
            FinishBy::Abandon { life_s } => sound_life(life_s, 1),
            FinishBy::Extend { lock_ms, life_s } => sound_life(life_s, lock_ms),
        }
    }
}

fn sound_tenant(scope: &CallerScope) -> Result<(), BadMessage> {
    match scope.tenant {
        Tenant::Named(_) => Ok(()),
        Tenant::None => Err(BadMessage::Claim("send the tenant's name in the scope")),
    }
}

fn sound_life(life_s: u32, lock_ms: u32) -> Result<(), BadMessage> {
    if life_s == 0 || life_s > RECORD_LIFE_MAX_S {
        return Err(BadMessage::Claim("life_s is 1 to 2592000"));
    }
    if lock_ms == 0 || u64::from(life_s) * 1_000 <= u64::from(lock_ms) {
        return Err(BadMessage::Claim("lock_ms is at least 1 and shorter than life_s"));
    }
    Ok(())
}
