//! Owns where the chain in the store parts from the one that this gateway knew, and how the gateway goes on
//! behind a rollback record: what it had appended and the store lost become events again. Record 0050.

use std::collections::BTreeSet;

use tidegate_policy::audit::append::Place;

use super::{ChainEnd, Refused};
use crate::audit::spool::Waiting;

/// After a disk that took nothing.
const AGAIN_US: u64 = 1_000_000;

// === impl ChainEnd ===

impl ChainEnd {
    /// The last of the places that this gateway has seen which is still in the chain: its number.
    pub(super) async fn common(&self, there: Place) -> Result<u64, Refused> {
        // What is before a record that is still there is still there, too.
        let (mut low, mut high) = (0, self.seen.len());
        while low < high {
            let middle = low.midpoint(high);
            let held = match self.seen.get(middle) {
                Some(place) if place.head.seq <= there.head.seq => self.holds(*place).await?,
                Some(_) | None => false,
            };
            if held {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        let last = low.checked_sub(1).and_then(|at| self.seen.get(at));
        Ok(last.map_or(0, |place| place.head.seq))
    }

    /// Under the new origin this gateway's lost events become records again, by way of the spool: they
    /// were accepted, and the store may go away once more. They leave the ring only when the spool has them on the
    /// disk, so that whoever is killed in between has them twice, and their ids tell. Where it has no room
    /// the gateway stays set back.
    pub(super) async fn go_on(&mut self, there: Place) -> Result<Place, Refused> {
        let common = self.common(there).await?;
        let lost = self.lost(common, there).await?;
        let mut events = self.ring.events_of(&lost);
        events.retain(|(_, event)| !event.id().starts_with("rollback-"));
        let count = events.len();
        let waiting: Vec<Waiting> =
            events.into_iter().map(|(ids_from, event)| Waiting { ids_from, event }).collect();
        if let Err(error) = self.on_spool(move |spool| spool.push(&waiting)).await {
            self.counters.spool_full.set(1);
            self.goes_on_from = self.clock.elapsed_us().saturating_add(AGAIN_US);
            tracing::error!(critical = true, chain = %self.chain, events = count, %error,
                "audit events that the store lost find no room in the spool; no new appends until they do");
            return Err(Refused::NoRoom);
        }
        self.counters.spool_full.set(0);
        self.ring.forget(&lost);
        // Their events are in the spool already.
        self.doubtful.clear();
        self.seen.retain(|place| place.head.seq <= common);
        Ok(self.resume(there))
    }

    /// Which of the ring's appends are not in the chain. Each is asked for: behind lost ones there may be some
    /// that were appended to the chain that took their place.
    async fn lost(&self, common: u64, there: Place) -> Result<BTreeSet<usize>, Refused> {
        let mut lost = BTreeSet::new();
        for index in 0..self.ring.len() {
            if let Some(end) = self.ring.end_of(index)
                && end.head.seq > common
                && !self.stands(end, there).await?
            {
                lost.insert(index);
            }
        }
        Ok(lost)
    }
}
