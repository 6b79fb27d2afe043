//! Owns the breakers of the store in memory: the policy's own step over a bounded map. Knows no Redis.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tidegate_policy::breaker::mesh::{Event, Record, Said, life_ms, step};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::breaker::BreakerName;

use crate::clock::Clock;
use crate::store::breakers::{Breakers, is_noted, list_key};
use crate::store::{Call, StoreFailure};

/// Breakers in this process.
pub struct MemoryBreakers {
    clock: Arc<dyn Clock>,
    records_max: usize,
    full: Counter,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    records: HashMap<(String, BreakerName), Life>,
    /// The last number under which one of a list was noted.
    noted: HashMap<String, u64>,
}

struct Life {
    record: Record,
    /// Under which number it was noted last.
    number: u64,
    /// `None` = for good.
    expires_ms: Option<u64>,
}

// === impl MemoryBreakers ===

impl MemoryBreakers {
    /// Holds at most `records_max` breakers. What is alive is never thrown out.
    pub fn new(clock: Arc<dyn Clock>, records_max: usize, full: Counter) -> Self {
        Self { clock, records_max, full, kept: Mutex::default() }
    }

    fn take(
        &self,
        scope: &Scope,
        name: &BreakerName,
        event: &Event<'_>,
    ) -> Result<Said, StoreFailure> {
        let now_ms = self.clock.unix_us() / 1_000;
        let place = (list_key(scope), name.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { records, noted } = &mut *kept;
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
            let before = records.get(&place).map_or(0, |life| life.number);
            let number = match is_noted(&said, matches!(event, Event::Look)) {
                true => note(noted, &place.0, now_ms),
                false => before,
            };
            records.insert(place, Life { record, number, expires_ms });
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
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed: Vec<(BreakerName, u64)> = kept
            .records
            .iter()
            .filter(|((place, _), life)| {
                *place == list && life.is_live(now_ms) && life.number >= since
            })
            .map(|((_, name), life)| (name.clone(), life.number))
            .collect();
        changed.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        Box::pin(std::future::ready(Ok(changed)))
    }
}

/// The next number of a list: the twin of `lua/cb_note.lua`.
fn note(noted: &mut HashMap<String, u64>, list: &str, now_ms: u64) -> u64 {
    let last = noted.get(list).copied().unwrap_or(0);
    let number = now_ms.max(last.saturating_add(1));
    noted.insert(list.to_owned(), number);
    number
}

// === impl Life ===

impl Life {
    fn is_live(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms)
    }
}
