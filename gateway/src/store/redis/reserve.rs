//! Owns a decision whose limits lie in several slots of a Cluster: reserve one shard after the other,
//! and give back what was reserved as soon as one denies. Knows no connections.
//!
//! It never admits too much: each step is atomic, and only what was surely reserved is given back, at
//! most once. For the time of a few round trips it may admit too little.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::gcra::Quota;
use tidegate_policy::identity::Subject;
use tidegate_policy::limit::Algorithm;
use tidegate_policy::scope::Scope;
use tidegate_policy::wire::DecisionId;

use super::Region;
use super::nearness::Nearness;
use super::script::{Asked, Keys, Scripts};
use super::servers::Servers;
use crate::clock::Clock;
use crate::store::keys::Place;
use crate::store::{Adjustment, Charge, Checked, Standing, StoreFailure};

/// How often a refund is sent: it is done at most once, however often it arrives.
const REFUNDS_MAX: u32 = 3;
const REFUND_PAUSE: Duration = Duration::from_millis(20);
/// How long a denial waits for what each of the other shards says.
const LOOK: Duration = Duration::from_millis(5);

/// One charge that owns what it names.
#[derive(Debug, Clone)]
struct Item {
    /// Where it stands in the message.
    index: usize,
    subject: Subject,
    limit_id: String,
    quota: Quota,
    algorithm: Algorithm,
    cost: u32,
    alone: bool,
}

/// The charges of one shard.
#[derive(Debug, Clone)]
pub struct Shard {
    tag: String,
    items: Vec<Item>,
}

/// What a call in several steps needs; owns it all.
pub struct Reservation {
    pub servers: Servers,
    pub scripts: Arc<Scripts>,
    pub region: Region,
    pub scope: Scope,
    pub clock: Arc<dyn Clock>,
    pub shards: Vec<Shard>,
}

// === impl Shard ===

impl Shard {
    /// The charges by shard.
    pub fn of(region: &Region, scope: &Scope, charges: &[Charge<'_>]) -> Vec<Self> {
        let mut shards: Vec<Self> = Vec::new();
        for (index, charge) in charges.iter().enumerate() {
            let tag = Place::of(region.style, scope, charge.subject).mark();
            let item = Item {
                index,
                subject: charge.subject.clone(),
                limit_id: charge.limit_id.to_owned(),
                quota: charge.quota,
                algorithm: charge.algorithm,
                cost: charge.cost,
                alone: charge.alone,
            };
            match shards.iter_mut().find(|shard| shard.tag == tag) {
                Some(shard) => shard.items.push(item),
                None => shards.push(Self { tag, items: vec![item] }),
            }
        }
        shards
    }

    /// What tells its limits from those of other requests.
    fn name(&self) -> String {
        let names = self
            .items
            .iter()
            .map(|item| format!("{} {}", item.subject.name.as_str(), item.limit_id));
        names.collect::<Vec<_>>().join(" ")
    }

    fn quotas(&self) -> Vec<Quota> {
        self.items.iter().map(|item| item.quota).collect()
    }

    fn charges(&self, looking: bool) -> Vec<Charge<'_>> {
        let charge =
            |item: &Item| (item.quota, item.algorithm, if looking { 0 } else { item.cost });
        self.items
            .iter()
            .map(|item| {
                let (quota, algorithm, cost) = charge(item);
                let (subject, limit_id) = (&item.subject, item.limit_id.as_str());
                Charge { subject, limit_id, quota, algorithm, cost, alone: item.alone }
            })
            .collect()
    }
}

// === impl Reservation ===

impl Reservation {
    /// All or none, over all shards; the one that last was nearest to its end first, since where one
    /// denies it had better be the first.
    pub async fn run(mut self, nearness: Arc<Nearness>) -> Result<Checked, StoreFailure> {
        self.shards.sort_by_key(|shard| std::cmp::Reverse(nearness.of(&shard.name())));
        let started_us = self.clock.elapsed_us();
        let mut found: Vec<Option<Standing>> =
            vec![None; self.shards.iter().map(|shard| shard.items.len()).sum()];
        let mut reserved: Vec<(&Shard, Vec<Standing>)> = Vec::new();
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
                    self.refund(&reserved, started_us).await;
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
                reserved.push((shard, checked.limits));
            } else if allowed {
                allowed = false;
                self.refund(&reserved, started_us).await;
                // What they say now, untouched; or what they said.
                for (shard, _) in reserved.drain(..) {
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
                    *place = Some(Standing::untouched(item.quota));
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
            () = self.clock.sleep(LOOK) => Err(StoreFailure::Timeout),
        }
    }

    async fn check(&self, shard: &Shard, looking: bool) -> Result<Checked, StoreFailure> {
        let charges = shard.charges(looking);
        let keys = Keys::of(&self.region, &self.scope, &charges, None);
        let command = self.scripts.check_command(&keys, &charges);
        let asked: Vec<Asked> = charges.iter().map(Asked::from).collect();
        let reply = self.servers.evaluate(&shard.tag, &command, &self.scripts).await?;
        self.scripts.read(&reply, &asked)
    }

    /// Gives back what these shards were charged since `started_us`. What cannot be given back runs
    /// out by itself: too little is admitted until then.
    async fn refund(&self, reserved: &[(&Shard, Vec<Standing>)], started_us: u64) {
        for (shard, standings) in reserved {
            let Ok(entropy) = getrandom::u64() else { continue };
            let id = DecisionId::new(u128::from(entropy) << 64 | u128::from(started_us));
            let mut tries = 0;
            loop {
                tries += 1;
                let age_us = self.clock.elapsed_us().saturating_sub(started_us);
                match self.give_back(shard, standings, id, age_us).await {
                    Ok(()) => break,
                    Err(error) if tries < REFUNDS_MAX => {
                        tracing::debug!(%error, "a refund is sent again");
                        self.clock.sleep(REFUND_PAUSE).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a reservation could not be given back");
                        break;
                    }
                }
            }
        }
    }

    async fn give_back(
        &self,
        shard: &Shard,
        standings: &[Standing],
        id: DecisionId,
        age_us: u64,
    ) -> Result<(), StoreFailure> {
        let charges = shard.charges(false);
        let adjustments: Vec<Adjustment<'_>> = charges
            .iter()
            .zip(standings)
            .filter_map(|(charge, standing)| Adjustment::giving_back(charge, standing, age_us))
            .collect();
        if adjustments.is_empty() {
            return Ok(());
        }
        let looks: Vec<Charge<'_>> = adjustments.iter().map(Charge::look).collect();
        let keys = Keys::of(&self.region, &self.scope, &looks, Some(id));
        let command = self.scripts.settle_command(&keys, &adjustments);
        self.servers.evaluate(&shard.tag, &command, &self.scripts).await.map(drop)
    }
}
