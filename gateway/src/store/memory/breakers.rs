//! Owns the breakers of the store in memory: the policy's own step over a bounded map. Knows no Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::breaker::mesh::{Event, Record, Said, life_ms, step};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::breaker::BreakerName;

use crate::clock::Clock;
use crate::store::breakers::{Breakers, list_key};
use crate::store::{Call, StoreFailure};

/// Breakers in this process.
pub struct MemoryBreakers {
    clock: Arc<dyn Clock>,
    records_max: usize,
    full: Counter,
    records: Mutex<HashMap<(String, BreakerName), Life>>,
}

struct Life {
    record: Record,
    /// `None` = for good.
    expires_ms: Option<u64>,
}

// === impl MemoryBreakers ===

impl MemoryBreakers {
    /// Holds at most `records_max` breakers. What is alive is never thrown out.
    pub fn new(clock: Arc<dyn Clock>, records_max: usize, full: Counter) -> Self {
        Self { clock, records_max, full, records: Mutex::default() }
    }

    fn take(
        &self,
        scope: &Scope,
        name: &BreakerName,
        event: &Event<'_>,
    ) -> Result<Said, StoreFailure> {
        let now_ms = self.clock.unix_us() / 1_000;
        let place = (list_key(scope), name.clone());
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let held = records.get(&place).filter(|life| life.is_live(now_ms));
        let (said, write) = step(now_ms, held.map(|life| &life.record), event);
        if let Some(record) = write {
            if !records.contains_key(&place) && records.len() >= self.records_max {
                records.retain(|_, life| life.is_live(now_ms));
            }
            if !records.contains_key(&place) && records.len() >= self.records_max {
                self.full.inc();
                return Err(StoreFailure::Full(self.records_max));
            }
            let expires_ms = life_ms(now_ms, &record).map(|life| now_ms.saturating_add(life));
            records.insert(place, Life { record, expires_ms });
        }
        Ok(said)
    }
}

impl Breakers for MemoryBreakers {
    fn step(&self, scope: &Scope, name: &BreakerName, event: &Event<'_>) -> Call<Said> {
        let said = self.take(scope, name, event);
        Box::pin(std::future::ready(said))
    }

    fn changed(&self, scope: &Scope, since: u64) -> Call<Vec<(BreakerName, u64)>> {
        let now_ms = self.clock.unix_us() / 1_000;
        let list = list_key(scope);
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed: Vec<(BreakerName, u64)> = records
            .iter()
            .filter(|((place, _), life)| {
                *place == list && life.is_live(now_ms) && life.record.epoch >= since
            })
            .map(|((_, name), life)| (name.clone(), life.record.epoch))
            .collect();
        changed.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        Box::pin(std::future::ready(Ok(changed)))
    }
}

// === impl Life ===

impl Life {
    fn is_live(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    }
}
