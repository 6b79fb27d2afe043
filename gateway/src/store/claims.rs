//! Owns what the service may ask of a store that keeps claims and answers. Knows neither callers nor
//! HTTP.
//!
//! A record's name is made of an environment and a tenant, so that no call can do without them. Every
//! step may be repeated by its owner.

use std::time::Duration;

use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    Abandoned, Begun, Claim, Completed, Extended, Fence, Found, Held,
};
use tidegate_policy::idempotency::stored::StoredAnswer;

use super::Call;

/// The answer of a claim, to be stored.
#[derive(Debug, Clone, Copy)]
pub struct Completion<'a> {
    /// Whose claim.
    pub held: Held,
    /// What was asked, in case that the record was lost.
    pub hash: RequestHash,
    /// The answer.
    pub answer: &'a StoredAnswer,
    /// How long the record lives from now on, in ms.
    pub ttl_ms: u64,
}

/// Which replicas are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// How many, at least 1.
    pub replicas: u8,
    /// How long at most.
    pub within: Duration,
}

/// Who wrote what a lookup may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// A gateway: what is no record is an error.
    Gateway,
    /// Perhaps another system, in a format of its own: what is no record has an unknown outcome.
    Anybody,
}

/// A place that keeps claims and answers.
pub trait Claims: Send + Sync {
    /// Whether everything is gone when this process ends, so that what ran before may run again.
    fn forgets(&self) -> bool;

    /// Claims a key, or says what is recorded, in one atomic step by the store's own clock.
    fn begin(&self, name: &RecordName, claim: &Claim) -> Call<Begun>;

    /// Writes a claim once more that was just made, if it still stands, and says on how many replicas it then surely is,
    /// at most after that time. One that is gone or another's is on none. A store without replicas says 0.
    fn replicated(&self, name: &RecordName, claim: &Claim, fence: Fence, by: Spread) -> Call<u8>;

    /// Says what is recorded and changes nothing. Without a hash, for whoever may look at any record.
    fn lookup(&self, name: &RecordName, hash: Option<&RequestHash>, by: Writer) -> Call<Found>;

    /// Stores the answer of a claim.
    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Call<Completed>;

    /// Gives a claim back; the end is remembered for `keep_ms`.
    fn abandon(&self, name: &RecordName, held: Held, keep_ms: u64) -> Call<Abandoned>;

    /// Locks a claim for `lock_us` from now on; the record lives for `ttl_ms`.
    fn extend(&self, name: &RecordName, held: Held, lock_us: u64, ttl_ms: u64) -> Call<Extended>;

    /// Who is at it, if somebody is: for operators.
    fn holder(&self, name: &RecordName) -> Call<Option<Held>>;

    /// Takes a record away, whatever it says; tells whether there was one. For operators.
    fn delete(&self, name: &RecordName) -> Call<bool>;
}
