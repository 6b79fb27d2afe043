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

use super::Region;
use super::nearness::Nearness;
use super::refund::{Behind, Refund};
use super::script::{Asked, Keys, Scripts};
use super::servers::Servers;
use crate::clock::Clock;
use crate::store::keys::Place;
use crate::store::{Charge, Checked, Standing, StoreFailure};

/// How long a denial waits for what each of the other shards says, and until what was reserved is given back.
pub const LOOK: Duration = Duration::from_millis(5);

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
    pub behind: Behind,
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

    /// What its keys' slot is told by.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// What is asked of its limits.
    pub fn charges(&self, looking: bool) -> Vec<Charge<'_>> {
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
            () = self.clock.sleep(LOOK) => Err(StoreFailure::Timeout),
        }
    }

    /// Gives back what was reserved; whether that is done.
    async fn refund(&self, reserved: Vec<(Shard, Vec<Standing>)>, started_us: u64) -> bool {
        if reserved.is_empty() {
            return true;
        }
        let refund = Refund {
            servers: self.servers.clone(),
            scripts: Arc::clone(&self.scripts),
            region: self.region.clone(),
            scope: self.scope.clone(),
            clock: Arc::clone(&self.clock),
            started_us,
            reserved,
        };
        self.behind.run(refund).await
    }

    async fn check(&self, shard: &Shard, looking: bool) -> Result<Checked, StoreFailure> {
        let charges = shard.charges(looking);
        let keys = Keys::of(&self.region, &self.scope, &charges, None);
        let command = self.scripts.check_command(&keys, &charges);
        let asked: Vec<Asked> = charges.iter().map(Asked::from).collect();
        let reply = self.servers.evaluate(&shard.tag, &command, &self.scripts).await?;
        self.scripts.read(&reply, &asked)
    }
}
