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

mod octets;

use alloc::vec::Vec;
use core::iter::once;

pub use self::octets::{HEAD_LEN, in_flight};
use super::fingerprint::RequestHash;
use super::stored::StoredAnswer;
use crate::wire::DecisionId;

/// How long a record lives after its last change of state (product row C4).
pub const TTL_MS: u64 = 86_400_000;
/// So many ends are remembered beside a record, of owners whose begins have not come.
pub const ENDED_MAX: usize = 7;
/// How much longer than the upstream's timeout a claim is locked.
pub const LOCK_MARGIN_US: u64 = 5_000_000;

/// Who claims: one decision. Its 122 random bits are nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u128);

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
    /// Others that ended before their begins came, the last one first, [`ENDED_MAX`] at most: each of them claims nothing
    /// any more. None once it is done.
    pub ended: Vec<Owner>,
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
        /// For how long it was locked, in ms, rounded up; 0 if nobody knows.
        lock_ms: u32,
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
    /// The claim is another's, or done. It stays; an end whose begin has not come is remembered beside it.
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
    /// Its life from now on; `None` leaves it as it was.
    pub ttl_ms: Option<u64>,
}

// === impl Record ===

impl Record {
    /// Whose late begin claims nothing.
    fn spent(&self) -> impl Iterator<Item = Owner> + Clone {
        let last = matches!(self.state, State::Free).then_some(self.owner);
        last.into_iter().chain(self.ended.iter().copied())
    }
}

// === impl State ===

impl State {
    /// Locked for so long from `now_us` on.
    fn locked(now_us: u64, lock_us: u64) -> Self {
        let lock_ms = u32::try_from(lock_us.div_ceil(1_000)).unwrap_or(0);
        Self::InFlight { lock_until_us: now_us.saturating_add(lock_us), lock_ms }
    }

    /// The same, if its lock ends later than it may, since the clock has stepped back behind it. It is counted anew, and
    /// whole: it began before now, so that nobody is let in before it would have ended, by whichever clock; and by its
    /// owner's length, not by that of whoever asks.
    fn cut(&self, now_us: u64) -> Option<Self> {
        let Self::InFlight { lock_until_us, lock_ms } = *self else { return None };
        let whole_us = u64::from(lock_ms).saturating_mul(1_000);
        let is_ahead = whole_us > 0 && lock_until_us.saturating_sub(now_us) > whole_us;
        let lock_until_us = now_us.saturating_add(whole_us);
        is_ahead.then_some(Self::InFlight { lock_until_us, lock_ms })
    }
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
            state: State::locked(now_us, claim.lock_us),
            ended: record.iter().flat_map(|record| record.spent()).take(ENDED_MAX).collect(),
        };
        let write = Write { record, ttl_ms: Some(claim.ttl_ms) };
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
        (State::Free | State::InFlight { .. }, _)
            if record.spent().any(|owner| owner == claim.owner) =>
        {
            (Begun::Spent, None)
        }
        (State::Free, _) => claimed(next, false),
        // Its answer was lost.
        (State::InFlight { .. }, _) if own => claimed(record.fence, false),
        (_, Found::Unknown) if claim.takeover => claimed(next, true),
        (state, found) => {
            let cut = state.cut(now_us).map(|state| Record { state, ..record.clone() });
            let write = cut.map(|record| Write { record, ttl_ms: None });
            (Begun::Found(found), write)
        }
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
    let cut = record.state.cut(now_us);
    match cut.as_ref().unwrap_or(&record.state) {
        State::Free => Found::Absent,
        State::InFlight { lock_until_us, .. } => match lock_until_us.saturating_sub(now_us) {
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
    let record = Record { fence: held.fence, owner: held.owner, hash, state, ended: Vec::new() };
    (completed, Some(Write { record, ttl_ms: Some(ttl_ms) }))
}

/// Gives the claim back. The record stays for `keep_ms`.
pub fn abandon(record: Option<&Record>, held: Held, keep_ms: u64) -> (Abandoned, Option<Write>) {
    let free = |fence, hash, ended| {
        let record = Record { fence, owner: held.owner, hash, state: State::Free, ended };
        Some(Write { record, ttl_ms: Some(keep_ms) })
    };
    let Some(record) = record else {
        return (Abandoned::Remembered, free(held.fence, None, Vec::new()));
    };
    let is_free = match record.state {
        State::Done { .. } => return (Abandoned::Fenced, None),
        State::Free => true,
        State::InFlight { .. } => false,
    };
    if record.owner == held.owner && (held.fence == 0 || held.fence == record.fence) {
        let ended = record.ended.clone();
        return (
            Abandoned::Freed,
            (!is_free).then(|| free(record.fence, record.hash, ended)).flatten(),
        );
    }
    let is_known = record.ended.contains(&held.owner);
    let with = |owner| once(owner).chain(record.ended.iter().copied()).take(ENDED_MAX).collect();
    match is_free {
        _ if held.fence != 0 => (Abandoned::Fenced, None),
        true if is_known => (Abandoned::Freed, None),
        true => {
            let ended = with(record.owner);
            (Abandoned::Remembered, free(record.fence, record.hash, ended))
        }
        false if is_known => (Abandoned::Fenced, None),
        // Another one is at it. This owner's begin is still to come, or lost.
        false => {
            let record = Record { ended: with(held.owner), ..record.clone() };
            (Abandoned::Fenced, Some(Write { record, ttl_ms: None }))
        }
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
            let record = Record { state: State::locked(now_us, lock_us), ..record.clone() };
            (Extended::Extended, Some(Write { record, ttl_ms: Some(ttl_ms) }))
        }
        Some(_) => (Extended::Fenced, None),
    }
}

#[cfg(test)]
mod tests;
