//! Owns what is done at every master of a Cluster: setting marks, and the probe. Knows no limits.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::{Cluster, SLOTS, SlotRange, slot};
use crate::store::StoreFailure;
use crate::store::redis::failure;
use crate::store::redis::link::Live;
use crate::store::redis::marks::{self, Marking};
use crate::store::redis::runs;
use crate::store::redis::silence::Manner;

/// At which masters something failed.
#[derive(Default)]
struct Failed {
    /// Each by the first of its slots, and why; for whoever gave the order, so without hosts.
    told: Vec<String>,
    last: Option<StoreFailure>,
}

// === impl Cluster ===

impl Cluster {
    /// Sets marks, each on the node that serves it, and looks at every node. One that fails keeps none of the
    /// others from it, and is named.
    pub async fn mark(&self, marking: Marking) -> Result<(), StoreFailure> {
        let (mut by_node, mut failed) = (self.masters(), Failed::default());
        let all = by_node.len();
        let mut unserved = None;
        for mark in self.marks.iter() {
            let slot = slot(mark);
            match self.node_of(slot) {
                Ok(node) => by_node.entry(node).or_insert((slot, Vec::new())).1.push(mark.clone()),
                Err(failure) => unserved = unserved.or(Some((slot, failure))),
            }
        }
        for (node, (first, marks)) in by_node {
            if let Err(failure) = self.mark_one(&node, marks.into(), marking).await {
                failed.note(first, failure);
            }
        }
        if let Some((slot, failure)) = unserved {
            failed.note(slot, failure);
        }
        failed.of(all)
    }

    async fn mark_one(
        &self,
        node: &str,
        marks: Arc<[String]>,
        marking: Marking,
    ) -> Result<(), StoreFailure> {
        let mut live = self.pool(node)?.pick()?;
        if marking == Marking::Missing {
            runs::renew(&mut live, &marks).await.map_err(|error| failure(&error))?;
        }
        match marks::mark(&mut live, &marks, marking).await {
            Err(error) if moves(&error) => self.mark_each(&mut live, &marks, marking).await,
            marked => marked.map_err(|error| failure(&error)),
        }
    }

    /// Where some of a node's slots are served elsewhere by now, or are on their way there, marks go as calls do.
    async fn mark_each(
        &self,
        live: &mut Live,
        marks: &[String],
        marking: Marking,
    ) -> Result<(), StoreFailure> {
        self.stale.notify_one();
        let began_us = marks::began_us(live, marking).await.map_err(|error| failure(&error))?;
        let mut marked = Ok(());
        for mark in marks {
            let command = marks::command(mark, began_us, marking);
            let set = self.evaluate(mark, &command, &self.link.scripts, Manner::Alone).await;
            marked = set.map(drop).and(marked);
        }
        marked
    }

    /// Every master with the first of its slots, and no marks yet.
    fn masters(&self) -> BTreeMap<String, (u16, Vec<String>)> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let mut masters = BTreeMap::new();
        for (first, _, node) in &map.ranges {
            masters.entry(node.clone()).or_insert((*first, Vec::new()));
        }
        masters
    }

    /// Every master takes writes, and every slot has one.
    pub async fn probe(&self) -> Result<(), StoreFailure> {
        let (probes, covered) = {
            let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
            let width = |(first, last, _): &SlotRange| u32::from(last - first) + 1;
            let covered: u32 = map.ranges.iter().map(width).sum();
            (map.probes.clone(), covered)
        };
        if covered < u32::from(SLOTS) {
            let text = format!("{covered} of {SLOTS} slots of the Cluster are served");
            return Err(StoreFailure::Unreachable(text));
        }
        for (node, (_, key)) in probes {
            self.probe_one(&node, &key).await?;
        }
        Ok(())
    }

    async fn probe_one(&self, node: &str, key: &str) -> Result<(), StoreFailure> {
        let Err(error) = self.pool(node)?.probe(key).await? else { return Ok(()) };
        if moves(&error) {
            // It answers, and calls follow where it points.
            self.stale.notify_one();
            return Ok(());
        }
        Err(failure(&error))
    }
}

/// Whether the error says that another node serves the slot, or will soon.
fn moves(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask))
}

// === impl Failed ===

impl Failed {
    fn note(&mut self, slot: u16, failure: StoreFailure) {
        tracing::warn!(slot, %failure, "a master of the Cluster could not be marked");
        self.told.push(format!("the master of slot {slot} ({})", failure.reason()));
        self.last = Some(failure);
    }

    /// What that says of a round over so many masters.
    fn of(self, all: usize) -> Result<(), StoreFailure> {
        match self.last {
            None => Ok(()),
            Some(failure) if self.told.len() >= all => Err(failure),
            Some(_) => Err(StoreFailure::Partly(self.told.join(", "))),
        }
    }
}
