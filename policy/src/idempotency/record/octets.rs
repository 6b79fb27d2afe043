//! Owns how a record lies in octets, as the header of `lua/idem_begin.lua` says. Knows no steps.

use alloc::vec::Vec;

use super::{ENDED_MAX, Held, Owner, Record, State};
use crate::idempotency::fingerprint::RequestHash;
use crate::idempotency::stored::{StoredAnswer, StoredHeaders};

/// The first octet of a record: the format of the rest.
const FORMAT: u8 = 1;
/// Format, state, status, fence, moment, owner, hash and the length of the headers.
pub const HEAD_LEN: usize = 1 + 1 + 2 + 7 + 7 + 16 + 32 + 4;
/// A hash that is not known.
const NO_HASH: [u8; 32] = [0; 32];

/// Whose claim it is, if the octets are those of a claim in flight.
pub fn in_flight(octets: &[u8]) -> Option<Held> {
    let record = Record::from_bytes(octets)?;
    let held = Held { owner: record.owner, fence: record.fence };
    matches!(record.state, State::InFlight { .. }).then_some(held)
}

// === impl Record ===

impl Record {
    /// As it is stored, the numbers little-endian: format (1), state (1: 0 free, 1 in flight, 2 done, 3
    /// done without body), status (2), fence (7), the lock's end or when it was done (7), owner (16),
    /// request hash (32, zeros if none), length of the headers (4), the headers, the body. In flight there are neither, and
    /// for how many ms it was locked stands where their length would. What is free or in flight ends with the owners that
    /// ended before their begins came (16 each).
    pub fn to_bytes(&self) -> Vec<u8> {
        let (state, status, moment_us) = match &self.state {
            State::Free => (0, 0, 0),
            State::InFlight { lock_until_us, .. } => (1, 0, *lock_until_us),
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
        let (number, headers, body) = match &self.state {
            State::Done { answer, .. } => {
                let headers = answer.headers.to_bytes();
                let len = u32::try_from(headers.len()).unwrap_or_default();
                (len, headers, answer.body.as_deref())
            }
            State::InFlight { lock_ms, .. } => (*lock_ms, Vec::new(), None),
            State::Free => (0, Vec::new(), None),
        };
        bytes.extend(number.to_le_bytes());
        bytes.extend(headers);
        bytes.extend_from_slice(body.unwrap_or_default());
        self.ended.iter().for_each(|owner| bytes.extend(owner.to_bytes()));
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
        let (&number, rest) = rest.split_first_chunk()?;
        let number = u32::from_le_bytes(number);
        let (owners, odd) = rest.as_chunks();
        let is_list = odd.is_empty() && owners.len() <= ENDED_MAX;
        let headers_len = if state == 1 { 0 } else { usize::try_from(number).ok()? };
        let (headers, body) = rest.split_at_checked(headers_len)?;
        let status = u16::from_le_bytes(status);
        let state = match state {
            0 if status == 0 && moment_us == 0 && headers.is_empty() && is_list => State::Free,
            1 if status == 0 && is_list => {
                State::InFlight { lock_until_us: moment_us, lock_ms: number }
            }
            2 | 3 if state == 2 || body.is_empty() => {
                let headers = StoredHeaders::from_bytes(headers)?;
                let body = (state == 2).then(|| body.to_vec());
                State::Done { done_us: moment_us, answer: StoredAnswer { status, headers, body } }
            }
            _ => return None,
        };
        let hash = (hash != NO_HASH).then(|| RequestHash::from_bytes(hash));
        let owner = Owner(u128::from_be_bytes(owner));
        let ended = match state {
            State::Done { .. } => Vec::new(),
            State::Free | State::InFlight { .. } => {
                owners.iter().map(|owner| Owner(u128::from_be_bytes(*owner))).collect()
            }
        };
        (format == FORMAT).then_some(Self { fence, owner, hash, state, ended })
    }
}

fn push_seven(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes().into_iter().take(7));
}

fn read_seven(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&[a, b, c, d, e, f, g], rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes([a, b, c, d, e, f, g, 0]), rest))
}
