//! Owns the record of a key and the steps that change it: the twin of `lua/idem_*.lua`. Knows neither
//! names nor clocks; the same steps drive the store in memory.
//!
//! ```text
//! absent ──begin──► in flight ──complete──► done (with or without body)
//!   ▲                 │  ▲ └──extend──┐
//!   │                 │  └────────────┘
//!   └──expiry── free ◄┘ abandon        in flight, lock ended: takeover (fence + 1) or unknown
//! ```
//!
//! The lock (how long a claim's owner is waited for) and the record's life (24 h) are apart. A claim is
//! named by its owner and its fence; whoever took over has another owner and a higher fence, so that a
//! slow owner's late word changes nothing. Every step may be repeated.

use alloc::vec::Vec;

use super::fingerprint::RequestHash;
use super::stored::{StoredAnswer, StoredHeaders};
use crate::wire::DecisionId;

/// How long a record lives after its last change of state (product row C4).
pub const TTL_MS: u64 = 86_400_000;
/// How much longer than the upstream's timeout a claim is locked.
pub const LOCK_MARGIN_US: u64 = 5_000_000;

/// The first octet of a record: the format of the rest.
const FORMAT: u8 = 1;
/// Format, state, status, fence, moment, owner, hash and the length of the headers.
pub const HEAD_LEN: usize = 1 + 1 + 2 + 7 + 7 + 16 + 32 + 4;
/// A hash that is not known.
const NO_HASH: [u8; 32] = [0; 32];

/// Who claims: one decision. Its 122 random bits are nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u128);

/// Whose claim it is, if the octets are those of a claim in flight.
pub fn in_flight(octets: &[u8]) -> Option<Held> {
    let record = Record::from_bytes(octets)?;
    let held = Held { owner: record.owner, fence: record.fence };
    matches!(record.state, State::InFlight { .. }).then_some(held)
}

/// Which claim of a key: the first is 1, and each later one is higher. Below 2^53.
pub type Fence = u64;

/// What is recorded under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The last claim.
    pub fence: Fence,
    /// Who made it.
    pub owner: Owner,
    /// The request that is recorded; `None` if only the owner's end is.
    pub hash: Option<RequestHash>,
    /// Where it stands.
    pub state: State,
}

/// Where a record stands. Moments are µs since 1970 by the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The claim was given back. Remembered so that another request under the key is a conflict, and
    /// so that a late begin of the same owner claims nothing.
    Free,
    /// Somebody is at it.
    InFlight {
        /// Until then the owner is waited for.
        lock_until_us: u64,
    },
    /// The answer is there.
    Done {
        /// Since when.
        done_us: u64,
        /// The answer.
        answer: StoredAnswer,
    },
}

/// What a begin asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who asks.
    pub owner: Owner,
    /// What was asked of it.
    pub hash: RequestHash,
    /// How long the claim is locked: the upstream's timeout and [`LOCK_MARGIN_US`].
    pub lock_us: u64,
    /// How long the record lives. Longer than the lock.
    pub ttl_ms: u64,
    /// Whether a claim whose lock has ended may be taken over. Where not, its outcome is unknown.
    pub takeover: bool,
}

/// Which claim a later step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Whose claim.
    pub owner: Owner,
    /// The fence that the begin gave.
    pub fence: Fence,
}

/// What is there for a request that claims nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or a claim that was given back.
    Absent,
    /// Another one is at it.
    InFlight {
        /// How long its owner will be waited for, in µs, at least 1.
        wait_us: u64,
    },
    /// The answer.
    Done(StoredAnswer),
    /// It is done, and its answer cannot be read: sealed by a key that is not there. Only a store that
    /// seals says so.
    Unreadable {
        /// The answer's status.
        status: u16,
    },
    /// The key was used for another request.
    Conflict,
    /// The owner did not come back in time. Whether the upstream did the work is not known.
    Unknown,
}

/// What a begin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The request runs, and nobody else's does.
    Claimed {
        /// The claim.
        fence: Fence,
        /// Whether it was taken over from an owner that did not come back.
        taken_over: bool,
    },
    /// This owner has given its claim back already: a begin that arrives behind its own end.
    Spent,
    /// It does not run.
    Found(Found),
}

/// What a complete says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completed {
    /// Stored.
    Stored,
    /// This claim's answer had been stored before.
    AlreadyDone,
    /// The claim is another's by now, or was given back. Nothing changed.
    Fenced,
    /// The record had been lost. The answer was stored anew: whoever asks again gets it.
    Recovered,
}

/// What an abandon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// The claim is given back, now or before.
    Freed,
    /// There was no claim of this owner's. A late begin of it claims nothing.
    Remembered,
    /// The claim is another's, or done. Nothing changed.
    Fenced,
}

/// What an extend says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// The lock ends later.
    Extended,
    /// The claim is another's, done or given back. Nothing changed.
    Fenced,
    /// There is no record.
    Gone,
}

/// What a step writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The record.
    pub record: Record,
    /// Its life from now on.
    pub ttl_ms: u64,
}

// === impl Owner ===

impl Owner {
    /// As it is recorded.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl From<DecisionId> for Owner {
    fn from(id: DecisionId) -> Self {
        Self(id.bits())
    }
}

// === impl Held ===

impl Held {
    /// A claim whose fence never arrived: the answer to its begin was lost or came too late. Only an
    /// abandon may know so little.
    pub fn unheard(owner: Owner) -> Self {
        Self { owner, fence: 0 }
    }

    fn holds(&self, record: &Record) -> bool {
        record.owner == self.owner && record.fence == self.fence
    }
}

/// Whether a request of this method may take over a claim whose owner did not come back, unless the
/// policy says otherwise: only what may be done twice (RFC 9110 §9.2.2).
pub fn takeover_by_default(method: &[u8]) -> bool {
    matches!(method, b"PUT" | b"DELETE")
}

/// Claims the key, or says what is there.
pub fn begin(now_us: u64, record: Option<&Record>, claim: &Claim) -> (Begun, Option<Write>) {
    let claimed = |fence, taken_over| {
        let record = Record {
            fence,
            owner: claim.owner,
            hash: Some(claim.hash),
            state: State::InFlight { lock_until_us: now_us.saturating_add(claim.lock_us) },
        };
        let write = Write { record, ttl_ms: claim.ttl_ms };
        (Begun::Claimed { fence, taken_over }, Some(write))
    };
    let Some(record) = record else {
        return claimed(1, false);
    };
    let next = record.fence.saturating_add(1);
    let own = record.owner == claim.owner;
    let found = lookup(now_us, Some(record), Some(&claim.hash));
    match (&record.state, found) {
        (_, Found::Conflict) => (Begun::Found(Found::Conflict), None),
        (State::Free, _) if own => (Begun::Spent, None),
        (State::Free, _) => claimed(next, false),
        // Its answer was lost.
        (State::InFlight { .. }, _) if own => claimed(record.fence, false),
        (_, Found::Unknown) if claim.takeover => claimed(next, true),
        (_, found) => (Begun::Found(found), None),
    }
}

/// What is there for a request; with no `hash`, for anybody who may look.
pub fn lookup(now_us: u64, record: Option<&Record>, hash: Option<&RequestHash>) -> Found {
    let Some(record) = record else {
        return Found::Absent;
    };
    if record.hash.as_ref().zip(hash).is_some_and(|(recorded, asked)| recorded != asked) {
        return Found::Conflict;
    }
    match &record.state {
        State::Free => Found::Absent,
        State::InFlight { lock_until_us } => match lock_until_us.saturating_sub(now_us) {
            0 => Found::Unknown,
            wait_us => Found::InFlight { wait_us },
        },
        State::Done { answer, .. } => Found::Done(answer.clone()),
    }
}

/// Stores the answer. `hash` is for the case that the record was lost meanwhile.
pub fn complete(
    now_us: u64,
    record: Option<&Record>,
    held: Held,
    hash: RequestHash,
    answer: StoredAnswer,
    ttl_ms: u64,
) -> (Completed, Option<Write>) {
    let (completed, hash) = match record {
        None => (Completed::Recovered, Some(hash)),
        Some(record) if !held.holds(record) => return (Completed::Fenced, None),
        Some(record) => match record.state {
            State::Free => return (Completed::Fenced, None),
            State::Done { .. } => return (Completed::AlreadyDone, None),
            // Also behind the end of the lock, as long as nobody took over.
            State::InFlight { .. } => (Completed::Stored, record.hash),
        },
    };
    let state = State::Done { done_us: now_us, answer };
    let record = Record { fence: held.fence, owner: held.owner, hash, state };
    (completed, Some(Write { record, ttl_ms }))
}

/// Gives the claim back. The record stays for `keep_ms`.
pub fn abandon(record: Option<&Record>, held: Held, keep_ms: u64) -> (Abandoned, Option<Write>) {
    let free = |fence, hash| {
        let record = Record { fence, owner: held.owner, hash, state: State::Free };
        Some(Write { record, ttl_ms: keep_ms })
    };
    let Some(record) = record else {
        return (Abandoned::Remembered, free(held.fence, None));
    };
    let own = record.owner == held.owner && (held.fence == 0 || held.fence == record.fence);
    match record.state {
        State::Free if own => (Abandoned::Freed, None),
        State::Free if held.fence == 0 => (Abandoned::Remembered, free(record.fence, record.hash)),
        State::InFlight { .. } if own => (Abandoned::Freed, free(record.fence, record.hash)),
        State::Free | State::InFlight { .. } | State::Done { .. } => (Abandoned::Fenced, None),
    }
}

/// Locks the claim for `lock_us` from now: for an upstream that takes long.
pub fn extend(
    now_us: u64,
    record: Option<&Record>,
    held: Held,
    lock_us: u64,
    ttl_ms: u64,
) -> (Extended, Option<Write>) {
    match record {
        None => (Extended::Gone, None),
        Some(record) if held.holds(record) && matches!(record.state, State::InFlight { .. }) => {
            let lock_until_us = now_us.saturating_add(lock_us);
            let record = Record { state: State::InFlight { lock_until_us }, ..record.clone() };
            (Extended::Extended, Some(Write { record, ttl_ms }))
        }
        Some(_) => (Extended::Fenced, None),
    }
}

// === impl Record ===

impl Record {
    /// As it is stored, the numbers little-endian: format (1), state (1: 0 free, 1 in flight, 2 done, 3
    /// done without body), status (2), fence (7), the lock's end or when it was done (7), owner (16),
    /// request hash (32, zeros if none), length of the headers (4), the headers, the body.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (state, status, moment_us) = match &self.state {
            State::Free => (0, 0, 0),
            State::InFlight { lock_until_us } => (1, 0, *lock_until_us),
            State::Done { done_us, answer } => {
                (if answer.body.is_some() { 2 } else { 3 }, answer.status, *done_us)
            }
        };
        let mut bytes = Vec::with_capacity(HEAD_LEN);
        bytes.extend([FORMAT, state]);
        bytes.extend(status.to_le_bytes());
        push_seven(&mut bytes, self.fence);
        push_seven(&mut bytes, moment_us);
        bytes.extend(self.owner.to_bytes());
        bytes.extend(self.hash.as_ref().map_or(NO_HASH, |hash| *hash.as_bytes()));
        let (headers, body) = match &self.state {
            State::Done { answer, .. } => (answer.headers.to_bytes(), answer.body.as_deref()),
            State::Free | State::InFlight { .. } => (Vec::new(), None),
        };
        bytes.extend(u32::try_from(headers.len()).unwrap_or_default().to_le_bytes());
        bytes.extend(headers);
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    /// Exactly what [`Self::to_bytes`] writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&[format, state], rest) = bytes.split_first_chunk()?;
        let (&status, rest) = rest.split_first_chunk()?;
        let (fence, rest) = read_seven(rest)?;
        let (moment_us, rest) = read_seven(rest)?;
        let (&owner, rest) = rest.split_first_chunk()?;
        let (&hash, rest) = rest.split_first_chunk()?;
        let (&headers_len, rest) = rest.split_first_chunk()?;
        let headers_len = usize::try_from(u32::from_le_bytes(headers_len)).ok()?;
        let (headers, body) = rest.split_at_checked(headers_len)?;
        let status = u16::from_le_bytes(status);
        let state = match state {
            0 if status == 0 && moment_us == 0 && rest.is_empty() => State::Free,
            1 if status == 0 && rest.is_empty() => State::InFlight { lock_until_us: moment_us },
            2 | 3 if state == 2 || body.is_empty() => {
                let headers = StoredHeaders::from_bytes(headers)?;
                let body = (state == 2).then(|| body.to_vec());
                State::Done { done_us: moment_us, answer: StoredAnswer { status, headers, body } }
            }
            _ => return None,
        };
        let hash = (hash != NO_HASH).then(|| RequestHash::from_bytes(hash));
        let owner = Owner(u128::from_be_bytes(owner));
        (format == FORMAT).then_some(Self { fence, owner, hash, state })
    }
}

fn push_seven(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes().into_iter().take(7));
}

fn read_seven(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&[a, b, c, d, e, f, g], rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes([a, b, c, d, e, f, g, 0]), rest))
}

#[cfg(test)]
mod tests;
