//! Owns the store that needs nothing outside the process: the policy's own step over a bounded map.
//! Forgets everything at exit and shares nothing between gateways. Knows no Redis.

mod audit;
mod breakers;
mod idempotency;
mod leases;
mod settled;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_policy::gcra::{Instant, Reading, Retry};
use tidegate_policy::limit::refund::{self, Refunds};
use tidegate_policy::limit::{self, Algorithm, Held, Terms, Write};
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use self::audit::MemoryChains;
use self::breakers::MemoryBreakers;
use self::idempotency::MemoryClaims;
use self::settled::Settled;
use super::breakers::Breakers;
use super::chains::Chains;
use super::claims::Claims;
use super::keys::{self, KeyStyle, Place};
use super::leases::Leases;
use super::{
    Adjustment, Call, Charge, Checked, Standing, Store, StoreCounters, StoreFailure, Temperature,
};
use crate::clock::{Clock, whole_us};

/// A sweep walks the whole map under its lock, so a full map is swept at most once per second.
const SWEEP_INTERVAL_US: u64 = 1_000_000;
/// However few keys there may be, so many settlements are remembered.
const SETTLED_MIN: usize = 16_384;

/// State in this process.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    keys_max: usize,
    cold_us: u64,
    counters: StoreCounters,
    state: Mutex<State>,
    breakers: MemoryBreakers,
    chains: MemoryChains,
    claims: MemoryClaims,
}

#[derive(Default)]
struct State {
    settled: Option<Settled>,
    buckets: HashMap<String, Bucket>,
    swept_us: Option<u64>,
    /// When the region began here, in µs since 1970: at the first call.
    began_us: Option<u64>,
}

struct Bucket {
    kept: Kept,
    expires_us: u64,
}

enum Kept {
    Limit(Held),
    /// What was given back of a limit lately.
    GivenBack(Refunds),
}

// === impl MemoryStore ===

impl MemoryStore {
    /// Holds at most `keys_max` keys. When it is full, expired keys are swept out; if none has
    /// expired the call fails and is counted. Nothing that is alive is ever thrown out.
    pub fn new(clock: Arc<dyn Clock>, keys_max: usize, counters: StoreCounters) -> Self {
        let breakers = MemoryBreakers::new(Arc::clone(&clock), keys_max, counters.full.clone());
        let chains = MemoryChains::new(keys_max, counters.full.clone());
        let claims = MemoryClaims::new(Arc::clone(&clock), keys_max, counters.full.clone());
        Self {
            clock,
            keys_max,
            cold_us: 0,
            counters,
            state: Mutex::default(),
            breakers,
            chains,
            claims,
        }
    }

    /// Its chains, to tamper with.
    #[cfg(test)]
    pub fn memory_chains(&self) -> &MemoryChains {
        &self.chains
    }

    /// The same, cold for that long from now on. Without it a store in memory is exempt: it is new
    /// whenever its gateway is.
    pub fn guarded(mut self, cold: Duration) -> Self {
        self.cold_us = whole_us(cold);
        self
    }

    /// How many keys are held, expired ones included.
    pub fn key_count(&self) -> usize {
        self.lock().buckets.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Result<Checked, StoreFailure> {
        let keys: Vec<String> = charges.iter().map(|charge| key(scope, charge)).collect();
        let now_us = self.clock.unix_us();
        let mut state = self.lock();
        let cold_left_us = state.cold_left_us(self.cold_us, now_us);
        let weighed: Vec<limit::Charge<'_>> = charges
            .iter()
            .zip(&keys)
            .map(|(charge, key)| limit::Charge {
                terms: Terms { algorithm: charge.algorithm, quota: charge.quota, cold_left_us },
                cost: charge.cost,
                alone: charge.alone,
                held: state.live(key, now_us),
            })
            .collect();
        let answer = limit::check(Instant::from_unix_us(now_us), &weighed);
        let now = Instant::from_unix_us(now_us);
        let is_charged = |(limit, (reading, _)): (&limit::Charge<'_>, &(Reading, _))| {
            let plain = limit.held.is_none_or(|held| held.is_plain(now));
            answer.allowed && limit.cost > 0 && plain && reading.retry == Retry::Fits
        };
        let charged: Vec<bool> = weighed.iter().zip(&answer.limits).map(is_charged).collect();
        let writes = keys.iter().zip(&answer.limits);
        let new = writes.filter(|(key, (_, write))| write.is_some() && !state.holds(key)).count();
        self.make_room(&mut state, new, now_us)?;
        let mut limits = Vec::with_capacity(keys.len());
        let rows = keys.into_iter().zip(charges).zip(answer.limits).zip(charged);
        for (((key, charge), (reading, write)), charged) in rows {
            let reduced = (cold_left_us > 0).then(|| charge.quota.cold_limit());
            limits.push(Standing {
                reading,
                reduced,
                unread: false,
                charged_us: charged.then_some(now_us),
            });
            state.store(key, write, now_us);
        }
        Ok(Checked { allowed: answer.allowed, limits })
    }

    fn adjust(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Result<Vec<Standing>, StoreFailure> {
        let now_us = self.clock.unix_us();
        let looks: Vec<Charge<'_>> = adjustments.iter().map(Charge::look).collect();
        let mut state = self.lock();
        let cold_left_us = state.cold_left_us(self.cold_us, now_us);
        let began_us = state.began_us.unwrap_or(now_us);
        let keys: Vec<String> = looks.iter().map(|look| key(scope, look)).collect();
        // What is charged more needs the limit's key, what is given back a note of that beside one that is there.
        let is_new = |(one, key): &(&Adjustment<'_>, &String)| match one.by {
            0.. => !state.holds(key),
            ..0 => state.holds(key) && !state.holds(&keys::given_back(key)),
        };
        let new = adjustments.iter().zip(&keys).filter(is_new).count();
        self.make_room(&mut state, new, now_us)?;
        for ((adjustment, look), key) in adjustments.iter().zip(&looks).zip(keys) {
            if !state.settled(self.keys_max).is_first(id, &key, now_us) {
                continue;
            }
            // Without a guard only what is known to be older than this process is not given back.
            let is_known = self.cold_us > 0 || adjustment.receipt.is_some();
            let change = limit::Change {
                terms: Terms { algorithm: look.algorithm, quota: look.quota, cold_left_us },
                by: adjustment.by,
                age_us: adjustment.age_us,
                charged_cold: adjustment.charged_cold,
                receipt: adjustment.receipt,
                began_us: if is_known { began_us } else { 0 },
                held: state.live(&key, now_us),
            };
            let given_back = keys::given_back(&key);
            let before = state.given_back(&given_back, now_us);
            let mut refunds = before.clone();
            let write = limit::settle(Instant::from_unix_us(now_us), &change, &mut refunds);
            let is_given = refunds != before;
            state.store(key, write, now_us);
            if is_given {
                let left_us = refunds.left_us(Instant::from_unix_us(now_us));
                let expires_us = now_us.saturating_add(left_us);
                let kept = Kept::GivenBack(refunds);
                state.buckets.insert(given_back, Bucket { kept, expires_us });
            }
        }
        drop(state);
        self.check(scope, &looks).map(|checked| checked.limits)
    }

    fn forget(&self, scope: &Scope, limits: &[Charge<'_>]) -> Result<(), StoreFailure> {
        let now_us = self.clock.unix_us();
        let mut state = self.lock();
        for limit in limits {
            let key = key(scope, limit);
            let given_back = keys::given_back(&key);
            // The limit's own place becomes free.
            let new = usize::from(!state.holds(&given_back) && !state.holds(&key));
            self.make_room(&mut state, new, now_us)?;
            state.buckets.remove(&key);
            let keep_us = refund::kept_us(limit.quota);
            let kept = Kept::GivenBack(Refunds::reset(Instant::from_unix_us(now_us), keep_us));
            let expires_us = now_us.saturating_add(keep_us);
            state.buckets.insert(given_back, Bucket { kept, expires_us });
        }
        Ok(())
    }

    fn let_have(
        &self,
        key: String,
        algorithm: Algorithm,
        units: u32,
        lasts: Duration,
    ) -> Result<(), StoreFailure> {
        let now_us = self.clock.unix_us();
        let now = Instant::from_unix_us(now_us);
        let mut state = self.lock();
        let new = usize::from(!state.holds(&key));
        self.make_room(&mut state, new, now_us)?;
        let expires_us = state.buckets.get(&key).map_or(now_us, |bucket| bucket.expires_us);
        let left_ms = expires_us.saturating_sub(now_us).div_ceil(1_000);
        let empty = Held::empty(algorithm, now);
        let held = state.live(&key, now_us);
        let write = limit::grant::grant(now, held, empty, units, whole_us(lasts), left_ms);
        state.store(key, Some(write), now_us);
        Ok(())
    }

    fn make_room(&self, state: &mut State, new: usize, now_us: u64) -> Result<(), StoreFailure> {
        if state.make_room(new, self.keys_max, now_us) {
            return Ok(());
        }
        self.counters.full.inc();
        Err(StoreFailure::Full(self.keys_max))
    }
}

fn key(scope: &Scope, charge: &Charge<'_>) -> String {
    Place::of(KeyStyle::Sharded, scope, charge.subject).rate_limit(scope, charge)
}

impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn describe(&self) -> String {
        let (keys, claims) = (self.key_count(), self.claims.len());
        format!(
            "{keys} keys and {claims} claims of at most {} each; forgets all at exit",
            self.keys_max
        )
    }

    fn rate_check(&self, scope: &Scope, charges: &[Charge<'_>]) -> Call<Checked> {
        let checked = self.check(scope, charges);
        Box::pin(std::future::ready(checked))
    }

    fn settle(
        &self,
        scope: &Scope,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
    ) -> Call<Vec<Standing>> {
        let adjusted = self.adjust(scope, id, adjustments);
        Box::pin(std::future::ready(adjusted))
    }

    fn knows(&self, scope: &Scope, limit: &Charge<'_>) -> Call<bool> {
        let known = self.lock().alive(&key(scope, limit), self.clock.unix_us());
        Box::pin(std::future::ready(Ok(known)))
    }

    fn reset(&self, scope: &Scope, limits: &[Charge<'_>]) -> Call<()> {
        let forgotten = self.forget(scope, limits);
        Box::pin(std::future::ready(forgotten))
    }

    fn grant(&self, scope: &Scope, limit: &Charge<'_>, units: u32, lasts: Duration) -> Call<()> {
        let granted = self.let_have(key(scope, limit), limit.algorithm, units, lasts);
        Box::pin(std::future::ready(granted))
    }

    fn guards(&self) -> bool {
        self.cold_us > 0
    }

    fn set_region(&self, _scope: &Scope, temperature: Temperature) -> Call<()> {
        let began_us = match temperature {
            Temperature::Cold => self.clock.unix_us(),
            Temperature::Warm => 0,
        };
        self.lock().began_us = Some(began_us);
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&self) -> Call<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn chains(&self) -> Option<&dyn Chains> {
        Some(&self.chains)
    }

    fn breakers(&self) -> Option<&dyn Breakers> {
        Some(&self.breakers)
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(&self.claims)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }
}

// === impl State ===

impl State {
    fn cold_left_us(&mut self, cold_us: u64, now_us: u64) -> u64 {
        // A clock that stepped back shows a region that begins now, and not once the clock gets there again.
        let began_us = self.began_us.filter(|began_us| *began_us <= now_us).unwrap_or(now_us);
        self.began_us = Some(began_us);
        began_us.saturating_add(cold_us).saturating_sub(now_us)
    }

    /// As many as there may be keys, of which each takes less room.
    fn settled(&mut self, keys_max: usize) -> &mut Settled {
        self.settled.get_or_insert_with(|| Settled::new(keys_max.max(SETTLED_MIN)))
    }

    fn alive(&self, key: &str, now_us: u64) -> bool {
        self.buckets.get(key).is_some_and(|bucket| bucket.expires_us > now_us)
    }

    fn holds(&self, key: &str) -> bool {
        self.buckets.contains_key(key)
    }

    fn live(&self, key: &str, now_us: u64) -> Option<&Held> {
        match &self.buckets.get(key).filter(|bucket| bucket.expires_us > now_us)?.kept {
            Kept::Limit(held) => Some(held),
            Kept::GivenBack(_) => None,
        }
    }

    fn given_back(&self, key: &str, now_us: u64) -> Refunds {
        match self.buckets.get(key).filter(|bucket| bucket.expires_us > now_us) {
            Some(Bucket { kept: Kept::GivenBack(refunds), .. }) => refunds.clone(),
            Some(_) | None => Refunds::default(),
        }
    }

    fn store(&mut self, key: String, write: Option<Write>, now_us: u64) {
        if let Some(write) = write {
            let expires_us = now_us.saturating_add(write.ttl_ms.saturating_mul(1_000));
            self.buckets.insert(key, Bucket { kept: Kept::Limit(write.held), expires_us });
        }
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
