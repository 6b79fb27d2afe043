//! Owns a decision whose limits lie in several slots of a Cluster: reserve one shard after the other,
//! and give back what was reserved as soon as one denies. Knows no connections.
//!
//! It never admits too much: each step is atomic, and only what was surely reserved is given back, at
//! most once. For the time of a few round trips it may admit too little.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::gcra::Retry;

use super::apart::Asker;
use super::call_keys::Shard;
use super::nearness::Nearness;
use super::refund::{Behind, Refund};
use crate::store::{Charge, Checked, Standing, StoreFailure};

/// How long a denial waits for what each of the other shards says, and until what was reserved is given back.
pub const LOOK: Duration = Duration::from_millis(5);

/// What a call in several steps needs; owns it all.
pub struct Reservation {
    pub asker: Asker,
    pub shards: Vec<Shard>,
    pub behind: Behind,
}

/// One limit of those that are asked one by one.
struct Row<'a> {
    /// Where it stands in its shard.
    at: usize,
    charge: &'a Charge<'a>,
    /// What it says uncharged.
    looked: Standing,
    /// What it says charged.
    charged: Option<Standing>,
}

// === impl Reservation ===

impl Reservation {
    /// All or none, over all shards; the one that last was nearest to its end first, since where one
    /// denies it had better be the first.
    pub async fn run(mut self, nearness: Arc<Nearness>) -> Result<Checked, StoreFailure> {
        if let [only] = self.shards.as_slice() {
            return self.check(only, false).await;
        }
        self.shards.sort_by_key(|shard| std::cmp::Reverse(nearness.of(&shard.name())));
        let started_us = self.asker.clock.elapsed_us();
        let mut found: Vec<Option<Standing>> =
            vec![None; self.shards.iter().map(|shard| shard.items.len()).sum()];
        let mut reserved: Vec<(Shard, Vec<Standing>)> = Vec::new();
        let mut allowed = true;
        for shard in &self.shards {
            let checked =
                if allowed { self.check(shard, false).await } else { self.look(shard).await };
            let checked = match checked {
                Ok(checked) => checked,
                // It is known that one denies; what others say is told, and changes nothing.
                Err(failure) if !allowed => {
                    tracing::debug!(%failure, "a limit could not be looked at beside one that denies");
                    continue;
                }
                Err(failure) => {
                    self.refund(reserved, started_us).await;
                    return Err(failure);
                }
            };
            nearness.note(&shard.name(), &shard.quotas(), &checked.limits);
            for (item, standing) in shard.items.iter().zip(&checked.limits) {
                if let Some(place) = found.get_mut(item.index) {
                    *place = Some(*standing);
                }
            }
            if allowed && checked.allowed {
                reserved.push((shard.clone(), checked.limits));
            } else if allowed {
                allowed = false;
                let shards: Vec<Shard> = reserved.iter().map(|(shard, _)| shard.clone()).collect();
                // What they say now, untouched; or what they said.
                let is_done = self.refund(std::mem::take(&mut reserved), started_us).await;
                for shard in shards.iter().filter(|_| is_done) {
                    let Ok(looked) = self.look(shard).await else { continue };
                    for (item, standing) in shard.items.iter().zip(looked.limits) {
                        if let Some(place) = found.get_mut(item.index) {
                            *place = Some(standing);
                        }
                    }
                }
            }
        }
        if !allowed {
            for item in self.shards.iter().flat_map(|shard| &shard.items) {
                if let Some(place @ None) = found.get_mut(item.index) {
                    *place = Some(Standing::unread(item.quota));
                }
            }
        }
        let limits: Option<Vec<Standing>> = found.into_iter().collect();
        let limits =
            limits.ok_or_else(|| StoreFailure::Garbled("a limit got no answer".to_owned()))?;
        Ok(Checked { allowed, limits })
    }

    /// A look that a denial does not wait for beyond its time.
    async fn look(&self, shard: &Shard) -> Result<Checked, StoreFailure> {
        tokio::select! {
            biased;
            looked = self.check(shard, true) => looked,
            () = self.asker.clock.sleep(LOOK) => Err(StoreFailure::Timeout),
        }
    }

    async fn check(&self, shard: &Shard, looking: bool) -> Result<Checked, StoreFailure> {
        let charges = shard.charges(looking);
        match self.asker.check(&charges).await? {
            Some(checked) => Ok(checked),
            None => Box::pin(self.check_apart(shard, &charges)).await,
        }
    }

    /// The limits of a shard one by one. What one is charged can hardly be given back then, so all of them are looked at
    /// first, and those asked first that seem to deny.
    async fn check_apart(
        &self,
        shard: &Shard,
        charges: &[Charge<'_>],
    ) -> Result<Checked, StoreFailure> {
        let began = self.asker.began(&self.asker.keys(charges)).await?;
        if let [only] = charges {
            return self.asker.check_told(*only, began).await;
        }
        let started_us = self.asker.clock.elapsed_us();
        let mut rows = Vec::with_capacity(charges.len());
        for (at, charge) in charges.iter().enumerate() {
            let look = Charge { cost: 0, ..*charge };
            let looked = only(self.asker.check_told(look, began).await?)?;
            rows.push(Row { at, charge, looked, charged: None });
        }
        rows.sort_by_key(|row| (row.charge.alone, !row.is_short()));
        let (mut allowed, mut failed) = (true, None);
        for row in &mut rows {
            // One that seems to deny says for how long, also where another one denies.
            if row.charge.cost > 0 && (allowed || row.is_short()) {
                match self.asker.check_told(*row.charge, began).await.and_then(only) {
                    Ok(said) if said.reading.retry == Retry::Fits => row.charged = Some(said),
                    Ok(said) => row.looked = said,
                    Err(failure) => failed = Some(failure),
                }
            }
            allowed &= failed.is_none() && (row.charge.alone || row.fits());
        }
        if !allowed {
            let charged = rows.iter().filter_map(|row| {
                let item = shard.items.get(row.at)?.clone();
                Some((Shard { tag: shard.tag.clone(), items: vec![item] }, vec![row.charged?]))
            });
            self.refund(charged.collect(), started_us).await;
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        rows.sort_by_key(|row| row.at);
        let said = |row: Row<'_>| row.charged.filter(|_| allowed).unwrap_or(row.looked);
        Ok(Checked { allowed, limits: rows.into_iter().map(said).collect() })
    }

    /// Gives back what was reserved; whether that is done.
    async fn refund(&self, reserved: Vec<(Shard, Vec<Standing>)>, started_us: u64) -> bool {
        if reserved.is_empty() {
            return true;
        }
        self.behind.run(Refund { asker: self.asker.clone(), started_us, reserved }).await
    }
}

// === impl Row ===

impl Row<'_> {
    fn is_short(&self) -> bool {
        self.looked.reading.remaining < u64::from(self.charge.cost)
    }

    fn fits(&self) -> bool {
        self.charged.is_some()
            || (self.charge.cost == 0 && self.looked.reading.retry == Retry::Fits)
    }
}

/// What is said of the one limit that was asked about.
fn only(checked: Checked) -> Result<Standing, StoreFailure> {
    let only = checked.limits.first().copied();
    only.ok_or_else(|| StoreFailure::Garbled("a limit got no answer".to_owned()))
}
