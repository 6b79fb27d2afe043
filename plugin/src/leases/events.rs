//! Owns what is counted of leased units.

/// What happened to units, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LeaseEvent {
    /// A request found none, and asked.
    Miss,
    /// The same while a message of its pool was under way: more should have been asked for earlier.
    MissWhileAsking,
    /// A request found none, and waited for what another's message brought.
    Join,
    /// More was asked for before there was none.
    Ahead,
    /// An answer came too late.
    Void,
    /// Units came.
    Granted,
    /// Units ran out unspent.
    Expired,
}

/// What is to be counted, in units or messages.
pub(crate) type Counted = Vec<(LeaseEvent, u64)>;

pub(super) fn count(counted: &mut Counted, event: LeaseEvent, by: u64) {
    if by > 0 {
        counted.push((event, by));
    }
}
