//! Owns the time by which a gateway waits for others. It is the gateway's own: only what passes between two looks at
//! a store that answers, and not more of it than a look takes. Who is on a machine that stands still does not take the
//! others for gone, who stand still as well. Record 0097.

use std::time::Duration;

/// Between two looks while others are waited for: gateways take turns with their pieces.
pub const LOOK: Duration = Duration::from_millis(50);
/// Of the time between two looks no more counts: they are that far apart where a disk or a store is slow, and
/// further where the gateway does not run.
pub(super) const COUNTS_US: u64 = 200_000;

/// So long a missing piece is waited for: while the chain stands still, or once others have its place.
pub(super) const PATIENCE_US: u64 = 10_000_000;
/// And so long while the chain grows towards the missing records: others may be putting back theirs, one by one.
pub(super) const GROWING_PATIENCE_US: u64 = 60_000_000;
/// A store that was away may have lost records, of which only another gateway knows, and that one may stand still. So
/// long nobody appends anything new who was away from it, or who has put back what was his: longer than whoever knows
/// what is missing waits for it, so that this one says so first.
pub(super) const GRACE_US: u64 = 12_000_000;
/// No longer than that does it wait while the chain grows: by then it is others' new records.
pub(super) const WHOLE_US: u64 = 20_000_000;
/// The same as [`GRACE_US`] for who has only just begun, or is about to end and may lose its disk: the store was not seen to fail.
pub(super) const BEGINS_US: u64 = 2_000_000;

/// So long the chain has to stand still before an append without a reply is put back: whether it was done nobody knows,
/// and who knows another record in its place, and may stand still, has had that long for it. Shorter than
/// [`PATIENCE_US`] by more than what lies between two gateways' finding out, since others' records may stand behind it.
pub(super) const DOUBT_US: u64 = 7_000_000;

/// How much has passed.
#[derive(Debug, Default)]
pub(super) struct OwnTime {
    us: u64,
    looked: Option<u64>,
}

// === impl OwnTime ===

impl OwnTime {
    /// The store has answered now, in µs of the clock.
    pub(super) fn looked(&mut self, now: u64) {
        let since = self.looked.replace(now).map_or(0, |before| now.saturating_sub(before));
        self.us = self.us.saturating_add(since.min(COUNTS_US));
    }

    /// The store has not answered: until it does nothing counts.
    pub(super) fn stops(&mut self) {
        self.looked = None;
    }

    /// How much has passed, in µs.
    pub(super) fn us(&self) -> u64 {
        self.us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_between_looks_counts_and_of_a_long_one_no_more_than_a_look() {
        let mut time = OwnTime::default();
        let mut at = |now_ms: u64| {
            time.looked(now_ms * 1_000);
            time.us() / 1_000
        };
        let rows = [(1_000, 0), (1_050, 50), (1_100, 100), (6_100, 300), (6_300, 500)];
        assert_eq!(rows.map(|(now_ms, _)| at(now_ms)), rows.map(|(_, passed)| passed));
        time.stops();
        time.looked(7_000_000);
        assert_eq!(time.us(), 500_000, "the store was away");
        time.looked(7_050_000);
        assert_eq!(time.us(), 550_000);
    }
}
