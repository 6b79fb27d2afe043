//! Owns the store that needs nothing outside the process: the policy's own GCRA step over a
//! bounded map. Forgets everything at exit and shares nothing between gateways. Knows no Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_policy::gcra::{self, Instant, Tat};
use tidegate_policy::scope::Scope;

use super::{Call, Charge, Checked, Store, StoreCounters, StoreFailure, keys};
use crate::clock::Clock;

/// A sweep walks the whole map under its lock, so a full map is swept at most once per second.
const SWEEP_INTERVAL_US: u64 = 1_000_000;

/// State in this process.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    keys_max: usize,
    counters: StoreCounters,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    buckets: HashMap<String, Bucket>,
    swept_us: Option<u64>,
}

struct Bucket {
    tat: Tat,
    expires_us: u64,
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Holds at most `keys_max` keys. When it is full, expired keys are swept out; if none has
    /// expired the call fails and is counted. Nothing that is alive is ever thrown out.
    pub fn new(clock: Arc<dyn Clock>, keys_max: usize, counters: StoreCounters) -> Self {
        Self { clock, keys_max, counters, state: Mutex::default() }
    }

    /// How many keys are held, expired ones included.
    pub fn key_count(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).buckets.len()
    }

    fn step(&self, keys: Vec<String>, charges: &[Charge<'_>]) -> Result<Checked, StoreFailure> {
        let now_us = self.clock.unix_us();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let charges: Vec<gcra::Charge> = charges
            .iter()
            .zip(&keys)
            .map(|(charge, key)| gcra::Charge {
                quota: charge.quota,
                cost: charge.cost,
                tat: state.live(key, now_us),
            })
            .collect();
        let answer = gcra::check(Instant::from_unix_us(now_us), &charges);
        let new = keys
            .iter()
            .zip(&answer.limits)
            .filter(|(key, (_, write))| write.is_some() && !state.buckets.contains_key(*key))
            .count();
        if !state.make_room(new, self.keys_max, now_us) {
            self.counters.full.inc();
            return Err(StoreFailure::Full(self.keys_max));
        }
        let mut readings = Vec::with_capacity(keys.len());
        for (key, (reading, write)) in keys.into_iter().zip(answer.limits) {
            readings.push(reading);
            if let Some(write) = write {
                let expires_us = now_us.saturating_add(write.ttl_ms.saturating_mul(1_000));
                state.buckets.insert(key, Bucket { tat: write.tat, expires_us });
            }
        }
        Ok(Checked { allowed: answer.allowed, readings })
    }
}

impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn describe(&self) -> String {
        format!("{} of at most {} keys", self.key_count(), self.keys_max)
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        let keys = charges
            .iter()
            .map(|charge| keys::rate_limit(scope, charge.subject, charge.limit_id))
            .collect();
        let checked = self.step(keys, charges);
        Box::pin(std::future::ready(checked))
    }

    fn probe(&self) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

// === impl State ===

impl State {
    fn live(&self, key: &str, now_us: u64) -> Option<Tat> {
        self.buckets.get(key).filter(|bucket| bucket.expires_us > now_us).map(|bucket| bucket.tat)
    }

    fn make_room(&mut self, new: usize, keys_max: usize, now_us: u64) -> bool {
        if new == 0 || self.buckets.len() + new <= keys_max {
            return true;
        }
        // A clock that stepped back counts as due.
        let due = self.swept_us.is_none_or(|swept| {
            now_us.checked_sub(swept).is_none_or(|passed| passed >= SWEEP_INTERVAL_US)
        });
        if due {
            self.swept_us = Some(now_us);
            self.buckets.retain(|_, bucket| bucket.expires_us > now_us);
        }
        self.buckets.len() + new <= keys_max
    }
}

#[cfg(test)]
mod tests;
