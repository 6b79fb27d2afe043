//! Owns what follows where the store keeps silent: nobody waits for it a second time. A probe does, and events go to
//! the disk until it has an answer.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::ChainEnd;
use crate::store::StoreFailure;

/// The question that is under way.
#[derive(Debug, Default)]
pub(super) struct Probe(Option<JoinHandle<Result<(), StoreFailure>>>);

// === impl Probe ===

impl Probe {
    /// Whether its answer was not looked at yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Whether the last call had no answer in time, and the probe since then has none, either.
    pub(super) async fn is_silent(&mut self) -> bool {
        let Some(probe) = self.probe.0.take_if(|probe| probe.is_finished()) else {
            return self.probe.is_under_way();
        };
        // An error is an answer, too.
        let is_silent = matches!(probe.await, Err(_) | Ok(Err(StoreFailure::Timeout)));
        if is_silent {
            self.ask();
        }
        is_silent
    }

    /// The store has not answered in time.
    pub(super) fn ask(&mut self) {
        if self.probe.is_under_way() {
            return;
        }
        let (store, chain) = (Arc::clone(&self.store), self.chain.clone());
        self.probe.0 = Some(tokio::spawn(async move {
            match store.chains() {
                Some(chains) => chains.place(&chain).await.map(drop),
                None => Ok(()),
            }
        }));
    }
}
