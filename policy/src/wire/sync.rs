//! Owns the message of a filter's tick and the leases that travel in it, and beside a decision: what
//! a holder reports of its units, what it asks for, what it is given. Every part is optional.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{BadMessage, DecisionId, Message, read, sound_limit};
use crate::gcra::{BadQuota, Quota};
use crate::identity::Subject;
use crate::scope::{CallerScope, Tenant};

/// Where the filter sends its tick.
pub const SYNC_PATH: &str = "/v1/sync";
/// The most leases that one message may carry.
pub const LEASES_MAX: usize = 128;
/// The most units that a holder may report, and the most units a second that it may see.
pub const UNITS_MAX: u32 = 1_000_000_000;

/// `POST /v1/sync`: what one Envoy process tells the gateway now and then, all in one message.
///
/// A part that is absent says nothing. Safe to repeat: what has been heard before changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// [`super::VERSION`].
    pub v: u16,
    /// Made by the filter, echoed by the gateway.
    pub id: DecisionId,
    /// From where; the tenant stands with each part that has one.
    pub scope: CallerScope,
    /// How long the filter waits. The gateway's deadline must be shorter.
    pub timeout_ms: u32,
    /// Up to [`LEASES_MAX`] leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseCall>,
}

/// Names one holder of leased units: 64 bits that were drawn at random, written as 16 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HolderId(pub u64);

/// What a holder says of one limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCall {
    /// `policy.limit`.
    pub id: String,
    /// Who is counted.
    pub subject: Subject,
    /// The tenant, if the subject counts by one.
    #[serde(default, skip_serializing_if = "Tenant::is_none")]
    pub tenant: Tenant,
    /// Units per period.
    pub limit: u32,
    /// The period in µs.
    pub period_us: u64,
    /// Units that may come at once.
    pub burst: u32,
    /// Who holds.
    pub holder: HolderId,
    /// Higher with each message of this holder; at least 1.
    pub seq: u32,
    /// Units a second that are asked of this holder now.
    pub demand: u32,
    /// Units that it still holds, wherever they lie: those that come with this message are not among
    /// them.
    pub left: u32,
    /// Units that it gives back with this message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub back: u32,
    /// What it wants.
    #[serde(default, skip_serializing_if = "Want::is_nothing")]
    pub want: Want,
}

/// What a holder wants beside being heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Nothing.
    #[default]
    Nothing,
    /// Units for what its demand will need soon.
    Ahead,
    /// The same, because a request found none.
    Now,
}

/// What becomes of one [`LeaseCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// Who holds.
    pub holder: HolderId,
    /// The message that is answered: an answer to another one is void.
    pub seq: u32,
    /// Units that it now holds besides.
    pub granted: u32,
    /// From the moment at which the message was **sent**, all its units live that long, in µs.
    pub ttl_us: u64,
    /// For that long nothing more can be had, in µs: until then it denies by itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deny_us: u64,
    /// Whole units that are left for anybody.
    pub remaining: u64,
    /// Others want more than there is: what is not needed soon had better go back.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub scarce: bool,
    /// Units per period that are in force now, if they are fewer than configured: the region is cold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to a [`SyncRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReply {
    /// [`super::VERSION`].
    pub v: u16,
    /// The request's id.
    pub id: DecisionId,
    /// One per lease that was heard, in any order; none for one whose store failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leases: Vec<LeaseGrant>,
}

/// Only the leases of a verdict, for the holder that asked beside a request.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    leases: Vec<LeaseGrant>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Message for SyncRequest {
    fn version(&self) -> u16 {
        self.v
    }
}

impl Message for SyncReply {
    fn version(&self) -> u16 {
        self.v
    }
}

// === impl SyncRequest ===

impl SyncRequest {
    /// Reads and checks a message; a value that this returns has sound ids, quotas and numbers.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let message: Self = read(bytes)?;
        sound_leases(&message.leases, &message.scope)?;
        Ok(message)
    }
}

/// Checks leases, wherever they travel.
pub(super) fn sound_leases(leases: &[LeaseCall], scope: &CallerScope) -> Result<(), BadMessage> {
    if leases.len() > LEASES_MAX {
        return Err(BadMessage::LeaseCount(leases.len()));
    }
    for call in leases {
        let scope = CallerScope { tenant: call.tenant.clone(), ..scope.clone() };
        sound_limit(&scope, &call.id, &call.subject)?;
        call.quota().map_err(|error| BadMessage::Quota(call.id.clone(), error))?;
        let units = [call.demand, call.left, call.back];
        if call.seq == 0 || units.into_iter().any(|units| units > UNITS_MAX) {
            return Err(BadMessage::Lease(call.id.clone()));
        }
    }
    Ok(())
}

// === impl SyncReply ===

impl SyncReply {
    /// Reads the gateway's answer to the message `asked`.
    pub fn decode(bytes: &[u8], asked: DecisionId) -> Result<Self, BadMessage> {
        let reply: Self = read(bytes)?;
        if reply.id == asked {
            Ok(reply)
        } else {
            Err(BadMessage::Malformed("the answer is to another message".to_string()))
        }
    }

    /// The leases that travel beside a verdict; none if it cannot be read.
    pub fn beside_verdict(bytes: &[u8]) -> Vec<LeaseGrant> {
        serde_json::from_slice(bytes).map_or_else(|_| Vec::new(), |granted: Granted| granted.leases)
    }
}

// === impl LeaseCall ===

impl LeaseCall {
    /// The three numbers, checked. What is leased counts by GCRA.
    pub fn quota(&self) -> Result<Quota, BadQuota> {
        Quota::new(self.limit, self.period_us, self.burst)
    }
}

// === impl Want ===

impl Want {
    /// Whether it is only heard.
    pub fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

// === impl HolderId ===

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for HolderId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HolderId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(HolderText)
    }
}

/// Reads a holder's 16 lower-case digits.
struct HolderText;

impl serde::de::Visitor<'_> for HolderText {
    type Value = HolderId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a holder: 16 digits of 0-9 a-f")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HolderId, E> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = (digits && text.len() == 16).then(|| u64::from_str_radix(text, 16));
        match number {
            Some(Ok(number)) => Ok(HolderId(number)),
            Some(Err(_)) | None => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}
