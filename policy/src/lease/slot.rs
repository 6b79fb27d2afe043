//! Owns how pools lie in the host's shared data: a fixed number of slots with a few records each, so
//! that nobody can make it grow by inventing clients. A record says all that its messages need, since
//! any worker may have to write them. Knows no host.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::holder::{Pool, Report};
use super::stored::POOL_LEN;
use crate::gcra::{BadQuota, Quota};
use crate::identity::Subject;
use crate::scope::Tenant;
use crate::wire::{HolderId, LeaseCall};

/// Counted up when the octets of a slot change or mean something else: filters of two builds see the same shared
/// data while one replaces the other, and neither may take the other's pools for its own.
pub const LAYOUT: u8 = 4;
/// Slots per process.
pub const SLOTS: u16 = 1_024;
/// Records per slot.
pub(super) const RECORDS_MAX: usize = 4;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = TAG_LEN + 2;
/// A pool that a request has needed since is not given up for another key.
const RESTS_US: u64 = 1_000_000;
/// A pool that nobody has needed for so long, and that has nothing, is taken out. Sooner a slow key would be a new
/// holder with each request.
const SWEPT_US: u64 = 60_000_000;

/// What is leased: a limit for one subject, with the numbers that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
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
}

/// Where a key's pool lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The slot.
    pub slot: u16,
    tag: [u8; TAG_LEN],
}

/// One key with its pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    tag: [u8; TAG_LEN],
    /// Its pool.
    pub pool: Pool,
    /// A [`Key`], written.
    key: Vec<u8>,
}

/// The records of one slot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Slot(Vec<Record>);

/// Room for a key in its slot.
#[derive(Debug)]
pub enum Room<'s> {
    /// Its record, and the record that had to go for it, if it has something to give back.
    Found(&'s mut Record, Option<Record>),
    /// All others are in use.
    None,
}

// === impl Key ===

impl Key {
    /// Where its pool lies.
    pub fn place(&self) -> Place {
        let digest: [u8; 32] = Sha256::digest(crate::wire::encode(self)).into();
        let mut tag = [0; TAG_LEN];
        let (head, rest) = digest.split_at(TAG_LEN);
        tag.copy_from_slice(head);
        let [a, b] = rest.first_chunk::<2>().copied().unwrap_or_default();
        Place { slot: u16::from_le_bytes([a, b]) % SLOTS, tag }
    }

    /// The three numbers, checked.
    pub fn quota(&self) -> Result<Quota, BadQuota> {
        Quota::new(self.limit, self.period_us, self.burst)
    }

    /// The message that carries a report.
    pub fn call(&self, holder: u64, report: Report) -> LeaseCall {
        let Report { seq, demand, left, back, want } = report;
        LeaseCall {
            id: self.id.clone(),
            subject: self.subject.clone(),
            tenant: self.tenant.clone(),
            limit: self.limit,
            period_us: self.period_us,
            burst: self.burst,
            holder: HolderId(holder),
            seq,
            demand,
            left,
            back,
            want,
        }
    }
}

// === impl Record ===

impl Record {
    /// The message that carries a report of its pool.
    pub fn call(&self, report: Report) -> Option<LeaseCall> {
        let key: Key = serde_json::from_slice(&self.key).ok()?;
        Some(key.call(self.pool.holder(), report))
    }

    /// Where it lies in slot `slot`.
    pub fn place(&self, slot: u16) -> Place {
        Place { slot, tag: self.tag }
    }
}

// === impl Slot ===

impl Slot {
    /// Reads a slot; what is malformed counts as absent.
    pub fn from_bytes(mut bytes: &[u8]) -> Self {
        let mut records = Vec::new();
        while records.len() < RECORDS_MAX {
            let Some((record, rest)) = Self::record(bytes) else { break };
            records.push(record);
            bytes = rest;
        }
        Self(records)
    }

    fn record(bytes: &[u8]) -> Option<(Record, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let (tag, len) = head.split_first_chunk::<TAG_LEN>()?;
        let len = usize::from(u16::from_le_bytes(*len.first_chunk::<2>()?));
        let (pool, rest) = rest.split_first_chunk::<POOL_LEN>()?;
        let (key, rest) = rest.split_at_checked(len)?;
        let record = Record { tag: *tag, pool: Pool::from_bytes(pool), key: key.to_owned() };
        Some((record, rest))
    }

    /// As it is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let len = |record: &Record| record.key.len().saturating_add(HEAD_LEN + POOL_LEN);
        let mut bytes = Vec::with_capacity(self.0.iter().map(len).sum());
        for Record { tag, pool, key } in &self.0 {
            let Ok(len) = u16::try_from(key.len()) else { continue };
            bytes.extend_from_slice(tag);
            bytes.extend_from_slice(&len.to_le_bytes());
            bytes.extend_from_slice(&pool.to_bytes());
            bytes.extend_from_slice(key);
        }
        bytes
    }

    /// A key's pool, if it has one.
    pub fn pool(&mut self, place: Place) -> Option<&mut Pool> {
        self.0.iter_mut().find(|record| record.tag == place.tag).map(|record| &mut record.pool)
    }

    /// Every record.
    pub fn records(&mut self) -> impl Iterator<Item = &mut Record> {
        self.0.iter_mut()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A key's record; made if it has none, in the place of the one that rested longest. `holder`: 64
    /// random bits for a new one.
    pub fn room(&mut self, place: Place, key: &Key, holder: u64, now_us: u64) -> Room<'_> {
        let known = self.0.iter().position(|record| record.tag == place.tag);
        let mut gone = None;
        let at = match known {
            Some(at) => at,
            None => {
                gone = match self.make_room(now_us) {
                    Some(gone) => gone,
                    None => return Room::None,
                };
                let pool = Pool::new(holder, now_us);
                let record = Record { tag: place.tag, pool, key: crate::wire::encode(key) };
                self.0.push(record);
                self.0.len().saturating_sub(1)
            }
        };
        match self.0.get_mut(at) {
            Some(record) => Room::Found(record, gone),
            None => Room::None,
        }
    }

    /// `None`: all records are in use. Else the one that had to go, if it has something to give back.
    fn make_room(&mut self, now_us: u64) -> Option<Option<Record>> {
        if self.0.len() < RECORDS_MAX {
            return Some(None);
        }
        let oldest = self.0.iter().enumerate().max_by_key(|(_, one)| one.pool.rests_us(now_us));
        let (at, record) = oldest?;
        if record.pool.rests_us(now_us) < RESTS_US {
            return None;
        }
        let is_empty = record.pool.is_empty(now_us);
        let record = self.0.remove(at);
        Some((!is_empty).then_some(record))
    }

    /// Takes out what has rested for so long that nothing of it is left. `false`: nothing was, and no other pool has
    /// anything to say either.
    pub fn sweep(&mut self, now_us: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|record| {
            let rests = record.pool.rests_us(now_us) >= SWEPT_US;
            !rests || !record.pool.is_empty(now_us)
        });
        self.0.len() < before || !self.0.iter().all(|record| record.pool.is_idle(now_us))
    }
}
