//! Owns the leases of the store in memory: the policy's own step over its buckets. Knows no Redis.

use tidegate_policy::gcra::Instant;
use tidegate_policy::lease::step::{Terms, step};
use tidegate_policy::scope::Scope;

use super::{MemoryStore, key};
use crate::store::Call;
use crate::store::leases::{Lease, Leased, Leases};

impl Leases for MemoryStore {
    fn lease(&self, scope: &Scope, lease: &Lease<'_>) -> Call<Leased> {
        let key = key(scope, &lease.bucket());
        let now_us = self.clock.unix_us();
        let mut state = self.lock();
        let cold_left_us = state.cold_left_us(self.cold_us, now_us);
        let terms = Terms { quota: lease.quota, cold_left_us };
        let now = Instant::from_unix_us(now_us);
        let (given, write) = step(now, terms, &lease.said, state.live(&key, now_us));
        let new = usize::from(write.is_some() && !state.holds(&key));
        let reduced = (cold_left_us > 0).then(|| lease.quota.cold_limit());
        let done = self.make_room(&mut state, new, now_us).map(|()| {
            state.store(key, write, now_us);
            Leased { given, reduced }
        });
        Box::pin(std::future::ready(done))
    }
}
