//! Owns a step over limits that lie in one slot: as one call, and limit by limit while their slot moves and Redis says
//! that they are not all on one node. Knows no connections.
//!
//! A key by itself is always found: on the node that the slot leaves, or, once it is not there any more or was never
//! made, on the one that it goes to. So each limit is still decided by one atomic step over all that was charged. What is
//! lost is that several of them are one step, and that a settlement and the note of it are. What follows errs on the side of
//! admitting too little (docs/decisions/0104-slots-that-move.md).

use std::sync::Arc;

use redis::Value;
use tidegate_policy::gcra::EPOCH_US;
use tidegate_policy::limit::refund::Receipt;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use super::script::{Asked, Keys, SETTLED_TTL_MS, Scripts, integers};
use super::servers::Servers;
use super::{Region, failure, marks, named};
use crate::clock::Clock;
use crate::store::{Adjustment, Charge, Checked, StoreFailure};

/// Who asks, and by which keys.
#[derive(Clone)]
pub struct Asker {
    pub servers: Servers,
    pub scripts: Arc<Scripts>,
    pub region: Region,
    pub scope: Scope,
    pub clock: Arc<dyn Clock>,
}

/// Whether a settlement was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Now or before.
    Done,
    /// All but what was to be given back: what was given back before, and when the limit was reset, lies elsewhere now, and whoever
    /// gives back later would not be told of this one.
    NotGivenBack,
}

// === impl Asker ===

impl Asker {
    /// The keys of these limits.
    pub fn keys(&self, charges: &[Charge<'_>]) -> Keys {
        Keys::of(&self.region, &self.scope, charges, None)
    }

    /// One step over these limits; none, and nothing was charged, if they are not on one node now.
    pub async fn check(&self, charges: &[Charge<'_>]) -> Result<Option<Checked>, StoreFailure> {
        self.check_at(&self.keys(charges), charges).await
    }

    /// The same for one limit whose region's mark says that.
    pub async fn check_told(
        &self,
        charge: Charge<'_>,
        began: Option<f64>,
    ) -> Result<Checked, StoreFailure> {
        let keys = self.keys(&[charge]).told(began);
        self.check_at(&keys, &[charge]).await?.ok_or_else(apart)
    }

    async fn check_at(
        &self,
        keys: &Keys,
        charges: &[Charge<'_>],
    ) -> Result<Option<Checked>, StoreFailure> {
        let command = self.scripts.check_command(keys, charges);
        let asked: Vec<Asked> = charges.iter().map(Asked::from).collect();
        let reply = self.servers.evaluate_whole(first(keys), &command, &self.scripts).await;
        let reply = reply.map_err(|failure| named(failure, keys))?;
        reply.map(|reply| self.scripts.read(&reply, &asked)).transpose()
    }

    /// What the mark of these limits says, asked for by itself; `None` without a guard. A mark that is missing is set by the
    /// next round over all of them: until then the region begins at each moment anew.
    pub async fn began(&self, keys: &Keys) -> Result<Option<f64>, StoreFailure> {
        let Some(mark) = keys.marks.first() else { return Ok(None) };
        let mut get = redis::cmd("GET");
        get.arg(mark);
        let said = match self.servers.evaluate(mark, &get, &self.scripts).await? {
            Value::Nil => Some(f64::INFINITY),
            Value::BulkString(text) => {
                std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        let began = said.filter(|began: &f64| !began.is_nan());
        began
            .map(Some)
            .ok_or_else(|| StoreFailure::Refused(format!("TGSTATE {mark} holds no time")))
    }

    /// Adjusts limits that lie in one slot, each at most once. Their ages are those of `told_us` on the clock's stopwatch.
    pub async fn settle(
        &self,
        id: DecisionId,
        adjustments: &[Adjustment<'_>],
        told_us: u64,
    ) -> Result<Settled, StoreFailure> {
        let mut adjustments = adjustments.to_vec();
        self.date(&mut adjustments, told_us).await?;
        let adjustments = adjustments.as_slice();
        let looks: Vec<Charge<'_>> = adjustments.iter().map(Charge::look).collect();
        let keys = Keys::of(&self.region, &self.scope, &looks, Some(id));
        let command = self.scripts.settle_command(&keys, adjustments);
        let done = self.servers.evaluate_whole(first(&keys), &command, &self.scripts).await;
        let Some(done) = done.map_err(|failure| named(failure, &keys))? else {
            return Box::pin(self.settle_apart(&keys, adjustments)).await;
        };
        expect(&done, adjustments.len())
    }

    /// Says when what is given back was charged, at the earliest, by Redis's clock, where no receipt does. An age would be
    /// that of the moment at which it is sent: what then waits in Redis comes back by itself meanwhile, and must not come
    /// back twice.
    async fn date(
        &self,
        adjustments: &mut [Adjustment<'_>],
        told_us: u64,
    ) -> Result<(), StoreFailure> {
        let Some(key) =
            adjustments.iter().find(is_undated).map(|one| self.keys(&[Charge::look(one)]))
        else {
            return Ok(());
        };
        let time = redis::cmd("TIME");
        let reply = self.servers.evaluate(first(&key), &time, &self.scripts).await?;
        let now_us = marks::server_us(&reply).map_err(|error| failure(&error))?;
        let since_us = self.clock.elapsed_us().saturating_sub(told_us);
        for one in adjustments.iter_mut() {
            if !is_undated(&&*one) {
                continue;
            }
            let age_us = one.age_us.saturating_add(since_us);
            let at_us = now_us.saturating_sub(age_us).saturating_add(EPOCH_US);
            // It says nothing of what the limit held then: nothing came of it by the time it was charged.
            one.receipt = Some(Receipt { at_us, full_us: 0, cold: one.charged_cold });
        }
        Ok(())
    }

    /// That it is done is noted first: what fails in between is left undone, and nothing is done twice.
    async fn settle_apart(
        &self,
        keys: &Keys,
        adjustments: &[Adjustment<'_>],
    ) -> Result<Settled, StoreFailure> {
        let began = self.began(keys).await?;
        let mut outcome = Ok(Settled::Done);
        for (adjustment, note) in adjustments.iter().zip(&keys.settled) {
            if adjustment.by < 0 {
                outcome = outcome.and(Ok(Settled::NotGivenBack));
            } else if let Err(failure) = self.settle_told(adjustment, note, began).await {
                outcome = Err(failure);
            }
        }
        outcome
    }

    async fn settle_told(
        &self,
        adjustment: &Adjustment<'_>,
        note: &str,
        began: Option<f64>,
    ) -> Result<(), StoreFailure> {
        let mut set = redis::cmd("SET");
        set.arg(note).arg(1).arg("PX").arg(SETTLED_TTL_MS).arg("NX");
        if self.servers.evaluate(note, &set, &self.scripts).await? == Value::Nil {
            return Ok(());
        }
        let keys = self.keys(&[Charge::look(adjustment)]).told(began);
        let command = self.scripts.settle_command(&keys, &[*adjustment]);
        let done = self.servers.evaluate(first(&keys), &command, &self.scripts).await;
        let done = match done {
            Ok(done) => done,
            Err(failure) => {
                // Surely nothing ran: who says it again is heard.
                if !failure.may_be_done() {
                    let mut delete = redis::cmd("DEL");
                    delete.arg(note);
                    let undone = self.servers.evaluate(note, &delete, &self.scripts).await;
                    tracing::debug!(?undone, "a settlement was not carried out");
                }
                return Err(named(failure, &keys));
            }
        };
        expect(&done, 1).map(drop)
    }
}

fn is_undated(adjustment: &&Adjustment<'_>) -> bool {
    adjustment.by < 0 && adjustment.receipt.is_none()
}

/// Why there is no answer about a limit that is asked for by itself, which no Redis says.
fn apart() -> StoreFailure {
    StoreFailure::Garbled("one key lies on two nodes".to_owned())
}

fn expect(done: &Value, len: usize) -> Result<Settled, StoreFailure> {
    match integers(done) {
        Some(done) if done.len() == len => Ok(Settled::Done),
        _ => Err(StoreFailure::Garbled("rl_settle: of another shape".to_owned())),
    }
}

fn first(keys: &Keys) -> &str {
    keys.limits.first().map(String::as_str).unwrap_or_default()
}
