//! Owns the claims of the store in memory: the policy's own steps over a bounded map. Knows no Redis.
//!
//! **It forgets**: what ran before this process ended may run again, and gateways share nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::idempotency::fingerprint::RequestHash;
use tidegate_policy::idempotency::name::RecordName;
use tidegate_policy::idempotency::record::{
    self, Abandoned, Begun, Claim, Completed, Extended, Fence, Found, Held, Record, State, Write,
};

use super::SWEEP_INTERVAL_US;
use crate::clock::Clock;
use crate::store::claims::{Claims, Completion, Spread, Writer};
use crate::store::{Call, StoreFailure};

/// The most octets of all records together.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Claims in this process.
pub struct MemoryClaims {
    clock: Arc<dyn Clock>,
    records_max: usize,
    bytes_max: usize,
    full: Counter,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    records: HashMap<RecordName, Life>,
    /// Of all records and their names.
    bytes: usize,
    swept_us: Option<u64>,
}

struct Life {
    record: Record,
    bytes: usize,
    expires_us: u64,
}

// === impl MemoryClaims ===

impl MemoryClaims {
    /// Holds at most `records_max` records. What is alive is never thrown out; when it is full a call
    /// that needs room fails, and is counted.
    pub fn new(clock: Arc<dyn Clock>, records_max: usize, full: Counter) -> Self {
        Self { clock, records_max, bytes_max: BYTES_MAX, full, kept: Mutex::default() }
    }

    /// How many records are held, expired ones included.
    pub fn len(&self) -> usize {
        self.lock().records.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one step on one record.
    fn step<T>(
        &self,
        name: &RecordName,
        step: impl FnOnce(u64, Option<&Record>) -> (T, Option<Write>),
    ) -> Call<T>
    where
        T: Send + 'static,
    {
        let now_us = self.clock.unix_us();
        let mut kept = self.lock();
        let (said, write) = step(now_us, kept.live(name, now_us));
        let done = match write {
            Some(write) => self.store(&mut kept, name, write, now_us).map(|()| said),
            None => Ok(said),
        };
        Box::pin(std::future::ready(done))
    }

    fn store(
        &self,
        kept: &mut Kept,
        name: &RecordName,
        write: Write,
        now_us: u64,
    ) -> Result<(), StoreFailure> {
        let bytes = bytes(name, &write.record);
        let fits = |kept: &Kept| {
            let (records, other_bytes) = kept.without(name);
            records < self.records_max && other_bytes.saturating_add(bytes) <= self.bytes_max
        };
        if !fits(kept) {
            kept.sweep(now_us);
        }
        if !fits(kept) {
            self.full.inc();
            return Err(StoreFailure::Full(self.records_max));
        }
        let expires_us = match write.ttl_ms {
            Some(ttl_ms) => now_us.saturating_add(ttl_ms.saturating_mul(1_000)),
            None => kept.records.get(name).map_or(now_us, |life| life.expires_us),
        };
        kept.remove(name);
        kept.bytes = kept.bytes.saturating_add(bytes);
        kept.records.insert(name.clone(), Life { record: write.record, bytes, expires_us });
        Ok(())
    }
}

impl Claims for MemoryClaims {
    fn forgets(&self) -> bool {
        true
    }

    fn begin(&self, name: &RecordName, claim: &Claim) -> Call<Begun> {
        self.step(name, |now_us, record| record::begin(now_us, record, claim))
    }

    fn replicated(&self, _: &RecordName, _: &Claim, _: Fence, _: Spread) -> Call<u8> {
        Box::pin(std::future::ready(Ok(0)))
    }

    fn lookup(&self, name: &RecordName, hash: Option<&RequestHash>, _by: Writer) -> Call<Found> {
        self.step(name, |now_us, record| (record::lookup(now_us, record, hash), None))
    }

    fn complete(&self, name: &RecordName, completion: &Completion<'_>) -> Call<Completed> {
        let Completion { held, hash, answer, ttl_ms } = *completion;
        self.step(name, |now_us, record| {
            record::complete(now_us, record, held, hash, answer.clone(), ttl_ms)
        })
    }

    fn abandon(&self, name: &RecordName, held: Held, keep_ms: u64) -> Call<Abandoned> {
        self.step(name, |_, record| record::abandon(record, held, keep_ms))
    }

    fn extend(&self, name: &RecordName, held: Held, lock_us: u64, ttl_ms: u64) -> Call<Extended> {
        self.step(name, |now_us, record| record::extend(now_us, record, held, lock_us, ttl_ms))
    }

    fn holder(&self, name: &RecordName) -> Call<Option<Held>> {
        self.step(name, |_, record| {
            let record = record.filter(|record| matches!(record.state, State::InFlight { .. }));
            (record.map(|record| Held { owner: record.owner, fence: record.fence }), None)
        })
    }

    fn delete(&self, name: &RecordName) -> Call<bool> {
        let now_us = self.clock.unix_us();
        let mut kept = self.lock();
        let was_there = kept.live(name, now_us).is_some();
        kept.remove(name);
        Box::pin(std::future::ready(Ok(was_there)))
    }
}

// === impl Kept ===

impl Kept {
    fn live(&self, name: &RecordName, now_us: u64) -> Option<&Record> {
        let life = self.records.get(name).filter(|life| life.expires_us > now_us)?;
        Some(&life.record)
    }

    /// How many records there are beside this one, and their octets.
    fn without(&self, name: &RecordName) -> (usize, usize) {
        let own = self.records.get(name);
        let records = self.records.len().saturating_sub(usize::from(own.is_some()));
        (records, self.bytes.saturating_sub(own.map_or(0, |life| life.bytes)))
    }

    fn remove(&mut self, name: &RecordName) {
        if let Some(life) = self.records.remove(name) {
            self.bytes = self.bytes.saturating_sub(life.bytes);
        }
    }

    /// Throws out what has expired, at most once a second: it walks the whole map.
    fn sweep(&mut self, now_us: u64) {
        // A clock that stepped back counts as due.
        let due = self.swept_us.is_none_or(|swept| {
            now_us.checked_sub(swept).is_none_or(|passed| passed >= SWEEP_INTERVAL_US)
        });
        if due {
            self.swept_us = Some(now_us);
            self.records.retain(|_, life| life.expires_us > now_us);
            self.bytes = self.records.values().map(|life| life.bytes).sum();
        }
    }
}

fn bytes(name: &RecordName, record: &Record) -> usize {
    let answer = match &record.state {
        State::Done { answer, .. } => {
            let headers = answer.headers.iter().map(|(name, value)| name.len() + value.len());
            headers.sum::<usize>() + answer.body.as_ref().map_or(0, Vec::len)
        }
        State::Free | State::InFlight { .. } => 0,
    };
    size_of::<Life>() + name.as_str().len() + answer
}

#[cfg(test)]
mod tests;
