//! Owns what becomes of a filter's tick, and of the leases that travel beside a decision. Knows no
//! HTTP.

use std::sync::Arc;

use tidegate_policy::gcra::BadQuota;
use tidegate_policy::lease::step::Call as Said;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::{LeaseCall, LeaseGrant, SyncReply, SyncRequest, VERSION};

use super::admission::Leaves;
use super::together::together;
use super::{Refused, Service};
use crate::metrics::SharedMetrics;
use crate::store::leases::{Lease, Leased};
use crate::store::{Call, Store, StoreFailure, StoreRole};

/// What leases need of their store; owns it all, so that it can outlive its caller.
pub struct Leasing {
    /// The store of the limits.
    pub store: Arc<dyn Store>,
    /// Whose keys; the tenant stands with each lease.
    pub scope: Scope,
    /// Where it is counted.
    pub metrics: SharedMetrics,
}

// === impl Service ===

impl Service {
    /// Hears one process's tick. Ends within the deadline, whatever the store does.
    pub async fn sync(&self, message: &[u8]) -> Result<SyncReply, Refused> {
        let message = SyncRequest::decode(message).map_err(|error| Refused {
            reason: error.reason(),
            detail: error.to_string(),
            id: None,
        })?;
        let synced = self.hear(message).await;
        if let Err(refused) = &synced {
            self.log_mismatch(refused);
        }
        synced
    }

    async fn hear(&self, message: SyncRequest) -> Result<SyncReply, Refused> {
        let SyncRequest { id, leases, .. } = message;
        let scope = self.scope(id, &message.scope, message.timeout_ms)?;
        if leases.is_empty() {
            return Ok(SyncReply { v: VERSION, id, leases: Vec::new() });
        }
        let leasing = self.leasing(scope);
        let work = async move {
            let heard = leasing.ask(&leases).await;
            // One that fails is the store's bad moment; all of them are its absence.
            match heard {
                (grants, Some(failure)) if grants.is_empty() => Err(failure),
                (grants, _) => Ok(grants),
            }
        };
        let leases = self.admitted(id, Leaves::Nothing, || work).await?;
        Ok(SyncReply { v: VERSION, id, leases })
    }

    pub(super) fn leasing(&self, scope: Scope) -> Leasing {
        let store = self.stores.for_one_message(StoreRole::Regional);
        Leasing { store, scope, metrics: Arc::clone(&self.metrics) }
    }
}

// === impl Leasing ===

impl Leasing {
    /// What each holder is given; those whose store failed are left out, the last failure beside.
    pub async fn ask(&self, calls: &[LeaseCall]) -> (Vec<LeaseGrant>, Option<StoreFailure>) {
        let (mut grants, mut failed) = (Vec::with_capacity(calls.len()), None);
        let asked: Vec<_> = calls.iter().map(|call| self.call(call)).collect();
        for (call, answer) in calls.iter().zip(together(asked).await) {
            match answer {
                Ok(leased) => grants.extend(self.grant(call, leased)),
                Err(failure) => failed = Some(failure),
            }
        }
        if let Some(failure) = &failed {
            self.metrics.leases.failed.inc();
            tracing::debug!(%failure, "a lease could not be heard");
        }
        (grants, failed)
    }

    fn call(&self, call: &LeaseCall) -> Call<Leased> {
        let said = Said {
            holder: call.holder.0,
            seq: call.seq,
            demand: call.demand,
            left: call.left,
            back: call.back,
            want: call.want,
        };
        let none = |text: &str| -> Call<Leased> {
            Box::pin(std::future::ready(Err(StoreFailure::Refused(text.to_owned()))))
        };
        let Some(leases) = self.store.leases() else {
            return none("this store leases nothing");
        };
        let quota: Result<_, BadQuota> = call.quota();
        // Decoding has checked every quota.
        let Ok(quota) = quota else { return none("no quota") };
        let scope = Scope { tenant: call.tenant.clone(), ..self.scope.clone() };
        leases.lease(&scope, &Lease { subject: &call.subject, limit_id: &call.id, quota, said })
    }

    /// The answer; none to a message that was not heard, which nobody waits for any more.
    fn grant(&self, call: &LeaseCall, Leased { given, reduced }: Leased) -> Option<LeaseGrant> {
        let counters = &self.metrics.leases;
        if given.stale {
            counters.stale.inc();
            return None;
        }
        counters.heard.inc();
        counters.granted.inc_by(u64::from(given.granted));
        counters.returned.inc_by(u64::from(call.back));
        Some(LeaseGrant {
            holder: call.holder,
            seq: call.seq,
            granted: given.granted,
            ttl_us: given.ttl_us,
            deny_us: given.deny_us,
            remaining: given.remaining,
            scarce: given.scarce,
            limit: reduced,
        })
    }
}
