//! Owns giving back what was reserved for a decision that came to nothing: at most once, and behind the answer where that
//! takes longer. Knows no connections, and not why it came to nothing.

use std::sync::Arc;
use std::time::Duration;

use tidegate_policy::wire::DecisionId;
use tokio::sync::Semaphore;

use super::apart::{Asker, Settled};
use super::call_keys::Shard;
use super::reserve::LOOK;
use crate::store::{Adjustment, Standing, StoreFailure};

/// How often a refund is sent: it is done at most once, however often it arrives.
const REFUNDS_MAX: u32 = 3;
const REFUND_PAUSE: Duration = Duration::from_millis(20);
/// So many may be under way behind the answers that they belong to. Each ends by itself after its tries, or with the
/// runtime: what it did not give back then runs out by itself.
const BEHIND_MAX: usize = 256;

/// What these shards were charged since `started_us`, with all that it takes to give it back.
pub struct Refund {
    pub asker: Asker,
    pub started_us: u64,
    pub reserved: Vec<(Shard, Vec<Standing>)>,
}

/// Room for those that nobody waits for.
#[derive(Clone)]
pub struct Behind(Arc<Semaphore>);

// === impl Behind ===

impl Behind {
    /// All of it is free.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(BEHIND_MAX)))
    }

    /// Gives back, and is waited for no longer than a look takes, unless there is no room; whether it is done.
    pub async fn run(&self, refund: Refund) -> bool {
        let clock = Arc::clone(&refund.asker.clock);
        let mut refund = Box::pin(refund.run());
        tokio::select! {
            biased;
            () = &mut refund => return true,
            () = clock.sleep(LOOK) => {}
        }
        let Ok(room) = Arc::clone(&self.0).try_acquire_owned() else {
            refund.await;
            return true;
        };
        tokio::spawn(async move {
            refund.await;
            drop(room);
        });
        false
    }
}

// === impl Refund ===

impl Refund {
    /// What cannot be given back runs out by itself: too little is admitted until then.
    async fn run(self) {
        for (shard, standings) in &self.reserved {
            let Ok(entropy) = getrandom::u64() else { continue };
            let id = DecisionId::new(u128::from(entropy) << 64 | u128::from(self.started_us));
            let mut tries = 0;
            loop {
                tries += 1;
                let told_us = self.asker.clock.elapsed_us();
                let age_us = told_us.saturating_sub(self.started_us);
                match self.give_back(shard, standings, id, (age_us, told_us)).await {
                    Ok(()) => break,
                    Err(error) if tries < REFUNDS_MAX => {
                        tracing::debug!(%error, "a refund is sent again");
                        self.asker.clock.sleep(REFUND_PAUSE).await;
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
        (age_us, told_us): (u64, u64),
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
        let settled = self.asker.settle(id, &adjustments, told_us).await?;
        if settled == Settled::NotGivenBack {
            tracing::debug!("a reservation is not given back: its slot moves");
        }
        Ok(())
    }
}
