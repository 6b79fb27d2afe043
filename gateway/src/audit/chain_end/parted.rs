//! Owns where the chain in the store parts from the one that this gateway knew, and how the gateway goes on
//! behind a rollback record: what it had appended and the store lost become events again. Record 0050.

use std::collections::BTreeSet;

use tidegate_policy::audit::append::Place;
use tidegate_policy::audit::record::Line;

use super::{ChainEnd, Refused};
use crate::audit::spool::Waiting;

/// After a disk that took nothing.
const AGAIN_US: u64 = 1_000_000;

/// The ids of rollback records begin so.
pub(super) const ROLLBACK_ID: &str = "rollback-";

/// Where the chain in the store parts from the one that this gateway knew, as far as it can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parting {
    /// The last record that both are known to have.
    pub(super) common: u64,
    /// The first one behind it that this gateway knew and that is not in the chain.
    pub(super) lost: u64,
}

// === impl Parting ===

impl Parting {
    /// Whether other records have the lost ones' places, so that nobody can put them back.
    pub(super) fn is_taken(self, there: Place) -> bool {
        self.lost <= there.head.seq
    }
}

// === impl ChainEnd ===

impl ChainEnd {
    /// Compares what this run has seen of the chain with it, and in between what was appended, which a run that
    /// has only just begun has from the one before.
    pub(super) async fn parting(&mut self, known: Place, there: Place) -> Result<Parting, Refused> {
        let mut parting = Parting { common: 0, lost: known.head.seq };
        self.seen.make_contiguous();
        self.narrow(&mut parting, self.seen.as_slices().0, there).await?;
        // A rollback record is of the chain that took the lost records' place.
        let own = self.ring.appends().filter(|one| !one.lines.iter().any(is_rollback));
        let between = |place: &Place| (parting.common + 1..parting.lost).contains(&place.head.seq);
        let own: Vec<Place> = own.flat_map(|one| [one.start, one.end()]).filter(between).collect();
        self.narrow(&mut parting, &own, there).await?;
        Ok(parting)
    }

    /// The places are of one chain and come one behind the other.
    async fn narrow(
        &self,
        parting: &mut Parting,
        places: &[Place],
        there: Place,
    ) -> Result<(), Refused> {
        // What is before a record that is still there is still there, too.
        let (mut low, mut high) = (0, places.len());
        while low < high {
            let middle = low.midpoint(high);
            let stands = match places.get(middle) {
                Some(place) if place.head.seq <= there.head.seq => {
                    self.stands(*place, there).await?
                }
                Some(_) | None => false,
            };
            if stands {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        if let Some(last) = low.checked_sub(1).and_then(|at| places.get(at)) {
            parting.common = last.head.seq;
        }
        if let Some(first) = places.get(low) {
            parting.lost = first.head.seq;
        }
        Ok(())
    }

    /// Under the new origin this gateway's lost events become records again, by way of the spool: they
    /// were accepted, and the store may go away once more. They leave the ring only when the spool has them on the
    /// disk, so that whoever is killed in between has them twice, and their ids tell. Where it has no room
    /// the gateway stays set back.
    pub(super) async fn go_on(&mut self, common: u64, there: Place) -> Result<Place, Refused> {
        let lost = self.lost(common, there).await?;
        let mut events = self.ring.events_of(&lost);
        events.retain(|(_, event)| !event.id().starts_with(ROLLBACK_ID));
        let count = events.len();
        let waiting: Vec<Waiting> =
            events.into_iter().map(|(ids_from, event)| Waiting { ids_from, event }).collect();
        if let Err(error) = self.on_spool(move |spool| spool.push(&waiting)).await {
            self.counters.spool_full.set(1);
            self.progress.goes_on_from = self.clock.elapsed_us().saturating_add(AGAIN_US);
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
        for (index, one) in self.ring.appends().enumerate() {
            let end = one.end();
            if end.head.seq > common && !self.stands(end, there).await? {
                lost.insert(index);
            }
        }
        Ok(lost)
    }
}

fn is_rollback(line: &Line) -> bool {
    line.id.starts_with(ROLLBACK_ID)
}
