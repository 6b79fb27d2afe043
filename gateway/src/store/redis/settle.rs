//! Owns the settling of one decision, limit by limit where those lie on several servers. Knows no connections.

use tidegate_policy::limit::refund::Receipt;
use tidegate_policy::wire::DecisionId;

use super::apart::{Asker, Settled};
use super::call_keys::Item;
use crate::store::{Adjustment, Charge, Standing, StoreFailure};

/// One adjustment that owns what it names.
struct Owed {
    item: Item,
    by: i64,
    age_us: u64,
    charged_cold: bool,
    receipt: Option<Receipt>,
}

/// What settles one decision; owns it all.
pub struct Settling {
    asker: Asker,
    id: DecisionId,
    owed: Vec<Owed>,
    /// When it was told how old they are.
    told_us: u64,
}

// === impl Owed ===

impl Owed {
    fn of(index: usize, adjustment: &Adjustment<'_>) -> Self {
        let Adjustment { by, age_us, charged_cold, receipt, .. } = *adjustment;
        let item = Item::of(index, &Charge::look(adjustment));
        Self { item, by, age_us, charged_cold, receipt }
    }

    fn adjustment(&self) -> Adjustment<'_> {
        let Charge { subject, limit_id, quota, algorithm, .. } = self.item.charge(true);
        let Self { by, age_us, charged_cold, receipt, .. } = *self;
        Adjustment { subject, limit_id, quota, algorithm, by, age_us, charged_cold, receipt }
    }
}

// === impl Settling ===

impl Settling {
    /// Adjusts what the decision `id` charged.
    pub fn new(asker: Asker, id: DecisionId, adjustments: &[Adjustment<'_>]) -> Self {
        let owed = adjustments.iter().enumerate().map(|(index, one)| Owed::of(index, one));
        let told_us = asker.clock.elapsed_us();
        Self { owed: owed.collect(), asker, id, told_us }
    }

    /// Each limit at most once, and where each stands then.
    pub async fn run(self) -> Result<Vec<Standing>, StoreFailure> {
        // On a Cluster one call per limit: each is safe to repeat by itself.
        let together = self.asker.servers.one_call_reaches_all();
        let len = if together { self.owed.len() } else { 1 };
        let (mut standings, mut failed) = (Vec::new(), None);
        for owed in self.owed.chunks(len.max(1)) {
            // What one server does not take keeps no other from it.
            match self.step(owed).await {
                Ok(limits) => standings.extend(limits),
                Err(failure) => failed = Some(failure),
            }
        }
        failed.map_or(Ok(standings), Err)
    }

    async fn step(&self, owed: &[Owed]) -> Result<Vec<Standing>, StoreFailure> {
        let adjustments: Vec<Adjustment<'_>> = owed.iter().map(Owed::adjustment).collect();
        if self.asker.settle(self.id, &adjustments, self.told_us).await? == Settled::NotGivenBack {
            return Err(StoreFailure::Unreachable(
                "nothing is given back of a limit whose slot moves".to_owned(),
            ));
        }
        let looks: Vec<Charge<'_>> = adjustments.iter().map(Charge::look).collect();
        self.look(&looks).await
    }

    async fn look(&self, looks: &[Charge<'_>]) -> Result<Vec<Standing>, StoreFailure> {
        if let Some(checked) = self.asker.check(looks).await? {
            return Ok(checked.limits);
        }
        let began = self.asker.began(&self.asker.keys(looks)).await?;
        let mut standings = Vec::new();
        for look in looks {
            standings.extend(self.asker.check_told(*look, began).await?.limits);
        }
        Ok(standings)
    }
}
