//! Owns why a message is refused, in words.

use alloc::string::String;
use core::fmt;

use super::{
    ADJUSTMENT_MAX, LEASES_MAX, LIMITS_MAX, MESSAGE_BYTES_MAX, OCTETS_MAX, UNITS_MAX, VERSION,
    together::QUESTIONS_MAX,
};
use crate::gcra::BadQuota;
use crate::reason::Reason;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadMessage {
    /// A document longer than [`MESSAGE_BYTES_MAX`], or more octets than [`OCTETS_MAX`].
    TooLong,
    /// What stands behind the document is no frame, or not the one that the document tells of.
    Frame,
    /// A claim that cannot be.
    Claim(&'static str),
    /// What is said of a breaker cannot be.
    Breaker(&'static str),
    /// An audit event that cannot be.
    Event(&'static str),
    /// No JSON of the expected shape.
    Malformed(String),
    /// Of another version.
    Version(u16),
    /// No limit, or more than [`LIMITS_MAX`].
    LimitCount(usize),
    /// A limit's id is empty, too long, or holds characters other than `a-z 0-9 - _ .`.
    LimitId(String),
    /// A limit's numbers cannot be.
    Quota(String, BadQuota),
    /// An adjustment of nothing, or of more than [`ADJUSTMENT_MAX`].
    Amount(String, i64),
    /// More than [`QUESTIONS_MAX`] questions in one message.
    QuestionCount,
    /// More than [`LEASES_MAX`] leases.
    LeaseCount(usize),
    /// A lease without a number of its own, or of more units than [`UNITS_MAX`].
    Lease(String),
    /// A limit counts by the tenant, and the scope names none: its key would be another's.
    NoTenant(String),
}

// === impl BadMessage ===

impl BadMessage {
    /// The reason that the gateway answers with.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Version(_) => Reason::UnsupportedVersion,
            Self::TooLong
            | Self::Frame
            | Self::Claim(_)
            | Self::Breaker(_)
            | Self::Event(_)
            | Self::Malformed(_)
            | Self::LimitCount(_)
            | Self::QuestionCount
            | Self::LimitId(_)
            | Self::Quota(..)
            | Self::Amount(..)
            | Self::LeaseCount(_)
            | Self::Lease(_)
            | Self::NoTenant(_) => Reason::BadMessage,
        }
    }
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(
                f,
                "the message is longer than {MESSAGE_BYTES_MAX} bytes, or its frame than {OCTETS_MAX}"
            ),
            Self::Frame => {
                f.write_str("what stands behind the document is not the frame it tells of")
            }
            Self::Claim(remedy) => write!(f, "the claim cannot be: {remedy}"),
            Self::Event(why) => write!(f, "the audit event cannot be: {why}"),
            Self::Breaker(remedy) => write!(f, "the report on breakers cannot be: {remedy}"),
            Self::Malformed(error) => write!(f, "the message cannot be read: {error}"),
            Self::Version(v) => {
                write!(
                    f,
                    "version {v} is unknown here, this build speaks {VERSION}: deploy matching filter and gateway"
                )
            }
            Self::LimitCount(count) => write!(f, "{count} limits: send 1 to {LIMITS_MAX}"),
            Self::QuestionCount => {
                write!(
                    f,
                    "more questions in one message than {QUESTIONS_MAX}: send at most so many"
                )
            }
            Self::LimitId(id) => write!(f, "{id:?} is no limit id: send policy.limit"),
            Self::Quota(id, error) => write!(f, "limit {id}: {error}"),
            Self::LeaseCount(count) => write!(f, "{count} leases: send at most {LEASES_MAX}"),
            Self::Lease(id) => write!(
                f,
                "the lease of limit {id} cannot be: send seq from 1 on, and units up to {UNITS_MAX}"
            ),
            Self::NoTenant(id) => {
                write!(f, "limit {id} counts by the tenant: send its name in the scope")
            }
            Self::Amount(id, by) => write!(
                f,
                "limit {id} is to be adjusted by {by}: send -{ADJUSTMENT_MAX} to {ADJUSTMENT_MAX}, and nothing if it is 0"
            ),
        }
    }
}

impl core::error::Error for BadMessage {}
